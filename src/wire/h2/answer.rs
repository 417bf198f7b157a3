//! An answer's fields in the words of HTTP/1.1 (RFC 9113 section 8.3.2). Nothing is trusted: what is written is parsed again by
//! [`crate::wire::ResponseHead`]; here is refused what could not be told so, or what HTTP/2 alone forbids.

use http::StatusCode;

use super::frame::Wrong;
use crate::wire::{
    Kind,
    field::{is_token, is_value},
    number,
};

/// Largest head or trailer section, as it is written.
pub const MAX_HEAD: usize = 64 * 1024;

/// Reads one field after the other.
#[derive(Debug)]
pub struct Told<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    is_trailers: bool,
    status: Option<u16>,
    length: Option<u64>,
    wrong: Option<Wrong>,
}

impl<'a> Told<'a> {
    /// A head, or a trailer section, to be appended to `out`.
    pub fn new(out: &'a mut Vec<u8>, is_trailers: bool) -> Self {
        Self { start: out.len(), out, is_trailers, status: None, length: None, wrong: None }
    }

    /// The next field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.wrong.is_none()
            && let Err(wrong) = self.take(name, value)
        {
            self.wrong = Some(wrong);
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Wrong> {
        if self.out.len() - self.start + name.len() + value.len() > MAX_HEAD {
            return Err(Wrong::protocol("its response head is larger than 64 KiB"));
        }
        if self.status.is_none() && !self.is_trailers {
            let status =
                Some(value).filter(|_| name == b":status").and_then(|value| StatusCode::from_bytes(value).ok());
            let status = status.ok_or(Wrong::protocol("its answer does not begin with a status"))?;
            self.status = Some(status.as_u16());
            self.out.extend_from_slice(b"HTTP/1.1 ");
            self.out.extend_from_slice(status.as_str().as_bytes());
            self.out.push(b' ');
            // HTTP/2 has no reason phrase, and some clients take an answer without one for none.
            self.out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
            self.out.extend_from_slice(b"\r\n");
            return Ok(());
        }
        if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
            return Err(Wrong::protocol("a header field of its answer has a name that HTTP/2 has none of"));
        }
        if !is_value(value) || value.trim_ascii().len() < value.len() {
            return Err(Wrong::protocol(
                "a header field of its answer holds control characters, or white space around it",
            ));
        }
        match Kind::of(name) {
            kind if kind.is_of_h1() => {
                return Err(Wrong::protocol("its answer has a header field that HTTP/2 forbids"));
            }
            Kind::ContentLength => {
                // The stream is held to it, for the caller is told it: there is one reading or none.
                let length = content_length(value).filter(|length| self.length.is_none_or(|told| told == *length));
                self.length = Some(length.ok_or(Wrong::protocol("its answer tells no one length"))?);
            }
            _ => {}
        }
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The block cannot be read to its end: nothing of it counts.
    pub fn abandon(self) {
        self.out.truncate(self.start);
    }

    /// The end of the block; `ends`: nothing follows in this stream. Nothing is left of what was wrong.
    pub fn end(self, ends: bool, is_head: bool) -> Result<Answer, Wrong> {
        let wrong = match self.status {
            _ if self.wrong.is_some() => self.wrong,
            None if !self.is_trailers => Some(Wrong::protocol("its answer has no status")),
            Some(101) => Some(Wrong::protocol("it switched protocols over HTTP/2, which cannot be")),
            Some(..200) if ends => Some(Wrong::protocol("it ended its answer with an interim one")),
            _ if self.is_trailers && !ends => Some(Wrong::protocol("its trailers are not the end")),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.out.truncate(self.start);
            return Err(wrong);
        }
        let status = self.status.unwrap_or_default();
        let is_interim = (100..200).contains(&status);
        let has_no_content = is_head || matches!(status, 204 | 304);
        if ends && !is_interim && !has_no_content && !self.is_trailers && self.length.is_none() {
            self.out.extend_from_slice(b"content-length: ");
            number(self.out, 0);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        let body = if has_no_content { Some(0) } else { self.length };
        Ok(Answer { is_interim, body })
    }
}

/// A length, or a list of the same one (RFC 9110 section 8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    let mut all = value.split(|&byte| byte == b',').map(|one| {
        let digits = one.trim_ascii();
        let is_number = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
    });
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

