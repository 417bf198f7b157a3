//! `grant`: what gets the token.

use crate::config::secret::SecretSource;

/// `grant`, with what it alone needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// No token request: the token itself comes from a secret source.
    Static {
        /// `token`
        token: SecretSource,
    },
    /// RFC 6749 section 4.3.
    Password {
        /// `username`
        username: String,
        /// `password`
        password: SecretSource,
    },
    /// RFC 6749 section 6, with rotation.
    RefreshToken {
        /// `refresh_token`: the first one; the rotated ones live in the store.
        first: Option<SecretSource>,
    },
    /// RFC 6749 section 4.1, by `cupbearer login`; from then on as [`Grant::RefreshToken`].
    AuthorizationCode,
    /// RFC 8628, likewise.
    DeviceCode,
    /// RFC 7523 section 2.1: with the credential's assertion.
    JwtBearer,
    /// No token request: the token is a JWT of our own, signed with `key`, for providers that take it as a bearer.
    SelfSigned,
    /// RFC 8693.
    TokenExchange {
        /// `subject_token`
        subject_token: SecretSource,
        /// `subject_token_type`, a URI.
        subject_token_type: String,
        /// `requested_token_type`, a URI.
        requested_token_type: Option<String>,
    },
}

impl Grant {
    /// As the file names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Static { .. } => "static",
            Self::Password { .. } => "password",
            Self::RefreshToken { .. } => "refresh_token",
            Self::AuthorizationCode => "authorization_code",
            Self::DeviceCode => "device_code",
            Self::JwtBearer => "jwt_bearer",
            Self::SelfSigned => "self_signed",
            Self::TokenExchange { .. } => "token_exchange",
        }
    }

    /// Whether a user has to log in once, by `cupbearer login`.
    pub fn is_login(&self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::DeviceCode)
    }

    /// Its `grant_type` where nothing else is configured.
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            Self::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
            Self::TokenExchange { .. } => "urn:ietf:params:oauth:grant-type:token-exchange",
            other => other.as_str(),
        }
    }

    /// Whether the token is here already, and nobody is asked.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Static { .. } | Self::SelfSigned)
    }

    /// The secret that the grant itself brings.
    pub fn source(&self) -> Option<&SecretSource> {
        match self {
            Self::ClientCredentials
            | Self::AuthorizationCode
            | Self::DeviceCode
            | Self::JwtBearer
            | Self::SelfSigned => None,
            Self::TokenExchange { subject_token, .. } => Some(subject_token),
            Self::Static { token } => Some(token),
            Self::Password { password, .. } => Some(password),
            Self::RefreshToken { first } => first.as_ref(),
        }
    }
}
