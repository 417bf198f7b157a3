//! Sealing: AES-256-GCM with a random nonce, bound to the token's key, so that sealed tokens can neither be
//! read nor exchanged for one another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::config::secret::Secret;

/// What a sealed record begins with; another format gets another number.
const MAGIC: &[u8] = b"cupbearer-sealed-1\n";

/// Why nothing can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// `tokens.seal_key` is not what it must be.
    #[error("tokens.seal_key must be 32 bytes in base64 (make one with: openssl rand -base64 32)")]
    Key,
    /// The cipher failed; there is no reason why it should.
    #[error("sealing failed")]
    Cipher,
}

/// Seals and opens with `tokens.seal_key`.
pub struct Seal(RandomizedNonceKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(****)")
    }
}

impl Seal {
    /// From 32 bytes in base64.
    pub fn new(key: &Secret) -> Result<Self, SealError> {
        let bytes = key.seal_bytes().ok_or(SealError::Key)?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_| SealError::Key)
    }

    /// `plain`, sealed for `place`.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(aad(place), &mut sealed).map_err(|_| SealError::Cipher)?;
        Ok([MAGIC, nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// What was sealed for `place` with this key; `None` for anything else.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.strip_prefix(MAGIC)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, aad(place), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

fn aad(place: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([MAGIC, place].concat())
}
