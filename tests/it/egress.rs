//! How connections leave, through the binary: egress proxies, source addresses, families and roots, for token requests
//! and upstreams alike.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::support::{Ca, Connection, Cupbearer, Dns, Ending, Response, TlsUpstream, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TOKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{\"access_token\":\"not-a-token\",\"expires_in\":3600}";

/// An egress proxy that notes where it was asked to go.
struct Egress {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Egress {
    /// `open` reads what a caller wants, and answers it: `None` = refused.
    fn start(open: fn(&mut TcpStream) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for caller in listener.incoming() {
                let (Ok(mut caller), noted) = (caller, Arc::clone(&noted)) else { continue };
                thread::spawn(move || {
                    let Some(target) = open(&mut caller) else { return };
                    noted.lock().expect("not poisoned").push(target.clone());
                    let Ok(server) = TcpStream::connect(target) else { return };
                    let (there, back) = (handles(&caller, &server), handles(&server, &caller));
                    thread::spawn(move || pass(there));
                    pass(back);
                });
            }
        });
        Self { address, asked }
    }

    fn http() -> Self {
        Self::start(|caller| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                caller.read_exact(&mut byte).ok()?;
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("text");
            assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
            let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
            caller.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
            Some(target)
        })
    }

    fn socks5() -> Self {
        Self::start(|caller| {
            let (mut hello, mut request, mut length) = ([0; 3], [0; 4], [0]);
            caller.read_exact(&mut hello).ok()?;
            caller.write_all(&[5, 0]).ok()?;
            caller.read_exact(&mut request).ok()?;
            let host = if request[3] == 1 {
                let mut ip = [0; 4];
                caller.read_exact(&mut ip).ok()?;
                IpAddr::from(ip).to_string()
            } else {
                caller.read_exact(&mut length).ok()?;
                let mut name = vec![0; usize::from(length[0])];
                caller.read_exact(&mut name).ok()?;
                String::from_utf8(name).expect("text")
            };
            let mut port = [0; 2];
            caller.read_exact(&mut port).ok()?;
            caller.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
            Some(format!("{host}:{}", u16::from_be_bytes(port)))
        })
    }

    /// One that wants credentials.
    fn closed() -> Self {
        Self::start(|caller| {
            let mut buffer = [0; 4096];
            caller.read(&mut buffer).ok().filter(|read| *read > 0)?;
            let head = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            caller.write_all(head.as_bytes()).ok()?;
            None
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn handles(from: &TcpStream, to: &TcpStream) -> (TcpStream, TcpStream) {
    (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"))
}

fn pass((mut from, mut to): (TcpStream, TcpStream)) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

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
            format!("ca_file = \"root.pem\"\nbody = \"query\"\negress_proxy = \"{scheme}://{}\"", egress.address);
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
        let port = egress.address.port();
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
        [(egress.address, "it asks for credentials, which cupbearer does not send (HTTP 407)"), (nowhere, "refused")]
    {
        let proxy = start(&config(&format!("egress_proxy = \"http://{address}\""), &tokens.url(), &api.url()));
        let text = detail(&proxy.get("/api"), "idp_unavailable");
        assert!(text.contains(&format!("no way through the egress proxy {address}")) && text.contains(part), "{text}");
        clean(proxy);
    }
    assert_eq!((tokens.connections(), api.connections()), (0, 0));
}

#[test]
fn both_leave_from_the_local_address_and_only_to_the_wanted_family() {
    let peers: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let noted = Arc::clone(&peers);
    let tokens = Upstream::start(move |connection: &mut Connection| {
        noted.lock().expect("not poisoned").push(connection.stream().peer_addr().expect("a peer").ip());
        while connection.request().is_some() {
            connection.send(TOKEN);
        }
    });
    let noted = Arc::clone(&peers);
    let api = Upstream::start(move |connection: &mut Connection| {
        noted.lock().expect("not poisoned").push(connection.stream().peer_addr().expect("a peer").ip());
        while connection.request().is_some() {
            connection.send(OK);
        }
    });
    let proxy = start(&config("local_address = \"127.0.0.77\"", &tokens.url(), &api.url()));
    assert_eq!(proxy.get("/api").status, 200);
    clean(proxy);
    assert_eq!(*peers.lock().expect("not poisoned"), [IpAddr::from([127, 0, 0, 77]); 2]);
    let proxy = start(&config("ip_family = \"v6\"", &tokens.url(), &api.url()));
    let text = detail(&proxy.get("/api"), "idp_unavailable");
    assert!(text.contains("name resolution failed for 127.0.0.1: no address of the wanted family"), "{text}");
    clean(proxy);
}
