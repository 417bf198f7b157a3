//! Longest prefix over the compiled routes: ten thousand cost the same as one.

use super::path::CanonicalPath;

/// Route prefixes, found by hash at each segment boundary of a path.
///
/// The hash is FNV-1a with a fixed start: fast, extended byte by byte, and predictable. That is harmless
/// here: what is *in* the table comes from the operator, callers only look up, and no look-up can probe
/// further than the operator's own prefixes happen to collide.
#[derive(Debug, Clone)]
pub struct Table {
    /// Open addressing, at most half full: 0 = free, else the position in `entries`, plus 1.
    slots: Box<[u32]>,
    entries: Vec<Entry>,
    /// Length of the longest prefix: nothing beyond it is hashed.
    longest: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    hash: u64,
    prefix: Box<[u8]>,
    index: usize,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Position of the prefix in the list given to [`Table::new`].
    pub index: usize,
    /// Where the rest below the prefix begins in the raw path. The rest is empty or begins with `/`.
    pub rest_raw_offset: usize,
    /// The same place in the decoded path.
    pub rest_decoded_offset: usize,
}

impl Table {
    /// Compiles prefixes as the model has them: empty (everything) or `/…` without a trailing slash.
    /// They are compared decoded, so `/a%20b` and `/a b` are one; of equal ones the first counts.
    pub fn new<P: AsRef<str>>(prefixes: &[P]) -> Self {
        let size = (prefixes.len() * 2).next_power_of_two().max(2);
        let mut table = Self { slots: vec![0; size].into(), entries: Vec::with_capacity(prefixes.len()), longest: 0 };
        for (index, prefix) in prefixes.iter().enumerate() {
            let prefix = decoded_prefix(prefix.as_ref().as_bytes());
            let hash = prefix.iter().fold(SEED, |hash, &byte| step(hash, byte));
            if table.find(hash, &prefix).is_none() {
                table.longest = table.longest.max(prefix.len());
                table.insert(Entry { hash, prefix, index });
            }
        }
        table
    }

    /// The longest prefix of `path` on a segment boundary.
    pub fn lookup(&self, path: &CanonicalPath<'_>) -> Option<Match> {
        let (index, rest_decoded_offset) = self.longest_prefix(path.decoded())?;
        Some(Match { index, rest_raw_offset: path.raw_offset(rest_decoded_offset), rest_decoded_offset })
    }

    /// The same over bytes: the prefix's index and its length.
    pub fn longest_prefix(&self, path: &[u8]) -> Option<(usize, usize)> {
        let mut found = self.find(SEED, b"").map(|index| (index, 0));
        let mut hash = SEED;
        for (at, &byte) in path.iter().enumerate().take(self.longest + 1) {
            if byte == b'/'
                && let Some(index) = self.find(hash, &path[..at])
            {
                found = Some((index, at));
            }
            hash = step(hash, byte);
        }
        if path.len() <= self.longest
            && let Some(index) = self.find(hash, path)
        {
            found = Some((index, path.len()));
        }
        found
    }

    fn find(&self, hash: u64, prefix: &[u8]) -> Option<usize> {
        let mut slot = self.slot(hash);
        loop {
            let entry = &self.entries[self.slots[slot].checked_sub(1)? as usize];
            if entry.hash == hash && *entry.prefix == *prefix {
                return Some(entry.index);
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    fn insert(&mut self, entry: Entry) {
        let mut slot = self.slot(entry.hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) % self.slots.len();
        }
        self.entries.push(entry);
        self.slots[slot] = u32::try_from(self.entries.len()).expect("fewer routes than 2^32");
    }

    /// The slots are a power of two, so the mask is cheap; FNV's better bits are the upper ones.
    fn slot(&self, hash: u64) -> usize {
        (hash ^ (hash >> 32)) as usize & (self.slots.len() - 1)
    }
}

/// FNV-1a, 64 bits.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// A prefix may be written with escapes; one that is no legal target is taken as it stands.
pub(super) fn decoded_prefix(prefix: &[u8]) -> Box<[u8]> {
    CanonicalPath::parse(prefix).map_or_else(|_| prefix.into(), |path| path.decoded().into())
}

#[cfg(test)]
mod tests;
