//! What a token request is made of.

use crate::config::secret::SecretSource;

/// `method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMethod {
    /// POST
    Post,
    /// GET
    Get,
}

/// `body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenBody {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`, one object; names that are JSON pointers make it a deep one.
    Json,
    /// In the query of the request target, without a body.
    Query,
}

/// A parameter or header of the token request: plain text, or a secret.
#[derive(Debug, Clone)]
pub enum Param {
    /// Written in the file.
    Plain(String),
    /// The value of a header, holding `{client_id}`, `{client_secret}`, `{basic}` (base64 of `id:secret`) or
    /// `{assertion}` (a JWT signed with `key`).
    Template(String),
    /// Read from a secret source at each token request.
    Secret(SecretSource),
}

/// `expires_unit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresUnit {
    /// s
    Seconds,
    /// ms
    Millis,
}
