//! The static table of HPACK (RFC 7541 appendix A).

/// How many fields there are; the first has number 1.
pub(super) const SIZE: usize = 61;

/// Names and values.
#[rustfmt::skip]
pub(super) static FIELDS: [(&str, &str); SIZE] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"), (":scheme", "http"),
    (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"), ("accept-language", ""),
    ("accept-ranges", ""), ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""),
    ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""),
    ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// The number of a name that requests often have.
pub(super) fn number(name: &[u8]) -> Option<u8> {
    Some(match name {
        b":authority" => 1,
        b":method" => 2,
        b":path" => 4,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept" => 19,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-length" => 28,
        b"content-type" => 31,
        b"cookie" => 32,
        b"user-agent" => 58,
        b"via" => 60,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_names_are_those_of_the_table() {
        for (at, (name, _)) in FIELDS.iter().enumerate() {
            if let Some(number) = number(name.as_bytes()) {
                assert_eq!(FIELDS[usize::from(number) - 1].0, *name);
                assert!(usize::from(number) <= at + 1);
            }
        }
        assert_eq!(
            (FIELDS[SIZE - 1].0, FIELDS[27].0, FIELDS[57].0),
            ("www-authenticate", "content-length", "user-agent")
        );
    }
}
