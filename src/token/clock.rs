//! 3 … the provider's clock, as its `Date` shows it: what is signed for a provider is dated by that clock. Pure.

use std::time::{Duration, SystemTime};

/// RFC 9110 section 5.6.7, the preferred form only.
pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text.trim()).ok()?;
    Some(zoned.timestamp().into())
}

/// By how many whole seconds `theirs` is ahead of `ours`.
fn ahead(theirs: SystemTime, ours: SystemTime) -> i64 {
    let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    theirs.duration_since(ours).map_or_else(|e| -whole(e.duration()), whole)
}

/// By how much a clock that said `date` between two moments of ours is ahead. 0 where it may be right; else rather too little
/// than too much, since a signature from the future is refused sooner than one from the past.
pub(super) fn skew(date: SystemTime, sent: SystemTime, received: SystemTime) -> i64 {
    // `Date` has whole seconds, rounded down.
    let earliest = sent.checked_sub(Duration::from_secs(1)).unwrap_or(sent);
    let by = ahead(date, received);
    if (earliest..=received).contains(&date) || !differ(by, 0) { 0 } else { by }
}

/// Whether two skews are more than what `Date` leaves in the dark.
pub(super) fn differ(one: i64, other: i64) -> bool {
    one.abs_diff(other) >= 2
}

/// Which skew a provider's signatures are dated with.
///
/// That is what its `Date` says. Only where a signature so dated is refused and another skew has worked before is `Date` not
/// believed: somebody else than the judge of signatures may write it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clock {
    skew: i64,
    worked: Option<i64>,
    disbelieved: bool,
}

impl Clock {
    /// The skew to use.
    pub(super) fn skew(self) -> i64 {
        self.skew
    }

    /// A signature that was dated with `used` was taken.
    pub(super) fn taken(&mut self, used: i64, date: Option<i64>) {
        self.worked = Some(used);
        if let Some(date) = date.filter(|_| !self.disbelieved) {
            self.skew = date;
        }
    }

    /// It was refused; whether dating it differently is worth another try.
    pub(super) fn refused(&mut self, used: i64, date: Option<i64>) -> bool {
        if let Some(date) = date.filter(|date| differ(*date, used)) {
            (self.skew, self.disbelieved) = (date, false);
            return true;
        }
        let Some(worked) = self.worked.filter(|worked| differ(*worked, used)) else { return false };
        (self.skew, self.disbelieved) = (worked, true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_000 + millis)
    }

    #[test]
    fn a_date_within_the_call_or_a_second_before_is_no_skew() {
        assert_eq!(skew(at(5000), at(5900), at(6100)), 0);
        assert_eq!(skew(at(12_000), at(5000), at(14_000)), 0, "an answer that took long");
        assert_eq!(skew(at(7000), at(5900), at(6000)), 0, "one second is nothing");
    }

    #[test]
    fn a_skew_is_never_overestimated() {
        assert_eq!(skew(at(606_000), at(5900), at(6100)), 599);
        assert_eq!(skew(at(0), at(600_000), at(604_500)), -604, "a signature is rather too old than from the future");
    }

    #[test]
    fn what_date_says_is_used_and_tried_at_once_after_a_refusal() {
        let mut clock = Clock::default();
        assert!(clock.refused(0, Some(600)));
        assert_eq!(clock.skew(), 600);
        assert!(!clock.refused(600, Some(600)), "no other try is left");
        clock.taken(600, Some(601));
        assert_eq!(clock.skew(), 601);
        assert!(!clock.refused(601, Some(601)), "that is as good as what worked");
    }

    #[test]
    fn a_clock_that_was_set_right_is_followed() {
        let mut clock = Clock::default();
        clock.taken(-600, Some(-600));
        assert!(clock.refused(-600, Some(0)));
        assert_eq!(clock.skew(), 0);
    }

    #[test]
    fn a_date_that_is_not_the_judges_is_disbelieved_for_good() {
        let mut clock = Clock::default();
        clock.taken(0, Some(600));
        assert_eq!(clock.skew(), 600);
        assert!(clock.refused(600, Some(600)));
        assert_eq!(clock.skew(), 0);
        clock.taken(0, Some(600));
        assert_eq!(clock.skew(), 0);
    }
}
