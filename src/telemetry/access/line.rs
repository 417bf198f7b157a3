//! One request in one line, as text or as JSON, written by hand: this is paid for by every request.
//!
//! Nothing that a caller chose can end a line, begin another field or reach a terminal as a control sequence.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{config::model::LogFormat, wire::number};

/// How many bytes of a path are told; what is longer ends in `…`.
const PATH: usize = 1024;
/// More than any line has: the path six times (each byte as `\u00XX`), and what else there is. Only a route's prefix and a
/// caller's request id have no small bound of their own, and both are far shorter.
pub(super) const LONGEST: usize = 8 * 1024;

/// What is told of a request. What does not apply is left out of the line.
#[derive(Debug, Clone, Default)]
pub struct Line<'a> {
    /// When its first byte arrived.
    pub at: Option<SystemTime>,
    /// Its id, which the upstream and the caller have too.
    pub request_id: &'a str,
    /// The peer's address.
    pub peer: &'a str,
    /// Who asked, if known.
    pub caller: &'a str,
    /// What the caller speaks.
    pub protocol: &'static str,
    /// The method.
    pub method: &'a str,
    /// The path as the caller wrote it, without query.
    pub path: &'a [u8],
    /// The route's prefix.
    pub route: Option<&'a str>,
    /// The route's credential.
    pub credential: &'a str,
    /// What was answered.
    pub status: Option<u16>,
    /// The code of an answer of our own.
    pub error: &'static str,
    /// Why the answer did not come to its end.
    pub aborted: &'static str,
    /// What the upstream speaks.
    pub upstream_protocol: &'static str,
    /// What the upstream answered last.
    pub upstream_status: Option<u16>,
    /// The request was sent again, with another token or another proof.
    pub replayed: bool,
    /// Bytes of the request's body, without framing.
    pub request_bytes: u64,
    /// Bytes of the answer's body, without framing.
    pub response_bytes: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// From the first byte of the request to the head of the upstream's answer.
    pub upstream: Option<Duration>,
}

