//! Server certificates of providers and upstreams, through the binary: which are taken, and what is said of those that are not.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{Ca, Cupbearer, Ending, Response, TlsUpstream, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TOKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{\"access_token\":\"not-a-token\",\"expires_in\":3600}";

/// Before a provider and an API at these URLs; `own` stands in `ca_file`.
fn start(own: &str, lines: &str, tokens: &str, api: &str) -> Cupbearer {
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    builder.file("own.pem", own);
    builder.start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{tokens}/token\"\n\
         body = \"query\"\nca_file = \"own.pem\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{api}\"\ncredential = \"c\"\n{lines}\n"
    ))
}

fn detail(response: &Response, status: u16, code: &str) -> String {
    response.expect_problem(status, code)["detail"].as_str().expect("a text").to_owned()
}

#[test]
fn a_self_signed_certificate_in_ca_file_is_taken_from_the_provider_and_the_upstream_that_have_it() {
    let (certificate, key) = Ca::self_signed("localhost");
    let tokens = TlsUpstream::start(&certificate, &key, TOKEN, Ending::KeepAlive);
    let api = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
    let proxy = start(&certificate, "", &tokens.url(), &api.url());
    assert_eq!(proxy.get("/api").text(), "ok");
    assert!(String::from_utf8_lossy(&api.received()).contains("Bearer not-a-token"));
    proxy.stop();
}

#[test]
fn a_self_signed_certificate_is_refused_in_words_where_it_is_not_the_one_in_ca_file_or_names_another_host() {
    let (certificate, key) = Ca::self_signed("localhost");
    let (own, _) = Ca::self_signed("localhost");
    let (elsewhere, its_key) = Ca::self_signed("elsewhere.example.test");
    for (shown, key, in_file, part) in [
        (
            &certificate,
            &key,
            &own,
            "its certificate is an authority's, and no server's; the request was not sent. If that is the very server, name this certificate in ca_file.",
        ),
        (
            &elsewhere,
            &its_key,
            &elsewhere,
            "its certificate is for another name; the request was not sent. Check the host in the URL",
        ),
    ] {
        let (tokens, api) = (Upstream::tokens(3600), TlsUpstream::start(shown, key, OK, Ending::KeepAlive));
        let proxy = start(in_file, "", &tokens.url(), &api.url());
        let text = detail(&proxy.get("/api"), 502, "upstream_tls");
        assert!(text.contains(part), "{text}");
        assert_eq!(api.received(), b"", "not a byte of a request");
        proxy.stop();
    }
}

/// Takes connections and says nothing on them, until it is dropped.
struct Mute(u16, std::sync::Arc<AtomicBool>);

impl Mute {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let shared = std::sync::Arc::clone(&over);
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                if shared.load(Ordering::SeqCst) {
                    return;
                }
                held.push(stream);
            }
        });
        Self(port, over)
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.0)); // wakes the thread, which is then over
    }
}

#[test]
fn a_server_that_connects_and_does_not_answer_the_handshake_is_not_told_as_a_firewall() {
    let (own, _) = Ca::self_signed("localhost");
    let (tokens, mute) = (Upstream::tokens(3600), Mute::start());
    let url = format!("https://127.0.0.1:{}", mute.0);
    let proxy = start(&own, "connect_timeout = \"1s\"", &tokens.url(), &url);
    let text = detail(&proxy.get("/api"), 504, "upstream_timeout");
    assert_eq!(
        text,
        format!(
            "127.0.0.1:{} is connected, but there was no TLS handshake within 1s; the request was not sent. Does it speak \
             TLS on that port?",
            mute.0
        )
    );
    proxy.stop();
    // An egress proxy that is mute: it is named, and no other is advised.
    let egress = format!("egress_proxy = \"http://127.0.0.1:{}\"\nconnect_timeout = \"1s\"", mute.0);
    let proxy = start(&own, &egress, &tokens.url(), "https://api.example.test");
    let text = detail(&proxy.get("/api"), 504, "upstream_timeout");
    let way = format!("no way to api.example.test:443 through the egress proxy 127.0.0.1:{} within 1s", mute.0);
    assert!(text.contains(&way) && text.contains("Check egress_proxy") && !text.contains("firewall"), "{text}");
    proxy.stop();
}
