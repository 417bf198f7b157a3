//! 7 … what a token says of itself: nothing, or claims that anybody can read. Pure.
//!
//! Not verified: that is the upstream's business. Neither the token nor its signature is shown, and of claims no more
//! than it takes to compare them with what was asked for.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// What kind of token it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It says nothing.
    Opaque,
    /// A signed JWT (RFC 7519).
    Jwt(Jwt),
    /// An encrypted JWT, which only its recipient can read.
    Encrypted,
    /// A JWT without a signature: its claims are the whole token, so none is shown.
    Unsigned,
}

/// Header and claims of a JWT, cut to what may be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// `alg`
    pub alg: String,
    /// `typ`
    pub typ: Option<String>,
    /// `kid`
    pub kid: Option<String>,
    /// Claims in the order of their names; long ones cut.
    pub claims: Map<String, Value>,
    /// Names of claims about a person, whose values are not shown.
    pub personal: Vec<String>,
    /// The scopes in `scope` or `scp`.
    pub scopes: Option<Vec<String>>,
}

/// Claims about a person (OpenID Connect Core section 5.1, and providers' own).
const PERSONAL: &[&str] = &[
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "gender",
    "birthdate",
    "phone_number",
    "address",
    "upn",
    "unique_name",
    "ipaddr",
    "login_hint",
];

/// No more of a text is shown, nor of a list, nor deeper.
const TEXT: usize = 160;
const ITEMS: usize = 16;
const CLAIMS: usize = 40;
const DEPTH: usize = 2;

/// Looks at a token. `hides` tells texts that must not be shown.
pub fn kind(token: &str, hides: &dyn Fn(&str) -> bool) -> Kind {
    let parts: Vec<&str> = token.split('.').collect();
    let Some(head) = object(parts[0]).filter(|head| head.contains_key("alg")) else { return Kind::Opaque };
    let claims = match parts[..] {
        [_, _, _, _, _] => return Kind::Encrypted,
        [_, payload, signature] => match object(payload) {
            Some(_) if signature.is_empty() => return Kind::Unsigned,
            Some(claims) => claims,
            None => return Kind::Opaque,
        },
        _ => return Kind::Opaque,
    };
    let word = |name: &str| head.get(name).and_then(Value::as_str).map(|text| cut(text, hides));
    let scopes = ["scope", "scp"].iter().find_map(|name| scopes(claims.get(*name)?));
    let (personal, shown): (Vec<_>, Vec<_>) =
        claims.into_iter().take(CLAIMS).partition(|(name, _)| PERSONAL.contains(&name.as_str()));
    Kind::Jwt(Jwt {
        alg: word("alg").unwrap_or_default(),
        typ: word("typ"),
        kid: word("kid"),
        claims: shown.into_iter().map(|(name, value)| (cut(&name, hides), pruned(value, DEPTH, hides))).collect(),
        personal: personal.into_iter().map(|(name, _)| name).collect(),
        scopes,
    })
}

/// Scopes as a text (by spaces or commas) or as a list.
pub fn scopes(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => {
            Some(text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        }
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The text without control characters, and not too long.
pub fn cut(text: &str, hides: &dyn Fn(&str) -> bool) -> String {
    if hides(text) {
        return "****".to_owned();
    }
    let mut shown: String = text.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).take(TEXT).collect();
    if text.chars().count() > TEXT {
        shown.push('…');
    }
    shown
}

/// What moves a terminal's cursor, or turns its text around.
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn pruned(value: Value, depth: usize, hides: &dyn Fn(&str) -> bool) -> Value {
    match value {
        Value::String(text) => cut(&text, hides).into(),
        Value::Array(items) if depth > 0 => {
            let more = items.len() > ITEMS;
            let shown = items.into_iter().take(ITEMS).map(|item| pruned(item, depth - 1, hides));
            shown.chain(more.then(|| "…".into())).collect()
        }
        Value::Object(members) if depth > 0 => {
            let more = members.len() > ITEMS;
            let shown = members.into_iter().take(ITEMS);
            let mut shown: Map<String, Value> =
                shown.map(|(name, value)| (cut(&name, hides), pruned(value, depth - 1, hides))).collect();
            if more {
                shown.insert("…".to_owned(), "…".into());
            }
            Value::Object(shown)
        }
        Value::Array(_) | Value::Object(_) => "…".into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwt(head: &Value, claims: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(head), part(claims))
    }

    fn shown(claims: &Value) -> Jwt {
        let token = jwt(&json!({ "alg": "RS256", "typ": "at+jwt", "kid": "k1" }), claims, "c2ln");
        match kind(&token, &|text| text.contains("not-a-secret")) {
            Kind::Jwt(jwt) => jwt,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_jwt_tells_its_claims_but_neither_persons_nor_secrets_nor_novels() {
        let jwt = shown(&json!({
            "iss": "https://login.example.com", "aud": ["a", "b"], "exp": 1, "scp": "read write",
            "email": "someone@example.com", "echo": "it was not-a-secret", "evil\u{1b}[2J": "a\u{1b}[31mb\u{202e}c",
            "long": "x".repeat(1000), "deep": { "a": { "b": { "c": 1 } } }, "list": (0..100).collect::<Vec<_>>(),
        }));
        assert_eq!((jwt.alg.as_str(), jwt.typ.as_deref(), jwt.kid.as_deref()), ("RS256", Some("at+jwt"), Some("k1")));
        assert_eq!(jwt.claims["iss"], "https://login.example.com");
        assert_eq!(jwt.personal, ["email"]);
        assert_eq!(jwt.claims["echo"], "****");
        assert_eq!(jwt.claims["evil\u{fffd}[2J"], "a\u{fffd}[31mb\u{fffd}c");
        assert_eq!(jwt.claims["long"].as_str().unwrap().chars().count(), TEXT + 1);
        assert_eq!(jwt.claims["deep"], json!({ "a": { "b": "…" } }));
        assert_eq!(jwt.claims["list"].as_array().unwrap().len(), ITEMS + 1);
        assert_eq!(jwt.scopes.unwrap(), ["read", "write"]);
    }

    #[test]
    fn what_is_no_signed_jwt_tells_nothing() {
        let opaque = |token: &str| kind(token, &|_| false) == Kind::Opaque;
        assert!(opaque("abc") && opaque("a.b.c") && opaque("") && opaque("..") && opaque("xxx.yyy"));
        let (head, claims) = (json!({ "alg": "none" }), json!({ "sub": "x" }));
        assert_eq!(kind(&jwt(&head, &claims, ""), &|_| false), Kind::Unsigned);
        assert_eq!(kind(&format!("{}.a.b", jwt(&head, &claims, "c")), &|_| false), Kind::Encrypted);
        assert!(opaque(&jwt(&json!({ "no": "alg" }), &claims, "c2ln")));
    }
}
