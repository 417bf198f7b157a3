//! The binary under test.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use super::{Client, Process, Response, TestDir, Upstream};

/// How a [`Cupbearer`] is made: files beside its configuration, environment, the configuration's text.
pub(crate) struct Builder {
    dir: TestDir,
    env: Vec<(String, String)>,
    server: String,
    /// As written in the file.
    listen: String,
    descriptors: Option<usize>,
    /// `listen` of `[admin]`, as written in the file.
    admin: &'static str,
}

/// A running proxy on a loopback port of its own.
pub(crate) struct Cupbearer {
    process: Process,
    address: SocketAddr,
    dir: TestDir,
}

impl Builder {
    /// Writes a file beside the configuration; gives back where it stands.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.dir.write(name, content)
    }

    /// Sets an environment variable. Apart from these the proxy's environment is empty.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further line of `[server]`, such as `workers = 1`.
    pub(crate) fn server(mut self, line: &str) -> Self {
        self.server = format!("{}{line}\n", self.server);
        self
    }

    /// Listens here instead of on a free loopback port.
    pub(crate) fn listen(self, address: &str) -> Self {
        Self { listen: format!("\"{address}\""), ..self }
    }

    /// Listens with TLS, with the files `tls.crt` and `tls.key`.
    pub(crate) fn listen_tls(self) -> Self {
        let tls = "{ cert = \"tls.crt\", key = \"tls.key\" }";
        Self { listen: format!("{{ address = \"127.0.0.1:0\", tls = {tls} }}"), ..self }
    }

    /// Listens in plain text and, with the files `tls.crt` and `tls.key`, over TLS.
    pub(crate) fn listen_both(self) -> Self {
        let tls = "{ cert = \"tls.crt\", key = \"tls.key\" }";
        Self { listen: format!("[\"127.0.0.1:0\", {{ address = \"127.0.0.1:0\", tls = {tls} }}]"), ..self }
    }

    /// With an admin address, on a free port.
    pub(crate) fn admin(self) -> Self {
        Self { admin: "\"127.0.0.1:0\"", ..self }
    }

    /// Limits its file descriptors.
    pub(crate) fn descriptors(self, most: usize) -> Self {
        Self { descriptors: Some(most), ..self }
    }

    /// Starts the proxy with this configuration (`[server]` and `[admin]` are written already) and waits
    /// until it listens.
    pub(crate) fn start(self, config: &str) -> Cupbearer {
        let mut command = self.command(config);
        let Self { dir, .. } = self;
        let process = Process::spawn("cupbearer", command.arg("serve").arg("-c").arg(dir.path().join("proxy.toml")));
        let url = process.wait_for_line("listening on http").unwrap_or_else(|e| panic!("{e}"));
        let address = url.split_once("://").and_then(|(_, address)| address.trim_end().parse().ok());
        let address = address.unwrap_or_else(|| panic!("`listening on http{url}` has no address"));
        Cupbearer { process, address, dir }
    }

    /// Starts it with a configuration that should be refused; gives back its status and all it printed.
    pub(crate) fn start_badly(self, config: &str) -> (ExitStatus, String) {
        let mut command = self.command(config);
        let Self { dir, .. } = self;
        Process::spawn("cupbearer", command.arg("serve").arg("-c").arg(dir.path().join("proxy.toml"))).finish()
    }

    /// Runs another command with this configuration; its working directory lives as long as the builder.
    pub(crate) fn run(&self, config: &str, args: &[&str]) -> Process {
        let mut command = self.command(config);
        Process::spawn("cupbearer", command.args(args).arg("-c").arg(self.dir.path().join("proxy.toml")))
    }

    fn command(&self, config: &str) -> Command {
        let Self { listen, server, admin, .. } = self;
        let text = format!("[server]\nlisten = {listen}\n{server}[admin]\nlisten = {admin}\n{config}");
        self.dir.write("proxy.toml", text);
        let binary = env!("CARGO_BIN_EXE_cupbearer");
        let mut command = match self.descriptors {
            None => Command::new(binary),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command.current_dir(self.dir.path()).env_clear();
        // Everything is logged in every test, so that every test can tell whether something leaks.
        command.env("CUPBEARER_LOG", "trace");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Cupbearer {
    /// In front of one upstream, at `/api`, with further lines of its credential and its route.
    pub(crate) fn before(upstream: &str, tokens: &Upstream, credential: &str, route: &str) -> Self {
        Self::builder().env("SECRET", "not-a-secret").start(&format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\n{credential}\n[[routes]]\nprefix = \"/api\"\nupstream = \"{upstream}\"\n\
             credential = \"c\"\n{route}\n",
            tokens.url()
        ))
    }

    /// A new one, to be described.
    pub(crate) fn builder() -> Builder {
        let listen = "\"127.0.0.1:0\"".to_owned();
        let (env, server) = (Vec::new(), String::new());
        Builder { dir: TestDir::new(), env, server, listen, descriptors: None, admin: "false" }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://localhost:PORT`, where it listens over TLS too.
    pub(crate) fn tls_url(&self) -> String {
        let line = self.process.wait_for_line("listening on https://").unwrap_or_else(|e| panic!("{e}"));
        format!("https://localhost:{}", line.rsplit(':').next().expect("a port"))
    }

    /// Its admin address; it must have one.
    pub(crate) fn admin(&self) -> SocketAddr {
        let address = self.process.wait_for_line("admin on http://").unwrap_or_else(|e| panic!("{e}"));
        address.parse().expect("an address")
    }

    /// What the admin address answers to a GET.
    pub(crate) fn admin_get(&self, path: &str) -> Response {
        let address = self.admin();
        Client::connect(address).exchange(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
    }

    /// One whole number of `/metrics`: `NAME{LABELS}` as it stands there; 0 where it does not.
    pub(crate) fn metric(&self, sample: &str) -> usize {
        let page = self.admin_get("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Its configuration's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process itself: signals, memory, output.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// A new connection to it.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.request("GET", target, "", b"")
    }

    /// One request on a connection of its own. `fields` are whole lines, each with its `\r\n`;
    /// Content-Length is added where there is a body.
    pub(crate) fn request(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Response {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let address = self.address;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{length}{fields}\r\n");
        let mut client = self.connect();
        client.send(head);
        client.send(body);
        if method == "HEAD" { client.head_response() } else { client.response() }
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// How many callers' connections each worker serves, of workers that have any: what each of them has in its own
    /// set of watched descriptors (epoll).
    pub(crate) fn connections_by_worker(&self) -> Vec<usize> {
        let own = format!("/proc/{}", self.process.id());
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string(format!("{own}/net/tcp")).expect("Linux");
        let callers: HashSet<&str> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields[1].ends_with(&port) && fields[3] == "01")
            .map(|fields| fields[9])
            .collect();
        // A runtime may hold several descriptors of one set.
        let mut sets = HashSet::new();
        for entry in std::fs::read_dir(format!("{own}/fdinfo")).expect("it runs").flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let inodes = text.lines().filter_map(|line| line.split("ino:").nth(1)?.split_whitespace().next());
            let inodes = inodes.filter_map(|hex| u64::from_str_radix(hex, 16).ok()).map(|inode| inode.to_string());
            sets.insert(inodes.filter(|inode| callers.contains(inode.as_str())).collect::<BTreeSet<_>>());
        }
        sets.iter().map(BTreeSet::len).filter(|&count| count > 0).collect()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> usize {
        self.status("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn most_memory(&self) -> usize {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs").count()
    }

    /// The command line that every user of the host can read.
    pub(crate) fn command_line(&self) -> String {
        let raw = std::fs::read(format!("/proc/{}/cmdline", self.process.id())).expect("it runs");
        String::from_utf8_lossy(&raw).into_owned()
    }

    /// Panics if any of these stands in anything that was printed so far, at trace level.
    pub(crate) fn expect_never_printed(&self, secrets: &[&str]) {
        let output = self.process.output();
        for secret in secrets {
            let line = output.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "a secret was printed: {line:?}");
        }
    }

    /// Ends it with SIGTERM; panics unless it drains and exits with 0. Gives back all that it printed.
    pub(crate) fn stop(self) -> String {
        self.process.signal("TERM");
        self.wait_for_end()
    }

    /// Waits for its end after a signal; panics unless it exits with 0. Gives back all that it printed.
    pub(crate) fn wait_for_end(self) -> String {
        let (status, output) = self.process.finish();
        assert!(status.success(), "SIGTERM should end in 0, but {status}:\n{output}");
        output
    }
}
