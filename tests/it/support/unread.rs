//! A proxy whose output nobody reads.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use super::{TestDir, Upstream};

/// A running proxy, with `/api` in front of an API that always answers `ok`. Both its outputs are pipes that stay
/// open; after its first line nothing is taken out of them. It is killed when dropped.
pub(crate) struct Unread {
    process: Child,
    address: SocketAddr,
    _dir: TestDir,
    _behind: [Upstream; 2],
}

impl Unread {
    /// With a level of the log, further tables, and further lines of the route.
    pub(crate) fn start(log: &str, tables: &str, route: &str) -> Self {
        let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let (dir, tokens) = (TestDir::new(), Upstream::tokens(3600));
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = false\n{tables}\n[credentials.c]\n\
             client_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n{route}\n",
            tokens.url(),
            api.url()
        );
        let mut process = Command::new(env!("CARGO_BIN_EXE_cupbearer"))
            .arg("-c")
            .arg(dir.write("proxy.toml", config))
            .env_clear()
            .envs([("SECRET", "not-a-secret"), ("CUPBEARER_LOG", log)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        // The pipe stays open in `process`: what is lost with the reader was printed already.
        let read = BufReader::with_capacity(64, process.stdout.as_mut().expect("piped")).read_line(&mut line);
        read.expect("its first line");
        let address = line.trim().strip_prefix("listening on http://").and_then(|a| a.parse().ok());
        let address = address.unwrap_or_else(|| {
            let _ = process.kill();
            panic!("no address: {line}")
        });
        Self { process, address, _dir: dir, _behind: [tokens, api] }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
