//! A name server that knows what the test tells it, over UDP and TCP, and is strict about what it is asked.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How it treats whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Good,
    /// It says nothing.
    Silent,
    /// SERVFAIL.
    Failing,
    /// It answers datagrams with "too long" and streams in full.
    Long,
    /// Before the answer it sends others, to other questions and with other ids.
    Forged,
}

struct State {
    records: HashMap<String, (Vec<IpAddr>, u32)>,
    mood: Mood,
    asked: Vec<String>,
    streams: usize,
}

/// The server; it ends when dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("bound");
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let (records, asked) = <_>::default();
        let state = Arc::new(Mutex::new(State { records, mood: Mood::Good, asked, streams: 0 }));
        let closing = Arc::new(AtomicBool::new(false));
        let datagrams = {
            let (state, closing) = (Arc::clone(&state), Arc::clone(&closing));
            thread::spawn(move || datagrams(&udp, &state, &closing))
        };
        let streams = {
            let (state, closing) = (Arc::clone(&state), Arc::clone(&closing));
            thread::spawn(move || {
                for stream in tcp.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = stream.map(|stream| one_stream(stream, &state));
                }
            })
        };
        Self { address, state, closing, threads: vec![datagrams, streams] }
    }

    /// The line of `[server]` that makes it the resolver.
    pub(crate) fn line(&self) -> String {
        format!("resolver = [\"{}\"]", self.address)
    }

    /// From now on `name` has these addresses, for `ttl` seconds.
    pub(crate) fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
        self.state.lock().expect("not poisoned").records.insert(name.to_owned(), (addresses, ttl));
    }

    /// From now on there is no such name.
    pub(crate) fn remove(&self, name: &str) {
        self.state.lock().expect("not poisoned").records.remove(name);
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().expect("not poisoned").mood = mood;
    }

    /// How often it was asked for a name, whatever kind of address.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.state.lock().expect("not poisoned").asked.iter().filter(|asked| *asked == name).count()
    }

    /// Everything it was asked for.
    pub(crate) fn all_asked(&self) -> Vec<String> {
        self.state.lock().expect("not poisoned").asked.clone()
    }

    /// How many questions came over TCP.
    pub(crate) fn streams(&self) -> usize {
        self.state.lock().expect("not poisoned").streams
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            thread.join().expect("every question was well formed");
        }
    }
}

fn datagrams(udp: &UdpSocket, state: &Mutex<State>, closing: &AtomicBool) {
    let mut buffer = [0; 1024];
    while !closing.load(Ordering::SeqCst) {
        let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
        let question = &buffer[..length];
        let mood = state.lock().expect("not poisoned").mood;
        if mood == Mood::Forged {
            let mut other_id = answer(question, state, false).expect("an answer");
            other_id[0] ^= 1;
            // An address where nobody is.
            let at = other_id.len() - 1;
            other_id[at] = 254;
            let _ = udp.send_to(&other_id, from);
            let _ = udp.send_to(&other_id[..7], from);
            let _ = udp.send_to(question, from);
        }
        if let Some(answer) = answer(question, state, mood == Mood::Long) {
            let _ = udp.send_to(&answer, from);
        }
    }
}

fn one_stream(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question).ok()?;
    state.lock().expect("not poisoned").streams += 1;
    let answer = answer(&question, state, false)?;
    let length = u16::try_from(answer.len()).expect("short");
    stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).ok()
}

/// RFC 1035, strictly: one question, recursion desired, nothing else in it.
fn answer(question: &[u8], state: &Mutex<State>, truncated: bool) -> Option<Vec<u8>> {
    assert_eq!(&question[2..12], b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", "flags and counts");
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(std::str::from_utf8(&question[at + 1..end]).expect("text"));
        at = end;
    }
    let (name, kind) = (labels.join("."), u16::from_be_bytes([question[at + 1], question[at + 2]]));
    assert_eq!(name, name.to_ascii_lowercase());
    assert_eq!((&question[at + 3..], kind == 1 || kind == 28), (&[0, 1][..], true), "class and kind");
    let mut state = state.lock().expect("not poisoned");
    state.asked.push(name.clone());
    let (code, records) = match (state.mood, state.records.get(&name)) {
        (Mood::Silent, _) => return None,
        (Mood::Failing, _) => (2, None),
        (_, None) => (3, None),
        (_, Some(records)) => (0, (!truncated).then_some(records)),
    };
    let of_kind = |ip: &&IpAddr| ip.is_ipv4() == (kind == 1);
    let addresses: Vec<&IpAddr> = records.iter().flat_map(|(all, _)| all).filter(of_kind).collect();
    let mut out = question[..2].to_vec();
    out.extend([0x81 | if truncated { 2 } else { 0 }, 0x80 | code]);
    // The first name is an alias of the one that has the addresses.
    let records_of_alias = usize::from(!addresses.is_empty());
    for count in [1, addresses.len() + records_of_alias, 0, 0] {
        out.extend(u16::try_from(count).expect("few").to_be_bytes());
    }
    out.extend(&question[12..]);
    let ttl = records.map_or(0, |(_, ttl)| *ttl).to_be_bytes();
    let target = b"\x04real\xc0\x0c";
    let target_at = 0xc000 | u16::try_from(out.len() + 12).expect("near");
    if !addresses.is_empty() {
        out.extend(b"\xc0\x0c\x00\x05\x00\x01");
        out.extend(ttl);
        out.extend(u16::try_from(target.len()).expect("short").to_be_bytes());
        out.extend(target);
    }
    for ip in addresses {
        out.extend(target_at.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl);
        let data = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// Sockets that listen on one port of several loopback addresses.
pub(crate) fn listeners<const N: usize>(addresses: [&str; N]) -> [TcpListener; N] {
    for _ in 0..100 {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = first.local_addr().expect("bound").port();
        drop(first);
        let ip = |address: &str| address.parse::<IpAddr>().expect("an address");
        let all: Result<Vec<_>, _> = addresses.iter().map(|address| TcpListener::bind((ip(address), port))).collect();
        if let Some(all) = all.ok().and_then(|all| all.try_into().ok()) {
            return all;
        }
    }
    panic!("no port is free on all of {addresses:?}");
}
