//! Why there is no connection.

use std::{io, time::Duration};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::words::in_words;

/// Why there is no connection. The text names the server and never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or to no address of the wanted family.
    #[error("name resolution failed for {host}: {why}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// No address accepted the connection.
    #[error("cannot connect to {host}:{port}{}: {source}", of_several(*addresses))]
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// How many addresses were tried.
        addresses: usize,
        /// Why; of several failures the most telling one.
        source: io::Error,
    },
    /// The handshake failed: certificate, name, version.
    #[error("TLS with {host}:{port} failed: {}", in_words(source))]
    Tls {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The server does not take our certificate, or wants one.
    #[error("{}", certificate_refused(host, *port, *presented, alert))]
    Certificate {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Whether we presented one.
        presented: bool,
        /// The server's word, as RFC 8446 names it.
        alert: &'static str,
    },
    /// Not connected within the timeout.
    #[error("{}", late(host, *port, *timeout, waited_for))]
    Timeout {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The timeout.
        timeout: Duration,
        /// What did not come.
        waited_for: Step,
    },
    /// The egress proxy cannot be reached, or made no tunnel.
    #[error("no way through the egress proxy {proxy}: {why}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        why: String,
    },
    /// Plain text to an address that is not loopback.
    #[error("{host} is not a loopback address and plain http to it is not allowed")]
    NotLoopback {
        /// The host.
        host: String,
    },
}

/// A step on the way to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The server's part of the TCP handshake.
    Tcp,
    /// The egress proxy, or its answer.
    Tunnel {
        /// Its host and port.
        proxy: String,
    },
    /// The TLS handshake: TCP was connected.
    Handshake,
}

impl ConnectError {
    /// What has run out here, if that is why: no fault of the server's.
    pub fn shortage(&self) -> Option<&io::Error> {
        match self {
            Self::Tcp { source, .. } if is_shortage(source) => Some(source),
            _ => None,
        }
    }
}

fn late(host: &str, port: u16, timeout: Duration, waited_for: &Step) -> String {
    match waited_for {
        Step::Tcp => format!("no connection to {host}:{port} within {timeout:?}"),
        Step::Tunnel { proxy } => {
            format!("no way to {host}:{port} through the egress proxy {proxy} within {timeout:?}")
        }
        Step::Handshake => format!("{host}:{port} is connected, but there was no TLS handshake within {timeout:?}"),
    }
}

fn of_several(addresses: usize) -> String {
    if addresses > 1 { format!(" ({addresses} addresses)") } else { String::new() }
}

/// Of the failures of several addresses the one that says most: that somebody is there and refuses says more than that
/// there is no way, and a lack of something here is the reason only where nothing else is.
pub(super) fn most_telling(failures: Vec<io::Error>) -> Option<io::Error> {
    failures.into_iter().min_by_key(|error| match error.kind() {
        _ if is_shortage(error) => 4,
        io::ErrorKind::ConnectionRefused => 0,
        io::ErrorKind::ConnectionReset => 1,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => 3,
        _ => 2,
    })
}

/// Whether descriptors have run out: tells by trying to get one. For failures whose own words don't say so.
pub fn shortage() -> Option<io::Error> {
    Socket::new(Domain::UNIX, Type::STREAM, None).err().filter(is_shortage)
}

/// Descriptors, local ports or buffers have run out here.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|e| e.raw_os_error() == code))
}

/// In words for people; [`ConnectError::Certificate`], or the same where it comes with the first read.
pub fn certificate_refused(host: &str, port: u16, presented: bool, alert: &str) -> String {
    if presented {
        format!("{host}:{port} refused our client certificate (TLS alert {alert})")
    } else {
        format!("{host}:{port} wants a client certificate, and this credential has no client_cert (TLS alert {alert})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_most_telling_one_is_told() {
        let of = |codes: &[Errno]| {
            let failures = codes.iter().map(|code| io::Error::from_raw_os_error(code.raw_os_error())).collect();
            most_telling(failures).and_then(|error| error.raw_os_error())
        };
        let code = |errno: Errno| Some(errno.raw_os_error());
        assert_eq!(of(&[Errno::ADDRNOTAVAIL, Errno::NETUNREACH, Errno::CONNREFUSED]), code(Errno::CONNREFUSED));
        assert_eq!(of(&[Errno::ADDRNOTAVAIL, Errno::NETUNREACH]), code(Errno::NETUNREACH));
        assert_eq!(of(&[Errno::MFILE, Errno::MFILE]), code(Errno::MFILE));
        assert_eq!(of(&[]), None);
    }
}
