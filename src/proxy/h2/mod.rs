//! HTTP/2 on both sides, as streams that look to the rest of the data plane like connections of HTTP/1.1.
//!
//! [`server`] serves a caller's connection; each of its requests is an [`Incoming`] in a task of its own.
//! [`shared`] holds connections to upstreams that many requests use at once; each is an [`Outgoing`]. Both
//! translate heads ([`crate::wire::translate`], [`crate::wire::h2`]), so that the same parser and the same rules judge
//! them; bodies pass as they are. A stream that is dropped before its end is reset, so that a truncated body never looks
//! complete.
//!
//! Towards callers, whom nobody vouches for, the `h2` crate does frames, header compression and flow control. Towards
//! upstreams it is our own [`session`]: a request costs two thirds of what it did (docs/performance.md), and of one that was never
//! sent that is known.

mod incoming;
mod lane;
mod outgoing;
mod session;
mod shared;
mod stream;
mod watched;

pub(super) mod server;

pub(super) use incoming::Incoming;
pub(super) use outgoing::{Outgoing, Unsent};
pub(super) use shared::Shared;

/// How many bytes of one stream's body may be under way to us unread: what a slow reader costs. Windows of upstreams' answers may grow.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How many streams one connection has at most, in either direction: what RFC 9113 section 6.5.2 recommends, and what clients
/// assume that have not read our settings yet.
const STREAMS: u32 = 100;
/// Large enough that slow streams together cannot use up what the others need.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
