//! cupbearer: an authenticating reverse proxy that injects OAuth2 bearer tokens.
//!
//! Two stories run through this crate.
//!
//! **The path of a request** (one copy of it per core): [`proxy`] accepts a connection, [`wire`] reads a
//! strict request head, [`rules`] decide which route it takes and whether it may, [`snapshot`] hands over
//! the route's bearer, and the request is forwarded with a fresh `Authorization`.
//!
//! **The life of a token** (one thread): [`config`] says what we hold, [`token`] asks for a token, judges
//! the answer, keeps it fresh, and publishes each [`token::bearer::Bearer`] for the cores to read.
//!
//! The modules stand in the order of those stories; see `ARCHITECTURE.md` for the floors and the arrows.

pub mod config;
pub mod telemetry;
pub mod wire;

pub mod net;
pub mod rules;
pub mod sandbox;

pub mod token;

pub mod snapshot;

pub mod proxy;

pub mod control;

pub mod cli;
