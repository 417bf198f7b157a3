//! The text format that Prometheus reads (version 0.0.4).

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

use super::{CLASSES, Durations};

/// What it is, as `Content-Type` says it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics in the making. What belongs to one name must be written in one go.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a metric: its kind (`counter`, `gauge`, `histogram`) and what it means.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of it.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            self.escaped(text);
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// All the values of one histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], durations: &Durations) {
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (at, count) in durations.counts.iter().enumerate() {
            sum += count;
            let end = CLASSES
                .get(at)
                .map_or("+Inf".to_owned(), |micros| Duration::from_micros(*micros).as_secs_f64().to_string());
            self.sample(&bucket, &[labels, &[("le", &end)]].concat(), sum);
        }
        self.sample(&format!("{name}_sum"), labels, durations.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, sum);
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_names_kinds_and_escaped_labels() {
        let mut page = Page::default();
        page.metric("x_total", "counter", "What is counted.");
        page.sample("x_total", &[], 7);
        page.sample("x_total", &[("a", "\"b\\\n"), ("c", "d")], 0);
        assert_eq!(
            page.finish(),
            "# HELP x_total What is counted.\n# TYPE x_total counter\nx_total 7\nx_total{a=\"\\\"b\\\\\\n\",c=\"d\"} 0\n"
        );
    }

    #[test]
    fn the_classes_of_a_histogram_add_up() {
        let (mut durations, mut page) = (Durations::default(), Page::default());
        durations.add(Duration::from_millis(2));
        durations.add(Duration::from_secs(100));
        page.histogram("y_seconds", &[("route", "/a")], &durations);
        let text = page.finish();
        assert_eq!(text.lines().count(), 18);
        for line in [
            "y_seconds_bucket{route=\"/a\",le=\"0.001\"} 0",
            "y_seconds_bucket{route=\"/a\",le=\"0.0025\"} 1",
            "y_seconds_bucket{route=\"/a\",le=\"60\"} 1",
            "y_seconds_bucket{route=\"/a\",le=\"+Inf\"} 2",
            "y_seconds_sum{route=\"/a\"} 100.002",
            "y_seconds_count{route=\"/a\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
