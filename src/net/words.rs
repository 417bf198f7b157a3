//! What went wrong in a TLS handshake, in words for people.

use std::{io, time::Duration};

use rustls::{CertificateError, Error, OtherError};

/// What a handshake ended with.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(error)) => format!("its certificate {}", of_certificate(error)),
        Some(Error::AlertReceived(alert)) => format!("it broke off (TLS alert {alert:?})"),
        Some(Error::InvalidMessage(_)) => "its answer is no TLS".to_owned(),
        Some(Error::PeerIncompatible(_)) => {
            "it speaks no version or cipher of TLS that is spoken here (TLS 1.2 and 1.3)".to_owned()
        }
        Some(Error::NoCertificatesPresented) => "it has shown no certificate".to_owned(),
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        None => error.to_string(),
    }
}

/// Goes on after "its certificate".
fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "was issued by nobody who is trusted here".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired: it was valid until {}", date(not_after.as_secs()))
        }
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("holds only from {} on", date(not_before.as_secs()))
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "has no name that counts (subjectAltName)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "may not be used by a server (extended key usage)".to_owned()
        }
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        CertificateError::Revoked => "was revoked".to_owned(),
        CertificateError::BadSignature => "does not fit the signature of the handshake or of its issuer".to_owned(),
        CertificateError::Other(error) if is_authority(error) => "is an authority's, and no server's".to_owned(),
        _ => "breaks a rule of RFC 5280, or uses an algorithm that is not taken here".to_owned(),
    }
}

/// Whether a server shows the certificate of an authority, which it may only where that stands in `ca_file`.
pub(super) fn is_authority(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// As people write it: a day, with the time in UTC.
fn date(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| format!("{:?} after 1970", Duration::from_secs(seconds)), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_error_is_told_in_words() {
        let told = |error: CertificateError| in_words(&io::Error::new(io::ErrorKind::InvalidData, Error::from(error)));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(
            told(CertificateError::ExpiredContext { time: at(2_000_000_000), not_after: at(1_000_000_000) }),
            "its certificate has expired: it was valid until 2001-09-09T01:46:40Z"
        );
        assert_eq!(told(CertificateError::UnknownIssuer), "its certificate was issued by nobody who is trusted here");
        let authority = OtherError(std::sync::Arc::new(webpki::Error::CaUsedAsEndEntity));
        assert_eq!(told(CertificateError::Other(authority)), "its certificate is an authority's, and no server's");
    }
}
