//! Header fields: the grammar of names and values, and the names that mean something to us.

use super::Span;

/// One header field of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What the name means to us.
    pub kind: Kind,
    pub(super) name: Span,
    pub(super) value: Span,
}

impl Field {
    /// The name as it was written.
    pub fn name(self, bytes: &[u8]) -> &[u8] {
        self.name.of(bytes)
    }

    /// The value without the white space around it.
    pub fn value(self, bytes: &[u8]) -> &[u8] {
        self.value.of(bytes)
    }
}

macro_rules! kinds {
    ($($kind:ident = $name:literal),* $(,)?) => {
        /// The field names that some rule of ours speaks of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $name] $kind,)*
            /// Any other name.
            Other,
        }

        impl Kind {
            /// Classifies a name, in any case.
            pub fn of(name: &[u8]) -> Self {
                // The length and the first letter leave at most a handful of names to compare with.
                $(if const { $name.len() } == name.len()
                    && name[0] | 0x20 == const { $name.as_bytes()[0] }
                    && name.eq_ignore_ascii_case($name.as_bytes()) {
                    return Self::$kind;
                })*
                Self::Other
            }
        }
    };
}

kinds! {
    AccessControlRequestMethod = "access-control-request-method",
    AltSvc = "alt-svc",
    Authorization = "authorization",
    Connection = "connection",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    Cookie = "cookie",
    Dpop = "dpop",
    DpopNonce = "dpop-nonce",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    Link = "link",
    Location = "location",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthenticationInfo = "proxy-authentication-info",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    Refresh = "refresh",
    RetryAfter = "retry-after",
    SecFetchSite = "sec-fetch-site",
    SecWebSocketKey = "sec-websocket-key",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Via = "via",
    WwwAuthenticate = "www-authenticate",
    XApiKey = "x-api-key",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedPrefix = "x-forwarded-prefix",
    XForwardedProto = "x-forwarded-proto",
    XForwardedServer = "x-forwarded-server",
    XForwardedSsl = "x-forwarded-ssl",
    XHttpMethodOverride = "x-http-method-override",
    XHttpMethod = "x-http-method",
    XMethodOverride = "x-method-override",
    XOriginalUrl = "x-original-url",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    XRewriteUrl = "x-rewrite-url",
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const VISIBLE: u8 = 4;

/// What each byte may be part of.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        let is_token = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if is_token {
            table[b] |= TOKEN;
        }
        if c == b'\t' || (c >= b' ' && c != 0x7f) {
            table[b] |= VALUE;
        }
        if c > b' ' && c < 0x7f {
            table[b] |= VISIBLE;
        }
        b += 1;
    }
    table
};

/// Whether `text` is a token (RFC 9110 section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| CLASS[usize::from(b)] & TOKEN != 0)
}

/// Whether `text` may stand in a field value: no control byte but the tab (RFC 9110 section 5.5).
pub fn is_value(text: &[u8]) -> bool {
    text.iter().all(|&b| CLASS[usize::from(b)] & VALUE != 0)
}

/// Whether every byte is visible ASCII.
pub fn is_visible(text: &[u8]) -> bool {
    text.iter().all(|&b| CLASS[usize::from(b)] & VISIBLE != 0)
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_in_any_case() {
        assert_eq!(Kind::of(b"AUTHORIZATION"), Kind::Authorization);
        assert_eq!(Kind::of(b"content-Length"), Kind::ContentLength);
        assert_eq!(Kind::of(b"X-Request-ID"), Kind::XRequestId);
        assert_eq!(Kind::of(b"authorizatio"), Kind::Other);
        assert_eq!(Kind::of(b"x"), Kind::Other);
    }

    #[test]
    fn a_list_leaves_out_empty_elements() {
        let items: Vec<_> = list(b" a ,, b,c , ").collect();
        assert_eq!(items, [b"a", b"b", b"c"]);
    }
}
