//! Who asks and for what, by each provider's own rules. The wrong way to ask is refused, because the
//! real ones refuse it too: a proxy that probes would be found out here.

use http::StatusCode;

use super::{
    Refusal,
    request::{Params, basic, decode, form, json},
};
use crate::sandbox::{
    described,
    fault::Fault,
    options::Client,
    provider::{IPXO_SCOPES, PAX8_AUDIENCES, Provider},
    server::{Call, Shared},
    tokens::{Bad, Grant},
};

/// Decides a request to the token endpoint of `provider`.
pub(super) fn decide(
    shared: &Shared,
    call: &Call,
    provider: Provider,
    body: &[u8],
    fault: &Fault,
) -> Result<Grant, Refusal> {
    if let Provider::Described(other) = provider {
        return described::decide(shared, call, (provider, other.description()), body, fault);
    }
    if call.head.method != "POST" {
        let why = "token requests are made with POST";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", why));
    }
    let desk = Desk { shared, call, provider, fault };
    match provider {
        Provider::Ipxo => desk.ipxo(body),
        Provider::DigitalRealty => desk.digital_realty(body),
        Provider::IxApi => desk.ix_api(body),
        Provider::Pax8 => desk.pax8(body),
        Provider::MythicBeasts | Provider::Described(_) => desk.mythic(body),
    }
}

/// IX-API's refresh endpoint: the old refresh token is used up, whatever becomes of the new pair.
pub(super) fn refreshed(shared: &Shared, call: &Call, body: &[u8]) -> Result<Grant, Refusal> {
    let params = json(&call.head, body)?;
    let token = params.value("refresh_token").ok_or_else(|| Refusal::bad_request("refresh_token is missing"))?;
    let mut tokens = shared.tokens();
    let judged = tokens.judge(token, Provider::IxApi, true, call.peer);
    tokens.use_up(token);
    match judged {
        Ok(held) => Ok(Grant { refresh: false, ..held.grant }),
        Err(bad) => {
            let code = if bad == Bad::Expired { "signature-expired" } else { "authentication-error" };
            let why = "The refresh token is expired or was used before.";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, code, why))
        }
    }
}

/// One request before one provider.
struct Desk<'a> {
    shared: &'a Shared,
    call: &'a Call,
    provider: Provider,
    fault: &'a Fault,
}

