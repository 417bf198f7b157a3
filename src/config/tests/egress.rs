//! `local_address`, `ip_family`, `ca_file` and `egress_proxy`, of credentials and of their routes.

use super::*;
use crate::config::model::{EgressKind, IpFamily, NetSpec};

/// A credential with these lines, and a route with those.
fn file(credential: &str, route: &str) -> String {
    format!(
        "[credentials.c]\nclient_id = \"a\"\nclient_secret.env = \"SECRET\"\ntoken_url = \"https://id.example/t\"\n\
         {credential}[[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"c\"\n{route}"
    )
}

/// How connections to the provider leave, and those to the upstream.
fn ways(credential: &str, route: &str) -> (NetSpec, NetSpec) {
    let (config, warnings) = good(&file(credential, route));
    assert_eq!(warnings, Vec::<String>::new());
    (NetSpec::clone(&config.credentials[0].net), NetSpec::clone(&config.routes[0].net))
}

#[test]
fn an_egress_proxy_is_a_url_without_credentials() {
    let proxy = |text: &str| bad(&BASE.replace("provider", &format!("egress_proxy = \"{text}\"\nprovider")));
    for (text, expected) in [
        (
            "proxy:3128",
            "3:16 `egress_proxy` is neither http:// nor socks5:// (\"http://HOST:3128\" or \"socks5://HOST:1080\"; \
             \"none\" is without one)",
        ),
        (
            "http://me:hunter2@proxy:3128",
            "3:16 `egress_proxy` holds a user or password, which are not sent (use a proxy that knows this host by its \
             address)",
        ),
    ] {
        assert_eq!(proxy(text), [expected], "{text}");
    }
    assert_eq!(proxy("socks5://proxy:x").len(), 1);
    let (config, _) = good(&BASE.replace("provider", "egress_proxy = \"socks5://[::1]\"\nprovider"));
    let proxy = config.credentials[0].net.egress_proxy.clone().unwrap();
    assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 1080));
}

#[test]
fn a_route_leaves_as_its_credential_does_but_for_what_it_says_itself() {
    let all = "local_address = \"127.0.0.1\"\nip_family = \"v4\"\negress_proxy = \"http://proxy.example:3128\"\n";
    let (tokens, upstream) = ways(all, "");
    assert_eq!(upstream, tokens);
    let (tokens, upstream) = ways(all, "egress_proxy = \"socks5://other.example\"\n");
    assert_eq!(tokens.egress_proxy.unwrap().kind, EgressKind::Http);
    assert_eq!(upstream.egress_proxy.unwrap().to_string(), "socks5://other.example:1080");
    assert_eq!((upstream.local_address, upstream.ip_family), (tokens.local_address, tokens.ip_family));
    let (tokens, upstream) = ways(all, "local_address = \"::1\"\nip_family = \"any\"\n");
    assert_eq!(upstream.local_address, Some("::1".parse().unwrap()));
    assert_eq!(upstream.ip_family, IpFamily::Any);
    assert_eq!(upstream.egress_proxy, tokens.egress_proxy);
}

#[test]
fn a_route_can_do_without_what_its_credential_has_and_the_other_way_round() {
    let all = "local_address = \"127.0.0.1\"\negress_proxy = \"http://proxy.example:3128\"\n";
    let (tokens, upstream) = ways(all, "local_address = \"none\"\negress_proxy = \"none\"\nca_file = \"none\"\n");
    assert_eq!(upstream, NetSpec::default());
    assert!(tokens.egress_proxy.is_some());
    let (tokens, upstream) = ways("egress_proxy = \"none\"\n", all);
    assert_eq!(tokens, NetSpec::default());
    assert!(upstream.egress_proxy.is_some() && upstream.local_address.is_some());
    // One name server for all of them.
    let (config, _) = good(&format!("[server]\nresolver = [\"127.0.0.1:53\"]\n{}", file("", "ip_family = \"v6\"\n")));
    assert_eq!(config.routes[0].net.resolver, config.credentials[0].net.resolver);
}

