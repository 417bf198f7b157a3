//! Questions to a name server, and its answers (RFC 1035). Pure; what comes from the network is believed in nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    /// The address in such a record; `None` where it has not the length of one.
    fn address(self, data: &[u8]) -> Option<IpAddr> {
        match self {
            Self::A => <[u8; 4]>::try_from(data).ok().map(|four| Ipv4Addr::from(four).into()),
            Self::Aaaa => <[u8; 16]>::try_from(data).ok().map(|sixteen| Ipv6Addr::from(sixteen).into()),
        }
    }
}

const CNAME: u16 = 5;
const INTERNET: u16 = 1;
const HEADER: usize = 12;
/// Aliases that are followed.
const MOST_ALIASES: usize = 8;

/// A question that can be sent.
#[derive(Debug, Clone)]
pub(super) struct Question {
    id: u16,
    kind: Kind,
    /// The name as the wire has it, in lower case.
    name: Vec<u8>,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses, perhaps none, for so long.
    Addresses(Vec<IpAddr>, Duration),
    /// There is no such name.
    NoName,
    /// It was too long for a datagram.
    Truncated,
    /// The server cannot or does not want to answer; its response code.
    Failed(u8),
}

impl Question {
    /// `None` where `host` is no name of the DNS: empty or too long labels, too long as a whole.
    pub(super) fn new(id: u16, kind: Kind, host: &str) -> Option<Self> {
        let mut name = Vec::with_capacity(host.len() + 2);
        for label in host.strip_suffix('.').unwrap_or(host).split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
            name.push(length);
            name.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        name.push(0);
        (name.len() <= 255).then_some(Self { id, kind, name })
    }

