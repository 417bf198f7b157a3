//! Who is asking.

use std::{hint::black_box, net::IpAddr};

use crate::config::model::{CallerIdentity, CallerSpec};

/// What the marks of one request say about its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identified {
    /// No known caller.
    None,
    /// This one: its position in the list.
    One(usize),
    /// Two different callers at once; such a request is refused ([`super::policy::Denial::two_identities`]).
    Conflict,
}

/// Finds the caller by the SHA-256 of every key that the request presents (`Authorization`, `X-Api-Key`)
/// and by the peer's address (`None` on a unix socket).
///
/// A key that nobody has counts as no key: an SDK in a known address range may send whatever it has.
/// The whole list is looked at and hashes are compared in constant time, so the duration tells nothing.
pub fn identify(callers: &[CallerSpec], presented: &[[u8; 32]], peer: Option<IpAddr>) -> Identified {
    let peer = peer.map(|address| address.to_canonical());
    let mut found = Identified::None;
    for (index, caller) in callers.iter().enumerate() {
        let is_caller = match &caller.identity {
            CallerIdentity::ApiKey(hash) => {
                presented.iter().fold(false, |found, presented| found | same_hash(hash, presented))
            }
            CallerIdentity::Cidr(ranges) => {
                peer.is_some_and(|peer| ranges.iter().any(|&(network, length)| in_range(peer, network, length)))
            }
        };
        if is_caller {
            found = if found == Identified::None { Identified::One(index) } else { Identified::Conflict };
        }
    }
    found
}

/// Whether a TCP peer is on this host, also through an IPv4-mapped address.
pub fn is_local(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// Compares without an early exit.
fn same_hash(a: &[u8; 32], b: &[u8; 32]) -> bool {
    black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

/// `peer` is canonical; the network may be written IPv4-mapped (`::ffff:10.0.0.0/104`).
fn in_range(peer: IpAddr, network: IpAddr, length: u8) -> bool {
    let (network, length) = match (network, network.to_canonical()) {
        (IpAddr::V6(_), IpAddr::V4(mapped)) if length >= 96 => (IpAddr::V4(mapped), length - 96),
        (network, _) => (network, length),
    };
    match (peer, network) {
        (IpAddr::V4(peer), IpAddr::V4(network)) => {
            length <= 32 && (peer.to_bits() ^ network.to_bits()).checked_shr(32 - u32::from(length)).unwrap_or(0) == 0
        }
        (IpAddr::V6(peer), IpAddr::V6(network)) => {
            length <= 128 && (peer.to_bits() ^ network.to_bits()).checked_shr(128 - u32::from(length)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
