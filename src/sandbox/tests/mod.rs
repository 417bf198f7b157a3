//! The sandbox over real loopback sockets.

mod client;
mod control;
