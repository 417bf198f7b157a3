//! How a connection leaves this host: names, source address, family, egress proxy, TLS identity. Token calls and
//! upstream connections both go through [`Connector::connect`], so that a credential's egress rules
//! hold for both.
//!
//! 1. [`connect`]: the rules, ready to be used    2. [`attempt`]: one connection in the making
//! 3. [`names`]: a name's addresses               4. [`race`]: which of them is taken
//! 5. [`tunnel`], [`tcp`] and [`tls`] ([`pinned`]): what comes on top   6. [`stream`]: the result

mod advice;
mod attempt;
mod connect;
mod error;
mod names;
mod pinned;
mod race;
mod stream;
mod tcp;
mod tls;
mod tunnel;
mod words;

pub use connect::{Connector, Offer, Target};
pub use error::{ConnectError, certificate_refused, shortage};
pub use names::Place;
pub use stream::Stream;
pub use tcp::Tcp;
pub use tls::{alert, alerted, certificate_alert};

pub use crate::config::identity::{Identity, IdentityError};