impl Line<'_> {
    /// Appends the line, with its end.
    pub(super) fn write(&self, out: &mut Vec<u8>, format: LogFormat, stamp: &mut Stamp) {
        match format {
            LogFormat::Text => self.text(out, stamp),
            LogFormat::Json => self.json(out, stamp),
        }
    }

    /// `TIME METHOD PATH STATUS DURATION`, with `-` for what is not known, then `name=value`.
    fn text(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        stamp.write(out, self.at);
        out.push(b' ');
        word(out, self.method.as_bytes());
        out.push(b' ');
        word(out, &shortened(self.path));
        out.push(b' ');
        match self.status {
            Some(status) => number(out, status.into()),
            None => out.push(b'-'),
        }
        out.push(b' ');
        millis(out, self.duration);
        out.extend_from_slice(b"ms");
        let mut field = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                out.push(b' ');
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                word(out, value);
            }
        };
        field("error", self.error.as_bytes());
        field("route", self.route.map(or_slash).unwrap_or_default().as_bytes());
        field("credential", self.credential.as_bytes());
        field("caller", self.caller.as_bytes());
        field("peer", self.peer.as_bytes());
        field("protocol", self.protocol.as_bytes());
        field("upstream_protocol", self.upstream_protocol.as_bytes());
        field("replayed", if self.replayed { b"true" } else { b"" });
        field("request_id", self.request_id.as_bytes());
        if let Some(status) = self.upstream_status {
            out.extend_from_slice(b" upstream_status=");
            number(out, status.into());
        }
        if let Some(after) = self.upstream {
            out.extend_from_slice(b" upstream=");
            millis(out, after);
            out.extend_from_slice(b"ms");
        }
        out.extend_from_slice(b" request_bytes=");
        number(out, self.request_bytes);
        out.extend_from_slice(b" response_bytes=");
        number(out, self.response_bytes);
        if !self.aborted.is_empty() {
            out.extend_from_slice(b" aborted=\"");
            out.extend_from_slice(self.aborted.as_bytes()); // a sentence of ours
            out.push(b'"');
        }
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        out.extend_from_slice(b"{\"time\":\"");
        stamp.write(out, self.at);
        out.push(b'"');
        let mut field = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":\"");
                escaped(out, value, json_escape);
                out.push(b'"');
            }
        };
        field("request_id", self.request_id.as_bytes());
        field("peer", self.peer.as_bytes());
        field("caller", self.caller.as_bytes());
        field("protocol", self.protocol.as_bytes());
        field("method", self.method.as_bytes());
        field("path", &shortened(self.path));
        field("route", self.route.map(or_slash).unwrap_or_default().as_bytes());
        field("credential", self.credential.as_bytes());
        field("error", self.error.as_bytes());
        field("aborted", self.aborted.as_bytes());
        field("upstream_protocol", self.upstream_protocol.as_bytes());
        if let Some(status) = self.status {
            out.extend_from_slice(b",\"status\":");
            number(out, status.into());
        }
        if let Some(status) = self.upstream_status {
            out.extend_from_slice(b",\"upstream_status\":");
            number(out, status.into());
        }
        if self.replayed {
            out.extend_from_slice(b",\"replayed\":true");
        }
        out.extend_from_slice(b",\"request_bytes\":");
        number(out, self.request_bytes);
        out.extend_from_slice(b",\"response_bytes\":");
        number(out, self.response_bytes);
        out.extend_from_slice(b",\"duration_ms\":");
        millis(out, self.duration);
        if let Some(after) = self.upstream {
            out.extend_from_slice(b",\"upstream_ms\":");
            millis(out, after);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The route of everything has an empty prefix.
fn or_slash(prefix: &str) -> &str {
    if prefix.is_empty() { "/" } else { prefix }
}

fn shortened(path: &[u8]) -> Cow<'_, [u8]> {
    match path.get(..PATH) {
        Some(start) if path.len() > PATH => Cow::Owned([start, "…".as_bytes()].concat()),
        _ => Cow::Borrowed(path),
    }
}

/// A value of a line of text: no byte in it separates, quotes or controls; `-` where there is none.
fn word(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        out.push(b'-');
    }
    escaped(out, value, text_escape);
}

/// Appends `value` with those bytes replaced that `escape` replaces.
fn escaped(out: &mut Vec<u8>, value: &[u8], escape: fn(&mut Vec<u8>, u8)) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&b| !is_plain(b)) {
        out.extend_from_slice(&rest[..at]);
        escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// What stands for itself in both formats. Bytes above ASCII come from prefixes of the configuration only, and from `…`.
fn is_plain(byte: u8) -> bool {
    !matches!(byte, 0..=b' ' | b'"' | b'\\' | 0x7f)
}

fn json_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b' ' => out.push(b' '),
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => {
            out.extend_from_slice(b"\\u00");
            hex(out, byte);
        }
    }
}

fn text_escape(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(b"\\x");
    hex(out, byte);
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Milliseconds to the microsecond: `12.345`.
fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_micros() as u64;
    number(out, micros / 1000);
    out.push(b'.');
    three(out, micros % 1000);
}

fn three(out: &mut Vec<u8>, n: u64) {
    out.extend([n / 100, n / 10 % 10, n % 10].map(|digit| b'0' + digit as u8));
}

/// The time of a line (RFC 3339, UTC, milliseconds). The text of a second is made once.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    /// `2026-11-22T08:47:01`
    text: String,
}

