//! Real peers: npm `oidc-provider`, nginx, redis, nghttpd, scripts in Python. `tests/run` sees to it that they are there.

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
    _process: Process,
    plain: SocketAddr,
    tls: SocketAddr,
    h2: SocketAddr,
    dir: TestDir,
}

impl Nginx {
    /// Serves the same `server { … }` content in plain text, over TLS 1.2/1.3, and there with HTTP/2 too. `DIR` in it stands for
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
            let (plain, tls, h2) = (free_address(), free_address(), free_address());
            dir.write("nginx.conf", config(&dir, [plain, tls, h2], server));
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
            command.args(["-e", "stderr"]);
            let mut process = Process::spawn("nginx", &mut command);
            if [plain, tls, h2].into_iter().all(|address| listens(&mut process, address)) {
                return Self { _process: process, plain, tls, h2, dir };
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

    /// The same with HTTP/2.
    pub(crate) fn h2_url(&self) -> String {
        format!("https://localhost:{}", self.h2.port())
    }

    /// Its root certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Its directory: what it serves, what was uploaded.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
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

/// `nghttpd`, which speaks nothing but HTTP/2: serves files, or sends back what is uploaded.
pub(crate) struct Nghttpd {
    process: Process,
    address: SocketAddr,
    tls: bool,
}

impl Nghttpd {
    /// Serves the files of `dir`; over TLS with the files `tls.crt` and `tls.key` there.
    pub(crate) fn start(dir: &Path, tls: bool) -> Self {
        for _ in 0..5 {
            let address = free_address();
            let mut command = Command::new(program("nghttpd"));
            command.args(["-v", "--echo-upload", "-a", "127.0.0.1", "-d"]).arg(dir).arg(address.port().to_string());
            if tls {
                command.arg(dir.join("tls.key")).arg(dir.join("tls.crt"));
            } else {
                command.arg("--no-tls");
            }
            let mut process = Process::spawn("nghttpd", &mut command);
            if listens(&mut process, address) {
                return Self { process, address, tls };
            }
        }
        panic!("no free port for nghttpd in five tries");
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`
    pub(crate) fn url(&self) -> String {
        if self.tls { format!("https://localhost:{}", self.address.port()) } else { format!("http://{}", self.address) }
    }

    /// How many requests it got for this path.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let asked = format!(" :path: {path}");
        self.process.output().lines().filter(|line| line.ends_with(&asked)).count()
    }

    /// Everything that it saw.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

/// A server written in Python, of `tests/peers`: it prints `READY PORT`.
pub(crate) struct PythonServer {
    process: Process,
    port: u16,
}

impl PythonServer {
    /// Runs `tests/peers/SCRIPT` with these arguments.
    pub(crate) fn start(script: &str, args: &[&str]) -> Self {
        let process = Process::spawn(script, python(script).args(args));
        let port = process.wait_for_line("READY ").unwrap_or_else(|e| panic!("{e}"));
        Self { process, port: port.parse().expect("a port") }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

/// A script of `tests/peers`, run by Debian's own Python, for which the packages are.
pub(crate) fn python(script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-u").arg("-B").arg(path);
    command
}

/// Runs a program to its end and gives back what it wrote to standard output; panics where it fails, or takes too long.
pub(crate) fn tool<S: AsRef<std::ffi::OsStr>>(program: &str, args: &[S]) -> Vec<u8> {
    let (status, stdout, stderr) = try_tool(program, args);
    let shown = || format!("{}\n{stderr}", String::from_utf8_lossy(&stdout[..stdout.len().min(4000)]));
    assert!(
        status == 0,
        "{program} {:?} ended with {status}:\n{}",
        args.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        shown()
    );
    stdout
}

/// The same for one that may fail: its status, standard output and standard error.
pub(crate) fn try_tool<S: AsRef<std::ffi::OsStr>>(program: &str, args: &[S]) -> (i32, Vec<u8>, String) {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(program).args(args).stdin(std::process::Stdio::null());
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Debian's servers live where an ordinary user's `PATH` does not look.
fn program(name: &str) -> PathBuf {
    let usual = Path::new("/usr/sbin").join(name);
    if usual.exists() { usual } else { name.into() }
}

fn config(dir: &TestDir, [plain, tls, h2]: [SocketAddr; 3], server: &str) -> String {
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
                listen {plain}; listen {tls} ssl; listen {h2} ssl http2;
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
