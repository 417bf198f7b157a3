//! The TLS identity that a credential presents (RFC 8705): a certificate chain and its private key. Pure.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{civil::DateTime, tz::TimeZone};
use rustls::{
    CertificateError, Error, InconsistentKeys,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::secret::Secret;

/// A certificate chain with its key, which belongs to it. Cheap to clone; its `Debug` shows the thumbprint alone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    certified: Arc<CertifiedKey>,
    /// Over the whole chain.
    digest: [u8; 32],
    thumbprint: String,
    from: SystemTime,
    until: SystemTime,
}

/// Why a certificate and a key make no identity. The texts hold nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No PEM block of a certificate.
    #[error("client_cert holds no certificate in PEM form")]
    NoCertificate,
    /// A block that is no X.509 certificate.
    #[error("client_cert holds something that is no X.509 certificate")]
    NotX509,
    /// A certificate that can be read, but not used.
    #[error("client_cert is a certificate that TLS cannot use: X.509 version 1, mostly")]
    UnusableCertificate,
    /// Nothing that can be read as a private key.
    #[error("client_key is no private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted; RSA, ECDSA or Ed25519)")]
    NoKey,
    /// A private key, but none for TLS.
    #[error("client_key holds a private key that TLS cannot use")]
    UnusableKey,
    /// Each is good, but not together.
    #[error("client_cert and client_key don't belong together: the key is not the one of the first certificate")]
    Mismatch,
    /// It was good once.
    #[error("the certificate of client_cert expired on {0}")]
    Expired(String),
}

impl IdentityError {
    /// Whether the key is to blame, not the certificate.
    pub fn blames_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::UnusableKey)
    }

    /// The same of a pair that the file calls otherwise.
    pub fn told_of(&self, cert: &str, key: &str) -> String {
        self.to_string().replace("client_cert", cert).replace("client_key", key)
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoCertificate | Self::NotX509 => "blocks of -----BEGIN CERTIFICATE-----, our own first",
            Self::UnusableCertificate => "issue it as version 3, the form that has extensions",
            Self::NoKey => "`openssl pkey -in OLD -out NEW` writes any private key in this form, without its password",
            Self::UnusableKey => "TLS takes RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519",
            Self::Mismatch => "the certificate of this key stands first in client_cert, then its issuers",
            Self::Expired(_) => "ask its issuer for a new one; files that change later are re-read at once",
        }
    }
}

impl Identity {
    /// Puts both together: `chain` in PEM form, the certificate of the key first. Whether it has expired is
    /// [`Self::expired`]'s to say.
    pub fn of_pem(chain: &str, key: &Secret) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::NoCertificate)?;
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let validities: Option<Vec<_>> = chain.iter().map(|certificate| validity(certificate)).collect();
        let &(from, until) = validities.as_ref().and_then(|all| all.first()).ok_or(IdentityError::NotX509)?;
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf).as_ref());
        let mut context = Context::new(&SHA256);
        for certificate in &chain {
            context.update(certificate);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        // An environment variable has one line, mostly, and the line breaks are written out.
        let key = Zeroizing::new(key.expose().replace("\\n", "\n"));
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| IdentityError::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider());
        let certified = Arc::new(certified.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityError::Mismatch,
            Error::InvalidCertificate(CertificateError::BadEncoding) => IdentityError::NotX509,
            Error::InvalidCertificate(_) => IdentityError::UnusableCertificate,
            // All that is left is the provider's verdict on the key.
            _ => IdentityError::UnusableKey,
        })?);
        Ok(Self(Arc::new(Inner { certified, digest, thumbprint, from, until })))
    }

    /// What TLS needs.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified)
    }

    /// `x5t#S256` of its certificate: what a bound token carries in `cnf` (RFC 8705 section 3.1).
    pub fn thumbprint(&self) -> &str {
        &self.0.thumbprint
    }

    /// Tells one identity from the next: no secret, and no word that anybody else would use for it.
    pub fn tag(&self) -> Secret {
        Secret::new(format!("chain:{}", URL_SAFE_NO_PAD.encode(self.0.digest)))
    }

    /// An error where its time is over.
    pub fn expired(&self, now: SystemTime) -> Result<(), IdentityError> {
        if now < self.0.until { Ok(()) } else { Err(IdentityError::Expired(day(self.0.until))) }
    }

    /// What to warn of, although it can be used: `soon` is when those who use it should know of its end.
    pub fn oddity(&self, now: SystemTime, soon: SystemTime) -> Option<String> {
        if now < self.0.from {
            Some(format!("is not valid before {}", day(self.0.from)))
        } else if soon >= self.0.until {
            Some(format!("expires on {}", day(self.0.until)))
        } else {
            None
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.thumbprint())
    }
}

fn day(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "an unknown day".to_owned(), |at| at.strftime("%F").to_string())
}

/// `notBefore` and `notAfter` (RFC 5280 section 4.1.2.5); `None` where this is no certificate.
fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    const SEQUENCE: u8 = 0x30;
    let of_sequence = |der| element(der).filter(|(tag, _, _)| *tag == SEQUENCE).map(|(_, inner, _)| inner);
    let mut rest = of_sequence(of_sequence(certificate)?)?;
    // version (absent in v1), serialNumber, signature, issuer
    let skipped = if element(rest)?.0 == 0xa0 { 4 } else { 3 };
    for _ in 0..skipped {
        rest = element(rest)?.2;
    }
    let times = of_sequence(rest)?;
    let (tag, from, rest) = element(times)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, time(tag, until)?))
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return None;
        }
        let (number, after) = rest.split_at_checked(digits)?;
        length = number.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `UTCTime` or `GeneralizedTime`, as RFC 5280 wants them: to the second, in UTC.