impl Desk<'_> {
    /// Hydra: a form, and the one authentication method that the client is registered for.
    fn ipxo(&self, body: &[u8]) -> Result<Grant, Refusal> {
        let params = form(&self.call.head, body)?;
        let header = basic(&self.call.head)?;
        let by_header = header.is_some();
        if by_header && params.value("client_secret").is_some() {
            return Err(Refusal::bad_request("the client authenticates in more than one way"));
        }
        let (id, secret) = match header {
            // RFC 6749 section 2.3.1: both are form-encoded inside.
            Some((id, secret)) => (decode(&id).unwrap_or_default(), decode(&secret).unwrap_or_default()),
            None => body_pair(&params, "client_id", "client_secret"),
        };
        let invalid = "Client authentication failed (e.g., unknown client, no client authentication included, \
            or unsupported authentication method).";
        let client = self.login(&id, &secret, StatusCode::UNAUTHORIZED, "invalid_client", invalid)?;
        if client.basic != by_header {
            let method = |basic| if basic { "client_secret_basic" } else { "client_secret_post" };
            let why = format!(
                "{invalid} The OAuth 2.0 Client supports client authentication method '{}', but method '{}' was \
                 requested.",
                method(client.basic),
                method(by_header)
            );
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", why));
        }
        grant_type(&params)?;
        let scopes: Vec<String> = words(params.value("scope"));
        if let Some(unknown) = scopes.iter().find(|s| !IPXO_SCOPES.contains(&s.as_str())) {
            let why = format!(
                "The requested scope is invalid, unknown, or malformed. The OAuth 2.0 Client is not allowed to \
                 request scope '{}'.",
                shown(unknown)
            );
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_scope", why));
        }
        Ok(self.grant(client, scopes, None))
    }

    /// An identity server of .NET's kind: a form, the secret in it, the scopes its own.
    fn digital_realty(&self, body: &[u8]) -> Result<Grant, Refusal> {
        const SCOPES: [&str; 3] = ["resource.api", "resource.ixapi", "resource.productcatalogapi"];
        let params = form(&self.call.head, body)?;
        if self.call.head.one("authorization").is_some() {
            let why = "this client authenticates in the body";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_client", why));
        }
        let (id, secret) = body_pair(&params, "client_id", "client_secret");
        let client = self.login(&id, &secret, StatusCode::BAD_REQUEST, "invalid_client", "")?;
        grant_type(&params)?;
        if words(params.value("scope")).iter().any(|s| !SCOPES.contains(&s.as_str())) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_scope", ""));
        }
        Ok(self.grant(client, SCOPES.map(str::to_owned).into(), None))
    }

    /// IX-API: key and secret as JSON, nothing else.
    fn ix_api(&self, body: &[u8]) -> Result<Grant, Refusal> {
        let params = json(&self.call.head, body)?;
        let (key, secret) = body_pair(&params, "api_key", "api_secret");
        let why = "The api_key or api_secret is not valid.";
        let client = self.login(&key, &secret, StatusCode::UNAUTHORIZED, "authentication-error", why)?;
        Ok(self.grant(client, Vec::new(), None))
    }

    /// Pax8: JSON, and an audience that it knows; whatever is wrong is `access_denied`.
    fn pax8(&self, body: &[u8]) -> Result<Grant, Refusal> {
        let denied = || Refusal::new(StatusCode::UNAUTHORIZED, "access_denied", "Unauthorized");
        let params = json(&self.call.head, body)?;
        if self.call.head.one("authorization").is_some() {
            return Err(denied());
        }
        let (id, secret) = body_pair(&params, "client_id", "client_secret");
        let client = self.login(&id, &secret, StatusCode::UNAUTHORIZED, "access_denied", "Unauthorized")?;
        grant_type(&params)?;
        let audience = params.value("audience").filter(|a| PAX8_AUDIENCES.contains(a)).ok_or_else(denied)?;
        let scopes: &[&str] = match audience {
            "api://provisioning" => &["vendorSimulation:provisioning"],
            "api://usage" => &["read:usageLine", "write:usageLine"],
            _ => &[],
        };
        Ok(self.grant(client, scopes.iter().map(|s| (*s).to_owned()).collect(), Some(audience.to_owned())))
    }

    /// Mythic Beasts: Basic and nothing but Basic; the token is bound to the peer's address.
    fn mythic(&self, body: &[u8]) -> Result<Grant, Refusal> {
        let params = form(&self.call.head, body)?;
        let (id, secret) = basic(&self.call.head)?.unwrap_or_default();
        if !id.is_empty() && params.value("client_secret").is_some() {
            return Err(Refusal::bad_request("the client authenticates in more than one way"));
        }
        let client = self.login(&id, &secret, StatusCode::UNAUTHORIZED, "invalid_client", "Invalid credentials")?;
        grant_type(&params)?;
        let mut grant = self.grant(client, Vec::new(), None);
        grant.peer = Some(self.call.peer);
        Ok(grant)
    }

    /// The client with this id and secret. Failed logins of a known client are counted; with `lock` it is
    /// refused after too many of them, also with the right secret.
    fn login(
        &self,
        id: &str,
        secret: &str,
        status: StatusCode,
        code: &'static str,
        why: &str,
    ) -> Result<&Client, Refusal> {
        let no = |why: &str| Err(Refusal::new(status, code, why));
        let clients = &self.shared.options.clients;
        let Some(client) = clients.iter().find(|c| c.provider == self.provider && c.id == id) else { return no(why) };
        let mut book = self.shared.book();
        let count = book.client(self.provider, id);
        count.requests += 1;
        if self.fault.lock.is_some_and(|limit| count.failures >= limit) {
            return no("The account is locked after too many failed logins.");
        }
        if client.secret != secret {
            count.failures += 1;
            return no(why);
        }
        count.failures = 0;
        Ok(client)
    }

    fn grant(&self, client: &Client, scopes: Vec<String>, audience: Option<String>) -> Grant {
        let client = client.id.clone();
        Grant { provider: self.provider, client, scopes, audience, peer: None, refresh: false }
    }
}

fn body_pair(params: &Params, id: &str, secret: &str) -> (String, String) {
    let value = |name| params.value(name).unwrap_or_default().to_owned();
    (value(id), value(secret))
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// A piece of the request that an answer may quote: short and plain.
fn shown(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn grant_type(params: &Params) -> Result<(), Refusal> {
    match params.value("grant_type") {
        Some("client_credentials") => Ok(()),
        Some(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "only client_credentials")),
        None => Err(Refusal::bad_request("grant_type is missing")),
    }
}
