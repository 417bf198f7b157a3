//! How connections leave, through the binary: egress proxies, source addresses, families and roots, for token requests
//! and upstreams, alike and each by a way of its own.

use std::{
    net::{IpAddr, TcpListener},
    sync::{Arc, Mutex},
};

use crate::support::{Ca, Connection, Cupbearer, Dns, Egress, Ending, Response, TlsUpstream, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TOKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{\"access_token\":\"not-a-token\",\"expires_in\":3600}";

/// A credential with these lines, at a provider and an API at these URLs.
fn config(lines: &str, tokens: &str, api: &str) -> String {
    format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{tokens}/token\"\n{lines}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{api}\"\ncredential = \"c\"\n"
    )
}

fn start(config: &str) -> Cupbearer {
    Cupbearer::builder().env("SECRET", "not-a-secret").start(config)
}

fn clean(proxy: Cupbearer) {
    proxy.expect_never_printed(&["not-a-secret", "not-a-token"]);
    proxy.stop();
}

fn detail(response: &Response, code: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
    assert_eq!(body["code"], code, "{body}");
    body["detail"].as_str().expect("a text").to_owned()
}

#[test]
fn token_requests_and_upstream_connections_both_leave_through_the_egress_proxy_in_tls() {
    for (scheme, egress) in [("http", Egress::http()), ("socks5", Egress::socks5())] {
        let ca = Ca::new();
        let (certificate, key) = ca.issue(&["localhost"]);
        let tokens = TlsUpstream::start(&certificate, &key, TOKEN, Ending::KeepAlive);
        let api = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
        builder.file("root.pem", ca.pem());
        let lines =
            format!("ca_file = \"root.pem\"\nbody = \"query\"\negress_proxy = \"{scheme}://{}\"", egress.address());
        let proxy = builder.start(&config(&lines, &tokens.url(), &api.url()));
        for _ in 0..3 {
            assert_eq!(proxy.get("/api").status, 200, "{scheme}");
        }
        let place = |url: String| url.trim_start_matches("https://").to_owned();
        let asked = egress.asked();
        assert_eq!(asked[0], place(tokens.url()), "the name goes to the proxy: {asked:?}");
        assert!(asked[1..].iter().all(|target| *target == place(api.url())) && asked.len() > 1, "{asked:?}");
        let received = String::from_utf8(api.received()).expect("text").to_ascii_lowercase();
        assert!(received.contains("authorization: bearer not-a-token\r\n"), "{received}");
        clean(proxy);
    }
}

#[test]
fn an_egress_proxy_gets_the_name_and_only_its_own_is_looked_up_here() {
    for (scheme, egress) in [("http", Egress::http()), ("socks5", Egress::socks5())] {
        let dns = Dns::start();
        dns.set("proxy.test", &["127.0.0.2", "127.0.0.1"], 60);
        let port = egress.address().port();
        let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").server(&dns.line()).start(&format!(
            "[credentials.c]\ngrant = \"static\"\ntoken = {{ env = \"SECRET\" }}\n\
             egress_proxy = \"{scheme}://proxy.test:{port}\"\n\
             [[routes]]\nprefix = \"/api\"\nupstream = \"https://api.test\"\ncredential = \"c\"\n"
        ));
        // Nobody is there behind it.
        assert_eq!(proxy.get("/api").status, 502);
        assert_eq!(egress.asked().first().map(String::as_str), Some("api.test:443"), "{scheme}");
        assert!(dns.all_asked().iter().all(|name| name == "proxy.test"), "{:?}", dns.all_asked());
        clean(proxy);
    }
}

#[test]
fn an_egress_proxy_that_wants_credentials_or_is_away_is_named_and_nothing_goes_around_it() {
    let (tokens, api, egress) = (Upstream::tokens(3600), Upstream::always(OK), Egress::closed());
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for (address, part) in
        [(egress.address(), "it asks for credentials, which cupbearer does not send (HTTP 407)"), (nowhere, "refused")]
    {
        let proxy = start(&config(&format!("egress_proxy = \"http://{address}\""), &tokens.url(), &api.url()));
        let text = detail(&proxy.get("/api"), "idp_unavailable");
        assert!(text.contains(&format!("no way through the egress proxy {address}")) && text.contains(part), "{text}");
        assert!(
            text.contains("the server itself was not reached") && !text.contains("the identity provider"),
            "{text}"
        );
        clean(proxy);
    }
    assert_eq!((tokens.connections(), api.connections()), (0, 0));
}

