//! 1 which of several client secrets — the working one is remembered, a new one is tried before it replaces it.
//!
//! Pure: it says which secrets one token request may try, in which order. Providers lock accounts after a few
//! bad tries, so a secret that was refused is not tried again while another one is left, and when all were
//! refused each further request tries a single one.

use std::collections::VecDeque;

use crate::config::secret::Secret;

/// What is known about the client secrets of one key.
#[derive(Debug, Default)]
pub struct Overlap {
    /// The last one that the provider took.
    working: Option<Secret>,
    /// Those that it refused, and has not taken since.
    refused: VecDeque<Secret>,
}

/// A secret that may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The secret.
    pub secret: Secret,
    /// Its place among the sources, from 0; `None` = it is in no source any more, but it still worked last time.
    pub position: Option<usize>,
}

impl Overlap {
    /// What to try, in order. `sources` are the secrets as they are now, by position; never empty afterwards
    /// unless they are.
    pub fn candidates(&mut self, sources: &[(usize, Secret)]) -> Vec<Candidate> {
        self.refused
            .retain(|old| sources.iter().any(|(_, secret)| secret == old) || self.working.as_ref() == Some(old));
        let mut all: Vec<Candidate> = Vec::new();
        for (position, secret) in sources {
            if all.iter().all(|known| known.secret != *secret) {
                all.push(Candidate { secret: secret.clone(), position: Some(*position) });
            }
        }
        if let Some(working) = &self.working {
            match all.iter().position(|c| c.secret == *working) {
                Some(at) => all[..=at].rotate_right(1),
                // Its source changed: the new ones go first, and if they are no good it is still there.
                None => all.push(Candidate { secret: working.clone(), position: None }),
            }
        }
        let fresh: Vec<Candidate> = all.iter().filter(|c| !self.refused.contains(&c.secret)).cloned().collect();
        if !fresh.is_empty() {
            return fresh;
        }
        // All were refused: the one whose refusal is longest ago.
        let oldest = self.refused.iter().find_map(|old| all.iter().find(|c| c.secret == *old));
        oldest.cloned().into_iter().collect()
    }

    /// The provider took it.
    pub fn worked(&mut self, secret: &Secret) {
        self.refused.retain(|old| old != secret);
        self.working = Some(secret.clone());
    }

    /// The provider refused it.
    pub fn refused(&mut self, secret: &Secret) {
        self.refused.retain(|old| old != secret);
        self.refused.push_back(secret.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn sources(texts: &[&str]) -> Vec<(usize, Secret)> {
        texts.iter().enumerate().map(|(n, text)| (n, secret(text))).collect()
    }

    fn order(overlap: &mut Overlap, texts: &[&str]) -> Vec<String> {
        overlap.candidates(&sources(texts)).iter().map(|c| c.secret.expose().to_owned()).collect()
    }

    #[test]
    fn the_working_one_is_preferred_and_the_refused_ones_are_left_alone() {
        let mut overlap = Overlap::default();
        assert_eq!(order(&mut overlap, &["a", "b", "b", "c"]), ["a", "b", "c"]);
        overlap.refused(&secret("a"));
        overlap.worked(&secret("b"));
        assert_eq!(order(&mut overlap, &["a", "b", "c"]), ["b", "c"]);
    }

    #[test]
    fn a_new_secret_is_tried_before_the_working_one_is_given_up() {
        let mut overlap = Overlap::default();
        overlap.worked(&secret("old"));
        assert_eq!(order(&mut overlap, &["new"]), ["new", "old"]);
        overlap.refused(&secret("new"));
        overlap.worked(&secret("old"));
        assert_eq!(order(&mut overlap, &["new"]), ["old"], "what was refused is not tried again");
        assert_eq!(order(&mut overlap, &["newer"]), ["newer", "old"]);
        overlap.worked(&secret("newer"));
        assert_eq!(order(&mut overlap, &["newer"]), ["newer"]);
    }

    #[test]
    fn when_all_were_refused_each_request_tries_a_single_one_in_turn() {
        let mut overlap = Overlap::default();
        overlap.refused(&secret("a"));
        overlap.refused(&secret("b"));
        assert_eq!(order(&mut overlap, &["a", "b"]), ["a"]);
        overlap.refused(&secret("a"));
        assert_eq!(order(&mut overlap, &["a", "b"]), ["b"]);
        assert_eq!(order(&mut overlap, &["a", "c"]), ["c"], "a new one is tried first");
    }

    #[test]
    fn without_a_source_there_is_nothing_to_try() {
        assert!(order(&mut Overlap::default(), &[]).is_empty());
    }
}
