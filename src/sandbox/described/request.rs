//! A token request against its description: exactly that, or a refusal that names the difference.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::Value;

use super::Description;
use crate::sandbox::{
    fault::Fault,
    head::Head,
    idp::{
        Refusal,
        request::{Params, form, pairs},
    },
    options::Client,
    provider::Provider,
    server::{Call, Shared},
    tokens::Grant,
};

/// The code of a refusal that is about who asks, not about how.
pub(super) const LOGIN: &str = "login";

/// The grant of a token that the client signed itself, if it is as it must be.
pub(in crate::sandbox) fn self_signed(shared: &Shared, provider: Provider, jwt: &str) -> Option<Grant> {
    let Provider::Described(other) = provider else { return None };
    let known = other.description();
    let is_right = |client: &&Client| {
        client.provider == provider && known.jwt.as_ref().is_some_and(|rules| rules.check(jwt, &client.id, "").is_ok())
    };
    let client = shared.options.clients.iter().find(is_right)?.id.clone();
    Some(Grant { provider, client, scopes: Vec::new(), audience: None, peer: None, refresh: false })
}

/// Decides a request to the token endpoint.
pub(in crate::sandbox) fn decide(
    shared: &Shared,
    call: &Call,
    (provider, description): (Provider, &Description),
    body: &[u8],
    fault: &Fault,
) -> Result<Grant, Refusal> {
    if call.head.method != description.request.method {
        let why = format!("token requests are made with {}", description.request.method);
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", why));
    }
    let received = Received::read(&call.head, description, body)?;
    let mut nearest = None;
    for client in shared.options.clients.iter().filter(|c| c.provider == provider) {
        let token_url = format!("{}{}", shared.base_url, description.token_path);
        let asked = Asked { description, client, token_url: &token_url };
        match asked.compare(&received) {
            Ok(wants) => return granted(shared, (provider, description), client, wants, fault),
            // Somebody else, or the wrong secret: of interest only where nothing else is wrong.
            Err(Difference::Client) => nearest = nearest.or(Some(client)),
            Err(Difference::Form(why)) => return Err(Refusal::bad_request(why)),
        }
    }
    let mut book = shared.book();
    if let Some(client) = nearest {
        book.client(provider, &client.id).requests += 1;
        book.client(provider, &client.id).failures += 1;
    }
    Err(login("The client is not known, or its secret is wrong."))
}

fn login(why: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, LOGIN, why)
}

/// The right client: unless it is locked, or has had enough.
fn granted(
    shared: &Shared,
    (provider, description): (Provider, &Description),
    client: &Client,
    wants: Wants,
    fault: &Fault,
) -> Result<Grant, Refusal> {
    let mut book = shared.book();
    let count = book.client(provider, &client.id);
    count.requests += 1;
    if fault.lock.or(description.lock_after).is_some_and(|limit| count.failures >= limit) {
        return Err(login("The account is locked after too many failed logins."));
    }
    if let Some(budget) = description.budget.filter(|budget| count.issued >= budget.tokens) {
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Too many tokens.");
        return Err(refusal.retry_after(budget.retry_after));
    }
    count.failures = 0;
    let Wants { scopes, audience } = wants;
    Ok(Grant { provider, client: client.id.clone(), scopes, audience, peer: None, refresh: false })
}

/// What came in.
struct Received<'a> {
    head: &'a Head,
    query: Params,
    form: Option<Params>,
    json: Option<Value>,
}

impl<'a> Received<'a> {
    fn read(head: &'a Head, description: &Description, body: &[u8]) -> Result<Self, Refusal> {
        let (mut parameters, mut object) = (None, None);
        let wanted = &description.request;
        if wanted.form.is_some() {
            parameters = Some(form(head, body)?);
        } else if wanted.json.is_some() {
            let media_type = head.one("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
            if media_type != "application/json" {
                return Err(Refusal::bad_request("the request's Content-Type must be application/json"));
            }
            let read = serde_json::from_slice(body).map_err(|_| Refusal::bad_request("the body is not JSON"))?;
            object = Some(read);
        } else if !body.is_empty() {
            return Err(Refusal::bad_request("a token request has no body here"));
        }
        Ok(Self { head, query: pairs(head.query())?, form: parameters, json: object })
    }
}

/// How a request differs from the description.
enum Difference {
    /// Right, but of somebody else.
    Client,
    /// Wrong in itself; the text quotes no value.
    Form(String),
}

/// What is asked for.
#[derive(Default)]
struct Wants {
    scopes: Vec<String>,
    audience: Option<String>,
}

/// A description, for one client.
struct Asked<'a> {
    description: &'a Description,
    client: &'a Client,
    /// As it is here.
    token_url: &'a str,
}

