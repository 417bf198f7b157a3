//! TLS: which roots we trust, built once for each [`NetSpec`], and which certificate we present, one
//! configuration for each [`Identity`].

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, pem::PemObject},
    sign::SingleCertAndKey,
};

use super::pinned::Verifier;
use crate::config::{identity::Identity, model::NetSpec};

/// Sessions that one identity keeps for resumption; rustls' own number.
const SESSIONS: usize = 256;

/// The roots that this system trusts, read once: that takes longer than all the rest of a start.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        let (_, unusable) = roots.add_parsable_certificates(system.certs);
        tracing::debug!(roots = roots.len(), unusable, errors = system.errors.len(), "system roots read");
        if roots.is_empty() {
            tracing::warn!("this system has no root certificates (Debian: ca-certificates); only ca_file is trusted");
        }
        roots
    })
}

/// What was in a `ca_file` when it was read.
pub(super) type Roots = [u8; 32];

/// A client configuration for `spec`: the system's roots and those of its `ca_file`, TLS 1.2 and 1.3.
pub(super) fn client_config(spec: &NetSpec) -> Result<(ClientConfig, Roots), String> {
    let mut roots = system_roots().clone();
    let own = spec.ca_file.as_ref().map_or_else(|| Ok(Vec::new()), |path| read(path))?;
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for certificate in &own {
        digest.update(certificate); // DER tells its own length
    }
    if let Some(path) = &spec.ca_file {
        let bad = |e| format!("ca_file {}: {e}", path.display());
        own.iter().try_for_each(|certificate| roots.add(certificate.clone())).map_err(bad)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let config = if own.is_empty() {
        config.with_root_certificates(roots)
    } else {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = Verifier::new(webpki.map_err(|e| e.to_string())?, own);
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut known = Roots::default();
    known.copy_from_slice(digest.finish().as_ref());
    Ok((config.with_no_client_auth(), known))
}

/// The certificates in a `ca_file`: one at least.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |e: &dyn std::fmt::Display| format!("ca_file {}: {e}", path.display());
    let certs: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| bad(&e))?;
    if certs.is_empty() { Err(bad(&"no certificate in it")) } else { Ok(certs) }
}

/// The same, with a certificate for servers that ask for one. Sessions are kept apart: one that was begun with another
/// certificate, or with none, would be resumed as that one.
pub(super) fn presenting(base: &ClientConfig, identity: &Identity) -> ClientConfig {
    let mut config = base.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.certified()));
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config
}

/// The alert by which a server said that it does not take our certificate, or, where none was `presented`, that it wants
/// one. In TLS 1.3 it comes when the handshake is over for us: with the first read.
pub fn certificate_alert(error: &(dyn std::error::Error + 'static), presented: bool) -> Option<&'static str> {
    let mut error = Some(error);
    while let Some(this) = error {
        // The source of an `io::Error` is that of its inner error, not the inner error itself.
        if let Some(alert) = this.downcast_ref::<std::io::Error>().and_then(alert) {
            return about_certificates(alert, presented);
        }
        error = this.source();
    }
    None
}

/// The alert that a read or a write ended with.
pub fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// As [`alert`] finds it again, for who had to do without the error itself.
pub fn alerted(alert: AlertDescription) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert))
}

/// RFC 8446 section 6.2.
fn about_certificates(alert: AlertDescription, presented: bool) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => "certificate_required",
        // A server that verifies no certificate of ours has no reason for the others.
        _ if !presented => return None,
        AlertDescription::NoCertificate => "no_certificate",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        // The signature on the certificate, or the one that proves its possession.
        AlertDescription::DecryptError => "decrypt_error",
        _ => return None,
    })
}
