//! Counts by HTTP status: exact for those that occur, by class for the rest, so that an upstream cannot make labels up.

use super::Counter;

/// Statuses with a label of their own.
const KNOWN: [u16; 47] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406,
    407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 425, 428, 429, 431, 500, 501, 502, 503, 504,
    505,
];
/// Labels for what is left: no answer, each class, and what has none.
const REST: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const SLOTS: usize = KNOWN.len() + REST.len();

/// Status → slot, for statuses up to 599.
static SLOT: [u8; 600] = slots();

const fn slots() -> [u8; 600] {
    let mut table = [0; 600];
    let mut status = 0;
    while status < 600 {
        table[status] = (KNOWN.len() + status / 100) as u8;
        status += 1;
    }
    let mut at = 0;
    while at < KNOWN.len() {
        table[KNOWN[at] as usize] = at as u8;
        at += 1;
    }
    table
}

/// One core's counts.
#[derive(Debug)]
pub struct Statuses([Counter; SLOTS]);

impl Default for Statuses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Statuses {
    /// One more; 0 = no answer.
    pub fn add(&self, status: u16) {
        let slot = SLOT.get(usize::from(status)).map_or(SLOTS - 1, |slot| usize::from(*slot));
        self.0[slot].add(1);
    }

    /// Every label with its count.
    pub fn read(&self) -> impl Iterator<Item = (String, u64)> {
        let labels = KNOWN.iter().map(u16::to_string).chain(REST.map(str::to_owned));
        labels.zip(self.0.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_label_and_there_are_few_labels() {
        let statuses = Statuses::default();
        for status in 0..=u16::MAX {
            statuses.add(status);
        }
        let counts: Vec<(String, u64)> = statuses.read().collect();
        assert_eq!(counts.len(), SLOTS);
        let count = |label: &str| counts.iter().find(|(l, _)| l == label).map(|(_, n)| *n);
        assert_eq!((count("200"), count("505"), count("101")), (Some(1), Some(1), Some(1)));
        assert_eq!((count("none"), count("1xx"), count("other")), (Some(100), Some(99), Some(65_536 - 600)));
        assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 65_536);
    }
}
