//! Callers over TLS: both versions of HTTP by ALPN, and a certificate that follows its files.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::support::{Ca, Cupbearer, PATIENCE, Upstream, eventually, h2, noise};

/// A proxy that listens with this certificate of its CA only.
fn proxy(ca: &Ca, api: &Upstream, tokens: &Upstream) -> Cupbearer {
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    let (certificate, key) = ca.issue(&["localhost"]);
    builder.file("tls.crt", &certificate);
    builder.file("tls.key", &key);
    builder.listen_tls().start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ))
}

fn config(ca: &Ca, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

fn connect(proxy: &Cupbearer, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let tcp = TcpStream::connect(proxy.address()).expect("accepted");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(config, name).expect("a client"), tcp)
}

fn get(proxy: &Cupbearer, config: Arc<ClientConfig>) -> std::io::Result<String> {
    let mut tls = connect(proxy, config);
    let host = format!("localhost:{}", proxy.address().port());
    write!(tls, "GET /api/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok(answer)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_caller_over_tls_is_served_and_told_so_to_the_upstream() {
    let (ca, api, tokens) = (Ca::new(), Upstream::always(OK), Upstream::tokens(3600));
    let proxy = proxy(&ca, &api, &tokens);
    assert!(proxy.process().output().contains("listening on https://127.0.0.1:"));
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let answer = get(&proxy, config(&ca, protocols)).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(api.requests()[0].header("x-forwarded-proto"), Some("https"));
    assert!(get(&proxy, config(&Ca::new(), &[])).is_err(), "a caller with another root goes away");
    proxy.expect_never_printed(&["not-a-secret", "not-a-token", "PRIVATE KEY"]);
}

#[test]
fn http_2_is_chosen_by_alpn() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = request.decoded_body();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
        }
    });
    let (ca, tokens) = (Ca::new(), Upstream::tokens(3600));
    let proxy = proxy(&ca, &api, &tokens);
    let (body, address) = (noise(700_000), proxy.address());
    h2::run(async {
        let tcp = tokio::net::TcpStream::connect(address).await.expect("accepted");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(config(&ca, &[b"h2", b"http/1.1"]));
        let tls = connector.connect(name, tcp).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let client = h2::H2Client::over(tls, &format!("localhost:{}", address.port())).await;
        let request = client.ask("POST", "/api/x").body(()).expect("a request");
        assert!(client.exchange(request, &body).await.expect("an answer").body == body);
    });
    assert_eq!(api.requests()[0].header("via"), Some("2 cupbearer"));
}

#[test]
fn who_speaks_no_tls_is_turned_away_and_the_others_go_on() {
    let (ca, api, tokens) = (Ca::new(), Upstream::always(OK), Upstream::tokens(3600));
    let proxy = proxy(&ca, &api, &tokens);
    let mut plain = TcpStream::connect(proxy.address()).expect("accepted");
    plain.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    plain.write_all(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert!(api.requests().is_empty());
    assert!(get(&proxy, config(&ca, &[])).is_ok());
}

#[test]
fn a_new_certificate_in_the_files_is_presented_without_a_restart_and_half_a_pair_is_not() {
    let (ca, other, api, tokens) = (Ca::new(), Ca::new(), Upstream::always(OK), Upstream::tokens(3600));
    let proxy = proxy(&ca, &api, &tokens);
    assert!(get(&proxy, config(&ca, &[])).is_ok());
    let (certificate, key) = other.issue(&["localhost"]);
    std::fs::write(proxy.dir().join("tls.crt"), certificate).expect("written");
    eventually("half a pair is told of", || proxy.process().output().contains("the certificate before stays in use"));
    assert!(get(&proxy, config(&ca, &[])).is_ok(), "the old pair goes on");
    std::fs::write(proxy.dir().join("tls.key"), key).expect("written");
    eventually("the new pair", || get(&proxy, config(&other, &[])).is_ok());
    proxy.expect_never_printed(&["PRIVATE KEY"]);
}
