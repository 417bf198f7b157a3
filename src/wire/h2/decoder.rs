//! Reading header blocks (HPACK, RFC 7541).

use std::collections::VecDeque;

use super::{huffman, table};

/// Size of the dynamic table, as RFC 7541 section 4.1 counts it. We ask for no other.
const TABLE: usize = 4096;
/// What each entry counts beside its bytes.
const OVERHEAD: usize = 32;

/// A header block that cannot be read. The connection is of no use any more: its table is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A field that later blocks may refer to.
#[derive(Debug)]
struct Entry {
    /// Its name, then its value.
    bytes: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// Reads the header blocks of one direction of a connection, in their order and none left out.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    /// What the peer has made of [`TABLE`].
    limit: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: TABLE, name: Vec::new(), value: Vec::new() }
    }
}

impl Decoder {
    /// Tells `field` the name and value of each field. A block may unfold to far more than its own length: `field` bounds what it
    /// keeps.
    pub fn decode(&mut self, mut block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), Malformed> {
        let mut begun = false;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let (name, value) = at(&self.entries, integer(&mut block, 7)?)?;
                field(name, value);
            } else if first & 0xe0 == 0x20 {
                // Only before the first field (section 4.2).
                let limit = integer(&mut block, 5)?;
                if begun || limit > TABLE {
                    return Err(Malformed);
                }
                self.limit = limit;
                self.evict(0);
                continue;
            } else {
                let keeps = first & 0x40 != 0;
                let number = integer(&mut block, if keeps { 6 } else { 4 })?;
                self.literal(number, keeps, &mut block, &mut field)?;
            }
            begun = true;
        }
        Ok(())
    }

    /// A field whose value is spelled out, and its name too where `number` is 0.
    fn literal(
        &mut self,
        number: usize,
        keeps: bool,
        block: &mut &[u8],
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let name = match number {
            0 => string(block, &mut self.name)?,
            number => at(&self.entries, number)?.0,
        };
        let value = string(block, &mut self.value)?;
        field(name, value);
        // Copied before the table changes, for the name may come from an entry that is about to leave it.
        let entry = keeps.then(|| Entry { bytes: [name, value].concat().into(), name: name.len() });
        if let Some(entry) = entry {
            self.insert(entry);
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        // One that is larger than the table empties it (section 4.4).
        if size <= self.limit {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Makes room.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.limit {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.size();
        }
    }
}

/// The field with this number: of the static table, or one of those that are kept.
fn at(entries: &VecDeque<Entry>, number: usize) -> Result<(&[u8], &[u8]), Malformed> {
    if let Some((name, value)) = number.checked_sub(1).and_then(|at| table::FIELDS.get(at)) {
        return Ok((name.as_bytes(), value.as_bytes()));
    }
    let at = number.checked_sub(table::SIZE + 1).ok_or(Malformed)?;
    let entry = entries.get(at).ok_or(Malformed)?;
    Ok(entry.bytes.split_at(entry.name))
}

/// An integer whose first byte has so many bits for it (section 5.1). None that means something here is as large as 2²⁸.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let mut next = || -> Result<usize, Malformed> {
        let (first, rest) = block.split_first().ok_or(Malformed)?;
        *block = rest;
        Ok(usize::from(*first))
    };
    let mask = (1 << prefix) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// A string, which lies in the block or, where it is coded, in `own` then (section 5.2).
fn string<'own, 'block: 'own>(block: &mut &'block [u8], own: &'own mut Vec<u8>) -> Result<&'own [u8], Malformed> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if !is_coded {
        return Ok(text);
    }
    own.clear();
    huffman::decode(text, own).ok_or(Malformed)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| fields.push(format!("{}={}", text(name), text(value))))?;
        Ok(fields)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// RFC 7541 appendix C.5 and C.6 with a table of 256 bytes, so that entries leave it.
    #[test]
    fn the_responses_of_the_rfc_are_read_plain_and_coded() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e \
             1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d \
             4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 \
             7369 6f6e 3d31",
        ];
        let coded = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b \
             97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf \
             cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let common = |date: &str| {
            vec![
                "cache-control=private".to_owned(),
                format!("date=Mon, 21 Oct 2013 20:13:{date} GMT"),
                "location=https://www.example.com".to_owned(),
            ]
        };
        let expected = [
            [vec![":status=302".to_owned()], common("21")].concat(),
            [vec![":status=307".to_owned()], common("21")].concat(),
            [
                vec![":status=200".to_owned()],
                common("22"),
                vec![
                    "content-encoding=gzip".to_owned(),
                    "set-cookie=foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1".to_owned(),
                ],
            ]
            .concat(),
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder { limit: 256, ..Decoder::default() };
            for (block, expected) in blocks.iter().zip(&expected) {
                assert_eq!(decoded(&mut decoder, &hex(block)).as_ref(), Ok(expected));
            }
            assert_eq!((decoder.entries.len(), decoder.size), (3, 215));
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let wrong: [&[u8]; 11] = [
            b"\x80",                         // number 0
            b"\xbe",                         // an entry that is not there
            b"\x7e\x01x",                    // ... as a name
            b"\x00\x01",                     // a name that is cut
            b"\x00\x01a\x05b",               // a value that is cut
            b"\x88\x3f\xe1\x1f",             // a new limit behind a field
            b"\x3f\xe2\x1f",                 // one above what we have said
            b"\xff\xff\xff\xff\xff\x01",     // a number that is too large
            b"\xff\x80\x80\x80\x80\x80\x01", // one that never ends
            b"\x00\x81\x18\x00",             // a coded name with wrong padding
            b"\x40",                         // nothing at all
        ];
        for block in wrong {
            assert_eq!(decoded(&mut Decoder::default(), block), Err(Malformed), "{block:02x?}");
        }
    }

    #[test]
    fn the_table_is_never_larger_than_the_peer_has_made_it() {
        let mut decoder = Decoder::default();
        let entry = [&b"\x40\x01a\x7f\x81\x1f"[..], &[b'v'; 4096]].concat();
        let small = b"\x40\x01b\x01c";
        assert!(decoded(&mut decoder, small).is_ok());
        assert!(decoded(&mut decoder, &entry).is_ok(), "a field larger than the table");
        assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
        for _ in 0..1000 {
            assert!(decoded(&mut decoder, small).is_ok());
            assert!(decoder.size <= TABLE);
        }
        assert_eq!(decoded(&mut decoder, b"\x20\x88"), Ok(vec![":status=200".to_owned()]), "no table at all");
        assert_eq!(decoder.size, 0);
        assert!(decoded(&mut decoder, b"\x40\x01b\x01c\xbe").is_err());
        assert_eq!(decoded(&mut decoder, b"\x20\x3f\xe1\x1f\x40\x01b\x01c\xbe").map(|f| f.len()), Ok(2), "and again");
    }

    #[test]
    fn a_name_may_come_from_an_entry_that_its_field_displaces() {
        let mut decoder = Decoder { limit: 40, ..Decoder::default() };
        assert!(decoded(&mut decoder, b"\x40\x03abc\x01d").is_ok());
        assert_eq!(decoded(&mut decoder, b"\x7e\x02ef"), Ok(vec!["abc=ef".to_owned()]));
        assert_eq!(decoded(&mut decoder, b"\xbe"), Ok(vec!["abc=ef".to_owned()]));
    }
}
