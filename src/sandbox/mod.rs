//! The fake providers and APIs behind `demo`, `sandbox` and the tests.
//!
//! A [`Sandbox`] plays every provider that has a profile as strictly as the real one is known to be, in process, on
//! one loopback listener: `/ipxo/oauth2/token` is a token endpoint, `/ipxo/billing/v1` an API. The founding
//! providers have rules in code and resources of their own; all others are `described` by a file each. The APIs
//! tell what they received, with tokens shown only as fingerprints, and every fault can be ordered.
//!
//! The story of a request:
//! 1. `connection` lets hyper serve the socket, with a `tap` that keeps each `head` as it was written;
//! 2. `service` refuses what a strict server refuses, finds the `provider` and the ordered `fault`;
//! 3. `idp` gives out `tokens`, by a user's `login` too; `api` takes them and answers, `control` is for tests and people;
//! 4. `log` counts; `demo` says how to point a cupbearer at all this.

mod api;
mod connection;
mod content;
mod control;
mod demo;
mod described;
mod digest;
mod fault;
mod head;
mod idp;
mod log;
mod login;
mod options;
mod provider;
mod queue;
mod reply;
mod server;
mod service;
mod tap;
mod tokens;

#[cfg(test)]
mod tests;

pub use demo::{EXAMPLES, Example};
pub use described::{Api, Described, Description, Registered};
pub use digest::fingerprint;
pub use fault::{FaultSpec, GRAMMAR, SpecError};
pub use log::{ClientLog, Log, ProviderLog, TokenLog};
pub use options::*;
pub use provider::{Provider, Side};
pub use server::Sandbox;
