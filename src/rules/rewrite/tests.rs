use proptest::prelude::*;

use super::Mappings;
use crate::rules::testing::route;

/// 0: the billing API. 1: another API on the same host. 2: the same billing API for another tenant.
/// 3: without a base path. 4: plain HTTP on a port. 5: IPv6.
fn mappings() -> Mappings {
    Mappings::new(&[
        route("/ipxo/billing", "https://apigw.example/billing", "acme"),
        route("/ipxo/shop", "https://apigw.example/ecommerce", "acme"),
        route("/umbra/billing", "https://apigw.example/billing", "umbra"),
        route("/mythic", "https://api.mythic.example", "mythic"),
        route("/local", "http://127.0.0.1:9000/v1", "local"),
        route("/six", "https://[2001:db8::1]:8443", "six"),
    ])
}

fn location(route: usize, value: &str) -> Option<String> {
    mappings().location(value.as_bytes(), route).map(|moved| String::from_utf8(moved).expect("text"))
}

#[test]
fn what_lies_within_the_routes_own_upstream_comes_behind_its_prefix() {
    for (own, value, expected) in [
        (0, "https://apigw.example/billing/v1/x?y=%20&z[]#f", "/ipxo/billing/v1/x?y=%20&z[]#f"),
        (0, "HTTPS://ApiGW.Example:443/billing", "/ipxo/billing"),
        (0, "https://apigw.example/billing/", "/ipxo/billing/"),
        (0, "https://apigw.example/billing?next=https://evil.example/", "/ipxo/billing?next=https://evil.example/"),
        (0, "//apigw.example/billing/x", "/ipxo/billing/x"),
        (0, "/billing/v1", "/ipxo/billing/v1"),
        (0, "/billing/a%2Fb/%C3%BC;p=1//x", "/ipxo/billing/a%2Fb/%C3%BC;p=1//x"),
        (0, "/%62illing/%76", "/ipxo/billing/%76"),
        (0, "/billing/ü and space", "/ipxo/billing/ü and space"),
        (0, "/x/../billing/./a", "/ipxo/billing/a"),
        (3, "https://api.mythic.example/queue/pi/1234", "/mythic/queue/pi/1234"),
        (3, "https://api.mythic.example", "/mythic"),
        (3, "https://api.mythic.example?q", "/mythic?q"),
        (3, "/", "/mythic/"),
        (3, "/a//b", "/mythic/a//b"),
        (3, "https://api.mythic.example//a", "/mythic//a"),
        (4, "http://127.0.0.1:9000/v1/x", "/local/x"),
        (5, "https://[2001:DB8::1]:8443/x", "/six/x"),
    ] {
        assert_eq!(location(own, value).as_deref(), Some(expected), "{value}");
    }
}

#[test]
fn what_lies_within_another_routes_upstream_comes_behind_that_ones_prefix() {
    // The same credential first: the other tenant's billing is as near, but not ours.
    assert_eq!(location(1, "https://apigw.example/billing/x").as_deref(), Some("/ipxo/billing/x"));
    assert_eq!(location(1, "/billing/x").as_deref(), Some("/ipxo/billing/x"));
    assert_eq!(location(2, "/billing/x").as_deref(), Some("/umbra/billing/x"));
    assert_eq!(location(2, "/ecommerce/x").as_deref(), Some("/ipxo/shop/x"));
    assert_eq!(location(0, "https://api.mythic.example/q").as_deref(), Some("/mythic/q"));
    assert_eq!(location(0, "http://127.0.0.1:9000/v1").as_deref(), Some("/local"));
}

