use proptest::prelude::*;

use super::{BadPath, CanonicalPath, is_plain};
use crate::rules::escape::decode_fully;

fn parsed(target: &str) -> CanonicalPath<'_> {
    CanonicalPath::parse(target.as_bytes()).unwrap_or_else(|error| panic!("{target}: {error}"))
}

fn refused(target: &[u8]) -> BadPath {
    match CanonicalPath::parse(target) {
        Ok(_) => panic!("{} was accepted", target.escape_ascii()),
        Err(error) => error,
    }
}

#[test]
fn a_dot_segment_is_refused_in_every_spelling_and_place() {
    let spellings =
        [".", "..", "%2e", "%2E", ".%2e", "%2e.", "%2e%2E", "..;", "..;x", ".;", "..%3b", "%2e%2e%3Bx=1;y", "..;x=."];
    for dots in spellings {
        for (target, at) in [
            (format!("/{dots}"), 1),
            (format!("/{dots}/"), 1),
            (format!("/a/{dots}/b?q"), 3),
            (format!("/a/b/{dots}"), 5),
        ] {
            assert_eq!(refused(target.as_bytes()), BadPath::DotSegment { at }, "{target}");
        }
    }
    // The position is that of the raw bytes, also behind escapes.
    assert_eq!(refused(b"/%61%62/../c"), BadPath::DotSegment { at: 8 });
}

#[test]
fn dots_that_are_no_segment_of_their_own_pass() {
    for target in [
        "/...",
        "/.a",
        "/a.",
        "/..a",
        "/a..b/c",
        "/.well-known/x",
        "/%2ea",
        "/a;..",
        "/a;x=../b",
        "/v1.2/a",
        "/a?../..",
        "/..%20",
    ] {
        parsed(target);
    }
}

#[test]
fn an_encoded_slash_is_refused() {
    assert_eq!(refused(b"/a%2fb"), BadPath::EncodedSlash { at: 2 });
    assert_eq!(refused(b"/%2F"), BadPath::EncodedSlash { at: 1 });
    assert_eq!(refused(b"/..%2f.."), BadPath::EncodedSlash { at: 3 });
}

#[test]
fn a_backslash_is_refused_encoded_or_not() {
    assert_eq!(refused(b"/a\\b"), BadPath::Backslash { at: 2 });
    assert_eq!(refused(b"/\\evil.example/x"), BadPath::Backslash { at: 1 });
    assert_eq!(refused(b"/a%5cb"), BadPath::Backslash { at: 2 });
    assert_eq!(refused(b"/a%5Cb"), BadPath::Backslash { at: 2 });
}

#[test]
fn every_control_is_refused_encoded_or_not() {
    for byte in (0..0x20).chain([0x7F]) {
        assert_eq!(refused(&[b'/', b'a', byte]), BadPath::Control { at: 2, byte });
        assert_eq!(refused(format!("/a/%{byte:02X}").as_bytes()), BadPath::Control { at: 3, byte });
        assert_eq!(refused(format!("/a/%{byte:02x}b").as_bytes()), BadPath::Control { at: 3, byte });
        assert_eq!(refused(&[b'/', b'?', b'a', byte]), BadPath::Control { at: 3, byte });
    }
}

#[test]
fn an_escape_without_two_digits_is_refused() {
    for (target, at) in
        [("/%", 1), ("/a%2", 2), ("/%zz", 1), ("/%2g/x", 1), ("/%%32e", 1), ("/%u002e", 1), ("/%+2", 1), ("/a%?20", 2)]
    {
        assert_eq!(refused(target.as_bytes()), BadPath::InvalidEscape { at }, "{target}");
    }
}

#[test]
fn what_double_or_deeper_decoding_brings_to_light_is_refused() {
    for (target, at) in [
        ("/%252e", 1),
        ("/%252e%252e/a", 1),
        ("/.%252e/a", 1),
        ("/a/%25252e", 3),
        ("/%25%32%65", 1),
        ("/a%252fb", 2),
        ("/a%25%32%66b", 2),
        ("/%61%252fb", 4),
        ("/a%255Cb", 2),
        ("/a%2500", 2),
        ("/a%250d%250a", 2),
        ("/a%252525252500", 2),
        ("/%2525%32e", 1),
        ("/%25%2532e/x", 1),
        ("/%c0%25ae", 1),
        ("/..%253bx", 1),
        ("/x/%252e%252e%253bx", 3),
    ] {
        assert_eq!(refused(target.as_bytes()), BadPath::DoubleEncoding { at }, "{target}");
    }
}

