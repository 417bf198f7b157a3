//! Reads the answers in `replies.toml`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cupbearer::{
    config::model::{CredentialSpec, ExpiresUnit, Grant},
    token::{
        bearer::Now,
        lifetime::LifetimeSource,
        refusal::Severity,
        reply::{self, Answer, Minted},
    },
};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use crate::support::{SECRET, credential, duration, given as secret_source, read};

const SENT: u64 = 1_734_627_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reply: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: String,
    then: Then,
}

fn ok() -> u16 {
    200
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Given {
    token_field: Option<String>,
    expires_field: Option<String>,
    expires_unit: Option<String>,
    default_ttl: Option<String>,
    secret: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Then {
    token: Option<String>,
    life: Option<String>,
    from: Option<String>,
    skew: Option<i64>,
    transient: Option<String>,
    permanent: Option<String>,
    code: Option<String>,
    detail: Option<String>,
    retry_after: Option<String>,
}

#[tokio::test]
async fn every_answer_is_read_as_the_table_says() {
    let file: File = toml::from_str(include_str!("replies.toml")).expect("legal TOML");
    let mut wrong = String::new();
    for case in &file.reply {
        if let Err(why) = judge(case).await {
            let _ = writeln!(wrong, "{}\n    {why}", case.name);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

async fn judge(case: &Case) -> Result<(), String> {
    let credential = given(&case.given)?;
    let material = read(&credential).await.map_err(|e| e.to_string())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        headers.insert(name, value.parse().map_err(|_| "an illegal header value")?);
    }
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(SENT);
    let sent = Now { mono: Instant::now(), wall };
    let answer = Answer { status: case.status, headers, body: with_jwt(&case.body).into(), sent, received: wall };
    let then = &case.then;
    match reply::read(&credential, &material, &answer) {
        Ok(minted) => is_minted(then, &minted),
        Err(refusal) => {
            let (severity, words) = match (&then.transient, &then.permanent) {
                (Some(words), None) => (Severity::Transient, words),
                (None, Some(words)) => (Severity::Permanent, words),
                _ => return Err(format!("refused: {refusal:?}")),
            };
            let retry_after = then.retry_after.as_deref().map(duration).transpose()?;
            let detail = then.detail.as_ref().map(|detail| Some(detail).filter(|d| !d.is_empty()));
            let right = refusal.severity == severity
                && refusal.message.contains(words)
                && refusal.retry_after == retry_after
                && then.code.as_ref().is_none_or(|code| refusal.code.as_ref() == Some(code))
                && detail.is_none_or(|detail| refusal.detail.as_ref() == detail);
            if right { Ok(()) } else { Err(format!("refused: {refusal:?}")) }
        }
    }
}

fn is_minted(then: &Then, minted: &Minted) -> Result<(), String> {
    let from = match minted.life_from {
        LifetimeSource::ExpiresIn => "expires_in",
        LifetimeSource::ExpiresAt => "expires_at",
        LifetimeSource::Jwt => "jwt",
        LifetimeSource::DefaultTtl => "default_ttl",
        LifetimeSource::Stored => "stored",
    };
    let life = then.life.as_deref().ok_or("there is a token")?;
    let right = then.token.as_ref().is_none_or(|token| token == minted.token.expose())
        && minted.life == duration(life)?
        && then.from.as_ref().is_none_or(|source| source == from)
        && (then.skew.is_none() || then.skew == minted.skew);
    if right { Ok(()) } else { Err(format!("minted: {minted:?} {from}")) }
}

fn given(given: &Given) -> Result<CredentialSpec, String> {
    let mut credential = credential(1);
    let secret = given.secret.as_deref().unwrap_or(SECRET);
    credential.client_secret = Some(secret_source(secret));
    if let Some(field) = &given.token_field {
        credential.token_field.clone_from(field);
    }
    if let Some(field) = &given.expires_field {
        credential.expires_field.clone_from(field);
    }
    if let Some(ttl) = &given.default_ttl {
        credential.default_ttl = duration(ttl)?;
    }
    if given.expires_unit.as_deref() == Some("ms") {
        credential.expires_unit = ExpiresUnit::Millis;
    }
    Ok(credential)
}

/// Replaces `JWT{…}` by an unsigned JWT with these claims.
fn with_jwt(body: &str) -> String {
    let Some((before, rest)) = body.split_once("JWT{") else { return body.to_owned() };
    let (claims, after) = rest.split_once('}').expect("claims end");
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let (head, claims) = (part(r#"{"alg":"none"}"#), part(&format!("{{{claims}}}")));
    format!("{before}{head}.{claims}.c2ln{after}")
}

#[tokio::test]
async fn a_token_longer_than_any_header_is_no_token() {
    let credential = credential(1);
    let material = read(&credential).await.unwrap();
    let body = format!(r#"{{"access_token":"{}","expires_in":60}}"#, "a".repeat(16 * 1024 + 1));
    assert!(reply::read(&credential, &material, &answer(&body)).is_err());
}

fn answer(body: &str) -> Answer {
    let (sent, body) = (Now::read(), body.to_owned().into());
    Answer { status: 200, headers: HeaderMap::new(), body, sent, received: sent.wall }
}

#[test]
fn an_answer_shows_nothing_of_what_is_in_it() {
    let mut answer = answer(r#"{"access_token":"not-a-token"}"#);
    answer.headers.insert("set-cookie", "session=not-a-token".parse().unwrap());
    let shown = format!("{answer:?} {answer:#?}");
    assert!(shown.contains("200") && shown.contains("30 bytes"), "{shown}");
    assert!(!shown.contains("not-a-token") && !shown.contains("110, 111, 116"), "{shown}");
}

#[tokio::test]
async fn a_refresh_token_beside_a_token_that_is_no_good_comes_with_the_refusal() {
    let mut credential = credential(1);
    credential.grant = Grant::RefreshToken { first: None };
    let material = read(&credential).await.unwrap();
    let next = r#""refresh_token":"not a-token-2""#;
    for body in [
        format!(r#"{{"access_token":"t","expires_in":0,{next}}}"#),
        format!(r#"{{"access_token":"t t","expires_in":60,{next}}}"#),
        format!(r#"{{"access_token":null,{next}}}"#),
        format!(r#"{{"error":"server_error",{next}}}"#),
        "expires_in=60&refresh_token=not+a-token-2".to_owned(),
    ] {
        let refusal = reply::read(&credential, &material, &answer(&body)).expect_err(&body);
        assert_eq!(refusal.refresh.as_ref().map(|token| token.expose()), Some("not a-token-2"), "{body}");
        assert!(!format!("{refusal:?}").contains("a-token-2"), "{refusal:?}");
    }
    let quoting = format!(r#"{{"error":"x","error_description":"for not a-token-2 see",{next}}}"#);
    assert_eq!(reply::read(&credential, &material, &answer(&quoting)).unwrap_err().detail, None);
    let refused = Answer { status: 400, ..answer(&format!(r#"{{"error":"invalid_grant",{next}}}"#)) };
    assert_eq!(reply::read(&credential, &material, &refused).unwrap_err().refresh, None, "no success, no token");
}
