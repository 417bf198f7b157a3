//! `[tokens]`: where tokens outlive the process.

use std::{path::PathBuf, sync::Arc};

use super::{net::NetSpec, upstream::Scheme};
use crate::config::secret::SecretSource;

/// `[tokens]`: where tokens outlive the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// `store`
    pub store: StoreSpec,
    /// `seal_key`: 32 bytes in base64. Needed by every store but memory.
    pub seal_key: Option<SecretSource>,
}

/// `tokens.store`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StoreSpec {
    /// In this process alone.
    #[default]
    Memory,
    /// In sealed files of this directory.
    File(PathBuf),
    /// In a Redis or Valkey that several replicas share, sealed too.
    Redis(RedisSpec),
}

/// `tokens.store = { redis = "redis://HOST:PORT/DATABASE", … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSpec {
    /// `https` for `rediss://`.
    pub scheme: Scheme,
    /// `ca_file`.
    pub net: Arc<NetSpec>,
    /// DNS name or address literal, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u32,
    /// Of an ACL user; `None` = the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretSource>,
}