#[test]
fn a_harmless_escaped_percent_passes() {
    for (target, decoded) in [
        ("/100%25", "/100%"),
        ("/%2541", "/%41"),
        ("/100%25%20off", "/100% off"),
        ("/a%252eb", "/a%2eb"),
        ("/%25zz", "/%zz"),
        ("/a%2520b", "/a%20b"),
        ("/%2525", "/%25"),
    ] {
        assert_eq!(parsed(target).decoded(), decoded.as_bytes(), "{target}");
    }
}

#[test]
fn overlong_utf8_is_refused() {
    for target in [
        "/%c0%ae",
        "/%C0%AE%C0%AE/",
        "/x%c0%af",
        "/%e0%80%ae",
        "/%f0%80%80%af",
        "/%f8%80%80%80%ae",
        "/%fc%80%80%80%80%ae",
        "/%c0%80",
        "/%c1%9c",
    ] {
        assert!(matches!(refused(target.as_bytes()), BadPath::Overlong { .. }), "{target}");
    }
    assert_eq!(refused(b"/%61%c0%ae"), BadPath::Overlong { at: 4 });
}

#[test]
fn utf8_and_other_high_escapes_pass() {
    for target in ["/m%C3%BCnchen", "/%e2%82%ac", "/%f0%9f%8d%ba", "/caf%e9", "/%c0"] {
        parsed(target);
    }
}

#[test]
fn raw_bytes_that_no_url_has_are_refused_in_path_and_query() {
    assert_eq!(refused(b"/a#b"), BadPath::Fragment { at: 2 });
    assert_eq!(refused(b"/a?b#c"), BadPath::Fragment { at: 4 });
    assert_eq!(refused(b"/a b"), BadPath::Space { at: 2 });
    assert_eq!(refused(b"/a?b c"), BadPath::Space { at: 4 });
    assert_eq!(refused("/ü".as_bytes()), BadPath::NonAscii { at: 1, byte: 0xC3 });
    assert_eq!(refused("/?ü".as_bytes()), BadPath::NonAscii { at: 2, byte: 0xC3 });
}

#[test]
fn only_origin_form_is_a_path() {
    for target in ["", "*", "a/b", "http://h/", "h:443", "?q", "%2fa"] {
        assert_eq!(refused(target.as_bytes()), BadPath::NotOriginForm, "{target}");
    }
}

#[test]
fn everything_else_is_kept_byte_for_byte() {
    for target in [
        "/",
        "/a%20b/%7e~/%7E",
        "/a[1]/{x}|\"<>^`",
        "/a+b%2Bc",
        "/a;v=1/b;w=2,3",
        "/a:b@c!$&'()*+,=",
        "/%e2%82%AC",
        "/a?filter[x]=1&flag&%2e%2e/..//\\%zz%00%",
        "/a??b=?",
        "/%23%3F",
    ] {
        let path = parsed(target);
        assert_eq!(path.target(), target.as_bytes());
        assert_eq!(path.rest(0), target.as_bytes());
        assert_eq!(path.raw(), target.split('?').next().unwrap().as_bytes());
    }
}

#[test]
fn a_lone_question_mark_is_an_empty_query() {
    assert_eq!(parsed("/a").query(), None);
    assert_eq!(parsed("/a?").query(), Some(&b""[..]));
    assert_eq!(parsed("/a?b?c").query(), Some(&b"b?c"[..]));
    assert_eq!(parsed("/a?").rest(2), b"?");
    assert_eq!(parsed("/a").rest(2), b"");
}

#[test]
fn an_empty_segment_is_reported_and_a_trailing_slash_is_none() {
    for (target, empty) in [
        ("/", false),
        ("/a/", false),
        ("/a/b", false),
        ("//", true),
        ("///", true),
        ("//a", true),
        ("/a//", true),
        ("/a//b", true),
        ("/%61//b", true),
        ("/%61/b/", false),
        ("/;x/a", true),
        ("/%3bx/a", true),
        ("/a/;/b", true),
        ("/a/;x", false),
        ("/a;x/b", false),
        ("/a?//", false),
        ("/.a/b", false),
        ("/.a//b", true),
    ] {
        assert_eq!(parsed(target).has_empty_segments(), empty, "{target}");
    }
}

