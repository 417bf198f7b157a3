//! `[vault]`: the server that `{ vault = … }` secrets come from.

use std::sync::Arc;

use super::{net::NetSpec, upstream::Upstream};
use crate::config::secret::SecretSource;

/// `[vault]`: the server that `{ vault = … }` secrets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSpec {
    /// Its address; plain http only to this machine.
    pub address: Upstream,
    /// How we log in.
    pub login: VaultLogin,
    /// Sent as `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// How connections to it leave.
    pub net: Arc<NetSpec>,
}

/// How we log in to Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLogin {
    /// With a token, re-read for each request: an agent may renew it.
    Token(SecretSource),
    /// By `AppRole`.
    AppRole {
        /// Where the method is mounted below `auth/`.
        mount: String,
        /// `role_id`; no secret.
        role_id: String,
        /// `secret_id`; some roles need none.
        secret_id: Option<SecretSource>,
    },
}
