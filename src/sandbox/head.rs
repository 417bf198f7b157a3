//! A request head as it was sent, and what a strict server has against it.

/// Request line and fields, in order and spelling of the wire.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: String,
    /// Name and value; bytes above ASCII as Latin-1.
    pub(super) fields: Vec<(String, String)>,
    flaw: Option<&'static str>,
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

impl Head {
    /// Reads the lines of [`super::tap::Heads::take`].
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut flaw = None;
        let mut lines = bytes.split(|b| *b == b'\n').map(|line| {
            let ended = line.strip_suffix(b"\r");
            if ended.is_none() && !line.is_empty() {
                flaw = Some("a line that ends in a bare LF");
            }
            ended.unwrap_or(line)
        });
        let request_line = latin1(lines.next().unwrap_or_default());
        let mut fields = Vec::new();
        let mut folded = false;
        for line in lines.filter(|l| !l.is_empty()) {
            folded |= line.starts_with(b" ") || line.starts_with(b"\t");
            let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            fields.push((latin1(&line[..colon]), latin1(value.trim_ascii())));
        }
        let mut words = request_line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        if folded {
            flaw = Some("a folded header line");
        }
        Self { method, target, version, fields, flaw }
    }

    /// All values of a field.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The first value of a field.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Path without query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Raw query, without its question mark.
    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// A query parameter, undecoded; a valueless key has the value "".
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query().split('&').map(|p| p.split_once('=').unwrap_or((p, ""))).find(|(n, _)| *n == name).map(|p| p.1)
    }

    /// The token of the one `Authorization: Bearer`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.one("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// Why a strict server refuses this head with 400, if it does.
    pub(super) fn objection(&self) -> Option<&'static str> {
        let count = |name| self.all(name).count();
        let encodings = count("transfer-encoding");
        if self.flaw.is_some() {
            self.flaw
        } else if !self.target.starts_with('/') {
            Some("the request target is not in origin form")
        } else if count("host") != 1 {
            Some("not exactly one Host")
        } else if count("content-length") > 1 {
            Some("more than one Content-Length")
        } else if encodings > 0 && count("content-length") > 0 {
            Some("Content-Length beside Transfer-Encoding")
        } else if encodings > 1 || self.one("transfer-encoding").is_some_and(|v| !v.eq_ignore_ascii_case("chunked")) {
            Some("a Transfer-Encoding that is not just \"chunked\"")
        } else if count("content-type") > 1 {
            Some("more than one Content-Type")
        } else if count("authorization") > 1 {
            Some("more than one Authorization")
        } else if self.fields.iter().any(|(n, _)| n.is_empty() || n.ends_with([' ', '\t'])) {
            Some("a malformed header name")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(head: &str) -> Option<&'static str> {
        Head::parse(head.as_bytes()).objection()
    }

    #[test]
    fn an_ordinary_head_is_welcome() {
        assert_eq!(objection("GET /a?b[c]=d&e HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer not-a-secret\r\n"), None);
    }

    #[test]
    fn doubled_and_conflicting_fields_are_refused() {
        for fields in [
            "",
            "Host: a\r\nhost: a\r\n",
            "Host: a\r\nContent-Type: a/b\r\ncontent-type: a/b\r\n",
            "Host: a\r\nAuthorization: Bearer x\r\nAUTHORIZATION: Bearer x\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
            "Host: a\r\nX: a\r\n b\r\n",
            "Host: a\n",
        ] {
            assert!(objection(&format!("POST / HTTP/1.1\r\n{fields}")).is_some(), "{fields:?}");
        }
        assert!(objection("GET http://x/ HTTP/1.1\r\nHost: x\r\n").is_some());
    }

    #[test]
    fn query_parameters_are_found_raw() {
        let head = Head::parse(b"GET /x?size=5&verify&a%5Bb%5D=c HTTP/1.1\r\n");
        assert_eq!(head.param("size"), Some("5"));
        assert_eq!(head.param("verify"), Some(""));
        assert_eq!(head.param("a[b]"), None);
        assert_eq!((head.path(), head.query()), ("/x", "size=5&verify&a%5Bb%5D=c"));
    }
}
