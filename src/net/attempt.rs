//! One connection in the making: name → addresses → TCP → tunnel → TLS, under one deadline.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout_at},
};

use super::{
    ConnectError, Connector, Offer, Stream, Target,
    error::{Step, most_telling},
    names::{Failure, Fault, Place},
    race::{Report, race},
    stream::Io,
    tls, tunnel,
};
use crate::config::model::{EgressProxy, Scheme};

/// The head start of each address before the next (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Where `connect_timeout` leaves less than that for each address; no shorter than this.
const LEAST_STAGGER: Duration = Duration::from_millis(10);

/// What is wanted.
pub(super) struct Attempt<'a> {
    pub(super) connector: &'a Connector,
    pub(super) target: Target<'a>,
    pub(super) offer: Offer,
    pub(super) timeout: Duration,
    pub(super) began: Instant,
}

/// An address, and what is remembered of it where it is that of a name.
#[derive(Clone)]
struct Candidate {
    address: SocketAddr,
    place: Option<Arc<Place>>,
}

impl Candidate {
    fn failed(&self, why: &dyn std::fmt::Display) {
        tracing::debug!(address = %self.address, "no connection: {why}");
        if let Some(place) = &self.place {
            place.failed(self.address.port());
        }
    }
}

/// What went wrong after TCP was connected.
struct Broken {
    error: ConnectError,
    /// Another address may do better: the server has said nothing yet, and was sent nothing.
    is_mute: bool,
}