/// A head that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Another one follows.
    pub is_interim: bool,
    /// How many bytes of body follow, where that is known.
    pub body: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &[(&str, &str)], ends: bool, is_head: bool) -> Result<(String, Answer), Wrong> {
        let mut out = b"before ".to_vec();
        let mut told = Told::new(&mut out, false);
        for (name, value) in fields {
            told.field(name.as_bytes(), value.as_bytes());
        }
        let answer = told.end(ends, is_head);
        let text = String::from_utf8(out).unwrap();
        if answer.is_err() {
            assert_eq!(text, "before ");
        }
        answer.map(|answer| (text[7..].to_owned(), answer))
    }

    #[test]
    fn an_answer_keeps_its_fields_and_tells_an_end_that_came_at_once() {
        let (text, answer) = told(&[(":status", "404"), ("x", "1"), ("x", "2")], true, false).unwrap();
        assert_eq!(text, "HTTP/1.1 404 Not Found\r\nx: 1\r\nx: 2\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answer, Answer { is_interim: false, body: None });
        let (text, answer) = told(&[(":status", "200"), ("content-length", "3")], false, false).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(answer.body, Some(3));
        for twice in [&[("content-length", "3, 3")][..], &[("content-length", "3"), ("content-length", "3")]] {
            let fields = [&[(":status", "200")], twice].concat();
            assert_eq!(told(&fields, false, false).unwrap().1.body, Some(3));
        }
        for (status, is_head) in [("204", false), ("304", false), ("200", true)] {
            let (text, answer) = told(&[(":status", status), ("x", "")], true, is_head).unwrap();
            assert!(text.ends_with("x: \r\n\r\n"), "{text}");
            assert_eq!(answer.body, Some(0));
        }
        assert!(told(&[(":status", "103")], false, false).unwrap().1.is_interim);
        assert_eq!(told(&[(":status", "299")], false, false).unwrap().0, "HTTP/1.1 299 \r\n\r\n");
    }

    #[test]
    fn what_http_2_forbids_is_refused() {
        let wrong: &[&[(&str, &str)]] = &[
            &[],
            &[("x", "1")],
            &[("x", "1"), (":status", "200")],
            &[(":status", "200"), (":status", "200")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "20")],
            &[(":status", "2000")],
            &[(":status", "099")],
            &[(":status", "101")],
            &[(":status", "200"), ("X-A", "1")],
            &[(":status", "200"), ("", "1")],
            &[(":status", "200"), ("a b", "1")],
            &[(":status", "200"), ("a:", "1")],
            &[(":status", "200"), ("a", "b\r\nc: d")],
            &[(":status", "200"), ("a", "\0")],
            &[(":status", "200"), ("a", " b")],
            &[(":status", "200"), ("a", "b\t")],
            &[(":status", "200"), ("content-length", "3, 4")],
            &[(":status", "200"), ("content-length", "3"), ("content-length", "4")],
            &[(":status", "200"), ("content-length", "+3")],
            &[(":status", "200"), ("content-length", "3 ")],
            &[(":status", "200"), ("content-length", "")],
            &[(":status", "200"), ("content-length", "3,")],
            &[(":status", "200"), ("content-length", "99999999999999999999")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("transfer-encoding", "chunked")],
        ];
        for fields in wrong {
            assert!(told(fields, false, false).is_err(), "{fields:?}");
        }
        assert!(told(&[(":status", "100")], true, false).is_err());
    }

    #[test]
    fn a_head_that_unfolds_beyond_the_limit_costs_no_more_than_the_limit() {
        let mut out = Vec::new();
        let mut told = Told::new(&mut out, false);
        told.field(b":status", b"200");
        for _ in 0..100_000 {
            told.field(b"a", &[b'v'; 4000]);
        }
        assert!(told.end(true, false).is_err());
        assert!(out.capacity() < 2 * MAX_HEAD && out.is_empty());
    }

    #[test]
    fn trailers_are_lines_and_the_end() {
        let mut out = Vec::new();
        let mut told = Told::new(&mut out, true);
        told.field(b"grpc-status", b"0");
        assert!(told.end(true, false).is_ok());
        assert_eq!(out, b"grpc-status: 0\r\n\r\n");
        for (name, ends) in [(&b":status"[..], true), (b"a", false)] {
            let mut out = Vec::new();
            let mut told = Told::new(&mut out, true);
            told.field(name, b"200");
            assert!(told.end(ends, false).is_err());
        }
    }
}
