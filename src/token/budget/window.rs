//! … the token requests within a sliding window: pure, whoever uses it brings the clock.
//!
//! Each moment is kept as it was while there are few. A budget of many counts them by spans of its window, as if all of a
//! span had come at its end: a request may leave the window a five-hundredth of it later, never earlier. So what is kept is
//! bounded, however large the budget.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::config::model::Budget;

/// Up to this limit each moment is kept; above, the window is divided into as many spans.
const SPANS: u32 = 500;

/// Who counts into one store is told apart by so many numbers.
pub const COUNTERS: u8 = 16;

/// The counts, by moment and by who has counted: each of those only ever adds to its own, so that counts of several
/// processes can be joined, in any order and any number of times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    counts: BTreeMap<(SystemTime, u8), u32>,
    /// Who we are.
    counter: u8,
}

impl Window {
    /// An empty one, to be counted into by `counter`.
    pub fn of(counter: u8) -> Self {
        Self { counter: counter % COUNTERS, ..Self::default() }
    }

    /// What was kept: moments, who has counted them, and how many there were.
    pub fn kept(counts: impl IntoIterator<Item = (SystemTime, u8, u32)>) -> Self {
        let counts = counts.into_iter().map(|(at, counter, count)| ((at, counter % COUNTERS), count)).collect();
        Self { counts, counter: 0 }
    }

    /// To be kept, oldest first.
    pub fn counts(&self) -> impl Iterator<Item = (SystemTime, u8, u32)> + '_ {
        self.counts.iter().map(|((at, counter), count)| (*at, *counter, *count))
    }

    /// How many requests lie within the window.
    pub fn used(&mut self, budget: Budget, now: SystemTime) -> u32 {
        // What lies in the future was counted before the clock was set back: as if it were now.
        let latest = moment(budget, now);
        for ((_, counter), count) in self.counts.split_off(&(latest, u8::MAX)) {
            add(&mut self.counts, (latest, counter), count);
        }
        if let Some(begin) = now.checked_sub(budget.window) {
            self.counts = self.counts.split_off(&(begin, u8::MAX));
        }
        u32::try_from(self.counts.values().map(|count| u64::from(*count)).sum::<u64>()).unwrap_or(u32::MAX)
    }

    /// Counts one more, and says under which moment; or how long it takes until one is free.
    pub fn take(&mut self, budget: Budget, now: SystemTime) -> Result<SystemTime, Duration> {
        let used = self.used(budget, now);
        if used < budget.limit {
            return Ok(self.add(budget, now));
        }
        // With a smaller limit than before, several must go until one is free.
        let mut to_go = used - budget.limit;
        let last = self.counts().find(|(.., count)| match to_go.checked_sub(*count) {
            Some(rest) => {
                to_go = rest;
                false
            }
            None => true,
        });
        let last = last.map_or(now, |(at, ..)| at);
        Err((last + budget.window).duration_since(now).unwrap_or_default())
    }

    /// Takes over what others have counted into the same store since. What both have is the same.
    pub fn join(&mut self, other: &Self) {
        for (place, theirs) in &other.counts {
            let ours = self.counts.entry(*place).or_default();
            *ours = (*ours).max(*theirs);
        }
    }

    /// The same, but for what lies in the future: that is ours, from before the clock was set back.
    pub fn join_until(&mut self, mut other: Self, budget: Budget, now: SystemTime) {
        drop(other.counts.split_off(&(moment(budget, now), u8::MAX)));
        self.join(&other);
    }

    /// Counts one that somebody else has let through; says under which moment.
    pub fn add(&mut self, budget: Budget, now: SystemTime) -> SystemTime {
        let at = moment(budget, now);
        add(&mut self.counts, (at, self.counter), 1);
        at
    }

    /// Takes back one that was counted under `at`.
    pub fn give_back(&mut self, at: SystemTime) {
        if let Some(count) = self.counts.get_mut(&(at, self.counter)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&(at, self.counter));
            }
        }
    }
}

fn add(counts: &mut BTreeMap<(SystemTime, u8), u32>, place: (SystemTime, u8), count: u32) {
    let sum = counts.entry(place).or_default();
    *sum = sum.saturating_add(count);
}

