//! Names and their addresses, for all cores and token calls of this process.
//!
//! 1. a connection asks for a [`Name`] here, or finds what is known of it: one atomic load, no lock
//! 2. [`keeper`]: one task a name, on a thread of its own, asks the resolver; whoever waits shares what comes of it
//! 3. [`source`]: who is asked, the system's resolver or the [`servers`] of `resolver`, in their own [`message`]s
//! 4. [`place`]: an address, what is remembered of it, and the order in which addresses are tried
//!
//! Names come from the configuration and from the documents of providers it trusts, never from a request: what is
//! remembered is bounded.

mod keeper;
mod message;
mod place;
mod servers;
mod source;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

pub use place::Place;
use place::{Use, in_order};
use source::Source;
pub(super) use source::{Failure, Fault};

use crate::config::model::IpFamily;

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What is known of a name, until then.
#[derive(Debug, Clone)]
struct Known {
    result: Result<Arc<[Arc<Place>]>, Failure>,
    until: Instant,
}

/// A name's addresses of one family, or of both.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    family: IpFamily,
    /// Kept by the name's task.
    known: watch::Sender<Option<Known>>,
    used: Arc<Use>,
    turn: AtomicUsize,
}

impl Name {
    fn new(host: &str, family: IpFamily, known: Option<Known>) -> Arc<Self> {
        let (known, _) = watch::channel(known);
        Arc::new(Self {
            host: host.to_owned(),
            family,
            known,
            used: Arc::default(),
            turn: AtomicUsize::new(usize::from(std::process::id() as u16)),
        })
    }

    /// Always this machine, whatever a resolver says (RFC 6761 section 6.3). IPv4 first: that is where most programs listen.
    fn localhost(host: &str, family: IpFamily) -> Arc<Self> {
        let used = Arc::default();
        let all = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let here = all.into_iter().filter(|ip| family.admits(*ip)).map(|ip| Place::new(ip, &used)).collect();
        Self::new(host, family, Some(Known { result: Ok(here), until: Instant::now() + FOREVER }))
    }

    /// Its addresses, in the order in which to try them at this port. Waits for the resolver where nothing fresh is known.
    pub(super) async fn places(&self, port: u16) -> Result<Vec<Arc<Place>>, Failure> {
        self.used.sign();
        let mut news = self.known.subscribe();
        loop {
            let known = news.borrow_and_update().clone();
            if let Some(known) = known.filter(|known| Instant::now() < known.until) {
                let turn = if is_localhost(&self.host) { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
                return known.result.map(|places| in_order(&places, port, turn));
            }
            self.used.asked.notify_one();
            // The sender stands beside us.
            let _ = news.changed().await;
        }
    }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

type Table = HashMap<(String, IpFamily), Arc<Name>>;

/// All names that one resolver is asked for.
#[derive(Debug)]
pub(super) struct Names {
    source: Arc<Source>,
    known: ArcSwap<Table>,
    /// Where names get their tasks; the thread is started with the first name.
    thread: OnceLock<mpsc::UnboundedSender<Arc<Name>>>,
}

impl Names {
    /// Those of these name servers, of the system's resolver where there are none; the same ones for everybody who asks alike.
    pub(super) fn of(servers: &[SocketAddr]) -> Arc<Self> {
        static ALL: Mutex<Vec<(Vec<SocketAddr>, Weak<Names>)>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, names)| names.strong_count() > 0);
        if let Some(names) = all.iter().find(|(of, _)| of == servers).and_then(|(_, names)| names.upgrade()) {
            return names;
        }
        let names = Arc::new(Self {
            source: Arc::new(Source::of(servers)),
            known: ArcSwap::default(),
            thread: OnceLock::new(),
        });
        all.push((servers.to_vec(), Arc::downgrade(&names)));
        names
    }

    /// A name, which is looked up when its addresses are first wanted.
    pub(super) fn name(&self, host: &str, family: IpFamily) -> Arc<Name> {
        let key = (host.to_owned(), family);
        if let Some(name) = self.known.load().get(&key) {
            return Arc::clone(name);
        }
        let local = is_localhost(host);
        let new = if local { Name::localhost(host, family) } else { Name::new(host, family, None) };
        // Two may come at once: the first one's stays.
        self.known.rcu(|known| {
            let mut next = Table::clone(known);
            next.entry(key.clone()).or_insert_with(|| Arc::clone(&new));
            next
        });
        let name = self.known.load().get(&key).map_or_else(|| Arc::clone(&new), Arc::clone);
        if !local && Arc::ptr_eq(&name, &new) {
            // Without its task, who waits for it is told by the own deadline.
            let _ = self.thread.get_or_init(|| start(Arc::clone(&self.source))).send(new);
        }
        name
    }
}

/// Starts the thread on which names are kept; it ends with the [`Names`] that hold its other half.
fn start(source: Arc<Source>) -> mpsc::UnboundedSender<Arc<Name>> {
    let (sender, mut names) = mpsc::unbounded_channel();
    let run = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            while let Some(name) = names.recv().await {
                tokio::spawn(keeper::keep(name, Arc::clone(&source)));
            }
        });
        // A lookup of the system's cannot be taken back.
        runtime.shutdown_background();
    };
    if let Err(error) = thread::Builder::new().name("names".to_owned()).spawn(run) {
        tracing::error!("no thread to resolve names on: {error}");
    }
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_this_machine_by_definition() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Nobody could answer there.
        let names = Names::of(&["192.0.2.1:53".parse().unwrap()]);
        for (host, family, expected) in [
            ("localhost", IpFamily::Any, "127.0.0.1 ::1"),
            ("api.localhost", IpFamily::V4, "127.0.0.1"),
            ("localhost", IpFamily::V6, "::1"),
        ] {
            let places = runtime.block_on(names.name(host, family).places(443)).expect("at once");
            let found = places.iter().map(|p| p.ip.to_string()).collect::<Vec<_>>().join(" ");
            assert_eq!(found, expected, "{host}");
        }
        assert!(names.thread.get().is_none(), "nobody was asked");
    }

    #[test]
    fn who_asks_alike_shares_what_is_known() {
        let server = |port| -> SocketAddr { ([127, 0, 0, 1], port).into() };
        let one = Names::of(&[server(1)]);
        assert!(Arc::ptr_eq(&one, &Names::of(&[server(1)])));
        assert!(!Arc::ptr_eq(&one, &Names::of(&[server(2)])));
        assert!(Arc::ptr_eq(&one.name("a.example", IpFamily::Any), &one.name("a.example", IpFamily::Any)));
        assert!(!Arc::ptr_eq(&one.name("a.example", IpFamily::Any), &one.name("a.example", IpFamily::V4)));
    }
}
