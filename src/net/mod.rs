//! How a connection leaves this host: names, source address, family, egress proxy, TLS identity. Token calls and
//! upstream connections both go through [`Connector::connect`], so that a credential's egress rules
//! hold for both.

mod advice;
mod connect;
mod stream;
mod tls;
mod tunnel;

pub use connect::{ConnectError, Connector, Offer, Target, certificate_refused, shortage};
pub use stream::Stream;
pub use tls::{alert, alerted, certificate_alert};

pub use crate::config::identity::{Identity, IdentityError};