#[test]
fn a_place_in_the_decoded_path_is_found_in_the_raw_one() {
    let path = parsed("/%69pxo/b%20c/%64?q=%20");
    assert_eq!(path.decoded(), b"/ipxo/b c/d");
    for (decoded, rest) in
        [(0, "/%69pxo/b%20c/%64?q=%20"), (5, "/b%20c/%64?q=%20"), (9, "/%64?q=%20"), (11, "?q=%20"), (99, "?q=%20")]
    {
        assert_eq!(path.rest(path.raw_offset(decoded)), rest.as_bytes());
    }
    let plain = parsed("/a/b?q");
    assert_eq!(plain.rest(plain.raw_offset(2)), b"/b?q");
    assert_eq!(plain.rest(plain.raw_offset(99)), b"?q");
}

#[test]
fn messages_say_what_and_where_and_echo_no_control() {
    assert_eq!(
        refused(b"/a\r\nSet-Cookie: x").to_string(),
        "the request target has the control character 0x0D (encoded or not) at byte 2"
    );
    assert_eq!(
        refused(b"/a/%2e%2e/").to_string(),
        "the path has a dot segment (`.` or `..`, in whatever spelling) at byte 3"
    );
}

#[test]
fn a_deeply_nested_percent_costs_linear_time() {
    let target = format!("/{}2e", "%".to_owned() + &"25".repeat(100_000));
    assert_eq!(refused(target.as_bytes()), BadPath::DoubleEncoding { at: 1 });
}

/// Decodes level by level, as the fixpoint is defined.
fn naive_fixpoint(text: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut text = text.to_vec();
    loop {
        let mut next = Vec::new();
        let mut at = 0;
        while at < text.len() {
            if let [b'%', high, low, ..] = text[at..]
                && let (Some(high), Some(low)) = (hex(high), hex(low))
            {
                next.push(high * 16 + low);
                at += 3;
            } else {
                next.push(text[at]);
                at += 1;
            }
        }
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Targets made of the pieces that make trouble, so that many of them nearly pass.
fn targets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"/"[..],
        b"/",
        b"/",
        b".",
        b"..",
        b"%2e",
        b"%25",
        b"25",
        b"2e",
        b"%2f",
        b"%5c",
        b"\\",
        b"%",
        b"a",
        b"b",
        b";",
        b"%3b",
        b"?",
        b"#",
        b"%c0",
        b"%ae",
        b"%61",
        b"%0a",
        b"\r",
        b" ",
        b"\xC3",
        b"%20",
        b"//",
    ]);
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| [&b"/"[..], &pieces.concat()].concat());
    prop_oneof![4 => pieces, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_parses_has_one_reading(target in targets()) {
        let Ok(path) = CanonicalPath::parse(&target) else { return Ok(()) };
        let slashes = |text: &[u8]| text.split(|&byte| byte == b'/').count();
        let fixpoint = naive_fixpoint(path.raw());
        for reading in [path.decoded(), &fixpoint] {
            prop_assert_eq!(slashes(reading), slashes(path.raw()));
            prop_assert!(!reading.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\'));
            for segment in reading.split(|&byte| byte == b'/') {
                let name = segment.split(|&byte| byte == b';').next().unwrap();
                prop_assert!(name != b"." && name != b"..");
            }
        }
        prop_assert!(target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    }

    #[test]
    fn the_rest_is_a_suffix_of_the_target(target in targets(), at in 0_usize..50) {
        let Ok(path) = CanonicalPath::parse(&target) else { return Ok(()) };
        let rest = path.rest(path.raw_offset(at));
        prop_assert!(target.ends_with(rest));
        // At a segment boundary, raw and decoded agree on what is left.
        if path.decoded().get(at) == Some(&b'/') {
            prop_assert_eq!(rest.first(), Some(&b'/'));
            let again = CanonicalPath::parse(rest).unwrap();
            prop_assert_eq!(again.decoded(), &path.decoded()[at..]);
        }
    }

    #[test]
    fn a_plain_path_has_no_byte_and_no_pair_of_bytes_that_mean_anything(raw in "[a-z/.;%#\\\\ \u{7f}é\t-]{0,40}") {
        let pair = |two: &[u8]| two[0] == b'/' && matches!(two[1], b'/' | b'.' | b';');
        let byte = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\' | b'%');
        let raw = raw.as_bytes();
        prop_assert_eq!(is_plain(raw), !raw.iter().any(byte) && !raw.windows(2).any(pair));
    }

    #[test]
    fn decoding_fully_in_one_pass_is_decoding_until_nothing_changes(text in "(%|25|2|e|%2|%25|5|[a-f0-9]){0,16}") {
        prop_assert_eq!(decode_fully(text.as_bytes()).bytes, naive_fixpoint(text.as_bytes()));
    }
}
