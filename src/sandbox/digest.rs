//! Digests, fingerprints and random text.

use aws_lc_rs::{digest, rand};

/// SHA-256, as the key of a token: the sandbox keeps no token's text.
pub(super) type Sha256 = [u8; 32];

pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// First 8 hex digits of the SHA-256: how a token is named wherever it is shown.
pub fn fingerprint(token: &str) -> String {
    hex(&sha256(token.as_bytes())[..4])
}

/// `N` random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system's random numbers are there");
    bytes
}

/// A running SHA-256 and the number of bytes that went in.
pub(super) struct Running {
    context: digest::Context,
    length: u64,
}

impl Running {
    pub(super) fn new() -> Self {
        Self { context: digest::Context::new(&digest::SHA256), length: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Length, and the digest in hex.
    pub(super) fn finish(self) -> (u64, String) {
        (self.length, hex(self.context.finish().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha_256() {
        assert_eq!(fingerprint("abc"), "ba7816bf");
        let mut running = Running::new();
        running.update(b"a");
        running.update(b"bc");
        let (length, digest) = running.finish();
        assert_eq!((length, &digest[..8]), (3, "ba7816bf"));
    }
}