fn time(tag: u8, content: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let whole = match tag {
        0x17 if text.starts_with(['5', '6', '7', '8', '9']) => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    Some(TimeZone::UTC.to_timestamp(at).ok()?.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};

    use super::*;

    fn pair(year: i32) -> (String, String) {
        made(&KeyPair::generate().unwrap(), year)
    }

    fn made(key: &KeyPair, year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["client.example.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(year, 3, 4);
        (params.self_signed(key).unwrap().pem(), key.serialize_pem())
    }

    fn identity(chain: &str, key: &str) -> Result<Identity, IdentityError> {
        Identity::of_pem(chain, &Secret::new(key.to_owned()))
    }

    #[test]
    fn a_pair_is_told_by_its_thumbprint_and_knows_its_time() {
        let (chain, key) = pair(2061);
        let one = identity(&chain, &key).unwrap();
        assert_eq!(one, identity(&chain, &key.replace('\n', "\\n")).unwrap(), "a key in one line");
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        assert_eq!(one.thumbprint(), URL_SAFE_NO_PAD.encode(digest(&SHA256, &der).as_ref()));
        assert!(!format!("{one:?}").contains("PRIVATE"));
        let now = SystemTime::now();
        one.expired(now).unwrap();
        assert_eq!(one.oddity(now, now), None);
        let end = now + Duration::from_secs(60 * 366 * 86_400);
        assert_eq!(one.expired(end), Err(IdentityError::Expired("2061-03-04".to_owned())));
        assert_eq!(one.oddity(now, end).unwrap(), "expires on 2061-03-04");
        assert_eq!(one.oddity(SystemTime::UNIX_EPOCH, now).unwrap(), "is not valid before 1999-12-31");
    }

    #[test]
    fn a_chain_of_two_is_another_identity_with_the_same_thumbprint() {
        let ((chain, key), (other, _)) = (pair(2040), pair(2040));
        let (short, long) = (identity(&chain, &key).unwrap(), identity(&(chain.clone() + &other), &key).unwrap());
        assert_eq!(short.thumbprint(), long.thumbprint());
        assert_ne!(short, long);
    }

    #[test]
    fn every_usual_kind_of_key_will_do() {
        for kind in [&PKCS_RSA_SHA256, &PKCS_ED25519] {
            let (chain, key) = made(&KeyPair::generate_for(kind).unwrap(), 2055);
            identity(&chain, &key).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_told_without_quoting_it() {
        let ((chain, key), (_, other)) = (pair(2040), pair(2040));
        let error = |chain: &str, key: &str| identity(chain, key).unwrap_err();
        assert_eq!(error(&chain, &other), IdentityError::Mismatch);
        assert_eq!(error(&key, &key), IdentityError::NoCertificate);
        assert_eq!(error("", &key), IdentityError::NoCertificate);
        assert_eq!(error(&chain, &chain), IdentityError::NoKey);
        assert_eq!(error(&chain, "not-a-key"), IdentityError::NoKey);
        let junk = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        assert_eq!(error(junk, &key), IdentityError::NotX509);
        assert_eq!(error(&(chain + junk), &key), IdentityError::NotX509);
    }

    /// One DER element, in the long form where it must be.
    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        let length = &length[(content.len().leading_zeros() as usize / 8).min(7)..];
        let long = (content.len() > 0x7f).then(|| 0x80 | u8::try_from(length.len()).unwrap());
        [&[tag], long.as_slice(), length, content].concat()
    }

    /// The same certificate without its version and its extensions: X.509 version 1. Its signature no longer fits.
    fn as_version_1(chain: &str) -> String {
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let (_, certificate, _) = element(&der).unwrap();
        let (_, mut fields, signed) = element(certificate).unwrap();
        let mut kept = Vec::new();
        while let Some((tag, content, rest)) = element(fields) {
            if !matches!(tag, 0xa0 | 0xa3) {
                kept.extend(wrapped(tag, content));
            }
            fields = rest;
        }
        let der = wrapped(0x30, &[&wrapped(0x30, &kept), signed].concat());
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn a_certificate_that_tls_cannot_use_is_told_from_a_key_that_it_cannot_use() {
        let (chain, key) = pair(2040);
        let old = identity(&as_version_1(&chain), &key).unwrap_err();
        assert_eq!(old, IdentityError::UnusableCertificate);
        assert!(!old.blames_key());
        assert_eq!(old.told_of("cert", "key"), "cert is a certificate that TLS cannot use: X.509 version 1, mostly");
        let odd = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n";
        let unusable = identity(&chain, odd).unwrap_err();
        assert_eq!(unusable, IdentityError::UnusableKey);
        assert!(unusable.blames_key());
    }

    #[test]
    fn lengths_that_lie_are_no_certificate() {
        for der in [&[0x30, 0x85, 1, 1, 1, 1, 1][..], &[0x30, 0x80], &[0x30], &[0x30, 0x82, 0xff, 0xff, 0x30], &[]] {
            assert_eq!(validity(der), None);
        }
    }
}
