//! 1 … whether what stands in the sources is another one.

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::secret::Secret;

/// See [`Material::version`]: equal where nothing at all has changed. A stored token is of use as long as the lasting
/// part is the same. Its `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub(super) all: [u8; 32],
    /// Without the client's ready assertion: that is another one on each replica, and each hour.
    pub(super) lasting: [u8; 32],
}

impl Version {
    #[cfg(test)]
    pub(in crate::token) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { all: bytes, lasting: bytes }
    }

    /// The lasting part, which leaves the process only sealed.
    pub(in crate::token) fn to_bytes(self) -> [u8; 32] {
        self.lasting
    }
}

pub(super) fn digest_of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for secret in secrets {
        context.update(&secret.expose().len().to_le_bytes());
        context.update(secret.expose().as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Version(****)")
    }
}
