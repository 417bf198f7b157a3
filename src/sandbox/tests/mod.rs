//! The sandbox over real loopback sockets.

mod api;
mod client;
mod control;
mod faults;
mod idp;
mod streams;
