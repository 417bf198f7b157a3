//! Pax8's delegated login, at `/pax8/login`: a user agrees in a browser, or by a code on another device. It insists
//! on what the real one insists on (the audience) and on what a login must never do without (PKCE).
//!
//! Nobody has to have an account: the page asks "Allow?" and takes yes for an answer.

mod desk;
mod pages;

use std::time::Duration;

use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    fault::Fault,
    idp::{
        Refusal,
        request::{Params, form, json as json_params, pairs},
    },
    provider::{PAX8_AUDIENCES, Provider},
    reply::{Reply, bare, json, text, with},
    server::{Call, Shared},
    tokens::Grant,
};
pub(super) use desk::Desk;
use desk::{Agreed, Asked, Granted};
use pages::{consent, encoded};

/// Its place among the sandbox's paths.
pub(super) const BASE: &str = "/pax8/login/";

/// Where the tokens are: faults and counts of Pax8's identity provider hold here too.
pub(super) const TOKEN: &str = "oauth/token";

const TTL: Duration = Duration::from_secs(86_400);

/// Answers a request below [`BASE`].
pub(super) fn respond(shared: &Shared, call: &Call, path: &str, body: &[u8], fault: &Fault) -> Reply {
    let answer = match (call.head.method.as_str(), path) {
        ("GET", ".well-known/openid-configuration") => Ok(metadata(shared)),
        ("GET", "authorize") => authorize(shared, call),
        ("GET", "activate") => activate(shared, call),
        ("POST", "oauth/device/code") => device(shared, call, body),
        ("POST", TOKEN) => token(shared, call, body, fault),
        _ => return bare(StatusCode::NOT_FOUND),
    };
    answer.unwrap_or_else(|refusal| {
        if path == TOKEN {
            shared.book().provider(Provider::Pax8).tokens_refused += 1;
        }
        let Refusal { status, code, detail, .. } = refusal;
        json(status, &json!({ "error": code, "error_description": detail }))
    })
}

fn issuer(shared: &Shared) -> String {
    format!("{}{}", shared.base_url, BASE.trim_end_matches('/'))
}