/// What a request of `now` is counted under: in whole milliseconds, as the store keeps them; with many, the end of the span.
fn moment(Budget { limit, window }: Budget, now: SystemTime) -> SystemTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let span = if limit <= SPANS { 1 } else { (window.as_millis() / u128::from(SPANS)).max(1) };
    let end = since - since % span + span - 1;
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(end).unwrap_or(u64::MAX >> 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { limit: 3, window: Duration::from_secs(60) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn window(moments: &[u64]) -> Window {
        let mut window = Window::default();
        for second in moments {
            window.add(BUDGET, at(*second));
        }
        window
    }

    fn moments(window: &Window) -> Vec<SystemTime> {
        window.counts().flat_map(|(at, _, count)| (0..count).map(move |_| at)).collect()
    }

    #[test]
    fn the_window_slides_and_says_when_the_next_slot_is_free() {
        let mut window = Window::default();
        for second in [0, 10, 20] {
            assert_eq!(window.take(BUDGET, at(second)), Ok(at(second)));
        }
        assert_eq!(window.take(BUDGET, at(25)), Err(Duration::from_secs(35)));
        assert_eq!(window.take(BUDGET, at(60)), Ok(at(60)), "the first one has left the window");
        assert_eq!(window.take(BUDGET, at(60)), Err(Duration::from_secs(10)));
        assert_eq!(window.used(BUDGET, at(1000)), 0);
    }

    #[test]
    fn a_smaller_limit_holds_for_what_was_counted_before() {
        let one = Budget { limit: 1, ..BUDGET };
        let free = |moments: &[u64]| window(moments).take(one, at(30));
        assert_eq!(free(&[20, 0, 10]), Err(Duration::from_secs(50)), "until the last of the three has left");
        assert_eq!(free(&[20, 20, 0]), Err(Duration::from_secs(50)));
        assert_eq!(free(&[20, 0, 0, 0]), Err(Duration::from_secs(50)));
    }

    #[test]
    fn what_was_given_back_is_free_again() {
        let mut window = window(&[0, 1, 1]);
        window.give_back(at(1));
        window.give_back(at(7));
        assert_eq!(window.used(BUDGET, at(2)), 2);
    }

    #[test]
    fn what_two_processes_counted_is_joined_and_the_same_request_counts_once() {
        let mut ours = window(&[0, 10, 10]);
        ours.join(&window(&[10, 5, 20, 20]));
        assert_eq!(moments(&ours), [at(0), at(5), at(10), at(10), at(20), at(20)]);
        let same = ours.clone();
        ours.join(&same);
        assert_eq!(ours, same);
    }

    #[test]
    fn two_who_count_at_the_same_time_are_both_counted_whoever_writes_last() {
        for limit in [500, 1_000_000] {
            let budget = Budget { limit, window: Duration::from_secs(86_400) };
            let (mut one, mut two) = (Window::of(1), Window::of(2));
            one.add(budget, at(0));
            two.add(budget, at(0));
            one.join(&two);
            two.join(&one);
            assert_eq!((one.used(budget, at(1)), two.used(budget, at(1))), (2, 2));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_frees_nothing_early_and_blocks_for_one_window_at_most() {
        let mut window = window(&[3600, 3610, 3620]);
        assert_eq!(window.take(BUDGET, at(0)), Err(Duration::from_secs(60)));
        assert_eq!(window.take(BUDGET, at(60)), Ok(at(60)));
    }

    #[test]
    fn a_huge_budget_is_kept_in_little_and_frees_nothing_early() {
        let budget = Budget { limit: 1_000_000, window: Duration::from_secs(86_400) };
        let step = budget.window / budget.limit;
        let mut window = Window::default();
        for number in 0..budget.limit {
            let now = at(0) + step * number;
            if number % 100_000 == 0 {
                assert!(window.take(budget, now).is_ok(), "request {number}");
                assert_eq!(window.used(budget, now), number + 1);
            } else {
                window.add(budget, now);
            }
        }
        let end = at(0) + budget.window - step;
        assert_eq!(window.used(budget, end), budget.limit);
        assert!(window.counts().count() <= 502, "{}", window.counts().count());
        let free_in = window.take(budget, end).unwrap_err();
        assert!(free_in >= step && free_in <= step + budget.window / 500, "{free_in:?}");
        let kept = Window::kept(window.counts());
        let mut other = Window::of(7);
        other.join_until(kept, budget, end);
        assert_eq!(other.used(budget, end), budget.limit, "over a restart");
    }
}