/// A provider or an API that answers this, and notes from which addresses it is asked.
fn noting(answer: &'static str) -> (Upstream, Arc<Mutex<Vec<IpAddr>>>) {
    let peers: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let noted = Arc::clone(&peers);
    let server = Upstream::start(move |connection: &mut Connection| {
        noted.lock().expect("not poisoned").push(connection.stream().peer_addr().expect("a peer").ip());
        while connection.request().is_some() {
            connection.send(answer);
        }
    });
    (server, peers)
}

fn taken(peers: &Mutex<Vec<IpAddr>>) -> Vec<IpAddr> {
    std::mem::take(&mut peers.lock().expect("not poisoned"))
}

#[test]
fn both_leave_from_the_local_address_and_only_to_the_wanted_family() {
    let ((tokens, of_tokens), (api, of_api)) = (noting(TOKEN), noting(OK));
    let proxy = start(&config("local_address = \"127.0.0.77\"", &tokens.url(), &api.url()));
    assert_eq!(proxy.get("/api").status, 200);
    clean(proxy);
    for peers in [of_tokens, of_api] {
        assert_eq!(taken(&peers), [IpAddr::from([127, 0, 0, 77])]);
    }
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    let (_, text) = builder.start_badly(&config("ip_family = \"v6\"", &tokens.url(), &api.url()));
    for key in ["token_url", "upstream"] {
        let part = format!("the address in `{key}`, 127.0.0.1, is not of the family that `ip_family` leaves");
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn provider_and_upstream_each_have_an_egress_proxy_of_their_own_or_none() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let [credential, route] = [Egress::http(), Egress::socks5()];
    let by = |scheme: &str, egress: &Egress| format!("egress_proxy = \"{scheme}://{}\"\n", egress.address());
    let (http, socks) = (by("http", &credential), by("socks5", &route));
    for (of_credential, of_route, tokens_proxied, api_proxied) in [
        (http.as_str(), socks.as_str(), true, true),
        (&http, "egress_proxy = \"none\"\n", true, false),
        ("", &socks, false, true),
        ("egress_proxy = \"none\"\n", &socks, false, true),
    ] {
        let tokens = TlsUpstream::start(&certificate, &key, TOKEN, Ending::KeepAlive);
        let api = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
        builder.file("root.pem", ca.pem());
        let lines = format!("body = \"query\"\nca_file = \"root.pem\"\n{of_credential}");
        let proxy = builder.start(&(config(&lines, &tokens.url(), &api.url()) + of_route));
        assert_eq!(proxy.get("/api").status, 200, "{of_credential}{of_route}");
        let place = |url: String| url.trim_start_matches("https://").to_owned();
        let [tokens, api] = [place(tokens.url()), place(api.url())];
        let [asked, asked_of_route] = [credential.asked(), route.asked()];
        assert_eq!(asked.contains(&tokens), tokens_proxied, "{of_credential}{of_route}");
        assert_eq!(asked_of_route.contains(&api), api_proxied, "{of_credential}{of_route}");
        assert!(!asked.contains(&api) && !asked_of_route.contains(&tokens), "{asked:?} {asked_of_route:?}");
        clean(proxy);
    }
}

#[test]
fn nothing_goes_around_the_egress_proxy_of_a_route_that_is_away() {
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let proxy = start(&format!("{}egress_proxy = \"http://{nowhere}\"", config("", &tokens.url(), &api.url())));
    let text = detail(&proxy.get("/api"), "upstream_connect");
    assert!(text.contains(&format!("no way through the egress proxy {nowhere}")), "{text}");
    assert_eq!((tokens.connections(), api.connections()), (1, 0));
    proxy.stop();
}

#[test]
fn roots_for_the_upstream_are_not_believed_for_the_provider_and_the_other_way_round() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let tokens = TlsUpstream::start(&certificate, &key, TOKEN, Ending::KeepAlive);
    let api = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
    let (own, query) = ("ca_file = \"root.pem\"\n", "body = \"query\"\n");
    for (credential, route, code) in [
        ("", own, Some("idp_unavailable")),
        (own, "ca_file = \"none\"\n", Some("upstream_tls")),
        (own, "ca_file = \"other.pem\"\n", Some("upstream_tls")),
        (own, own, None),
    ] {
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
        builder.file("root.pem", ca.pem());
        builder.file("other.pem", Ca::named("another").pem());
        let proxy = builder.start(&(config(&[query, credential].concat(), &tokens.url(), &api.url()) + route));
        let answer = proxy.get("/api");
        match code {
            Some(code) => {
                let text = detail(&answer, code);
                assert!(text.contains("add that authority's certificate with ca_file"), "{text}");
            }
            None => assert_eq!(answer.status, 200),
        }
        clean(proxy);
    }
    // The API trusted, the provider on this machine itself: no root of the credential's is needed.
    let plain = Upstream::tokens(3600);
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    builder.file("root.pem", ca.pem());
    let proxy = builder.start(&(config("", &plain.url(), &api.url()) + own));
    assert_eq!(proxy.get("/api").status, 200);
    proxy.stop();
}

