//! Token requests through egress proxies of our own making.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cupbearer::{
    config::model::{EgressKind, EgressProxy, NetSpec, Scheme, TokenSpec},
    net::{ConnectError, Connector, Target},
    token::{
        Engine, Key,
        bearer::{Rejection, Unavailable},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Provider, Reply, credential, need, quick};

/// A proxy that notes where it was asked to go, and goes there unless it refuses.
struct Egress {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Egress {
    async fn start(kind: EgressKind, refuses: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let _ = match kind {
                        EgressKind::Http => http(caller, &noted, refuses).await,
                        EgressKind::Socks5 => socks5(caller, &noted, refuses).await,
                    };
                });
            }
        });
        Self { address, asked }
    }

    fn net(&self, kind: EgressKind) -> NetSpec {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        NetSpec { egress_proxy: Some(EgressProxy { kind, host, port }), ..NetSpec::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

async fn http(mut caller: TcpStream, noted: &Mutex<Vec<String>>, refuses: bool) -> std::io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(caller.read_u8().await?));
    }
    let mut words = head.split(' ');
    assert_eq!(words.next(), Some("CONNECT"));
    let target = words.next().expect("a target").to_owned();
    assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
    noted.lock().expect("unpoisoned").push(target.clone());
    if refuses {
        return caller.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    }
    let mut server = TcpStream::connect(target).await?;
    caller.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut caller, &mut server).await.map(drop)
}

async fn socks5(mut caller: TcpStream, noted: &Mutex<Vec<String>>, refuses: bool) -> std::io::Result<()> {
    let mut hello = [0; 3];
    caller.read_exact(&mut hello).await?;
    assert_eq!(hello, [5, 1, 0]);
    caller.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    caller.read_exact(&mut request).await?;
    let host = match request {
        [5, 1, 0, 1] => {
            let mut ip = [0; 4];
            caller.read_exact(&mut ip).await?;
            std::net::Ipv4Addr::from(ip).to_string()
        }
        [5, 1, 0, 3] => {
            let mut name = vec![0; usize::from(caller.read_u8().await?)];
            caller.read_exact(&mut name).await?;
            String::from_utf8(name).expect("a name")
        }
        other => panic!("{other:?}"),
    };
    let target = format!("{host}:{}", caller.read_u16().await?);
    noted.lock().expect("unpoisoned").push(target.clone());
    if refuses {
        return caller.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    }
    let mut server = TcpStream::connect(target).await?;
    caller.write_all(&[5, 0, 0, 3, 4, b'h', b'e', b'r', b'e', 0, 80]).await?;
    tokio::io::copy_bidirectional(&mut caller, &mut server).await.map(drop)
}

fn through(port: u16, net: NetSpec) -> Arc<TokenSpec> {
    let mut spec = credential(port);
    spec.net = Arc::new(net);
    need(spec)
}

