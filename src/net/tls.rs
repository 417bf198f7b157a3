//! TLS identity: which roots we trust. Built once for each [`NetSpec`].

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};

use crate::config::model::NetSpec;

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

/// A client configuration for `spec`: the system's roots and those of its `ca_file`, TLS 1.2 and 1.3,
/// ALPN `http/1.1`.
pub(super) fn client_config(spec: &NetSpec) -> Result<Arc<ClientConfig>, String> {
    let mut roots = system_roots().clone();
    if let Some(path) = &spec.ca_file {
        let bad = |e: &dyn std::fmt::Display| format!("ca_file {}: {e}", path.display());
        let certs: Vec<CertificateDer<'_>> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| bad(&e))?;
        if certs.is_empty() {
            return Err(bad(&"no certificate in it"));
        }
        for cert in certs {
            roots.add(cert).map_err(|e| bad(&e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
