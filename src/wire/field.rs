//! Header fields: the grammar of names and values, and the names that mean something to us.

use std::ops::Range;

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

    /// Where its line lies, if it is written as we write one: name, colon, one space, value, CRLF.
    pub(crate) fn plain_line(self, bytes: &[u8]) -> Option<Range<usize>> {
        let (start, colon) = (self.name.start as usize, self.name.end as usize);
        let (value, end) = (self.value.start as usize, self.value.end as usize);
        let is_plain = value == colon + 2 && bytes[colon + 1] == b' ' && bytes.get(end..end + 2)? == b"\r\n";
        is_plain.then_some(start..end + 2)
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
            const ALL: &[(&str, Self)] = &[$(($name, Self::$kind)),*];
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

/// Which kinds of fields a head has: most that are looked for are not there.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Kinds(u64);

const _: () = assert!((Kind::Other as u8) < 64, "a bit for each");

impl Kinds {
    pub(super) fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    /// The values of all fields of one kind, in order. `fields`: those of the head.
    pub(super) fn values<'a>(
        self,
        fields: &'a [Field],
        bytes: &'a [u8],
        kind: Kind,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = if self.0 & 1 << kind as u8 == 0 { &[] } else { fields };
        fields.iter().filter(move |field| field.kind == kind).map(|field| field.value(bytes))
    }
}

impl Kind {
    /// Classifies a name, in any case.
    pub fn of(name: &[u8]) -> Self {
        let Some(slot) = slot(name) else { return Self::Other };
        let (known, kind) = SLOTS[slot];
        if name.eq_ignore_ascii_case(known.as_bytes()) { kind } else { Self::Other }
    }
}

impl Kind {
    /// Whether HTTP/2 has no place for it (RFC 9113 section 8.2.2).
    pub const fn is_of_h1(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

/// Where a name of this length, and with these letters at three places, would stand among the known ones. The weights are such
/// that no two of them meet, which the compiler checks; a new name may need others.
const fn slot(name: &[u8]) -> Option<usize> {
    let n = name.len();
    if n == 0 {
        return None;
    }
    let (first, late, last) = (name[0] | 0x20, name[n * 4 / 5] | 0x20, name[n - 1] | 0x20);
    Some((50 * n + 14 * first as usize + 37 * late as usize + 57 * last as usize) % SLOTS.len())
}

/// The known names, each in its own [`slot`].
static SLOTS: [(&str, Kind); 256] = {
    let mut slots = [("", Kind::Other); 256];
    let mut at = 0;
    while at < Kind::ALL.len() {
        let (name, kind) = Kind::ALL[at];
        if let Some(slot) = slot(name.as_bytes()) {
            assert!(slots[slot].0.is_empty(), "two names share a slot: weigh the letters otherwise");
            slots[slot] = (name, kind);
        }
        at += 1;
    }
    slots
};

/// May stand in a token.
pub(super) const TOKEN: u8 = 1;
/// May stand in a value.
pub(super) const VALUE: u8 = 2;
/// Is visible ASCII.
pub(super) const VISIBLE: u8 = 4;
/// Is one.
pub(super) const UNDERSCORE: u8 = 8;

/// What a byte may be part of.
pub(super) fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

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
        if c == b'_' {
            table[b] |= UNDERSCORE;
        }
        b += 1;
    }
    table
};

/// Whether `text` is a token (RFC 9110 section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| class(b) & TOKEN != 0)
}

/// Whether `text` may stand in a field value: no control byte but the tab (RFC 9110 section 5.5).
pub fn is_value(text: &[u8]) -> bool {
    text.iter().all(|&b| class(b) & VALUE != 0)
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
        assert_eq!(Kind::of(b""), Kind::Other);
    }

    #[test]
    fn every_known_name_is_found() {
        for (name, kind) in Kind::ALL {
            assert_eq!(Kind::of(name.as_bytes()), *kind, "{name}");
            assert_eq!(Kind::of(name.to_uppercase().as_bytes()), *kind, "{name}");
        }
    }

    #[test]
    fn a_list_leaves_out_empty_elements() {
        let items: Vec<_> = list(b" a ,, b,c , ").collect();
        assert_eq!(items, [b"a", b"b", b"c"]);
    }
}
