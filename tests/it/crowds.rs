//! More connections than there are places, of all callers or of one address: those that are in stay in, the others are told why, over
//! every version of HTTP, and a flood of them costs little.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::support::{
    Ca, Client, Cupbearer, PATIENCE, Scene, Stage, Upstream, eventually,
    h2::{H2Client, run},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ASK: &str = "GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n";

/// A connection from another address of this host.
fn connect_from(source: [u8; 4], to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("all of 127/8 is this host");
    socket.connect(&to.into()).expect("accepted");
    Client::over(socket.into())
}

/// So many connections that are served and stay.
fn served(scene: &Scene, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| scene.send(ASK)).collect();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    clients
}

fn refused(proxy: &Cupbearer, limit: &str) -> usize {
    proxy.metric(&format!("cupbearer_connections_refused_total{{limit=\"{limit}\"}}"))
}

#[test]
fn one_address_has_the_connections_that_it_may_have_and_others_do_not_notice() {
    let scene =
        Stage::new(Upstream::always(OK)).workers(3).server("max_connections_per_peer = 5").alone().admin().start();
    let mut clients = served(&scene, 5);
    for _ in 0..20 {
        let problem = scene.send(ASK).last_response().expect_problem(503, "overloaded");
        assert_eq!(problem["retry_after"], 1);
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("max_connections_per_peer")), "{problem}");
    }
    for other in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let mut other = connect_from(other, scene.proxy.address());
        assert_eq!(other.exchange(scene.fill(ASK)).text(), "ok");
    }
    for client in &mut clients {
        assert_eq!(client.exchange(scene.fill(ASK)).text(), "ok", "those that are in stay in");
    }
    assert_eq!((refused(&scene.proxy, "max_connections_per_peer"), refused(&scene.proxy, "max_connections")), (20, 0));
    let told = scene.proxy.process().output().matches("a connection is turned away").count();
    assert_eq!(told, 1, "not once for each");
    clients.pop();
    eventually("a place is free", || scene.get("/api/x").status == 200);
    drop(clients);
    scene.end();
}

#[test]
fn callers_from_this_host_may_have_all_connections_unless_the_file_says_otherwise() {
    for line in ["", "max_connections_per_peer = 0"] {
        let scene =
            Stage::new(Upstream::always(OK)).server("max_connections = 10").server(line).alone().admin().start();
        let clients = served(&scene, 10);
        let problem = scene.send(ASK).last_response().expect_problem(503, "overloaded");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("(max_connections)")), "{problem}");
        assert_eq!(refused(&scene.proxy, "max_connections"), 1);
        drop(clients);
        scene.end();
    }
}

#[test]
fn callers_that_say_nothing_or_ask_by_http_2_are_told_too() {
    let scene = Stage::new(Upstream::always(OK)).server("max_connections = 2").alone().start();
    let mut clients = served(&scene, 2);
    scene.proxy.connect().last_response().expect_problem(503, "overloaded");
    run(async {
        for round in 0..3 {
            let message = H2Client::connect(scene.proxy.address()).await.get("/api/x").await;
            assert_eq!((message.status, message.header("retry-after")), (503, Some("1")), "{round}");
            assert_eq!(message.json()["code"], "overloaded");
        }
    });
    assert_eq!(scene.heads_with("x").len(), 2);
    for client in &mut clients {
        assert_eq!(client.exchange(scene.fill(ASK)).text(), "ok", "those that are in stay in");
    }
    drop(clients);
    run(async {
        let served = async {
            while H2Client::connect(scene.proxy.address()).await.get("/api/x").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        served.await;
    });
    scene.end();
}

#[test]
fn over_http_2_the_places_of_connections_are_limited_and_given_back() {
    let scene = Stage::new(Upstream::always(OK)).server("max_connections = 3").alone().start();
    run(async {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let client = H2Client::connect(scene.proxy.address()).await;
            assert_eq!(client.get("/api/x").await.status, 200);
            clients.push(client);
        }
        assert_eq!(H2Client::connect(scene.proxy.address()).await.get("/api/x").await.status, 503);
        for client in &clients {
            assert_eq!(client.get("/api/x").await.status, 200, "those that are in stay in");
        }
    });
    eventually("there are places again", || scene.get("/api/x").status == 200);
    scene.end();
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls_config(ca: &Ca) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let tcp = TcpStream::connect(address).expect("accepted");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a client"), tcp)
}

/// What is answered to one request, if the connection gets that far.
fn ask(tls: &mut Tls) -> Option<String> {
    let port = tls.sock.peer_addr().ok()?.port();
    write!(tls, "GET /api/x HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"\r\n\r\nok") {
        match tls.read(&mut piece) {
            Ok(n @ 1..) => answer.extend_from_slice(&piece[..n]),
            _ => break,
        }
    }
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn over_tls_a_few_a_second_are_told_and_a_flood_is_closed_while_those_that_are_in_are_served() {
    let (ca, api, tokens) = (Ca::new(), Upstream::always(OK), Upstream::tokens(3600));
    let (certificate, key) = ca.issue(&["localhost"]);
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1").admin();
    builder.file("tls.crt", &certificate);
    builder.file("tls.key", &key);
    let proxy = builder.server("max_connections = 2").listen_tls().start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    let config = tls_config(&ca);
    let mut within: Vec<Tls> = (0..2).map(|_| tls(proxy.address(), &config)).collect();
    for tls in &mut within {
        assert!(ask(tls).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    }
    let mut tls_h2 = (*config).clone();
    tls_h2.alpn_protocols = vec![b"h2".to_vec()];
    run(async {
        let tcp = tokio::net::TcpStream::connect(proxy.address()).await.expect("accepted");
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls_h2)).connect(name, tcp).await.expect("a handshake");
        let client = H2Client::over(tls, &format!("localhost:{}", proxy.address().port())).await;
        assert_eq!(client.get("/api/x").await.status, 503);
    });
    let mut told = 0;
    for _ in 0..200 {
        if let Some(answer) = ask(&mut tls(proxy.address(), &config)) {
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After: 1"), "{answer}");
            told += 1;
        }
    }
    assert!((10..200).contains(&told), "{told} were told");
    assert_eq!(refused(&proxy, "max_connections"), 201);
    assert_eq!(api.requests().len(), 2);
    for tls in &mut within {
        assert!(ask(tls).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "those that are in stay in");
    }
    assert_eq!(api.requests().len(), 4);
}
