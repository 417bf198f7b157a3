//! The numbers: when a token is refreshed, and how long a provider is left in peace.

use std::time::Duration;

use cupbearer::token::pace::{Pace, Windows, luck};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_advisory_point_moves_earlier_by_a_jitter_that_is_stable_for_a_process() {
    for life in [300, 3600, 21_600, 86_400].map(Duration::from_secs) {
        let plain = Windows::of(life, 0.0);
        let mut seen = Vec::new();
        for seed in 1..50 {
            let windows = Windows::of(life, luck(seed, 0));
            assert_eq!(windows, Windows::of(life, luck(seed, 0)), "the same process, the same moment");
            assert!((plain.advisory..=plain.advisory * 5 / 4).contains(&windows.advisory), "{windows:?}");
            assert_eq!(windows.mandatory, plain.mandatory);
            seen.push(windows.advisory);
        }
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 40, "processes differ: {seen:?}");
    }
}

#[test]
fn the_windows_are_a_quarter_within_its_tier_and_a_tenth_within_thirty_seconds() {
    for (life, advisory, mandatory) in [(8, 2.0, 0.8), (300, 75.0, 30.0), (3600, 300.0, 30.0), (86_400, 3600.0, 30.0)] {
        let windows = Windows::of(Duration::from_secs(life), 0.0);
        let expected =
            Windows { advisory: Duration::from_secs_f64(advisory), mandatory: Duration::from_secs_f64(mandatory) };
        assert_eq!(windows, expected, "{life} s");
    }
}

#[test]
fn a_transient_back_off_is_drawn_from_nothing_to_a_bound_that_doubles_up_to_a_minute() {
    let pace = Pace::default();
    let bounds: Vec<f64> = (1..=9).map(|streak| pace.transient_delay(streak, 1.0).as_secs_f64()).collect();
    assert_eq!(bounds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    assert_eq!(pace.transient_delay(u32::MAX, 1.0), MINUTE);
    assert_eq!(pace.transient_delay(5, 0.0), Duration::ZERO);
    let drawn: Vec<Duration> = (0..1000).map(|n| pace.transient_delay(8, luck(7, n))).collect();
    let below = |part: Duration| drawn.iter().filter(|delay| **delay < part).count();
    assert!((150..350).contains(&below(MINUTE / 4)) && (400..600).contains(&below(MINUTE / 2)), "evenly");
}
