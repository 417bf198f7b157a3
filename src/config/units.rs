//! Durations and sizes as people write them.

use std::time::Duration;

/// `10s`, `500ms`, `1h30m`, `1d`: numbers with units, largest unit first not required; no unit is refused.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let millis = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

/// `50/12h`, `1000/min`: how many in which time; a unit alone is one of it.
pub(super) fn rate(text: &str) -> Option<(u32, Duration)> {
    let (count, time) = text.split_once('/')?;
    let count: u32 = count.trim_end().parse().ok().filter(|n| *n > 0)?;
    let time = match time.trim_start() {
        "min" => "1m".to_owned(),
        unit if unit.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("1{unit}"),
        time => time.to_owned(),
    };
    Some((count, duration(&time).filter(|time| !time.is_zero())?))
}

/// `32KiB`, `1MiB`, `64kB`, `512B`, `512`.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim_start() {
        "" | "B" => 1,
        "kB" | "KB" | "k" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "kiB" | "K" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A duration as it would be written.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)).unwrap_or((1_000, "s"));
    format!("{}{name}", millis / unit)
}

/// A size as it would be written.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_and_may_be_composed() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("24h"), Some(Duration::from_secs(86400)));
        for bad in ["", "10", "s", "10 s", "-1s", "1.5s", "10x", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_are_a_number_in_a_time() {
        assert_eq!(rate("50/12h"), Some((50, Duration::from_secs(43_200))));
        assert_eq!(rate("1000/min"), Some((1000, Duration::from_secs(60))));
        assert_eq!(rate("5 / s"), Some((5, Duration::from_secs(1))));
        for bad in ["", "50", "/12h", "0/12h", "50/", "50/12", "50/0s", "-1/h", "50/12h/2", "x/h"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_know_both_families_of_units() {
        assert_eq!(size("32KiB"), Some(32768));
        assert_eq!(size("64kB"), Some(64000));
        assert_eq!(size("1 MiB"), Some(1 << 20));
        assert_eq!(size("512"), Some(512));
        for bad in ["", "KiB", "1TiB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn both_are_shown_as_they_would_be_written() {
        assert_eq!(show_duration(Duration::from_secs(5400)), "90m");
        assert_eq!(show_duration(Duration::ZERO), "0s");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_size(32768), "32KiB");
        assert_eq!(show_size(100), "100");
    }
}
