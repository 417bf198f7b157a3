//! What the tests are built from: the binary under test, raw clients, scripted upstreams, real peers.
//!
//! Nothing here sleeps to be on time: everything waits for a condition, under one generous deadline.

mod bound;
mod ca;
mod client;
mod cupbearer;
mod dir;
mod dns;
mod dpop;
mod egress;
pub(crate) mod frames;
pub(crate) mod h2;
mod peer;
mod process;
mod sandbox;
mod scene;
mod tls;
mod unread;
mod upstream;

use std::{fmt::Write, time::Duration};

pub(crate) use bound::{BoundServer, Manner, Seen, thumbprint};
pub(crate) use ca::Ca;
pub(crate) use client::{Client, ReadError, Response};
pub(crate) use cupbearer::{Builder, Cupbearer};
pub(crate) use dir::TestDir;
pub(crate) use dns::{Dns, Mood, listeners};
pub(crate) use dpop::{Judge, Tokens, binding_provider, bound_api, bound_api_over_h2, http_date};
pub(crate) use egress::Egress;
pub(crate) use peer::{Nghttpd, Nginx, OidcProvider, PythonServer, RedisServer, python, tool, try_tool};
pub(crate) use process::Process;
pub(crate) use sandbox::Playground;
pub(crate) use scene::{KEY, Scene, Stage, expect_own_token};
pub(crate) use tls::{Ending, TlsUpstream};
pub(crate) use unread::Unread;
pub(crate) use upstream::{Connection, Request, Upstream};

/// How long anything may take before the test fails; far more than a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics with `what` if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many of the bytes sent on a connection its peer's kernel has not taken yet.
pub(crate) fn unsent(stream: &std::net::TcpStream) -> usize {
    let inode = inode(stream);
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(&inode));
    let queue = line.and_then(|line| line.split_whitespace().nth(4)?.split(':').next());
    queue.map_or(0, |queue| usize::from_str_radix(queue, 16).expect("hex"))
}

fn inode(stream: &std::net::TcpStream) -> String {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).expect("an open socket");
    let link = link.to_string_lossy().into_owned();
    link.trim_start_matches("socket:[").trim_end_matches(']').to_owned()
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a String takes all");
    }
    hex
}

/// `length` bytes that no codec leaves alone by accident: every value occurs, and no period hides a lost block.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