#[test]
fn provider_and_upstreams_each_have_a_source_address_and_a_family_of_their_own() {
    let ((tokens, of_tokens), (api, of_api)) = (noting(TOKEN), noting(OK));
    let address = |last: u8| IpAddr::from([127, 0, 0, last]);
    let second = format!(
        "[[routes]]\nprefix = \"/second\"\nupstream = \"{}\"\ncredential = \"c\"\nlocal_address = \"127.0.0.3\"\n\
         [[routes]]\nprefix = \"/third\"\nupstream = \"{}\"\ncredential = \"c\"\nip_family = \"v6\"\nlocal_address = \"none\"\ninsecure_http = true\n",
        api.url(),
        api.url().replace("127.0.0.1", "ipv4.test")
    );
    let dns = Dns::start();
    dns.set("ipv4.test", &["127.0.0.1"], 60);
    let start = |config: &str| Cupbearer::builder().env("SECRET", "not-a-secret").server(&dns.line()).start(config);
    let proxy = start(&(config("local_address = \"127.0.0.2\"", &tokens.url(), &api.url()) + &second));
    for (path, from) in [("/api", 2), ("/second", 3)] {
        for _ in 0..2 {
            assert_eq!(proxy.get(path).status, 200);
        }
        assert!(taken(&of_api).iter().all(|peer| *peer == address(from)), "{path}");
    }
    let text = detail(&proxy.get("/third"), "upstream_connect");
    assert!(text.contains("name resolution failed for ipv4.test"), "{text}");
    assert_eq!(taken(&of_tokens), [address(2)], "they share one token");
    clean(proxy);
    let by_name = tokens.url().replace("127.0.0.1", "localhost");
    let proxy = start(&(config("ip_family = \"v6\"", &by_name, &api.url()) + "ip_family = \"v4\"\n"));
    detail(&proxy.get("/api"), "idp_unavailable");
    clean(proxy);
}

#[test]
fn a_reload_changes_the_way_of_a_route_and_asks_for_no_token() {
    let ((tokens, of_tokens), (api, of_api)) = (noting(TOKEN), noting(OK));
    let config = |line: &str| config("", &tokens.url(), &api.url()) + line;
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config("local_address = \"127.0.0.2\""));
    let leaves_from = |last: u8| {
        assert_eq!(proxy.get("/api").status, 200);
        taken(&of_api).contains(&IpAddr::from([127, 0, 0, last]))
    };
    assert!(leaves_from(2));
    let file = proxy.dir().join("proxy.toml");
    let before = std::fs::read_to_string(&file).expect("written");
    std::fs::write(&file, before.replace("127.0.0.2", "127.0.0.3")).expect("writable");
    proxy.process().signal("HUP");
    eventually("the other address is in use", || leaves_from(3));
    assert_eq!(taken(&of_tokens).len(), 1);
    clean(proxy);
}

#[test]
fn explain_tells_both_ways_and_a_token_that_is_bound_to_an_address_is_warned_of() {
    let lines = "share = false\negress_proxy = \"http://proxy.example:3128\"";
    let text =
        config(lines, "https://id.example", "https://api.example") + "egress_proxy = \"none\"\nip_family = \"v4\"\n";
    let run = |args: &[&str]| {
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
        let (status, output) = builder.run(&text, args).finish();
        assert!(status.success(), "{output}");
        output
    };
    let told = run(&["explain", "GET", "/api"]);
    assert!(told.contains("directly, by IPv4 only; token requests through http://proxy.example:3128"), "{told}");
    let told = run(&["explain", "GET", "/api", "--format", "json"]);
    for part in ["\"egress_proxy\": null", "\"ip_family\": \"v4\"", "\"egress_proxy\": \"http://proxy.example:3128\""] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    let told = run(&["check"]);
    assert!(
        told.contains("`egress_proxy` lets this route leave by another way") && told.contains("share = false"),
        "{told}"
    );
}
