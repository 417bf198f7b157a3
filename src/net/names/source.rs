//! Who is asked for a name's addresses: the system's resolver, or the name servers of `[server] resolver`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use dns_lookup::{AddrFamily, AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

use super::servers;
use crate::{config::model::IpFamily, net::shortage};

/// The system's resolver tells no lifetimes: so long its answers are used. It knows them, or the server that it asks does,
/// so that a change is seen this much later at most.
pub(super) const SYSTEM_TTL: Duration = Duration::from_secs(5);

/// A good answer: at least one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// How long it may be used.
    pub(super) ttl: Duration,
}

/// Whose fault it is that there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Fault {
    /// There is no such name, or it has no such address.
    Name,
    /// The resolver gives no answer, or none that can be used.
    Away,
    /// Nothing is left here to ask with; the code of the error.
    Shortage(Option<i32>),
}

/// There is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Failure {
    pub(in crate::net) fault: Fault,
    /// For people.
    pub(in crate::net) why: String,
}

impl Failure {
    pub(super) fn of_name(why: impl Into<String>) -> Self {
        Self { fault: Fault::Name, why: why.into() }
    }

    /// The resolver's failure, unless it is for want of something that has run out here.
    pub(super) fn away(why: impl Into<String>) -> Self {
        match shortage() {
            Some(error) => Self { fault: Fault::Shortage(error.raw_os_error()), why: error.to_string() },
            None => Self { fault: Fault::Away, why: why.into() },
        }
    }
}

/// Who is asked.
#[derive(Debug)]
pub(super) enum Source {
    /// As every program of this machine does it: `/etc/hosts`, `/etc/nsswitch.conf`, `/etc/resolv.conf`, search domains.
    System,
    /// These name servers, and `/etc/hosts`. Names are complete as they are: no search domain is added.
    Servers(Vec<SocketAddr>),
}

impl Source {
    /// The system's resolver where there are no servers.
    pub(super) fn of(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() { Self::System } else { Self::Servers(servers.to_vec()) }
    }

    /// Asks for the addresses of `host`.
    pub(super) async fn look_up(&self, host: &str, family: IpFamily) -> Result<Found, Failure> {
        let found = match self {
            Self::System => {
                let host = host.to_owned();
                let asked = tokio::task::spawn_blocking(move || system(&host, family)).await;
                asked.unwrap_or_else(|error| Err(Failure::away(error.to_string())))?
            }
            Self::Servers(all) => servers::look_up(all, host, family).await?,
        };
        if found.addresses.is_empty() {
            return Err(Failure::of_name("it has no address of the wanted family"));
        }
        Ok(found)
    }
}

fn system(host: &str, family: IpFamily) -> Result<Found, Failure> {
    let address = match family {
        IpFamily::Any => 0,
        IpFamily::V4 => AddrFamily::Inet.into(),
        IpFamily::V6 => AddrFamily::Inet6.into(),
    };
    let hints = AddrInfoHints { address, socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|e| of_system(&e))?;
    let addresses = found.filter_map(|info| info.ok().map(|info| info.sockaddr.ip())).filter(|ip| family.admits(*ip));
    Ok(Found { addresses: addresses.collect(), ttl: SYSTEM_TTL })
}

fn of_system(error: &LookupError) -> Failure {
    match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => {
            Failure::of_name("the resolver knows no such name, or no address of the wanted family")
        }
        LookupErrorKind::Again => Failure::away("the resolver gives no answer at the moment (EAI_AGAIN)"),
        _ => Failure::away(format!("the resolver failed (getaddrinfo: {})", error.error_num())),
    }
}