#[test]
fn of_several_bases_the_longest_of_the_same_credential_wins() {
    let mappings = Mappings::new(&[
        route("/a", "https://h.example/x", "one"),
        route("/b", "https://h.example", "one"),
        route("/c", "https://h.example/y", "one"),
        route("/d", "https://h.example/y/z", "two"),
        route("/e", "https://h.example/y/z/w", "one"),
    ]);
    for (value, expected) in [
        ("/y/1", "/c/1"),
        ("/y/z/1", "/c/z/1"),
        ("/y/z/w/1", "/e/1"),
        ("/w", "/b/w"),
        ("/x/1", "/a/1"),
        ("/xx", "/b/xx"),
    ] {
        assert_eq!(mappings.location(value.as_bytes(), 0).as_deref(), Some(expected.as_bytes()), "{value}");
    }
}

#[test]
fn all_else_stays_untouched() {
    for value in [
        // Relative to the current path, or no URL at all.
        "",
        "v1/x",
        "./x",
        "../x",
        "?q",
        "#f",
        "mailto:x",
        // Another host, scheme, port or base.
        "https://evil.example/billing/x",
        "http://apigw.example/billing/x",
        "https://apigw.example:8443/billing",
        "/billings",
        "/other",
        "https://apigw.example",
        "https://apigw.example/",
        "http://127.0.0.1:9001/v1",
        "http://127.0.0.1/v1",
        "/billing/../other",
        // Hosts that only look like ours.
        "https://apigw.example@evil.example/billing",
        "https://apigw.example.evil.example/billing",
        "https://evil.example/apigw.example/billing",
        "https://apigw.example\\@evil.example/billing",
        "https://evil.example\\billing",
        "https://apigw.example./billing",
        "https://apigw.example%2eevil/billing",
        "https://apigw.example:443@evil.example/billing",
        "https:/apigw.example/billing",
        "/\\evil.example/billing",
        "\\\\evil.example",
        "///apigw.example/billing",
        "/billing\\..\\x",
        "/bill\ting",
        "/billing\r\nX: y",
    ] {
        assert_eq!(location(0, value), None, "{value:?}");
    }
    assert_eq!(mappings().location(b"/billing", 99), None);
}

#[test]
fn a_result_never_names_another_host() {
    let root = Mappings::new(&[route("", "https://h.example/base", "one")]);
    let location = |value: &str| root.location(value.as_bytes(), 0);
    assert_eq!(location("/base/x").as_deref(), Some(&b"/x"[..]));
    assert_eq!(location("/base").as_deref(), Some(&b"/"[..]));
    assert_eq!(location("/base?q").as_deref(), Some(&b"/?q"[..]));
    assert_eq!(location("/base//evil.example/x"), None);
    assert_eq!(location("https://h.example/base//evil.example"), None);
}

#[test]
fn a_longer_prefix_in_the_way_is_not_used() {
    let mappings = Mappings::new(&[
        route("/a", "https://one.example", "one"),
        route("/a/b", "https://two.example", "two"),
        route("/a/c", "https://one.example/c", "three"),
        route("/spare", "https://one.example/b", "four"),
    ]);
    // `/a/b/x` would lead to two.example; the spare route leads to the right place.
    assert_eq!(mappings.location(b"/b/x", 0).as_deref(), Some(&b"/spare/x"[..]));
    // `/a/c/x` is taken by another route, which leads to the very same URL.
    assert_eq!(mappings.location(b"/c/x", 0).as_deref(), Some(&b"/a/c/x"[..]));
}

#[test]
fn an_unusual_prefix_is_written_as_a_url_has_it() {
    let mappings = Mappings::new(&[
        route("/a b;<\"ü", "https://h.example", "one"),
        route("/c%20d", "https://i.example/p%20q", "one"),
    ]);
    assert_eq!(mappings.location(b"/x", 0).as_deref(), Some(&b"/a%20b%3B%3C%22%C3%BC/x"[..]));
    assert_eq!(mappings.location(b"/p%20q/x%20y", 1).as_deref(), Some(&b"/c%20d/x%20y"[..]));
    assert_eq!(mappings.set_cookie(b"a=b; Path=/p%20q/x", 1), b"a=b; Path=/c%20d/x");
}