#[test]
fn what_a_route_says_of_its_way_out_is_checked_there() {
    let found = bad(&file(
        "",
        "local_address = \"eth0\"\nip_family = \"4\"\nca_file = \"/does/not/exist.pem\"\negress_proxy = \"proxy:3128\"\n",
    ));
    let expected = [
        "9:17 `local_address` must be an IP address of this host, without a port",
        r#"10:13 `ip_family` in [[routes]] can't be `4` (did you mean "v4"?)"#,
        "11:11 `ca_file` can't be read: I/O error: No such file or directory (os error 2)",
        "12:16 `egress_proxy` is neither http:// nor socks5:// (\"http://HOST:3128\" or \"socks5://HOST:1080\"; \"none\" \
         is without one)",
    ];
    assert_eq!(found, expected);
    // Also where the credential is wrong.
    assert_eq!(bad(&file("timeout = 1\n", "local_address = \"eth0\"\n")).len(), 2);
}

#[test]
fn an_address_and_a_family_that_contradict_each_other_are_told_where_the_route_says_so() {
    let together = "`local_address` is not of the family that `ip_family` asks for (give both, or only local_address with \
                    ip_family = \"any\")";
    let [v4, v6] = ["ip_family = \"v4\"\n", "ip_family = \"v6\"\n"];
    let [here, here6] = ["local_address = \"127.0.0.1\"\n", "local_address = \"::1\"\n"];
    for (credential, route, expected) in [
        ("", &[here, v6].concat(), format!("9:17 {together}")),
        (
            v4,
            &here6.to_owned(),
            "10:17 `local_address` is not of the family that `ip_family` of [credentials.c] asks for (give this route an \
             `ip_family` too)"
                .to_owned(),
        ),
        (
            here,
            &v6.to_owned(),
            "10:1 `ip_family` does not go with the `local_address` of [credentials.c], which this route has too (give this \
             route a `local_address` too; \"none\" is without one)"
                .to_owned(),
        ),
        // The credential's own contradiction is told once.
        (&[here, v6].concat(), &"egress_proxy = \"none\"\n".to_owned(), format!("5:17 {together}")),
    ] {
        assert_eq!(bad(&file(credential, route)), [expected], "{credential}{route}");
    }
}

#[test]
fn a_token_that_is_bound_to_an_address_is_warned_of_where_a_route_leaves_from_another() {
    let warnings = |credential: &str, route: &str| good(&file(credential, route)).1;
    let expected = |place: &str, key: &str| {
        format!(
            "{place} `{key}` lets this route leave by another way than the token requests of [credentials.c], whose tokens \
             are bound to the address that asks (share = false) (the upstream may refuse such tokens: leave `{key}` \
             out here; what [credentials.c] says of it holds for both)"
        )
    };
    let (bound, proxy) = ("share = false\n", "egress_proxy = \"http://proxy.example:3128\"\n");
    assert_eq!(warnings(bound, proxy), [expected("10:1", "egress_proxy")]);
    let none = "egress_proxy = \"none\"\n";
    assert_eq!(warnings(&[bound, proxy].concat(), none), [expected("11:1", "egress_proxy")]);
    assert_eq!(warnings(bound, "local_address = \"127.0.0.1\"\n"), [expected("10:1", "local_address")]);
    assert_eq!(warnings(bound, "ip_family = \"v6\"\n"), [expected("10:1", "ip_family")]);
    // The key that makes the difference is named, not another one that is there.
    let both = format!("{none}local_address = \"127.0.0.1\"\n");
    assert_eq!(warnings(bound, &both), [expected("11:1", "local_address")]);
    // Nobody sees a difference, or nobody looks.
    for (credential, route) in [
        ("", proxy.to_owned()),
        (bound, none.to_owned()),
        (&[bound, proxy].concat(), format!("{proxy}local_address = \"127.0.0.1\"\n")),
        (&[bound, "local_address = \"127.0.0.1\"\n"].concat(), "ip_family = \"v4\"\n".to_owned()),
    ] {
        assert_eq!(warnings(credential, &route), Vec::<String>::new(), "{credential}{route}");
    }
    // Mythic Beasts' profile says so by itself.
    let mythic = "[credentials.mb]\nprovider = \"mythic-beasts\"\nclient_id = \"a\"\nclient_secret.env = \"SECRET\"\n\
                  [[routes]]\nprefix = \"/dns\"\napi = \"dns\"\ncredential = \"mb\"\n";
    assert_eq!(good(mythic).1, Vec::<String>::new());
    let [warning] = &good(&format!("{mythic}{proxy}")).1[..] else { panic!("one warning") };
    assert!(warning.contains("[credentials.mb]"), "{warning}");
}