impl Stamp {
    fn write(&mut self, out: &mut Vec<u8>, at: Option<SystemTime>) {
        let since = at.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs();
        if self.second != Some(second) {
            let at = i64::try_from(second).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default();
            (self.second, self.text) = (Some(second), at.strftime("%FT%T").to_string());
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        three(out, since.subsec_millis().into());
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full<'a>() -> Line<'a> {
        Line {
            at: Some(UNIX_EPOCH + Duration::from_millis(1_795_337_221_007)),
            request_id: "abc-1",
            peer: "127.0.0.1",
            caller: "erp",
            protocol: "HTTP/1.1",
            method: "POST",
            path: b"/ipxo/billing/v1",
            route: Some("/ipxo/billing"),
            credential: "acme",
            status: Some(200),
            error: "",
            aborted: "the caller went away",
            upstream_protocol: "HTTP/2",
            upstream_status: Some(201),
            replayed: true,
            request_bytes: 0,
            response_bytes: 18_446_744_073_709_551_615,
            duration: Duration::from_micros(12_345),
            upstream: Some(Duration::from_micros(11_020)),
        }
    }

    fn write(line: &Line<'_>, format: LogFormat) -> String {
        let mut out = Vec::new();
        line.write(&mut out, format, &mut Stamp::default());
        assert!(out.len() < LONGEST, "{}", out.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_text_reads_from_left_to_right() {
        assert_eq!(
            write(&full(), LogFormat::Text),
            "2026-11-22T08:47:01.007Z POST /ipxo/billing/v1 200 12.345ms route=/ipxo/billing credential=acme caller=erp \
             peer=127.0.0.1 protocol=HTTP/1.1 upstream_protocol=HTTP/2 replayed=true request_id=abc-1 upstream_status=201 \
             upstream=11.020ms request_bytes=0 response_bytes=18446744073709551615 aborted=\"the caller went away\"\n"
        );
        let nothing = write(&Line::default(), LogFormat::Text);
        assert_eq!(nothing, "1970-01-01T00:00:00.000Z - - - 0.000ms request_bytes=0 response_bytes=0\n");
    }

    #[test]
    fn a_line_of_json_is_an_object_with_what_applies() {
        let value: serde_json::Value = serde_json::from_str(&write(&full(), LogFormat::Json)).unwrap();
        assert_eq!(value["time"], "2026-11-22T08:47:01.007Z");
        assert_eq!(value["status"], 200);
        assert_eq!(value["response_bytes"], u64::MAX);
        assert_eq!((value["duration_ms"].as_f64(), value["upstream_ms"].as_f64()), (Some(12.345), Some(11.02)));
        assert_eq!(value["replayed"], true);
        assert_eq!(value.get("error"), None);
        let nothing: serde_json::Value = serde_json::from_str(&write(&Line::default(), LogFormat::Json)).unwrap();
        assert_eq!(nothing.as_object().unwrap().len(), 4, "{nothing}");
    }

    #[test]
    fn whatever_bytes_a_caller_chose_there_is_one_line_and_no_control_character() {
        let every: Vec<u8> = (0..0x80).collect();
        let text = String::from_utf8(every.clone()).unwrap();
        let line = Line { path: &every, request_id: &text, method: &text, route: Some(&text), ..full() };
        let json = write(&line, LogFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((value["path"].as_str(), value["method"].as_str()), (Some(text.as_str()), Some(text.as_str())));
        let plain = write(&line, LogFormat::Text);
        for line in [json, plain] {
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(char::is_control), "{body:?}");
        }
    }

    #[test]
    fn a_long_path_is_cut_and_says_so() {
        for byte in [b'x', 0, b'"'] {
            let long = vec![byte; 100_000];
            let line = Line { path: &long, ..full() };
            assert!(write(&line, LogFormat::Text).contains("… 200 "));
            assert!(write(&line, LogFormat::Json).contains("…\",\"route\""));
        }
    }

    #[test]
    fn the_text_of_a_second_is_made_anew_when_it_changes_either_way() {
        let mut stamp = Stamp::default();
        let mut told = |ms| {
            let mut out = Vec::new();
            stamp.write(&mut out, Some(UNIX_EPOCH + Duration::from_millis(ms)));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(999), "1970-01-01T00:00:00.999Z");
        assert_eq!(told(1_001), "1970-01-01T00:00:01.001Z");
        assert_eq!(told(7), "1970-01-01T00:00:00.007Z");
    }
}
