//! A TLS server that does little, and counts what it was sent.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::PATIENCE;

/// Answers every request on every connection with the same bytes.
pub(crate) struct TlsUpstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    closing: AtomicBool,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
}

impl TlsUpstream {
    /// With this certificate chain and key (PEM).
    pub(crate) fn start(certificate: &str, key: &str, answer: &'static str, ends: Ending) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a loopback port"), certificate, key, answer, ends)
    }

    /// The same on a socket that listens already.
    pub(crate) fn on(listener: TcpListener, certificate: &str, key: &str, answer: &'static str, ends: Ending) -> Self {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a matching key");
        let config = Arc::new(config);
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
                thread::spawn(move || serve(stream, config, &shared, answer, ends));
            }
        });
        Self { address, seen, acceptor: Some(acceptor) }
    }

    /// `https://localhost:PORT`
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many of them finished their handshake.
    pub(crate) fn handshakes(&self) -> usize {
        self.seen.handshakes.load(Ordering::SeqCst)
    }

    /// How many of those went on with the session of an earlier one.
    pub(crate) fn resumed(&self) -> usize {
        self.seen.resumed.load(Ordering::SeqCst)
    }

    /// All plain text that was received.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.seen.bytes.lock().expect("not poisoned").clone()
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is kept for the next request.
    KeepAlive,
    /// With TLS's `close_notify`.
    CloseNotify,
    /// TCP ends and TLS says nothing: may be a cut.
    Cut,
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.seen.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: &Seen, answer: &str, ends: Ending) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        if tls.conn.complete_io(&mut tls.sock).is_err() {
            return;
        }
    }
    if tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        seen.resumed.fetch_add(1, Ordering::SeqCst);
    }
    seen.handshakes.fetch_add(1, Ordering::SeqCst);
    let mut since_answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = tls.read(&mut buffer) {
        if read == 0 {
            return;
        }
        seen.bytes.lock().expect("not poisoned").extend_from_slice(&buffer[..read]);
        since_answer.extend_from_slice(&buffer[..read]);
        if !since_answer.ends_with(b"\r\n\r\n") {
            continue;
        }
        since_answer.clear();
        let _ = tls.write_all(answer.as_bytes());
        let _ = tls.flush();
        if ends == Ending::KeepAlive {
            continue;
        }
        if ends == Ending::CloseNotify {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        return;
    }
}
