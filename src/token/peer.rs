//! 3 … what a provider has told of itself, shared by all who ask it: its clock, and the nonce that it wants in proofs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    clock::Clock,
    dpop::{NONCE, nonce},
    reply::{self, Answer},
};

/// One provider, by scheme, host and port. For the control thread only.
#[derive(Debug, Default)]
pub struct Peer(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The last one that it gave.
    nonce: Option<String>,
    clock: Clock,
}

/// What a request goes out with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Used {
    /// `nonce` of its proof.
    pub(super) nonce: Option<String>,
    /// By how many seconds what is signed in it is dated ahead of our clock.
    pub(super) skew: i64,
}

/// What the provider made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gave a token.
    Taken,
    /// It said no.
    Refused,
    /// Nothing that is about the request.
    Neither,
}

/// What an answer has taught that the request did not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Another nonce: this answer's own, since a provider may take each only once.
    pub(super) nonce: Option<String>,
    /// Another time is worth a try: that of [`Peer::used`].
    pub(super) clock: bool,
}

impl Peer {
    /// What the next request is to go out with.
    pub(super) fn used(&self) -> Used {
        let known = self.lock();
        Used { nonce: known.nonce.clone(), skew: known.clock.skew() }
    }

    /// Keeps a nonce for the next requests.
    pub(super) fn keep(&self, nonce: String) {
        self.lock().nonce = Some(nonce);
    }

    /// Learns from the answer to a request that went out with `used`. Its nonce is not kept yet: whoever asks once more with it
    /// may be the only one who can.
    pub(super) fn learn(&self, used: &Used, answer: &Answer, verdict: Verdict) -> News {
        let mut known = self.lock();
        let nonce = answer.headers.get(NONCE).and_then(|value| nonce(value.as_bytes()));
        let date = reply::skew(answer);
        let clock = match verdict {
            Verdict::Taken => {
                known.clock.taken(used.skew, date);
                false
            }
            Verdict::Refused => known.clock.refused(used.skew, date),
            Verdict::Neither => false,
        };
        News { nonce: nonce.filter(|nonce| used.nonce.as_ref() != Some(nonce)), clock }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::token::bearer::Now;

    fn answer(name: &'static str, value: &str) -> Answer {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let headers = [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect();
        let sent = Now { mono: Instant::now(), wall };
        Answer { status: 400, headers, body: bytes::Bytes::new(), sent, received: wall }
    }

    #[test]
    fn a_nonce_is_news_unless_it_was_used_or_no_proof_may_hold_it() {
        let peer = Peer::default();
        let told = |used: &Used, value: &str| peer.learn(used, &answer("dpop-nonce", value), Verdict::Taken).nonce;
        let first = peer.used();
        assert_eq!(told(&first, "n1").as_deref(), Some("n1"));
        peer.keep("n1".to_owned());
        let second = peer.used();
        assert_eq!(second.nonce.as_deref(), Some("n1"));
        for value in ["n1", "with \"quotes\"", "back\\slash", "a b", ""] {
            assert_eq!(told(&second, value), None, "{value:?}");
        }
    }

    #[test]
    fn a_date_is_believed_after_a_word_about_a_signature_and_not_after_anything_else() {
        let (date, broken) = ("Sun, 06 Nov 1994 08:59:37 GMT", "yesterday");
        let peer = Peer::default();
        let used = peer.used();
        assert!(!peer.learn(&used, &answer("date", date), Verdict::Neither).clock);
        assert!(!peer.learn(&used, &answer("date", broken), Verdict::Refused).clock);
        assert_eq!(peer.used().skew, 0);
        assert!(peer.learn(&used, &answer("date", date), Verdict::Refused).clock);
        assert_eq!(peer.used().skew, 600);
    }
}
