//! Server certificates that stand in a `ca_file` themselves. `openssl req -x509` makes a certificate that says of itself
//! that it is an authority's, and such a one is no server's by RFC 5280 (section 4.2.1.9); who names it in `ca_file`
//! means that very server.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::words::is_authority;

/// Verifies as webpki does, and takes beyond that a certificate which is byte for byte one of `own`: its name, its dates
/// and what it may be used for are checked all the same, and so is the server's signature in the handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// `own`: what stood in the `ca_file`; never a root of the system's.
    pub(super) fn new(webpki: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>>) -> Self {
        Self { webpki, own }
    }

    fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        self.own.iter().any(|own| own.as_ref() == certificate.as_ref())
    }
}

/// The two refusals that only say that a certificate is not issued the way a server's is. webpki looks at the dates
/// before it comes to either: whatever is out of date is refused as that.
fn is_about_issuing(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(cause)) => is_authority(cause),
        _ => false,
    }
}

/// Whether a certificate that is restricted to purposes (RFC 5280 section 4.2.1.12) may be a server's: webpki has not
/// looked where it took offence before. Both are the whole DER of an object identifier, which in a certificate that its
/// owner chose stands for nothing else.
fn may_serve(certificate: &CertificateDer<'_>) -> bool {
    const EXTENDED_KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x25];
    const SERVER_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
    let has = |id: &[u8]| memchr::memmem::find(certificate, id).is_some();
    !has(EXTENDED_KEY_USAGE) || has(SERVER_AUTH)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            Err(error) if is_about_issuing(&error) && self.holds(end_entity) => {
                if !may_serve(end_entity) {
                    return Err(CertificateError::InvalidPurpose.into());
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    use rustls::RootCertStore;

    use super::*;

    /// As `openssl req -x509` makes one: signed by itself, an authority's by its own words.
    fn self_signed(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, CertificateParams) {
        let mut params = CertificateParams::new(vec!["idp.example.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "idp.example.test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        change(&mut params);
        (params.self_signed(key).unwrap(), params)
    }

    /// What a client says that has `own` in its `ca_file` and meets a server with `shown`.
    fn verdict(own: &Certificate, shown: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add(own.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Verifier::new(webpki, vec![own.der().clone()]);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        verifier.verify_server_cert(shown, &[], &ServerName::try_from(name).unwrap(), &[], now).map(drop)
    }

    const NAME: &str = "idp.example.test";

    #[test]
    fn a_self_signed_certificate_of_the_ca_file_is_its_servers() {
        let (own, _) = self_signed(&KeyPair::generate().unwrap(), |_| {});
        assert_eq!(verdict(&own, own.der(), NAME), Ok(()));
    }

    #[test]
    fn it_is_refused_under_another_name() {
        let (own, _) = self_signed(&KeyPair::generate().unwrap(), |_| {});
        let refused = verdict(&own, own.der(), "other.example.test");
        assert!(
            matches!(refused, Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))),
            "{refused:?}"
        );
    }

    #[test]
    fn it_is_refused_once_it_has_expired_and_before_it_holds() {
        let key = KeyPair::generate().unwrap();
        for (from, to) in [(2000, 2020), (2150, 2200)] {
            for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::ExplicitNoCa] {
                let (own, _) = self_signed(&key, |params| {
                    params.is_ca = is_ca;
                    params.not_before = rcgen::date_time_ymd(from, 1, 1);
                    params.not_after = rcgen::date_time_ymd(to, 1, 1);
                });
                let refused = verdict(&own, own.der(), NAME);
                assert!(
                    matches!(
                        refused,
                        Err(Error::InvalidCertificate(
                            CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. }
                        ))
                    ),
                    "{refused:?}"
                );
            }
        }
    }

    #[test]
    fn another_certificate_of_the_same_key_and_name_is_not_it() {
        let key = KeyPair::generate().unwrap();
        let (own, _) = self_signed(&key, |_| {});
        let (other, _) = self_signed(&key, |params| params.not_after = rcgen::date_time_ymd(2199, 1, 1));
        assert!(verdict(&own, other.der(), NAME).is_err());
    }

    #[test]
    fn one_that_is_restricted_to_clients_is_no_servers() {
        let of = |purpose| self_signed(&KeyPair::generate().unwrap(), |p| p.extended_key_usages = vec![purpose]).0;
        let client = of(ExtendedKeyUsagePurpose::ClientAuth);
        assert_eq!(verdict(&client, client.der(), NAME), Err(CertificateError::InvalidPurpose.into()));
        let server = of(ExtendedKeyUsagePurpose::ServerAuth);
        assert_eq!(verdict(&server, server.der(), NAME), Ok(()));
    }

    #[test]
    fn what_it_has_issued_is_trusted_as_before() {
        let key = KeyPair::generate().unwrap();
        let (own, params) = self_signed(&key, |_| {});
        let issuer = Issuer::new(params, key);
        let mut leaf = CertificateParams::new(vec!["api.example.test".to_owned()]).unwrap();
        leaf.not_after = rcgen::date_time_ymd(2200, 1, 1);
        leaf.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        assert_eq!(verdict(&own, leaf.der(), "api.example.test"), Ok(()));
        assert!(verdict(&own, leaf.der(), NAME).is_err());
    }

    #[test]
    fn an_authority_that_the_certificate_was_issued_by_need_not_be_known() {
        let (_, params) = self_signed(&KeyPair::generate().unwrap(), |_| {});
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        leaf.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        assert_eq!(verdict(&leaf, leaf.der(), NAME), Ok(()));
    }
}
