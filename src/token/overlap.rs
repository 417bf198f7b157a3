//! 1 which of several secrets — the working one is remembered, a new one is tried before it replaces it.
//!
//! Pure: it says which choices one token request may try, in which order. Providers lock accounts after a few
//! bad tries, so a choice that was refused is not tried again while another one is left, and when all were
//! refused each further request tries a single one.

use std::collections::VecDeque;

use super::credential::Version;

/// What is known about the choices among a credential's secrets ([`super::credential::Material::choice`]).
#[derive(Debug, Default)]
pub struct Overlap {
    /// The last one that the provider took.
    working: Option<Version>,
    /// Those that it refused, and has not taken since.
    refused: VecDeque<Version>,
}

/// A choice that may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// By position among those that the sources give now.
    Now(usize),
    /// The one that worked last: the sources don't give it any more.
    Before,
}

impl Overlap {
    /// What to try, in order. `now` are the choices that the sources give, by position; never empty afterwards
    /// unless they are.
    pub fn order(&mut self, now: &[Version]) -> Vec<Pick> {
        self.refused.retain(|old| now.contains(old) || self.working == Some(*old));
        let mut all: Vec<(Pick, Version)> = Vec::new();
        for (position, choice) in now.iter().enumerate() {
            if all.iter().all(|(_, known)| known != choice) {
                all.push((Pick::Now(position), *choice));
            }
        }
        if let Some(working) = self.working.filter(|_| !all.is_empty()) {
            match all.iter().position(|(_, choice)| *choice == working) {
                Some(at) => all[..=at].rotate_right(1),
                // Its source changed: the new ones go first, and if they are no good it is still there.
                None => all.push((Pick::Before, working)),
            }
        }
        let fresh: Vec<Pick> = all.iter().filter(|(_, c)| !self.refused.contains(c)).map(|(pick, _)| *pick).collect();
        if !fresh.is_empty() {
            return fresh;
        }
        // All were refused: the one whose refusal is longest ago.
        let oldest = self.refused.iter().find_map(|old| all.iter().find(|(_, choice)| choice == old));
        oldest.map(|(pick, _)| *pick).into_iter().collect()
    }

    /// Whether something worked, and the sources don't give it any more.
    pub fn is_replaced(&self, now: &[Version]) -> bool {
        self.working.is_some_and(|working| !now.contains(&working))
    }

    /// The provider took it.
    pub fn worked(&mut self, choice: Version) {
        self.refused.retain(|old| *old != choice);
        self.working = Some(choice);
    }

    /// The provider refused it.
    pub fn refused(&mut self, choice: Version) {
        self.refused.retain(|old| *old != choice);
        self.refused.push_back(choice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> Version {
        let mut bytes = [0; 32];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Version::from_bytes(bytes)
    }

    fn choices(texts: &[&str]) -> Vec<Version> {
        texts.iter().map(|text| choice(text)).collect()
    }

    /// Names, and `before` for what is in no source any more.
    fn order<'a>(overlap: &mut Overlap, texts: &[&'a str]) -> Vec<&'a str> {
        let name = |pick| match pick {
            Pick::Now(at) => texts[at],
            Pick::Before => "before",
        };
        overlap.order(&choices(texts)).into_iter().map(name).collect()
    }

    #[test]
    fn the_working_one_is_preferred_and_the_refused_ones_are_left_alone() {
        let mut overlap = Overlap::default();
        assert_eq!(order(&mut overlap, &["a", "b", "b", "c"]), ["a", "b", "c"]);
        overlap.refused(choice("a"));
        overlap.worked(choice("b"));
        assert_eq!(order(&mut overlap, &["a", "b", "c"]), ["b", "c"]);
    }

    #[test]
    fn a_new_secret_is_tried_before_the_working_one_is_given_up() {
        let mut overlap = Overlap::default();
        overlap.worked(choice("old"));
        assert!(overlap.is_replaced(&choices(&["new"])) && !overlap.is_replaced(&choices(&["new", "old"])));
        assert_eq!(order(&mut overlap, &["new"]), ["new", "before"]);
        overlap.refused(choice("new"));
        overlap.worked(choice("old"));
        assert_eq!(order(&mut overlap, &["new"]), ["before"], "what was refused is not tried again");
        assert_eq!(order(&mut overlap, &["newer"]), ["newer", "before"]);
        overlap.worked(choice("newer"));
        assert_eq!(order(&mut overlap, &["newer"]), ["newer"]);
    }

    #[test]
    fn when_all_were_refused_each_request_tries_a_single_one_in_turn() {
        let mut overlap = Overlap::default();
        overlap.refused(choice("a"));
        overlap.refused(choice("b"));
        assert_eq!(order(&mut overlap, &["a", "b"]), ["a"]);
        overlap.refused(choice("a"));
        assert_eq!(order(&mut overlap, &["a", "b"]), ["b"]);
        assert_eq!(order(&mut overlap, &["a", "c"]), ["c"], "a new one is tried first");
    }

    #[test]
    fn without_a_source_there_is_nothing_to_try() {
        assert!(order(&mut Overlap::default(), &[]).is_empty());
    }
}
