//! The certificates of TLS listeners: read at start, and again when their files change.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::config::{
    identity::Identity,
    model::ListenTls,
    secret::{SecretSource, Shape},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The pair that is presented now.
#[derive(Debug)]
struct Presented(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// A TLS configuration for callers: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1 (ALPN). Its certificate follows its files,
/// by a task that ends with the runtime.
pub(super) fn server_config(files: &ListenTls) -> Result<Arc<ServerConfig>, String> {
    let first = SecretFiles::of(files).read_blocking()?;
    let presented = Arc::new(Presented(ArcSwap::new(first.certified())));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&presented) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio::spawn(follow(SecretFiles::of(files), first, presented));
    Ok(Arc::new(config))
}

/// Presents a new pair once it is whole; what is no pair yet changes nothing, and is told once.
async fn follow(files: SecretFiles, mut current: Identity, presented: Arc<Presented>) {
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match files.read().await {
            Ok(new) if new == current => told = None,
            Ok(new) => {
                tracing::info!(thumbprint = new.thumbprint(), "a new certificate for callers, in {}", files.name());
                presented.0.store(new.certified());
                (current, told) = (new, None);
            }
            Err(why) if told.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::warn!("{why}; the certificate before stays in use");
                told = Some(why);
            }
        }
    }
}

/// Where a pair is read from.
struct SecretFiles {
    cert: PathBuf,
    key: PathBuf,
}

impl SecretFiles {
    fn of(files: &ListenTls) -> Self {
        Self { cert: files.cert.clone(), key: files.key.clone() }
    }

    fn name(&self) -> std::path::Display<'_> {
        self.cert.display()
    }

    fn read_blocking(&self) -> Result<Identity, String> {
        let read = |path: &PathBuf| {
            SecretSource::File(path.clone()).read_shaped_blocking(Shape::Text).map_err(|e| e.to_string())
        };
        self.pair(read(&self.cert)?.expose(), &read(&self.key)?)
    }

    async fn read(&self) -> Result<Identity, String> {
        let (cert, key) = (SecretSource::File(self.cert.clone()), SecretSource::File(self.key.clone()));
        let chain = cert.read_shaped(Shape::Text).await.map_err(|e| e.to_string())?;
        let key = key.read_shaped(Shape::Text).await.map_err(|e| e.to_string())?;
        self.pair(chain.expose(), &key)
    }

    fn pair(&self, chain: &str, key: &crate::config::secret::Secret) -> Result<Identity, String> {
        let pair = Identity::of_pem(chain, key);
        let usable = pair.and_then(|pair| pair.expired(SystemTime::now()).map(|()| pair));
        usable.map_err(|error| format!("{}: {}", self.name(), error.told_of("cert", "key")))
    }
}
