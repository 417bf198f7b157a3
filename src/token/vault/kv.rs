//! Where a secret of the KV store is, and what its answer says.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Answer, Trouble};
use crate::config::secret::{Secret, VaultSecret};

/// `GET` of the newest version.
pub(super) fn target(base: &str, secret: &VaultSecret) -> String {
    format!("{base}/v1/{}/data/{}", escaped(&secret.mount), escaped(&secret.path))
}

/// What may not stand in a request target is escaped; slashes stay.
fn escaped(path: &str) -> String {
    use fmt::Write as _;
    path.bytes().fold(String::with_capacity(path.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
        out
    })
}

/// The fields of one version of a secret.
#[derive(Debug, Deserialize)]
pub(super) struct Fields(HashMap<String, Field>);

impl Fields {
    /// One of them; the error names no other.
    pub(super) fn get(&self, name: &str) -> Result<&Secret, String> {
        match self.0.get(name) {
            Some(Field(Some(secret))) => Ok(secret),
            Some(Field(None)) => Err("this field of it is no text".to_owned()),
            None => Err("it has no such field".to_owned()),
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    data: Option<Versioned>,
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    data: Option<Fields>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// The version and its fields. A deleted or destroyed one comes with status 404 and its metadata.
pub(super) fn read(answer: &Answer) -> Result<(u64, Fields), Trouble> {
    let refused = |why: &str| Err(Trouble::Refused(why.to_owned()));
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&answer.body) else {
        return Err(Trouble::Away(format!("answered something that is no KV secret (HTTP {})", answer.status)));
    };
    match (answer.status, envelope.data) {
        (_, Some(Versioned { metadata: Some(Metadata { destroyed: true, .. }), .. })) => {
            refused("its newest version was destroyed in Vault: write a new one")
        }
        (_, Some(Versioned { metadata: Some(Metadata { deletion_time, .. }), data: None }))
            if !deletion_time.is_empty() =>
        {
            refused("its newest version was deleted in Vault: undelete it or write a new one")
        }
        (200, Some(Versioned { data: Some(fields), metadata: Some(Metadata { version, .. }) })) => {
            Ok((version, fields))
        }
        (200, _) => refused("the store there is no KV store of version 2"),
        (400, _) => refused("Vault does not understand the path (HTTP 400)"),
        _ => refused(
            "there is no such secret in Vault (HTTP 404): check mount and path, and that the store is KV version 2",
        ),
    }
}

/// A value: text, or a whole number as it is written; nothing else makes a secret. Wiped on drop.
struct Field(Option<Secret>);

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field(Some(Secret::new(text.to_owned()))))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field(Some(Secret::new(text))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field(Some(Secret::new(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field(Some(Secret::new(number.to_string()))))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field(None))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field(None))
    }
}