    /// As a message; recursion is desired.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.name.len() + 4);
        for word in [self.id, 0x0100, 1, 0, 0, 0] {
            out.extend(word.to_be_bytes());
        }
        out.extend(&self.name);
        out.extend(self.kind.code().to_be_bytes());
        out.extend(INTERNET.to_be_bytes());
        out
    }

    /// Reads an answer; `None` where it is none to this question, or malformed.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Answer> {
        let mut reader = Reader { message, at: 0 };
        let (id, flags) = (reader.word()?, reader.word()?);
        let (questions, answers) = (reader.word()?, reader.word()?);
        reader.at = HEADER;
        let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
        if id != self.id || !is_response || questions != 1 || reader.name()? != self.name {
            return None;
        }
        if (reader.word()?, reader.word()?) != (self.kind.code(), INTERNET) {
            return None;
        }
        if flags & 0x0200 != 0 {
            return Some(Answer::Truncated);
        }
        match (flags & 0xf) as u8 {
            0 => self.addresses(reader, answers),
            3 => Some(Answer::NoName),
            code => Some(Answer::Failed(code)),
        }
    }

    /// Follows the aliases from the name that was asked for; the shortest lifetime of all holds for the whole.
    fn addresses(&self, mut reader: Reader<'_>, answers: u16) -> Option<Answer> {
        let mut aliases = Vec::new();
        let mut found = Vec::new();
        for _ in 0..answers {
            let (owner, kind, class) = (reader.name()?, reader.word()?, reader.word()?);
            let ttl = u32::from(reader.word()?) << 16 | u32::from(reader.word()?);
            // RFC 2181 section 8: the highest bit set means zero.
            let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
            let length = usize::from(reader.word()?);
            let (start, end) = (reader.at, reader.at.checked_add(length)?);
            let data = reader.message.get(start..end)?;
            match kind {
                _ if class != INTERNET => {}
                CNAME => aliases.push((owner, reader.name()?, ttl)),
                kind if kind == self.kind.code() => found.push((owner, self.kind.address(data)?, ttl)),
                _ => {}
            }
            reader.at = end;
        }
        let (mut name, mut ttl) = (self.name.clone(), u32::MAX);
        for _ in 0..MOST_ALIASES {
            let Some((_, target, lives)) = aliases.iter().find(|(owner, ..)| *owner == name) else { break };
            (name, ttl) = (target.clone(), ttl.min(*lives));
        }
        found.retain(|(owner, ..)| *owner == name);
        let ttl = found.iter().map(|(.., lives)| *lives).fold(ttl, u32::min);
        let addresses = found.into_iter().map(|(_, ip, _)| ip).collect();
        Some(Answer::Addresses(addresses, Duration::from_secs(ttl.into())))
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u16> {
        let bytes = self.message.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name without compression, in lower case. Pointers lead backwards only, so that it ends (RFC 1035 section 4.1.4).
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let (mut at, mut lowest, mut end) = (self.at, self.at, None);
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => {
                    out.push(0);
                    self.at = end.unwrap_or(at + 1);
                    return (out.len() <= 255).then_some(out);
                }
                1..64 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    out.push(length);
                    out.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += 1 + label.len();
                }
                192.. => {
                    let low = *self.message.get(at + 1)?;
                    end.get_or_insert(at + 2);
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if target >= lowest {
                        return None;
                    }
                    (at, lowest) = (target, target);
                }
                _ => return None,
            }
            if out.len() > 255 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &[u8] = b"\x03api\x07example\x00";

    fn question(kind: Kind) -> Question {
        Question::new(7, kind, "API.example").expect("a name")
    }

    /// A response with these flags and records; a record's owner is its first bytes.
    fn response(flags: u16, kind: Kind, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [7, 0x8180 | flags, 1, records.len() as u16, 0, 0] {
            out.extend(word.to_be_bytes());
        }
        out.extend(NAME);
        out.extend(kind.code().to_be_bytes());
        out.extend(INTERNET.to_be_bytes());
        for (owner, kind, ttl, data) in records {
            out.extend(*owner);
            out.extend(kind.to_be_bytes());
            out.extend(INTERNET.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(*data);
        }
        out
    }

    fn addresses(list: &[&str], ttl: u64) -> Answer {
        let list = list.iter().map(|ip| ip.parse().expect("an address")).collect();
        Answer::Addresses(list, Duration::from_secs(ttl))
    }

    #[test]
    fn a_question_reads_as_the_rfc_has_it() {
        let expected = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07example\x00\x00\x1c\x00\x01";
        assert_eq!(question(Kind::Aaaa).message(), expected);
        for bad in ["", ".", "a..b", &"a".repeat(64), &vec!["abcdefg"; 32].join(".")] {
            assert!(Question::new(7, Kind::A, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_answer_gives_addresses_and_the_shortest_lifetime() {
        let records: &[(&[u8], u16, u32, &[u8])] = &[
            (b"\xc0\x0c", 1, 60, &[192, 0, 2, 1]),
            (NAME, 1, 30, &[192, 0, 2, 2]),
            (b"\xc0\x10", 1, 1, &[9, 9, 9, 9]),
        ];
        let answer = question(Kind::A).answer(&response(0, Kind::A, records));
        assert_eq!(answer, Some(addresses(&["192.0.2.1", "192.0.2.2"], 30)), "another name's address is none of it");
        assert_eq!(
            question(Kind::Aaaa).answer(&response(0, Kind::Aaaa, &[(b"\xc0\x0c", 28, 5, &[0; 16])])),
            Some(addresses(&["::"], 5))
        );
    }

    #[test]
    fn aliases_are_followed_and_count_for_the_lifetime() {
        let records: &[(&[u8], u16, u32, &[u8])] = &[
            (b"\x01b\x00", 1, 60, &[192, 0, 2, 1]),
            (b"\x01a\x00", CNAME, 20, b"\x01B\x00"),
            (b"\xc0\x0c", CNAME, 40, b"\x01a\x00"),
        ];
        assert_eq!(question(Kind::A).answer(&response(0, Kind::A, records)), Some(addresses(&["192.0.2.1"], 20)));
        let circle: &[(&[u8], u16, u32, &[u8])] = &[(b"\xc0\x0c", CNAME, 40, b"\xc0\x0c")];
        assert_eq!(question(Kind::A).answer(&response(0, Kind::A, circle)), Some(addresses(&[], 40)));
    }

    #[test]
    fn what_is_no_answer_to_this_question_is_not_taken() {
        let good = response(0, Kind::A, &[(b"\xc0\x0c", 1, 60, &[192, 0, 2, 1])]);
        let mut other_id = good.clone();
        other_id[1] = 8;
        let mut other_name = good.clone();
        other_name[14] = b'x';
        let mut a_question = good.clone();
        a_question[2] &= 0x7f;
        for (what, message) in [("id", other_id), ("name", other_name), ("no response", a_question)] {
            assert_eq!(question(Kind::A).answer(&message), None, "{what}");
        }
        assert_eq!(question(Kind::Aaaa).answer(&good), None, "another type");
        for length in 0..good.len() {
            assert_eq!(question(Kind::A).answer(&good[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn an_address_has_the_length_of_its_kind() {
        for (kind, right) in [(Kind::A, 4), (Kind::Aaaa, 16)] {
            for length in [0, 3, 4, 5, 15, 16, 17] {
                let message = response(0, kind, &[(b"\xc0\x0c", kind.code(), 60, &[1; 17][..length])]);
                assert_eq!(question(kind).answer(&message).is_some(), length == right, "{kind:?} of {length}");
            }
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let answer = |flags| question(Kind::A).answer(&response(flags, Kind::A, &[]));
        assert_eq!(answer(3), Some(Answer::NoName));
        assert_eq!(answer(2), Some(Answer::Failed(2)));
        assert_eq!(answer(0x0200), Some(Answer::Truncated));
        assert!(matches!(answer(0), Some(Answer::Addresses(none, _)) if none.is_empty()));
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(mut message in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..60) {
            let _ = question(Kind::A).answer(&message);
            // Behind a good beginning too.
            let good = response(0, Kind::A, &[(b"\xc0\x0c", 1, 60, &[192, 0, 2, 1]), (b"\xc0\x0c", CNAME, 1, b"\x01a\xc0\x0c")]);
            message.splice(0..0, good[..at.min(good.len())].iter().copied());
            let _ = question(Kind::A).answer(&message);
        }
    }
}
