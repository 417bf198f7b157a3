//! The sandbox over real loopback sockets.

mod api;
mod client;
mod control;
mod described;
mod faults;
mod idp;
mod streams;