#[test]
fn every_target_of_a_link_header_is_rewritten() {
    let link = |value: &str| mappings().link(value.as_bytes(), 0).map(|moved| String::from_utf8(moved).expect("text"));
    for (value, expected) in [
        ("<https://apigw.example/billing/v1?page=2>; rel=\"next\"", "</ipxo/billing/v1?page=2>; rel=\"next\""),
        (
            "<https://apigw.example/billing/a,b;c>; rel=next, </billing?d>;rel=\"prev\" , <https://evil.example/billing>; rel=x",
            "</ipxo/billing/a,b;c>; rel=next, </ipxo/billing?d>;rel=\"prev\" , <https://evil.example/billing>; rel=x",
        ),
        (
            "<x>; title=\"</billing>, \\\"</billing>\"; rel=a,</billing/y>",
            "<x>; title=\"</billing>, \\\"</billing>\"; rel=a,</ipxo/billing/y>",
        ),
        ("</billing/a>,\t</billing/b>", "</ipxo/billing/a>,\t</ipxo/billing/b>"),
    ] {
        assert_eq!(link(value).as_deref(), Some(expected), "{value}");
    }
    for value in [
        "",
        "rel=next",
        "<v1?page=2>; rel=next",
        "</billing",
        "</billing; rel=next",
        "<>",
        "; title=\"</billing>",
        "</billing>\r\n",
        "\"\\",
    ] {
        assert_eq!(link(value), None, "{value:?}");
    }
}

#[test]
fn a_refresh_is_rewritten_like_a_redirect() {
    let refresh =
        |value: &str| mappings().refresh(value.as_bytes(), 0).map(|moved| String::from_utf8(moved).expect("text"));
    assert_eq!(refresh("5; url=https://apigw.example/billing/x").as_deref(), Some("5; url=/ipxo/billing/x"));
    assert_eq!(refresh("0;URL=\"/billing\"").as_deref(), Some("0;URL=/ipxo/billing"));
    for value in ["5", "5; /billing", "5; url=x", "5;url=https://evil.example/", "", "5;url", "5\r\n; url=/billing"] {
        assert_eq!(refresh(value), None, "{value:?}");
    }
}

#[test]
fn cookies_follow_the_route() {
    assert_eq!(mappings().set_cookie(b"a=b; Path=/billing/v1; Domain=apigw.example", 0), b"a=b; Path=/ipxo/billing/v1");
    assert_eq!(mappings().set_cookie(b"a=b; Path=/", 3), b"a=b; Path=/mythic");
}

fn references() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"https://"[..],
        b"http://",
        b"//",
        b"/",
        b"/",
        b"apigw.example",
        b"api.mythic.example",
        b"127.0.0.1:9000",
        b"/billing",
        b"/billing",
        b"/v1",
        b"@",
        b":443",
        b"\\",
        b"..",
        b"%2e",
        b"?",
        b"#",
        b"x",
        b"\r\n",
        b"<",
        b">",
        b"\"",
        b",",
        b";",
        b" ",
        b"%2f",
        b"\xC3",
        b"Path=",
        b"url=",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rewritten_reference_stands_behind_a_known_prefix(value in references(), own in 0_usize..6) {
        let mappings = mappings();
        if let Some(moved) = mappings.location(&value, own) {
            let prefixes = ["/ipxo/billing", "/ipxo/shop", "/umbra/billing", "/mythic", "/local", "/six"];
            prop_assert!(prefixes.iter().any(|prefix| moved.strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| rest.is_empty() || b"/?#".contains(&rest[0]))));
            prop_assert!(!moved.iter().any(u8::is_ascii_control) && !moved.starts_with(b"//"));
        }
        for moved in [mappings.link(&value, own), mappings.refresh(&value, own), Some(mappings.set_cookie(&value, own))] {
            prop_assert!(!moved.unwrap_or_default().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
}