fn metadata(shared: &Shared) -> Reply {
    let at = |path: &str| format!("{}{BASE}{path}", shared.base_url);
    let document = json!({
        "issuer": issuer(shared),
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at(TOKEN),
        "device_authorization_endpoint": at("oauth/device/code"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    });
    json(StatusCode::OK, &document)
}

/// The browser's request: a page that asks, and then the way back.
fn authorize(shared: &Shared, call: &Call) -> Result<Reply, Refusal> {
    let query = call.head.query();
    let params = pairs(query)?;
    let client = params.value("client_id").unwrap_or_default();
    if !shared.options.clients.iter().any(|c| c.provider == Provider::Pax8 && c.id == client) {
        return Ok(text(StatusCode::BAD_REQUEST, "there is no such client\n"));
    }
    let back = params.value("redirect_uri").unwrap_or_default();
    if !back.starts_with("http://127.0.0.1:") {
        return Ok(text(StatusCode::BAD_REQUEST, "redirect_uri must be http://127.0.0.1:PORT/…\n"));
    }
    let refused =
        |code: &str, why: &str| Ok(returned(shared, &params, back, &[("error", code), ("error_description", why)]));
    if params.value("response_type") != Some("code") {
        return refused("unsupported_response_type", "response_type must be code");
    }
    let agreed = match asked_for(&params) {
        Ok(agreed) => agreed,
        Err(why) => return refused("invalid_request", why),
    };
    let challenge = params.value("code_challenge").filter(|_| params.value("code_challenge_method") == Some("S256"));
    let Some(challenge) = challenge else {
        return refused("invalid_request", "a code_challenge with the method S256 is required");
    };
    match params.value("consent") {
        None => Ok(consent(&agreed, &format!("{BASE}authorize?{query}"))),
        Some("allow") => {
            let code = shared.desk().code(agreed, back, challenge);
            Ok(returned(shared, &params, back, &[("code", &code)]))
        }
        Some(_) => refused("access_denied", "the user said no"),
    }
}

/// What the user is to agree to. Without an audience the token would be good for nothing.
fn asked_for(params: &Params) -> Result<Agreed, &'static str> {
    let audience = params.value("audience").filter(|audience| PAX8_AUDIENCES.contains(audience));
    Ok(Agreed {
        client: params.value("client_id").unwrap_or_default().to_owned(),
        audience: audience.ok_or("an audience that is known is required")?.to_owned(),
        scopes: params.value("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
    })
}

/// Back to where the login began (RFC 6749 section 4.1.2, RFC 9207).
fn returned(shared: &Shared, params: &Params, back: &str, said: &[(&str, &str)]) -> Reply {
    let issuer = issuer(shared);
    let state = params.value("state").map(|state| ("state", state));
    let mut url = back.to_owned();
    for (name, value) in said.iter().copied().chain(state).chain([("iss", issuer.as_str())]) {
        url.push(if url.contains('?') { '&' } else { '?' });
        url += &[name, "=", &encoded(value)].concat();
    }
    with(bare(StatusCode::FOUND), header::LOCATION, &url)
}

/// RFC 8628 section 3.1.
fn device(shared: &Shared, call: &Call, body: &[u8]) -> Result<Reply, Refusal> {
    let params = of_client(shared, call, body)?;
    let agreed = asked_for(&params).map_err(Refusal::bad_request)?;
    let (code, user) = shared.desk().device(agreed);
    let page = format!("{}{BASE}activate", shared.base_url);
    Ok(json(
        StatusCode::OK,
        &json!({
            "device_code": code,
            "user_code": user,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={user}"),
            "expires_in": desk::DEVICE_LIFE.as_secs(),
            "interval": desk::INTERVAL.as_secs(),
        }),
    ))
}

/// Where the user enters the code.
fn activate(shared: &Shared, call: &Call) -> Result<Reply, Refusal> {
    let params = pairs(call.head.query())?;
    let Some(user) = params.value("user_code") else { return Ok(pages::enter_code(&format!("{BASE}activate"))) };
    let user = user.trim().to_ascii_uppercase();
    let agreed = shared.desk().waiting_for(&user);
    match (agreed, params.value("consent")) {
        (None, _) => Ok(text(StatusCode::NOT_FOUND, "nobody waits for this code\n")),
        (Some(agreed), None) => Ok(consent(&agreed, &format!("{BASE}activate?user_code={}", encoded(&user)))),
        (Some(_), Some(answer)) => {
            shared.desk().answer(&user, answer == "allow");
            Ok(text(StatusCode::OK, "Thank you. You can close this window.\n"))
        }
    }
}

fn token(shared: &Shared, call: &Call, body: &[u8], fault: &Fault) -> Result<Reply, Refusal> {
    let params = of_client(shared, call, body)?;
    let value = |name: &str| params.value(name).unwrap_or_default();
    let client = value("client_id");
    let asked = match value("grant_type") {
        "authorization_code" => {
            Asked::Code { code: value("code"), redirect_uri: value("redirect_uri"), verifier: value("code_verifier") }
        }
        "refresh_token" => Asked::Refresh(value("refresh_token")),
        "urn:ietf:params:oauth:grant-type:device_code" => Asked::Device(value("device_code")),
        _ => return Err(Refusal::new(StatusCode::FORBIDDEN, "unsupported_grant_type", "no such grant here")),
    };
    let Granted { agreed, refresh } = shared.desk().token(client, &asked)?;
    let ttl = fault.ttl.unwrap_or(TTL);
    let grant = Grant {
        provider: Provider::Pax8,
        client: agreed.client.clone(),
        scopes: agreed.scopes.clone(),
        audience: Some(agreed.audience),
        peer: None,
        refresh: false,
    };
    let access = shared.tokens().mint(&grant, ttl, false);
    let mut book = shared.book();
    book.provider(Provider::Pax8).tokens_issued += 1;
    book.client(Provider::Pax8, client).issued += 1;
    drop(book);
    let mut members = Map::new();
    members.insert("access_token".to_owned(), json!(access));
    members.extend(refresh.map(|token| ("refresh_token".to_owned(), json!(token))));
    members.insert("scope".to_owned(), json!(agreed.scopes.join(" ")));
    members.insert("expires_in".to_owned(), json!(ttl.as_secs()));
    members.insert("token_type".to_owned(), json!("Bearer"));
    Ok(with(json(StatusCode::OK, &Value::Object(members)), header::CACHE_CONTROL, "no-store"))
}

/// The parameters, as a form or as JSON, of a client that says who it is.
fn of_client(shared: &Shared, call: &Call, body: &[u8]) -> Result<Params, Refusal> {
    let params = match form(&call.head, body) {
        Ok(params) => params,
        Err(_) => json_params(&call.head, body)?,
    };
    let (id, secret) = (params.value("client_id").unwrap_or_default(), params.value("client_secret"));
    let known = shared.options.clients.iter().find(|c| c.provider == Provider::Pax8 && c.id == id);
    if known.is_some_and(|client| secret == Some(client.secret.as_str())) {
        shared.book().client(Provider::Pax8, id).requests += 1;
        return Ok(params);
    }
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "access_denied", "Unauthorized"))
}
