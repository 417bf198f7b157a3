use std::net::IpAddr;

use super::{Identified, identify, is_local};
use crate::{
    config::model::{CallerIdentity, CallerSpec},
    rules::testing::caller,
};

const ERP: [u8; 32] = [1; 32];
const CRON: [u8; 32] = [2; 32];
const NOBODY: [u8; 32] = [9; 32];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn range(text: &str) -> CallerIdentity {
    let (network, length) = text.split_once('/').expect("a length");
    CallerIdentity::Cidr(vec![(ip(network), length.parse().expect("a number"))])
}

fn callers() -> Vec<CallerSpec> {
    vec![
        caller("erp", CallerIdentity::ApiKey(ERP)),
        caller("cron", CallerIdentity::ApiKey(CRON)),
        caller("office", range("10.1.0.0/16")),
    ]
}

#[test]
fn a_key_names_its_caller() {
    let far = Some(ip("192.0.2.1"));
    assert_eq!(identify(&callers(), &[ERP], far), Identified::One(0));
    assert_eq!(identify(&callers(), &[CRON], None), Identified::One(1));
    assert_eq!(identify(&callers(), &[NOBODY], far), Identified::None);
    assert_eq!(identify(&callers(), &[], far), Identified::None);
    assert_eq!(identify(&[], &[ERP], far), Identified::None);
}

#[test]
fn the_last_bit_of_a_hash_counts() {
    let mut nearly = ERP;
    nearly[31] ^= 0x80;
    assert_eq!(identify(&callers(), &[nearly], None), Identified::None);
}

#[test]
fn two_different_identities_in_one_request_are_a_conflict() {
    assert_eq!(identify(&callers(), &[ERP, CRON], None), Identified::Conflict);
    assert_eq!(identify(&callers(), &[ERP], Some(ip("10.1.2.3"))), Identified::Conflict);
    // The same identity twice is one, and a key that nobody has is none.
    assert_eq!(identify(&callers(), &[ERP, ERP], None), Identified::One(0));
    assert_eq!(identify(&callers(), &[NOBODY], Some(ip("10.1.2.3"))), Identified::One(2));
}

#[test]
fn address_ranges_hold_what_they_say() {
    for (network, inside, outside) in [
        ("10.1.0.0/16", &["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"][..], &["10.2.0.0", "10.0.255.255", "::1"][..]),
        ("192.0.2.7/32", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
        ("0.0.0.0/0", &["255.255.255.255", "::ffff:1.2.3.4"], &["::1", "2001:db8::1"]),
        ("128.0.0.0/1", &["128.0.0.0", "255.0.0.1"], &["127.255.255.255"]),
        ("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::1", "10.1.2.3"]),
        ("2001:db8::1/128", &["2001:db8::1"], &["2001:db8::2"]),
        ("::/0", &["2001:db8::1", "::1"], &["10.1.2.3", "::ffff:10.1.2.3"]),
        ("::ffff:10.1.0.0/112", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.2.0.0"]),
        ("10.1.0.0/33", &[], &["10.1.0.0"]),
    ] {
        let callers = [caller("range", range(network))];
        for address in inside {
            assert_eq!(identify(&callers, &[], Some(ip(address))), Identified::One(0), "{address} in {network}");
        }
        for address in outside {
            assert_eq!(identify(&callers, &[], Some(ip(address))), Identified::None, "{address} in {network}");
        }
    }
}

#[test]
fn a_unix_peer_is_in_no_range() {
    assert_eq!(identify(&[caller("all", range("0.0.0.0/0"))], &[], None), Identified::None);
}

#[test]
fn only_loopback_is_local() {
    for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
        assert!(is_local(ip(address)), "{address}");
    }
    for address in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1"] {
        assert!(!is_local(ip(address)), "{address}");
    }
}
