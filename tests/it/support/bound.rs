//! A provider and its API in one TLS server that asks every client for a certificate and binds each token to it
//! (RFC 8705 section 3).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{Ca, PATIENCE};

/// `POST /token` issues `not-a-token-1`, …; every other path is the API, which takes a token only from the client that
/// it was issued to.
pub(crate) struct BoundServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `x5t#S256` of the certificate that its connection presented.
    pub(crate) thumbprint: String,
    /// Whether the connection resumed a session.
    pub(crate) resumed: bool,
    /// `METHOD TARGET`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
    /// What it was answered with.
    pub(crate) status: u16,
}

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    state: Mutex<State>,
    lifetime: u32,
    keeps_alive: bool,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// Token → thumbprint.
    bound: BTreeMap<String, String>,
    /// Clients that the provider does not know.
    unknown: BTreeSet<String>,
}

/// How a [`BoundServer`] behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Of its tokens, in seconds.
    pub(crate) lifetime: u32,
    /// Whether a connection takes more than one request.
    pub(crate) keeps_alive: bool,
    /// Only TLS 1.2.
    pub(crate) old_tls: bool,
    /// Says that it speaks HTTP/2, which it does not: for clients that don't get that far.
    pub(crate) offers_h2: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { lifetime: 3600, keeps_alive: true, old_tls: false, offers_h2: false }
    }
}

impl BoundServer {
    /// With a certificate of `ca`'s, for clients that have one of `clients`'s.
    pub(crate) fn start(ca: &Ca, clients: &Ca, manner: Manner) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).expect("PEM")).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (chain, key) = ca.issue(&["localhost"]);
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
        let versions: &[_] = if manner.old_tls { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"))
            .expect("a matching key");
        let mut config = config;
        if manner.offers_h2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let Manner { lifetime, keeps_alive, .. } = manner;
        let shared = Arc::new(Shared { lifetime, keeps_alive, ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (config, shared) = (Arc::clone(&config), Arc::clone(&of_thread));
                thread::spawn(move || serve(stream, config, &shared));
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// `https://localhost:PORT`
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// How many tokens it issued.
    pub(crate) fn issued(&self) -> usize {
        self.state().bound.len()
    }

    /// From now on the token endpoint does not know the client with this certificate.
    pub(crate) fn forget(&self, thumbprint: &str) {
        self.state().unknown.insert(thumbprint.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("unpoisoned")
    }
}

impl Drop for BoundServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// `x5t#S256` of the first certificate in a PEM text.
pub(crate) fn thumbprint(pem: &str) -> String {
    of_der(&CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
}

fn of_der(certificate: &CertificateDer<'_>) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate))
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        // A refused certificate ends here; its alert has been sent.
        if tls.conn.complete_io(&mut tls.sock).is_err() {
            return;
        }
    }
    let thumbprint = tls.conn.peer_certificates().map_or_else(String::new, |chain| of_der(&chain[0]));
    let resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    let mut reader = BufReader::new(tls);
    while let Some((line, authorization, body)) = request(&mut reader) {
        let seen = Seen { thumbprint: thumbprint.clone(), resumed, line, authorization, body, status: 0 };
        let answer = shared.answer(seen);
        if reader.get_mut().write_all(answer.as_bytes()).is_err() || reader.get_mut().flush().is_err() {
            return;
        }
        if !shared.keeps_alive {
            reader.get_mut().conn.send_close_notify();
            let _ = reader.get_mut().flush();
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Option<String>, String)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let field = |name: &str| {
        let of = |line: &String| {
            line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
        };
        lines.iter().find_map(of)
    };
    let mut body = vec![0; field("content-length").map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    let line = lines.first()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some((line, field("authorization"), String::from_utf8_lossy(&body).into_owned()))
}

impl Shared {
    fn answer(&self, mut seen: Seen) -> String {
        let mut state = self.state.lock().expect("unpoisoned");
        let (status, more, body) = if seen.line != "POST /token" {
            let token = seen.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
            match token.and_then(|token| state.bound.get(token)) {
                Some(owner) if *owner == seen.thumbprint => (200, "", "{}".to_owned()),
                _ => (401, "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n", "{}".to_owned()),
            }
        } else if state.unknown.contains(&seen.thumbprint) {
            (401, "", r#"{"error":"invalid_client"}"#.to_owned())
        } else {
            let token = format!("not-a-token-{}", state.bound.len() + 1);
            let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{}}}"#, self.lifetime);
            state.bound.insert(token, seen.thumbprint.clone());
            (200, "", body)
        };
        seen.status = status;
        state.seen.push(seen);
        let close = if self.keeps_alive { "" } else { "Connection: close\r\n" };
        format!("HTTP/1.1 {status} X\r\n{more}{close}Content-Length: {}\r\n\r\n{body}", body.len())
    }
}
