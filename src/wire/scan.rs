//! Looking for the byte that ends something, eight bytes at a time (the field lines of a head are too short for more).

use super::field::{TOKEN, UNDERSCORE, VALUE, class};

/// A byte in all eight places.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks, by its highest bit, the first byte of `word` that is zero. Bytes behind it may be marked wrongly.
const fn zero(word: u64) -> u64 {
    word.wrapping_sub(all(1)) & !word & all(0x80)
}

/// The same for the first byte below `limit`, at most 128.
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(all(limit)) & !word & all(0x80)
}

/// The first byte from `at` on that a function of whole words marks, or of the last few that a function of bytes does.
fn find(bytes: &[u8], mut at: usize, word: impl Fn(u64) -> u64, byte: impl Fn(u8) -> bool) -> Option<usize> {
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let marks = word(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes.get(at..)?.iter().position(|&b| byte(b)).map(|n| at + n)
}

/// The first line feed from `at` on.
pub(super) fn line_feed(bytes: &[u8], at: usize) -> Option<usize> {
    find(bytes, at, |word| zero(word ^ all(b'\n')), |byte| byte == b'\n')
}

/// Where the field value ends that begins at `at`: at the first control byte but the tab, or at the end of all.
pub(super) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let control = |word| below(word, b' ') | zero(word ^ all(0x7f));
    loop {
        match find(bytes, at, control, |byte| class(byte) & VALUE == 0) {
            Some(end) if bytes[end] == b'\t' => at = end + 1,
            end => return end.unwrap_or(bytes.len()),
        }
    }
}

/// What looks like a field name.
pub(super) struct Name {
    /// Where it ends: at the first byte that no name may hold, or at the end of all.
    pub(super) end: usize,
    /// Whether an underscore is in it.
    pub(super) has_underscore: bool,
}

/// The field name that begins at `at`.
pub(super) fn name(bytes: &[u8], at: usize) -> Name {
    let (mut end, mut seen) = (at, 0);
    for &byte in &bytes[at..] {
        let class = class(byte);
        if class & TOKEN == 0 {
            break;
        }
        seen |= class;
        end += 1;
    }
    Name { end, has_underscore: seen & UNDERSCORE != 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_way_finds_what_the_slow_way_finds(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(b'\n'), Just(b'\t'), Just(0x7f), Just(0x80)], 0..64),
            from in 0_usize..8,
        ) {
            let from = from.min(bytes.len());
            let position = |found: &dyn Fn(u8) -> bool| bytes[from..].iter().position(|&b| found(b)).map(|n| from + n);
            prop_assert_eq!(line_feed(&bytes, from), position(&|b| b == b'\n'));
            let ends = |b: u8| b != b'\t' && (b < b' ' || b == 0x7f);
            prop_assert_eq!(value_end(&bytes, from), position(&ends).unwrap_or(bytes.len()));
        }
    }
}