impl Asked<'_> {
    fn compare(&self, received: &Received<'_>) -> Result<Wants, Difference> {
        let request = &self.description.request;
        let mut wants = Wants::default();
        let mut is_client = true;
        let mut check = |place: &str, pattern: &str, value: &str| self.value(place, pattern, value, &mut wants);
        let mut note = |result: Result<bool, Difference>| result.map(|same| is_client &= same);
        for (name, pattern) in &request.headers {
            let value = received.head.one(name).ok_or_else(|| missing("header", name))?;
            note(check(&format!("header {name}"), pattern, value))?;
        }
        if !request.headers.contains_key("authorization") && received.head.one("authorization").is_some() {
            return Err(Difference::Form("there must be no Authorization".to_owned()));
        }
        let empty = BTreeMap::new();
        let groups = [
            ("query parameter", &request.query, Some(&received.query)),
            ("parameter", request.form.as_ref().unwrap_or(&empty), received.form.as_ref()),
        ];
        for (what, wanted, given) in groups {
            let Some(given) = given else { continue };
            if let Some((name, _)) = given.iter().find(|(name, _)| !wanted.contains_key(*name)) {
                return Err(Difference::Form(format!("{what} {name} must not be there")));
            }
            for (name, pattern) in wanted {
                let value = given.value(name).ok_or_else(|| missing(what, name))?;
                note(check(&format!("{what} {name}"), pattern, value))?;
            }
        }
        if let (Some(wanted), Some(given)) = (&request.json, &received.json) {
            json("", wanted, given, &mut |place, pattern, value| note(check(place, pattern, value)))?;
        }
        if is_client { Ok(wants) } else { Err(Difference::Client) }
    }

    /// Whether a value is as it must be; `false` where only the client is another.
    fn value(&self, place: &str, pattern: &str, value: &str, wants: &mut Wants) -> Result<bool, Difference> {
        let wrong = |what: &str| Err(Difference::Form(format!("{place} must be {what}")));
        let request = &self.description.request;
        match pattern {
            "{scopes}" => {
                let scopes: Vec<String> = value.split(&*request.separator).map(str::to_owned).collect();
                if !scopes.iter().all(|scope| request.scopes.contains(scope)) {
                    return wrong(&format!("scopes of {:?} joined by {:?}", request.scopes, request.separator));
                }
                wants.scopes = scopes;
            }
            "{audience}" => {
                let audiences = || self.description.apis.iter().filter_map(|api| api.audience.as_deref());
                if !audiences().any(|audience| audience == value) {
                    return wrong(&format!("one of {:?}", audiences().collect::<Vec<_>>()));
                }
                wants.audience = Some(value.to_owned());
            }
            _ if pattern.contains("{jwt}") => {
                let (before, _) = pattern.split_once("{jwt}").unwrap_or_default();
                let Some(jwt) = value.strip_prefix(before) else { return wrong(pattern) };
                let rules = self.description.jwt.as_ref();
                let rules = rules.ok_or_else(|| Difference::Form("nothing is signed here".to_owned()))?;
                let claims = rules.check(jwt, &self.client.id, self.token_url);
                let claims = claims.map_err(|why| Difference::Form(format!("{place}: the JWT {why}")))?;
                if let Some(scopes) = rules.scope_claim() {
                    let scopes = claims.get(scopes).and_then(Value::as_str).unwrap_or_default();
                    self.value(place, "{scopes}", scopes, wants)?;
                }
            }
            _ if pattern.contains("{client_") || pattern.contains("{basic") => {
                let fixed = pattern.split('{').next().unwrap_or_default();
                if !value.starts_with(fixed) {
                    return wrong(pattern);
                }
                return Ok(self.filled(pattern) == value);
            }
            _ if pattern != value => return wrong(&format!("{pattern:?}")),
            _ => {}
        }
        Ok(true)
    }

    fn filled(&self, pattern: &str) -> String {
        let Client { id, secret, .. } = self.client;
        let encoded = |text: &str| {
            text.bytes().fold(String::new(), |out, byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                    out + &char::from(byte).to_string()
                }
                b' ' => out + "+",
                _ => out + &format!("%{byte:02X}"),
            })
        };
        pattern
            .replace("{client_id}", id)
            .replace("{client_secret}", secret)
            .replace("{basic}", &STANDARD.encode(format!("{id}:{secret}")))
            .replace("{basic_encoded}", &STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))))
    }
}

fn missing(what: &str, name: &str) -> Difference {
    Difference::Form(format!("{what} {name} is missing"))
}

/// The same structure, with strings as `check` wants them.
fn json(
    place: &str,
    wanted: &Value,
    given: &Value,
    check: &mut impl FnMut(&str, &str, &str) -> Result<(), Difference>,
) -> Result<(), Difference> {
    match (wanted, given) {
        (Value::String(pattern), Value::String(value)) => check(&format!("member {place}"), pattern, value),
        (Value::Object(wanted), Value::Object(given)) => {
            if let Some(name) = given.keys().find(|name| !wanted.contains_key(*name)) {
                return Err(Difference::Form(format!("member {place}/{name} must not be there")));
            }
            wanted.iter().try_for_each(|(name, value)| {
                let place = format!("{place}/{name}");
                json(&place, value, given.get(name).ok_or_else(|| missing("member", &place))?, check)
            })
        }
        _ if wanted == given => Ok(()),
        _ => Err(Difference::Form(format!("member {place} has the wrong type or value"))),
    }
}
