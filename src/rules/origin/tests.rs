use std::net::SocketAddr;

use super::{Hosts, OriginRefused, Origins, is_preflight};
use crate::config::model::Scheme;

fn hosts(listen: &str, allowed: &[&str]) -> Hosts {
    let listen: SocketAddr = listen.parse().expect("an address");
    Hosts::new(listen, Scheme::Http, &allowed.iter().map(|&host| host.to_owned()).collect::<Vec<_>>())
}

#[track_caller]
fn expect(hosts: &Hosts, pass: &[&str], refuse: &[&str]) {
    for host in pass {
        assert!(hosts.check(host.as_bytes()).is_ok(), "{host:?} should pass");
    }
    for host in refuse {
        assert!(hosts.check(host.as_bytes()).is_err(), "{host:?} should be refused");
    }
}

#[test]
fn loopback_names_pass_with_the_listeners_port_only() {
    expect(
        &hosts("127.0.0.1:8080", &[]),
        &["localhost:8080", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080"],
        &[
            "",
            ":8080",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "localhost:8081",
            "localhost:80",
            "localhost:",
            "localhost:08080",
            "localhost:+8080",
            "localhost:8080 ",
            " localhost:8080",
            "localhost:8080:8080",
            "localhost.:8080",
            "localhost.evil.example:8080",
            "evil.example:8080",
            "user@localhost:8080",
            "localhost:8080@evil.example",
            "127.0.0.1.nip.io:8080",
            "127.1:8080",
            "2130706433:8080",
            "0x7f.0.0.1:8080",
            "127.0.0.2:8080",
            "0.0.0.0:8080",
            "::1:8080",
            "[::1]x:8080",
            "[::1",
            "[0:0:0:0:0:0:0:1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "localhost:8080/",
            "localhost:73616",
            "http://localhost:8080",
            "localhost,localhost:8080",
            "localhost:8080\0",
        ],
    );
}

#[test]
fn on_port_80_the_port_may_be_missing() {
    expect(&hosts("127.0.0.1:80", &[]), &["localhost", "localhost:80", "[::1]"], &["localhost:8080", "localhost:"]);
}

#[test]
fn the_listen_address_passes_and_a_wildcard_is_no_name() {
    expect(&hosts("192.0.2.1:8080", &[]), &["192.0.2.1:8080", "localhost:8080"], &["192.0.2.1", "192.0.2.2:8080"]);
    expect(&hosts("[2001:db8::1]:8080", &[]), &["[2001:db8::1]:8080", "[2001:DB8::1]:8080"], &["2001:db8::1:8080"]);
    for wildcard in ["0.0.0.0:8080", "[::]:8080"] {
        let refuse = ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "proxy.corp:8080"];
        expect(&hosts(wildcard, &[]), &["localhost:8080"], &refuse);
    }
}

#[test]
fn allowed_hosts_pass_with_any_port_or_with_theirs() {
    let allowed = ["proxy.corp", "api.corp:9000", "[fd00::1]", "fd00::2", "[fd00::3]:9000", "web.corp:80"];
    expect(
        &hosts("0.0.0.0:8080", &allowed),
        &[
            "proxy.corp",
            "Proxy.Corp",
            "proxy.corp:1",
            "proxy.corp:65535",
            "api.corp:9000",
            "[fd00::1]",
            "[fd00::1]:7",
            "[fd00::2]:8080",
            "[fd00::3]:9000",
            "web.corp",
            "web.corp:80",
        ],
        &[
            "proxy.corp:0",
            "proxy.corp:65536",
            "proxy.corp:x",
            "proxy.corp.",
            "x.proxy.corp",
            "proxy.corp.evil",
            "api.corp",
            "api.corp:8080",
            "[fd00::3]",
            "web.corp:8080",
        ],
    );
}

#[test]
fn the_refusal_shows_the_host_escaped_and_cut() {
    let refusal = hosts("127.0.0.1:8080", &[]).check(b"evil\x1b[2J\"<").unwrap_err().to_string();
    assert!(refusal.contains(r#"`evil\x1b[2J\"<`"#) && refusal.contains("allowed_hosts"), "{refusal}");
    let refusal = hosts("127.0.0.1:8080", &[]).check(&[b'a'; 5000]).unwrap_err().to_string();
    assert!(refusal.len() < 300);
}

fn browser(allowed: &[&str], origins: &[&str], sites: &[&str], preflight: bool) -> Result<(), OriginRefused> {
    Origins::new(&allowed.iter().map(|&origin| origin.to_owned()).collect::<Vec<_>>()).check(
        origins.iter().map(|origin| origin.as_bytes()),
        sites.iter().map(|site| site.as_bytes()),
        preflight,
    )
}

#[test]
fn programs_that_send_no_browser_header_pass() {
    assert_eq!(browser(&[], &[], &[], false), Ok(()));
}

#[test]
fn every_origin_that_is_not_listed_is_refused() {
    let allowed = ["https://app.corp", "http://localhost:3000"];
    for origin in [
        "null",
        "",
        "https://evil.example",
        "http://localhost:8080",
        "http://app.corp",
        "https://app.corp:8443",
        "https://app.corp/",
        "https://app.corp.evil.example",
        "https://x.app.corp",
        "https://app.corp https://app.corp",
        "app.corp",
    ] {
        assert!(matches!(browser(&allowed, &[origin], &[], false), Err(OriginRefused::Origin(_))), "{origin}");
        assert!(browser(&allowed, &[origin], &["same-origin"], false).is_err(), "{origin}");
        assert!(browser(&allowed, &["https://app.corp", origin], &[], false).is_err(), "{origin}");
    }
}

#[test]
fn a_listed_origin_passes_from_whichever_site() {
    for origin in ["https://app.corp", "HTTPS://App.Corp"] {
        for sites in [&[][..], &["cross-site"], &["same-site"], &["same-origin"]] {
            assert_eq!(browser(&["https://app.corp:443"], &[origin], sites, false), Ok(()));
        }
    }
}

#[test]
fn without_an_origin_the_fetch_site_decides() {
    for site in ["none", "same-origin"] {
        assert_eq!(browser(&[], &[], &[site], false), Ok(()));
    }
    for site in ["cross-site", "same-site", "", "None", "SAME-ORIGIN", "same-origin, none", "future-site"] {
        assert!(
            matches!(browser(&["https://app.corp"], &[], &[site], false), Err(OriginRefused::FetchSite(_))),
            "{site}"
        );
        assert!(browser(&[], &[], &["none", site], false).is_err(), "{site}");
    }
}

#[test]
fn a_preflight_is_refused_also_from_a_listed_origin() {
    assert_eq!(browser(&["https://app.corp"], &["https://app.corp"], &[], true), Err(OriginRefused::Preflight));
    assert_eq!(browser(&[], &[], &[], true), Err(OriginRefused::Preflight));
    // To list the origin would not help.
    assert_eq!(browser(&[], &["https://evil.example"], &["cross-site"], true), Err(OriginRefused::Preflight));
    assert!(is_preflight("OPTIONS", true) && !is_preflight("OPTIONS", false) && !is_preflight("GET", true));
}
