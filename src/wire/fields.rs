//! The field lines of a head or a trailer section, and the framing that they tell (RFC 9112 sections 5 and 6).

use super::{
    Framing, HeadError, Span, Version,
    field::{Field, Kind, Kinds, is_token, list},
    scan,
};

/// How many fields a head may have.
pub const MAX_FIELDS: usize = 128;
/// How many options `Connection` may have: each is compared with every field.
const MAX_OPTIONS: usize = 64;

/// The fields of a head, and those that frame it or may stand only once.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Field>,
    pub(super) kinds: Kinds,
    pub(super) host: Single,
    pub(super) expect: Single,
    length: Single,
    encoding: Single,
    options: usize,
}

/// The value of a field that may stand only once, and how often it does.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Single {
    count: u8,
    value: Span,
}

impl Single {
    fn note(&mut self, value: Span) {
        *self = Self { count: self.count.saturating_add(1), value };
    }

    /// `Ok(None)` where there is none, an error where there are several.
    pub(super) fn value(self, many: HeadError) -> Result<Option<Span>, HeadError> {
        match self.count {
            0 => Ok(None),
            1 => Ok(Some(self.value)),
            _ => Err(many),
        }
    }
}

impl Fields {
    /// Parses field lines from `at` up to and including the empty line; `reused` saves an allocation.
    pub(super) fn parse(bytes: &[u8], mut at: usize, reused: Vec<Field>, underscores: bool) -> Result<Self, HeadError> {
        let mut fields = Self { list: reused, ..Self::default() };
        fields.list.clear();
        loop {
            if bytes[at..].starts_with(b"\r\n") {
                return Ok(fields);
            }
            if fields.list.len() == MAX_FIELDS {
                return Err(HeadError::TooManyFields);
            }
            let (field, next) = field(bytes, at, underscores)?;
            fields.note(field, bytes);
            if fields.options > MAX_OPTIONS {
                return Err(HeadError::TooManyOptions);
            }
            fields.list.push(field);
            at = next;
        }
    }

    fn note(&mut self, field: Field, bytes: &[u8]) {
        self.kinds.add(field.kind);
        match field.kind {
            Kind::Host => self.host.note(field.value),
            Kind::ContentLength => self.length.note(field.value),
            Kind::TransferEncoding => self.encoding.note(field.value),
            Kind::Expect => self.expect.note(field.value),
            Kind::Connection => self.options += list(field.value(bytes)).count(),
            _ => {}
        }
    }

    /// Makes one length of several that are all the same, in lines or in a list, as RFC 9110 section 8.6 allows; whether
    /// that could be done. For answers only: what a caller sends may have been read by somebody before us.
    pub(super) fn merge_lengths(&mut self, bytes: &[u8]) -> bool {
        let of_kind = || self.list.iter().filter(|field| field.kind == Kind::ContentLength);
        let Some(first) = of_kind().next().map(|field| field.value) else { return false };
        let value = first.of(bytes).split(|&b| b == b',').next().unwrap_or_default().trim_ascii_end();
        if !of_kind().flat_map(|field| field.value(bytes).split(|&b| b == b',')).all(|same| same.trim_ascii() == value)
        {
            return false;
        }
        let start = first.start as usize;
        let merged = Span::new(start, start + value.len());
        self.list.retain_mut(|field| {
            let is_first = field.value.start == first.start;
            if field.kind == Kind::ContentLength && is_first {
                field.value = merged;
            }
            field.kind != Kind::ContentLength || is_first
        });
        self.length = Single { count: 1, value: merged };
        true
    }

    /// The framing that the fields tell, `None` where they tell none (RFC 9112 section 6.3).
    pub(super) fn framing(&self, bytes: &[u8], version: Version) -> Result<Option<Framing>, HeadError> {
        if self.encoding.count > 0 && self.length.count > 0 {
            return Err(HeadError::LengthAndEncoding);
        }
        if let Some(length) = self.length.value(HeadError::Length)? {
            return Ok(Some(Framing::Length(content_length(length.of(bytes))?)));
        }
        let Some(encoding) = self.encoding.value(HeadError::Encoding)? else { return Ok(None) };
        let value = encoding.of(bytes);
        if version == Version::H10 {
            return Err(HeadError::Encoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(Some(Framing::Chunked));
        }
        let chunked = list(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
        let legal = list(value).all(|coding| is_token(coding.split(|&b| b == b';').next().unwrap_or_default()));
        Err(if legal && chunked < 2 && list(value).next().is_some() {
            HeadError::UnknownEncoding
        } else {
            HeadError::Encoding
        })
    }
}

/// The field line that begins at `at`, and where the next one does. One pass: the first byte that may not stand in the name, and
/// then the first that may not stand in the value, says where each ends or what is wrong.
fn field(bytes: &[u8], at: usize, underscores: bool) -> Result<(Field, usize), HeadError> {
    let name = scan::name(bytes, at);
    let rest = &bytes[name.end..];
    match rest {
        [b':', ..] if name.end > at => {}
        [b' ' | b'\t', ..] if name.end == at => return Err(HeadError::Folded),
        [] | [b'\n', ..] => return Err(HeadError::LineEnd),
        [b'\r', next @ ..] if next.first() != Some(&b'\n') => return Err(HeadError::LineEnd),
        _ => return Err(HeadError::FieldName),
    }
    if name.has_underscore && !underscores {
        return Err(HeadError::Underscore);
    }
    let colon = name.end;
    let end = scan::value_end(bytes, colon + 1);
    match &bytes[end..] {
        [b'\r', b'\n', ..] => {}
        // A CR inside the line is a line end to some readers; say so.
        [] | [b'\r' | b'\n', ..] => return Err(HeadError::LineEnd),
        _ => return Err(HeadError::FieldValue),
    }
    let value = bytes[colon + 1..end].trim_ascii_start();
    let start = end - value.len();
    let value = Span::new(start, start + value.trim_ascii_end().len());
    Ok((Field { kind: Kind::of(&bytes[at..colon]), name: Span::new(at, colon), value }, end + 2))
}

/// A `Content-Length` value: digits only, no sign, no list, no overflow.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Parses a trailer section: field lines up to and including the empty line. `underscores`: whether names may hold them, as they may
/// in answers.
pub fn trailers(bytes: &[u8], underscores: bool) -> Result<Vec<Field>, HeadError> {
    Fields::parse(bytes, 0, Vec::new(), underscores).map(|fields| fields.list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_in_trailers_pass_where_they_are_said_to() {
        let section = b"grpc-status: 0\r\nmy_key: v\r\n\r\n";
        let names: Vec<_> = trailers(section, true).unwrap().iter().map(|field| field.name(section).to_vec()).collect();
        assert_eq!(names, [&b"grpc-status"[..], b"my_key"]);
        assert_eq!(trailers(section, false).err(), Some(HeadError::Underscore));
        assert_eq!(trailers(b"my key: v\r\n\r\n", true).err(), Some(HeadError::FieldName));
    }
}
