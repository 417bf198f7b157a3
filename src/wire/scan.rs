//! Looking for the byte that ends something, eight bytes at a time (the field lines of a head are too short for more).

use super::field::{TOKEN, UNDERSCORE, VALUE, VISIBLE, class};

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

/// Marks every byte that is neither an ASCII letter nor a hyphen.
const fn unlike_most_names(word: u64) -> u64 {
    // Seven bits a byte: no sum below reaches the next byte, so each is judged for itself.
    let low = word & all(0x7f);
    let lower = low | all(0x20);
    let letter = (lower + all(0x80 - b'a')) & !(lower + all(0x7f - b'z'));
    let hyphen = !((low ^ all(b'-')) + all(0x7f));
    (word | !(letter | hyphen)) & all(0x80)
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

/// Whether every byte is visible ASCII.
pub(super) fn is_visible(bytes: &[u8]) -> bool {
    let other = |word| below(word, b'!') | zero(word ^ all(0x7f)) | word & all(0x80);
    find(bytes, 0, other, |byte| class(byte) & VISIBLE == 0).is_none()
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
    let usual = |byte: u8| byte.is_ascii_alphabetic() || byte == b'-';
    let mut end = find(bytes, at, unlike_most_names, |byte| !usual(byte)).unwrap_or(bytes.len());
    let mut seen = 0;
    for &byte in &bytes[end..] {
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

        #[test]
        fn a_name_ends_where_the_slow_way_says(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), b'a'..=b'z', b'A'..=b'Z', Just(b'-'), Just(b'_')], 0..32),
            from in 0_usize..8,
        ) {
            let from = from.min(bytes.len());
            let name = name(&bytes, from);
            let end = bytes[from..].iter().position(|&b| class(b) & TOKEN == 0).map_or(bytes.len(), |n| from + n);
            prop_assert_eq!((name.end, name.has_underscore), (end, bytes[from..end].contains(&b'_')));
        }

        #[test]
        fn visible_is_what_every_byte_is(bytes in prop::collection::vec(b' '..=0x80, 0..32)) {
            prop_assert_eq!(is_visible(&bytes), bytes.iter().all(u8::is_ascii_graphic));
        }
    }
}
