use super::behind_prefix;

fn moved(cookie: &str, prefix: &str, base: &str) -> String {
    String::from_utf8(behind_prefix(cookie.as_bytes(), prefix.as_bytes(), base.as_bytes())).expect("text")
}

#[test]
fn the_path_is_mapped_behind_the_prefix() {
    for (path, mapped) in [
        ("/billing", "/ipxo"),
        ("/billing/", "/ipxo"),
        ("/billing/v1", "/ipxo/v1"),
        ("/billing/v1/", "/ipxo/v1/"),
        ("/", "/ipxo"),
        ("/bill", "/ipxo"),
        ("/billing2", "/ipxo"),
        ("/other/place", "/ipxo"),
        ("", "/ipxo"),
        ("relative", "/ipxo"),
        ("\"/billing/v1\"", "/ipxo"),
        ("//evil", "/ipxo"),
    ] {
        assert_eq!(
            moved(&format!("a=b; Path={path}; Secure"), "/ipxo", "/billing"),
            format!("a=b; Path={mapped}; Secure")
        );
    }
}

#[test]
fn without_a_base_every_path_keeps_its_rest() {
    assert_eq!(moved("a=b; path=/v1/x", "/ipxo", ""), "a=b; path=/ipxo/v1/x");
    assert_eq!(moved("a=b; path=/", "/ipxo", ""), "a=b; path=/ipxo");
    assert_eq!(moved("a=b; path=x", "/ipxo", ""), "a=b; path=/ipxo");
}

#[test]
fn behind_the_empty_prefix_the_whole_proxy_is_the_path() {
    assert_eq!(moved("a=b; Path=/billing/v1", "", "/billing"), "a=b; Path=/v1");
    assert_eq!(moved("a=b; Path=/billing", "", "/billing"), "a=b; Path=/");
    assert_eq!(moved("a=b", "", ""), "a=b; Path=/");
    assert_eq!(moved("a=b; Path=/x", "", ""), "a=b; Path=/x");
}

#[test]
fn a_missing_path_is_set_and_a_domain_is_removed() {
    assert_eq!(moved("a=b", "/ipxo", "/billing"), "a=b; Path=/ipxo");
    assert_eq!(moved("a=b; Path", "/ipxo", ""), "a=b; Path=/ipxo");
    assert_eq!(moved("a=b; Domain=api.example; HttpOnly", "/ipxo", ""), "a=b; HttpOnly; Path=/ipxo");
    assert_eq!(moved("a=b;DOMAIN = .example;Path=/", "/ipxo", ""), "a=b;Path=/ipxo");
    assert_eq!(moved("a=b; domain", "/ipxo", ""), "a=b; Path=/ipxo");
    // Of several, the last one counts for a client; none is left as it was.
    assert_eq!(moved("a=b; Path=/; Domain=x; path=/v1; Domain=y", "/ipxo", ""), "a=b; Path=/ipxo; path=/ipxo/v1");
}

#[test]
fn every_other_byte_stays() {
    let cookie = "sid=\"a b,c=d\"; Expires=Wed, 21 Oct 2026 07:28:00 GMT;max-age=5 ;SameSite=Lax; ;Partitioned;pathx=/; xdomain=1";
    assert_eq!(moved(cookie, "/ipxo", ""), format!("{cookie}; Path=/ipxo"));
    assert_eq!(moved("", "/ipxo", ""), "; Path=/ipxo");
    assert_eq!(moved("path=/; Path=/billing/x", "/ipxo", "/billing"), "path=/; Path=/ipxo/x");
}

#[test]
fn line_breaks_and_nul_become_spaces() {
    assert_eq!(moved("a=b\r\nX: y\0; Path=/\rx", "/ipxo", ""), "a=b  X: y ; Path=/ipxo/ x");
}
