//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), for reading. We write strings as they are.

/// Lengths of the codes of all bytes, in bits. The code is canonical: codes of one length follow each other in the order of their
/// bytes, those of the next length behind them, so that the lengths tell everything.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
/// The longest code; the very last of these is the end-of-string symbol, which must not occur.
const LONGEST: usize = 30;
/// Codes of up to so many bits, nearly all of those that occur, are found by one look into a table.
const SHORT: usize = 8;

/// All codes, by their length and place.
struct Codes {
    /// The bytes, in the order of their codes.
    bytes: [u8; 256],
    /// Of each length: the first code, how many there are, and where their bytes begin.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    begin: [u32; LONGEST + 1],
    /// Byte and length of the code that each eight bits begin with; length 0 where it is longer.
    short: [(u8, u8); 1 << SHORT],
}

static CODES: Codes = Codes::new();

impl Codes {
    const fn new() -> Self {
        let none = [0; LONGEST + 1];
        let mut codes = Self { bytes: [0; 256], first: none, count: none, begin: none, short: [(0, 0); 1 << SHORT] };
        let (mut code, mut at, mut length) = (0_u32, 0_usize, 1);
        while length <= LONGEST {
            code <<= 1;
            (codes.first[length], codes.begin[length]) = (code, at as u32);
            let mut byte = 0;
            while byte < 256 {
                if LENGTHS[byte] as usize == length {
                    codes.bytes[at] = byte as u8;
                    if length <= SHORT {
                        let spare = SHORT - length;
                        let mut rest = 0;
                        while rest < 1 << spare {
                            codes.short[((code as usize) << spare) + rest] = (byte as u8, length as u8);
                            rest += 1;
                        }
                    }
                    (code, at) = (code + 1, at + 1);
                    codes.count[length] += 1;
                }
                byte += 1;
            }
            length += 1;
        }
        codes
    }

    /// The byte that the highest bits of `bits` are the code of, and the code's length.
    fn long(&self, bits: u64) -> Option<(u8, usize)> {
        (SHORT + 1..=LONGEST).find_map(|length| {
            let code = (bits >> (64 - length)) as u32;
            let place = code.checked_sub(self.first[length]).filter(|place| *place < self.count[length])?;
            Some((self.bytes[(self.begin[length] + place) as usize], length))
        })
    }
}

/// Appends the string that `coded` stands for; `None` where it stands for none: it is cut, padded with anything but the first
/// bits of the end-of-string symbol or with more than seven of them, or holds that symbol.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The next bits, from the highest on, and how many of them there are.
    let (mut bits, mut have) = (0_u64, 0_usize);
    let mut rest = coded.iter();
    loop {
        while have <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let (mut byte, length) = CODES.short[(bits >> (64 - SHORT)) as usize];
        let mut length = usize::from(length);
        if length == 0 || length > have {
            let is_padding = have < 8 && bits >> (64 - have as u32).min(63) == (1 << have) - 1;
            if have == 0 || is_padding {
                return Some(());
            }
            (byte, length) = CODES.long(bits).filter(|(_, length)| *length <= have)?;
        }
        out.push(byte);
        bits <<= length;
        have -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are written bit by bit, from their definition.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let begin = CODES.begin[length] as usize;
            let place = CODES.bytes[begin..].iter().position(|b| b == byte).unwrap();
            let code = CODES.first[length] + place as u32;
            bits.extend((0..length).rev().map(|bit| if code >> bit & 1 == 1 { '1' } else { '0' }));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes().chunks(8).map(|b| u8::from_str_radix(str::from_utf8(b).unwrap(), 2).unwrap()).collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let examples: [(&[u8], &str); 4] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (coded, text) in examples {
            assert_eq!(decoded(coded).as_deref(), Some(text.as_bytes()));
            assert_eq!(encode(text.as_bytes()), coded);
        }
    }

    #[test]
    fn every_byte_is_read_back_wherever_it_stands() {
        let all: Vec<u8> = (0..=255).collect();
        for shift in 0..8 {
            let text = [&b"0"[..].repeat(shift), &all[..], b"e"].concat();
            assert_eq!(decoded(&encode(&text)), Some(text));
        }
        assert_eq!(decoded(b""), Some(Vec::new()));
        for byte in all {
            assert_eq!(decoded(&encode(&[byte])), Some(vec![byte]));
        }
    }

    #[test]
    fn what_is_cut_or_padded_wrongly_is_refused() {
        let wrong: [&[u8]; 6] = [
            b"\xff",                     // eight bits of padding
            b"\x1f\xff",                 // 'a', then eleven
            b"\xff\xff\xff\xff",         // the end-of-string symbol
            b"\x18",                     // 'a', padded with zeros
            b"\x1f\xff\xff\xff\xff\xff", // 'a', the end-of-string symbol
            b"\xfe",                     // the beginning of a longer code
        ];
        for coded in wrong {
            assert_eq!(decoded(coded), None, "{coded:02x?}");
        }
    }
}
