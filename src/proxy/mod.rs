//! THE DATA PLANE: the path of a request, one copy of it per core.
//!
//! 1. [`listener`] **accepts** a connection, [`balance`] says on which core, [`peers`] whether its caller has too many, [`refusal`] turns it
//!    away then; [`connection`] serves request after request on it.
//! 2. [`admission`] **admits**: a strict head, within its limits and its time; [`limit`] and [`seats`] give
//!    it its place.
//! 3. [`guard`] **routes**: the one canonical path, the longest prefix,
//! 4. and **guards**: host, origin, caller, policy.
//! 5. [`authorize`] reads the route's bearer, or waits for it with a deadline; [`proof`] proves that a bound token is ours.
//! 6. [`forward`] makes the attempts; [`exchange`] is one of them: both directions at once, on a
//!    connection of [`upstream`]'s pools, bodies moved by [`body`].
//! 7. [`respond`] cleans the answer's head, keeps its references behind the prefix, streams its body;
//!    [`upgrade`] is what follows where it is a WebSocket.
//!
//! Whatever fails ends in [`error`], the only place that makes answers of cupbearer's own.
//! [`record`] is what is told of a request when it has ended.
//! [`worker`] is one core: everything above runs on it alone, without locks, by its own [`clock`]. [`preconnect`] makes connections
//! before they are asked for.
//! [`rehearsal`] asks steps 2 to 4 what they would do with a request, without sending it.

mod admission;
mod authorize;
mod body;
mod buffer;
mod clock;
mod connection;
mod error;
mod exchange;
mod forward;
mod guard;
mod h2;
mod limit;
mod peers;
mod preconnect;
mod proof;
mod record;
mod refusal;
mod respond;
mod seats;
mod socket;
mod timer;
mod upgrade;
mod upstream;

pub mod balance;
pub mod listener;
pub mod rehearsal;
pub mod rig;
pub mod worker;

pub use error::Code;
pub use refusal::{Full, Refusals};