async fn ask(spec: &Arc<TokenSpec>) -> Result<(), String> {
    let engine = Engine::with_pace(quick());
    match engine.reader(spec).unwrap().wait(0, Instant::now() + Duration::from_secs(10)).await {
        Ok(()) => Ok(()),
        Err(Unavailable::Failed(failure)) => Err(failure.message),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_request_goes_through_either_kind_of_proxy() {
    for kind in [EgressKind::Http, EgressKind::Socks5] {
        let (egress, provider) = (Egress::start(kind, false).await, Provider::start([Reply::token("t", 3600)]).await);
        assert_eq!(ask(&through(provider.port(), egress.net(kind))).await, Ok(()));
        assert_eq!(egress.asked(), [format!("127.0.0.1:{}", provider.port())]);
        assert_eq!(provider.count(), 1);
    }
}

#[tokio::test]
async fn tls_goes_through_the_tunnel_from_end_to_end() {
    for kind in [EgressKind::Http, EgressKind::Socks5] {
        let egress = Egress::start(kind, false).await;
        let provider = Provider::start_tls([Reply::token("t", 3600)]).await;
        let mut spec = credential(provider.port());
        spec.token_url.scheme = Scheme::Https;
        spec.net = Arc::new(NetSpec { ca_file: provider.ca_file.clone(), ..egress.net(kind) });
        assert_eq!(ask(&need(spec)).await, Ok(()));
        assert_eq!(egress.asked().len(), 1);
    }
}

#[tokio::test]
async fn another_configuration_reads_the_ca_file_anew_for_tokens_that_it_keeps() {
    let provider = Provider::start_tls([Reply::token("t", 3600)]).await;
    let stranger = Provider::start_tls([Reply::Hang]).await;
    let file = provider.ca_file.clone().unwrap();
    let (right, wrong) = (std::fs::read(&file).unwrap(), std::fs::read(stranger.ca_file.clone().unwrap()).unwrap());
    let mut spec = credential(provider.port());
    spec.token_url.scheme = Scheme::Https;
    spec.net = Arc::new(NetSpec { ca_file: Some(file.clone()), ..NetSpec::default() });
    let (spec, engine) = (need(spec), Engine::with_pace(quick()));
    let take_up = |roots: &[u8]| {
        std::fs::write(&file, roots).unwrap();
        let mut plan = engine.plan();
        let reader = plan.reader(&spec).unwrap();
        plan.adopt();
        reader
    };
    let reader = take_up(&right);
    let wait = async |above: u64| reader.wait(above, Instant::now() + Duration::from_secs(10)).await;
    let reject = async |generation: u64| {
        while reader.reject(generation, Instant::now()) == Rejection::TooFresh {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(wait(0).await.is_ok());

    take_up(&wrong);
    reject(1).await;
    assert!(matches!(wait(1).await, Err(Unavailable::Failed(_))), "the old one is trusted no more");
    assert_eq!(provider.count(), 1);

    // One that is given up changes nothing, neither now nor for the next one.
    std::fs::write(&file, &wrong).unwrap();
    engine.plan().reader(&spec).unwrap();
    take_up(&right);
    let until = Instant::now() + Duration::from_secs(10);
    while wait(1).await.is_err() {
        assert!(Instant::now() < until, "the new one is not trusted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_away_is_named_and_nothing_goes_around_it() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    for (kind, why) in [(EgressKind::Http, "it refused (HTTP 403)"), (EgressKind::Socks5, "not allowed by its rules")] {
        let egress = Egress::start(kind, true).await;
        let message = ask(&through(provider.port(), egress.net(kind))).await.unwrap_err();
        assert!(message.contains(&format!("no way through the egress proxy {}", egress.address)), "{message}");
        assert!(message.contains(why), "{message}");
    }
    let gone = EgressProxy { kind: EgressKind::Http, host: "127.0.0.1".to_owned(), port: 1 };
    let net = NetSpec { egress_proxy: Some(gone), ..NetSpec::default() };
    assert!(ask(&through(provider.port(), net)).await.unwrap_err().contains("egress proxy 127.0.0.1:1"));
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn names_are_resolved_by_the_proxy_and_plain_text_does_not_leave_this_host_through_it() {
    let egress = Egress::start(EgressKind::Socks5, true).await;
    let connector = Connector::new(Arc::new(egress.net(EgressKind::Socks5))).unwrap();
    let target = |scheme| Target { scheme, host: "no-such-host.invalid", port: 443, insecure: false };
    let tls = connector.connect(target(Scheme::Https), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(tls, ConnectError::Proxy { .. }), "{tls}");
    assert_eq!(egress.asked(), ["no-such-host.invalid:443"]);
    let plain = connector.connect(target(Scheme::Http), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(plain, ConnectError::NotLoopback { .. }), "{plain}");
    assert_eq!(egress.asked().len(), 1);
}

#[test]
fn another_way_out_is_another_token() {
    let proxy = |kind, port| {
        let proxy = EgressProxy { kind, host: "proxy.example".to_owned(), port };
        Key::of(&through(1, NetSpec { egress_proxy: Some(proxy), ..NetSpec::default() }))
    };
    let keys = [
        Key::of(&through(1, NetSpec::default())),
        proxy(EgressKind::Http, 80),
        proxy(EgressKind::Http, 81),
        proxy(EgressKind::Socks5, 80),
    ];
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 4);
}
