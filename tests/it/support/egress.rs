//! Egress proxies that let everything through.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// An egress proxy that notes where it was asked to go.
pub(crate) struct Egress {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Egress {
    /// `open` reads what a caller wants, and answers it: `None` = refused.
    fn start(open: fn(&mut TcpStream) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for caller in listener.incoming() {
                let (Ok(mut caller), noted) = (caller, Arc::clone(&noted)) else { continue };
                thread::spawn(move || {
                    let Some(target) = open(&mut caller) else { return };
                    noted.lock().expect("not poisoned").push(target.clone());
                    let Ok(server) = TcpStream::connect(target) else { return };
                    let (there, back) = (handles(&caller, &server), handles(&server, &caller));
                    thread::spawn(move || pass(there));
                    pass(back);
                });
            }
        });
        Self { address, asked }
    }

    /// HTTP CONNECT.
    pub(crate) fn http() -> Self {
        Self::start(|caller| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                caller.read_exact(&mut byte).ok()?;
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("text");
            assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
            let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
            caller.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
            Some(target)
        })
    }

    /// SOCKS5.
    pub(crate) fn socks5() -> Self {
        Self::start(|caller| {
            let (mut hello, mut request, mut length) = ([0; 3], [0; 4], [0]);
            caller.read_exact(&mut hello).ok()?;
            caller.write_all(&[5, 0]).ok()?;
            caller.read_exact(&mut request).ok()?;
            let host = if request[3] == 1 {
                let mut ip = [0; 4];
                caller.read_exact(&mut ip).ok()?;
                IpAddr::from(ip).to_string()
            } else {
                caller.read_exact(&mut length).ok()?;
                let mut name = vec![0; usize::from(length[0])];
                caller.read_exact(&mut name).ok()?;
                String::from_utf8(name).expect("text")
            };
            let mut port = [0; 2];
            caller.read_exact(&mut port).ok()?;
            caller.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
            Some(format!("{host}:{}", u16::from_be_bytes(port)))
        })
    }

    /// One that wants credentials.
    pub(crate) fn closed() -> Self {
        Self::start(|caller| {
            let mut buffer = [0; 4096];
            caller.read(&mut buffer).ok().filter(|read| *read > 0)?;
            let head = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            caller.write_all(head.as_bytes()).ok()?;
            None
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it was asked to go, as HOST:PORT.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn handles(from: &TcpStream, to: &TcpStream) -> (TcpStream, TcpStream) {
    (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"))
}

fn pass((mut from, mut to): (TcpStream, TcpStream)) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
