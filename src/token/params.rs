//! 2 … the parameters of a token request, and the three ways to write them: form, query, JSON. Pure.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// Room for a body, so that it seldom grows, which would leave copies of a secret behind.
pub(super) const ROOM: usize = 2048;

/// A value.
pub(super) type Text<'a> = Cow<'a, str>;

/// Names and their values, in the order in which they were first named. Each name once, with several values
/// only by [`Params::add`].
#[derive(Default)]
pub(super) struct Params<'a>(Vec<(&'a str, Vec<Text<'a>>)>);

impl<'a> Params<'a> {
    /// This value and no other.
    pub(super) fn set(&mut self, name: &'a str, value: Text<'a>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = vec![value],
            None => self.0.push((name, vec![value])),
        }
    }

    /// One value more.
    pub(super) fn add(&mut self, name: &'a str, value: &'a str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value.into()),
            None => self.0.push((name, vec![value.into()])),
        }
    }

    /// `application/x-www-form-urlencoded`, as a body or as a query.
    pub(super) fn to_form(&self) -> Zeroizing<String> {
        let mut form = Zeroizing::new(String::with_capacity(ROOM));
        for (name, values) in &self.0 {
            for value in values {
                if !form.is_empty() {
                    form.push('&');
                }
                form_encode(name, &mut form);
                form.push('=');
                form_encode(value, &mut form);
            }
        }
        form
    }

    /// One object; several values of one name become an array. A name that starts with a slash is a JSON
    /// pointer (RFC 6901) to where its value belongs; members `0`, `1`, … make an array.
    ///
    /// The error is the name that has no place beside the others.
    pub(super) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut root = Node::Object(Vec::new());
        for (name, values) in &self.0 {
            let path: Vec<String> = match name.strip_prefix('/') {
                Some(pointer) => pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect(),
                None => vec![(*name).to_owned()],
            };
            root.put(&path, values).ok_or_else(|| (*name).to_owned())?;
        }
        let mut json = Zeroizing::new(Vec::with_capacity(ROOM));
        root.write(&mut json);
        Ok(json)
    }
}

/// A piece of a JSON body.
enum Node<'p, 'a> {
    /// Not known yet.
    Open,
    Values(&'p [Text<'a>]),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl<'p, 'a> Node<'p, 'a> {
    /// `None` where something else stands already, or an array would get a gap.
    fn put(&mut self, path: &[String], values: &'p [Text<'a>]) -> Option<()> {
        let Some((step, rest)) = path.split_first() else {
            let free = matches!(self, Self::Open);
            *self = Self::Values(values);
            return free.then_some(());
        };
        if matches!(self, Self::Open) {
            *self = if step == "0" { Self::Array(Vec::new()) } else { Self::Object(Vec::new()) };
        }
        match self {
            Self::Open | Self::Values(_) => None,
            Self::Array(items) => {
                let index: usize = step.parse().ok()?;
                if index == items.len() {
                    items.push(Self::Open);
                }
                items.get_mut(index)?.put(rest, values)
            }
            Self::Object(members) => {
                let known = members.iter().position(|(name, _)| name == step);
                let index = known.unwrap_or_else(|| {
                    members.push((step.clone(), Self::Open));
                    members.len() - 1
                });
                members.get_mut(index)?.1.put(rest, values)
            }
        }
    }

    fn write(&self, json: &mut Vec<u8>) {
        match self {
            Self::Open => json.extend_from_slice(b"null"),
            Self::Values([one]) => json_string(one, json),
            Self::Values(several) => list(json, (b'[', b']'), several.iter(), |value, json| json_string(value, json)),
            Self::Array(items) => list(json, (b'[', b']'), items.iter(), Node::write),
            Self::Object(members) => list(json, (b'{', b'}'), members.iter(), |(name, node), json| {
                json_string(name, json);
                json.push(b':');
                node.write(json);
            }),
        }
    }
}

fn list<T>(
    json: &mut Vec<u8>,
    (open, close): (u8, u8),
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    json.push(open);
    for (position, item) in items.enumerate() {
        if position > 0 {
            json.push(b',');
        }
        write(item, json);
    }
    json.push(close);
}

/// Appends a JSON string.
fn json_string(text: &str, json: &mut Vec<u8>) {
    // Into memory and from a string: nothing can fail.
    let _ = serde_json::to_writer(json, text);
}

/// The serializer of `application/x-www-form-urlencoded` (WHATWG URL section 5.2; RFC 6749 appendix B).
pub(super) fn form_encode(text: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => into.push(char::from(byte)),
            b' ' => into.push('+'),
            _ => {
                into.push('%');
                into.push(char::from(HEX[usize::from(byte >> 4)]));
                into.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

/// The way back; `None` for what no serializer writes.
pub(super) fn form_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
