//! What to do about a connection that was not made.

use std::io::ErrorKind;

use rustls::{CertificateError, Error};

use super::{ConnectError, error::Step, words::is_authority};

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
            Self::Timeout { waited_for, .. } => match waited_for {
                Step::Tcp => Some("A firewall may be in the way: is an egress_proxy needed here?"),
                Step::Tunnel { .. } => Some(PROXY),
                Step::Handshake => Some("Does it speak TLS on that port?"),
            },
            Self::Proxy { .. } => Some(PROXY),
            Self::NotLoopback { .. } => Some("Use https://."),
            Self::Certificate { .. } => None,
        }
    }
}

const PROXY: &str =
    "Check egress_proxy of the credential or route, and what that proxy allows: the server itself was not reached.";

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
                Some("If it has been renewed, this machine's clock is wrong (NTP).")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some("Check the host in the URL: the certificate's subjectAltName must have it.")
            }
            CertificateError::Other(error) if is_authority(error) => {
                Some("If that is the very server, name this certificate in ca_file.")
            }
            _ => None,
        },
        Error::InvalidMessage(_) => Some("Is it http://, or another port?"),
        _ => None,
    }
}