impl Attempt<'_> {
    pub(super) async fn run(&self) -> Result<Stream, ConnectError> {
        let mut left = self.candidates().await?;
        let mut first = None;
        loop {
            let (winner, tcp) = match self.reach(&mut left).await {
                Ok(reached) => reached,
                Err(error) => return Err(first.unwrap_or(error)),
            };
            let rest = (self.began + self.timeout).saturating_duration_since(Instant::now());
            let patience = if left.is_empty() { rest } else { rest / 2 };
            let is_there = AtomicBool::new(false);
            let finished = tokio::time::timeout(patience, self.finish(tcp, &is_there)).await;
            let broken = match finished {
                Ok(Ok(io)) => return Ok(self.done(io, winner)),
                Ok(Err(broken)) => broken,
                Err(_) => {
                    let waited_for = if is_there.load(Relaxed) { Step::Handshake } else { self.way() };
                    Broken { error: self.late(waited_for), is_mute: true }
                }
            };
            if broken.is_mute {
                winner.failed(&broken.error);
            }
            let error = first.unwrap_or(broken.error);
            if !broken.is_mute || left.is_empty() {
                return Err(error);
            }
            first = Some(error);
        }
    }

    fn done(&self, io: Io, winner: Candidate) -> Stream {
        if let Some(place) = &winner.place {
            place.worked(winner.address.port());
        }
        let (host, port, address, took) = (self.target.host, self.target.port, winner.address, self.began.elapsed());
        tracing::debug!(host, port, %address, ?took, tls = io.handshake(), "connected");
        Stream::new(io, winner.place)
    }

    fn late(&self, waited_for: Step) -> ConnectError {
        let Target { host, port, .. } = self.target;
        ConnectError::Timeout { host: host.to_owned(), port, timeout: self.timeout, waited_for }
    }

    /// What is waited for until the target, or the proxy before it, is there.
    fn way(&self) -> Step {
        let (host, port) = self.next_hop();
        self.proxy().map_or(Step::Tcp, |_| Step::Tunnel { proxy: format!("{host}:{port}") })
    }

    fn proxy(&self) -> Option<&EgressProxy> {
        self.connector.spec.egress_proxy.as_ref()
    }

    /// Where TCP goes: to the target, or to the egress proxy before it, which gets the target's name.
    fn next_hop(&self) -> (&str, u16) {
        self.proxy().map_or((self.target.host, self.target.port), |proxy| (&proxy.host, proxy.port))
    }

    /// What fails before the egress proxy is reached is told as its failure.
    fn unreached(&self, error: ConnectError) -> ConnectError {
        match self.proxy() {
            Some(_) if error.shortage().is_none() => self.no_tunnel(error.to_string()),
            _ => error,
        }
    }

    fn no_tunnel(&self, why: String) -> ConnectError {
        let (host, port) = self.next_hop();
        ConnectError::Proxy { proxy: format!("{host}:{port}"), why }
    }

    /// The addresses of the next hop, in the order in which to try them.
    async fn candidates(&self) -> Result<Vec<Candidate>, ConnectError> {
        let stays_here = self.target.scheme == Scheme::Http && !self.target.insecure;
        let not_here = || ConnectError::NotLoopback { host: self.target.host.to_owned() };
        let target_is_here =
            self.target.host == "localhost" || self.target.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        // Plain text stays on this host also with a proxy: target and proxy must be here.
        if stays_here && self.proxy().is_some() && !target_is_here {
            return Err(not_here());
        }
        let found = self.resolve().await.map_err(|error| self.unreached(error))?;
        if stays_here && found.iter().any(|candidate| !candidate.address.ip().is_loopback()) {
            return Err(self.unreached(ConnectError::NotLoopback { host: self.next_hop().0.to_owned() }));
        }
        Ok(found)
    }

    async fn resolve(&self) -> Result<Vec<Candidate>, ConnectError> {
        let (host, port) = self.next_hop();
        let family = self.connector.family();
        let unresolved = |why: &str| ConnectError::Name { host: host.to_owned(), why: why.to_owned() };
        if let Ok(ip) = host.parse::<IpAddr>() {
            let candidate = Candidate { address: SocketAddr::new(ip, port), place: None };
            return if family.admits(ip) {
                Ok(vec![candidate])
            } else {
                Err(unresolved("no address of the wanted family"))
            };
        }
        let name = self.connector.names.name(host, family);
        // Who waits for us has the same timeout, and is to hear the reason.
        let patience = self.timeout * 9 / 10;
        let Ok(places) = timeout_at((self.began + patience).into(), name.places(port)).await else {
            return Err(unresolved(&format!("the resolver has not answered within {patience:?}")));
        };
        match places {
            Ok(places) => {
                let of = |place: Arc<Place>| Candidate { address: SocketAddr::new(place.ip, port), place: Some(place) };
                Ok(places.into_iter().map(of).collect())
            }
            Err(Failure { fault: Fault::Shortage(code), .. }) => {
                let source = code.map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                Err(ConnectError::Tcp { host: host.to_owned(), port, addresses: 0, source })
            }
            Err(failure) => Err(unresolved(&failure.why)),
        }
    }

    /// Connects to the first of `left` that can be reached; takes out that one and those that cannot.
    async fn reach(&self, left: &mut Vec<Candidate>) -> Result<(Candidate, TcpStream), ConnectError> {
        let deadline = self.began + self.timeout;
        let rest = deadline.saturating_duration_since(Instant::now());
        let stagger = (rest / (left.len().max(1) as u32)).clamp(LEAST_STAGGER, STAGGER);
        let mut report = Report::default();
        let dial = |index: usize| self.connector.dial(left[index].address);
        let raced = timeout_at(deadline.into(), race(left.len(), stagger, dial, sleep, &mut report)).await;
        for (index, error) in &report.failed {
            left[*index].failed(error);
        }
        match raced {
            Ok(Some((won, tcp))) => {
                for (index, slow) in left[..won].iter().enumerate() {
                    if !report.failed.iter().any(|(failed, _)| *failed == index) {
                        slow.failed(&"a later one was faster");
                    }
                }
                let winner = left[won].clone();
                let mut index = 0;
                left.retain(|_| {
                    let stays = index != won && !report.failed.iter().any(|(failed, _)| *failed == index);
                    index += 1;
                    stays
                });
                Ok((winner, tcp))
            }
            Ok(None) => {
                let (host, port) = self.next_hop();
                let (host, addresses) = (host.to_owned(), left.len());
                let errors = report.failed.into_iter().map(|(_, error)| error).collect();
                let source = most_telling(errors).unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
                Err(self.unreached(ConnectError::Tcp { host, port, addresses, source }))
            }
            Err(_) => {
                for silent in &left[..report.begun] {
                    silent.failed(&"no answer in time");
                }
                Err(self.late(self.way()))
            }
        }
    }

    /// The tunnel, where there is one, and TLS; tells once the way to the target `is_there`.
    async fn finish(&self, mut tcp: TcpStream, is_there: &AtomicBool) -> Result<Io, Broken> {
        let Target { scheme, host, port, .. } = self.target;
        if let Some(proxy) = self.proxy() {
            let opened = tunnel::open(&mut tcp, proxy, host, port).await;
            opened.map_err(|why| Broken { error: self.no_tunnel(why), is_mute: false })?;
        }
        is_there.store(true, Relaxed);
        if scheme == Scheme::Http {
            return Ok(Io::Plain(tcp));
        }
        let presented = self.connector.presents();
        self.connector.handshake(host, tcp, self.offer).await.map(|tls| Io::Tls(Box::new(tls))).map_err(|source| {
            let host = host.to_owned();
            match tls::certificate_alert(&source, presented) {
                Some(alert) => {
                    Broken { error: ConnectError::Certificate { host, port, presented, alert }, is_mute: false }
                }
                None => Broken {
                    // What rustls itself does not like is something that the server said.
                    is_mute: source.get_ref().is_none_or(|inner| inner.downcast_ref::<rustls::Error>().is_none()),
                    error: ConnectError::Tls { host, port, source },
                },
            }
        })
    }
}
