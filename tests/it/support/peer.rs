//! Real peers: npm `oidc-provider` and nginx. `tests/run` sees to it that they are there.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{Ca, PATIENCE, Process, TestDir};

/// The certified OpenID provider and the protected resource of `tests/peers/oidc`, over TLS.
pub(crate) struct OidcProvider {
    process: Process,
    address: SocketAddr,
    dir: TestDir,
    ca: Ca,
}

impl OidcProvider {
    /// Starts it with a certificate of a throw-away authority, whose root is in [`Self::ca_file`].
    pub(crate) fn start() -> Self {
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/oidc");
        assert!(peer.join("node_modules").is_dir(), "run `npm ci` in tests/peers/oidc, or tests/run");
        let dir = TestDir::new();
        let ca = Ca::new();
        let (certificate, key) = ca.issue(&["localhost"]);
        dir.write("ca.pem", ca.pem());
        let mut command = Command::new("node");
        command.current_dir(&peer).arg("server.mjs");
        command.arg(dir.write("tls.pem", certificate)).arg(dir.write("tls.key", key));
        let (client, client_key) = ca.issue(&["client.example.test"]);
        dir.write("client.key", client_key);
        command.arg(dir.write("client.pem", client)).arg(dir.path().join("ca.pem"));
        let process = Process::spawn("oidc-provider", &mut command);
        let ready = process.wait_for_line("READY ").unwrap_or_else(|e| panic!("{e}"));
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("READY is followed by JSON");
        let port = ready["port"].as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
        for (alg, key) in ready["keys"].as_object().into_iter().flatten() {
            dir.write(&format!("{alg}.key"), key.as_str().expect("text"));
        }
        Self { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dir, ca }
    }

    /// Its root certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate of its client `self-signed`, and the key.
    pub(crate) fn client_pair(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("client.pem"), self.dir.path().join("client.key"))
    }

    /// Another certificate for this name from the authority that it trusts, and the key.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = self.ca.issue(&[name]);
        (self.dir.write(&format!("{name}.pem"), chain), self.dir.write(&format!("{name}.key"), key))
    }

    /// The private key of its client `signer-ALG`: SEC1 (ES256), JWK (PS256), PKCS#8 (`EdDSA`).
    pub(crate) fn key_file(&self, alg: &str) -> PathBuf {
        self.dir.path().join(format!("{alg}.key"))
    }

    /// `https://localhost:PORT`: the issuer, and the authority of the protected resource.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

/// nginx in the foreground, as one unprivileged process, from a configuration of the test's own.
pub(crate) struct Nginx {
    process: Process,
    plain: SocketAddr,
    tls: SocketAddr,
    dir: TestDir,
}

impl Nginx {
    /// Serves the same `server { … }` content in plain text and over TLS 1.2/1.3. `DIR` in it stands for
    /// the directory that [`Self::start`]'s `dir` already has its files in.
    pub(crate) fn start(dir: TestDir, server: &str) -> Self {
        let (certificate, key) = {
            let ca = Ca::new();
            dir.write("ca.pem", ca.pem());
            ca.issue(&["localhost"])
        };
        dir.write("tls.pem", certificate);
        dir.write("tls.key", key);
        // nginx cannot say which port it got, so a free one is chosen for it; another process may be
        // quicker to take it.
        for _ in 0..5 {
            let (plain, tls) = (free_address(), free_address());
            dir.write("nginx.conf", config(&dir, plain, tls, server));
            let mut command = Command::new(program());
            command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
            command.args(["-e", "stderr"]);
            let mut process = Process::spawn("nginx", &mut command);
            if listens(&mut process, plain) && listens(&mut process, tls) {
                return Self { process, plain, tls, dir };
            }
            assert!(process.output().contains("Address already in use"), "nginx failed:\n{}", process.output());
        }
        panic!("no free port for nginx in five tries");
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// `https://localhost:PORT`
    pub(crate) fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.tls.port())
    }

    /// Its root certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Its directory: what it serves, what was uploaded.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it printed: errors and, with `access_log /dev/stdout`, requests.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

/// A `redis-server` that keeps nothing on disk.
pub(crate) struct RedisServer {
    address: SocketAddr,
    _process: Process,
    _dir: TestDir,
}

impl RedisServer {
    /// On a port of its own.
    pub(crate) fn start() -> Self {
        for _ in 0..5 {
            let (address, dir) = (free_address(), TestDir::new());
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(dir.path());
            let mut process = Process::spawn("redis-server", &mut command);
            if listens(&mut process, address) {
                return Self { address, _process: process, _dir: dir };
            }
        }
        panic!("no free port for redis-server in five tries");
    }

    /// `redis://127.0.0.1:PORT/0`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }
}

/// Debian's nginx lives where an ordinary user's `PATH` does not look.
fn program() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

fn config(dir: &TestDir, plain: SocketAddr, tls: SocketAddr, server: &str) -> String {
    let dir = dir.path().display().to_string();
    let server = server.replace("DIR", &dir);
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 512; }}
        http {{
            access_log off; default_type application/octet-stream;
            client_body_temp_path {dir}/tmp-body; proxy_temp_path {dir}/tmp-proxy;
            fastcgi_temp_path {dir}/tmp-f; uwsgi_temp_path {dir}/tmp-u; scgi_temp_path {dir}/tmp-s;
            server {{
                listen {plain}; listen {tls} ssl;
                ssl_certificate {dir}/tls.pem; ssl_certificate_key {dir}/tls.key;
                ssl_protocols TLSv1.2 TLSv1.3;
                {server}
            }}
        }}"
    )
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("bound")
}

/// Waits until it accepts connections; `false` when the process ends instead.
fn listens(process: &mut Process, address: SocketAddr) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while process.alive() {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        assert!(Instant::now() < deadline, "{address} does not answer");
        thread::sleep(Duration::from_millis(5));
    }
    false
}
