//! What to do about a connection that was not made.

use std::io::ErrorKind;

use rustls::{CertificateError, Error};

use super::ConnectError;

impl ConnectError {
    /// A sentence or two; `None` where the error's own words say it all.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Name { .. } => Some("Check the host in the URL, this machine's resolver (DNS), and ip_family."),
            Self::Tcp { source, .. } => match source.kind() {
                ErrorKind::ConnectionRefused => Some("Nothing listens there: check host and port of the URL."),
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                    Some("There is no way there from this machine: check the network, ip_family and local_address.")
                }
                _ => None,
            },
            Self::Tls { source, .. } => match source.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
                Some(error) => of_tls(error),
                None if source.kind() == ErrorKind::UnexpectedEof => {
                    Some("It hung up in the middle of the handshake: a firewall, or no TLS server.")
                }
                None => None,
            },
            Self::Timeout { .. } => Some("A firewall may be in the way: is an egress_proxy needed here?"),
            Self::Proxy { .. } => Some("Check egress_proxy."),
            Self::NotLoopback { .. } => Some("Use https://."),
            Self::Certificate { .. } => None,
        }
    }
}

fn of_tls(error: &Error) -> Option<&'static str> {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => Some(
                "This machine does not know the authority behind its certificate: add that authority's certificate with \
                 ca_file (a company's own, or a proxy's that looks into TLS).",
            ),
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                Some("Its certificate is out of date, or this machine's clock is.")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some("Its certificate is for another name: check the host in the URL.")
            }
            _ => None,
        },
        Error::InvalidMessage(_) => Some("It does not speak TLS there: is it http://, or another port?"),
        _ => None,
    }
}
