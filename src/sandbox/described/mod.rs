//! The further providers: each is a file that says what its servers insist on and what they answer.
//!
//! A description is written from what is known of the provider, never from cupbearer's profile of it: it is what
//! the profile is tested against. So it is strict. A request has exactly the parameters, the headers and the
//! encoding that stand here, or it is refused with the difference.
//!
//! 1. [`request`] holds a token request against its description;
//! 2. [`answer`] fills the description's answer in;
//! 3. [`api`] says what a request to the API must carry;
//! 4. [`jwt`] judges what clients sign.

mod answer;
mod api;
mod jwt;
mod request;

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::Value;

pub(super) use answer::{granted, refused};
pub(super) use jwt::private_key;
pub(super) use request::{decide, self_signed};

/// A file of `providers/` is known by its name, which is the profile's too.
macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("providers/", $name, ".toml")))),*] };
}

const FILES: &[(&str, &str)] = files!(
    "twitch" "zoom" "microsoft-entra" "shopify" "toast"
    "paypal" "ebay" "spotify" "salesforce" "salesforce-marketing-cloud" "microsoft-entra-v1" "auth0" "adobe" "fedex" "ups" "dhl-ecommerce" "amadeus" "sabre" "equinix" "xero"
    "marketo" "databricks" "x" "soundcloud" "crowdstrike" "personio" "zoominfo" "tailscale" "sap-ariba" "workday"
    "greenhouse" "kno-commerce" "leapsome" "jobdiva" "jamf" "n-able" "tableau" "odoo" "fiserv" "oracle-ofsll"
    "okta" "google" "github-app" "netsuite" "snowflake"
);

static ALL: LazyLock<Vec<Description>> = LazyLock::new(|| {
    // A file that is wrong is missing, and a test says so.
    FILES.iter().filter_map(|(name, text)| Description::read(name, text).ok()).collect()
});

/// One of the further providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Described(u8);

impl Described {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ALL.len()).filter_map(|at| u8::try_from(at).ok()).map(Self)
    }

    /// What is known of it.
    pub fn description(self) -> &'static Description {
        &ALL[usize::from(self.0)]
    }
}

/// What is known of a provider.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// As its profile is called.
    #[serde(skip)]
    pub name: &'static str,
    /// The real token endpoint, for the account whose `vars` these are. Here its path stands below `/NAME`.
    pub token_url: String,
    /// What the user of this account would fill in.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The one client that is registered.
    pub client: Registered,
    /// A token's life in seconds.
    pub ttl: u32,
    #[serde(default)]
    token: TokenForm,
    /// What every token ends with.
    #[serde(default)]
    suffix: String,
    /// One token for all who ask, until it is revoked.
    #[serde(default)]
    shared: bool,
    /// The account is locked after so many failed logins.
    lock_after: Option<u32>,
    budget: Option<Budget>,
    /// What a JWT that the client signs must be; `{jwt}` says where one stands.
    jwt: Option<jwt::Rules>,
    request: Request,
    answer: Answer,
    refusal: Answer,
    /// Its APIs.
    pub apis: Vec<Api>,
    /// Path of the token endpoint here.
    #[serde(skip)]
    pub(super) token_path: String,
}

/// Who may ask.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Its id; empty where the provider knows none.
    #[serde(default)]
    pub id: String,
    /// Its secret, obviously fake.
    #[serde(default)]
    pub secret: String,
}

/// What a token looks like.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TokenForm {
    /// Letters and digits.
    #[default]
    Opaque,
    /// A JWT with `exp`.
    Jwt,
}

/// So many tokens; more are refused with 429.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    tokens: u64,
    /// Seconds that `Retry-After` tells.
    retry_after: u64,
}

/// What the token endpoint insists on. `{client_id}`, `{client_secret}`, `{basic}` (base64 of `id:secret`) and
/// `{basic_encoded}` (both form-encoded first) stand for the client's; `{scopes}` for any of `scopes`, `{audience}`
/// for any audience of an API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// The form's parameters; neither this nor `json` = no body.
    form: Option<BTreeMap<String, String>>,
    json: Option<Value>,
    /// Scopes that may be asked for.
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default = "space")]
    separator: String,
}

fn post() -> String {
    "POST".to_owned()
}

fn space() -> String {
    " ".to_owned()
}

/// What is answered. The strings of `json` that are `{token}`, `{seconds}`, `{scopes}` … become what they name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    #[serde(default)]
    json: Option<Value>,
    /// The body, where it is not JSON.
    text: Option<String>,
}

/// An API, and what it wants.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// As its profile calls it.
    pub name: String,
    /// The real base URL, for this account. Here its path stands below `/NAME`.
    pub url: String,
    /// All credentials that a request carries, one of them with `{token}` (or `{jwt}`, where tokens are signed by the
    /// client); others may hold `{client_id}`.
    pub headers: BTreeMap<String, String>,
    /// A scope that the token must have.
    pub scope: Option<String>,
    /// The audience (or resource) that the token must be for.
    pub audience: Option<String>,
    #[serde(skip)]
    path: String,
}

impl Description {
    fn read(name: &'static str, text: &str) -> Result<Self, toml::de::Error> {
        let mut read: Self = toml::from_str(text)?;
        read.name = name;
        read.token_path = format!("/{name}{}", path(&read.token_url));
        for api in &mut read.apis {
            path(&api.url).clone_into(&mut api.path);
        }
        Ok(read)
    }

    /// The API that this path (below `/NAME`) belongs to.
    pub(super) fn api(&'static self, rest: &str) -> Option<&'static Api> {
        let covers = |api: &&Api| rest.strip_prefix(&*api.path).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        self.apis.iter().filter(covers).max_by_key(|api| api.path.len())
    }

    /// Whether the client signs with a key instead of showing a secret.
    pub fn wants_key(&self) -> bool {
        self.jwt.is_some()
    }

    /// Whether an answer tells how long its token lives.
    pub fn tells_life(&self) -> bool {
        let told =
            |json: &Value| ["{seconds", "{milliseconds", "{ends_"].iter().any(|word| json.to_string().contains(word));
        let is_jwt = self.token == TokenForm::Jwt || self.apis.iter().any(Api::takes_jwt);
        is_jwt || self.answer.json.as_ref().is_some_and(told)
    }

    /// Path of an API here.
    pub(super) fn api_path(&self, name: &str) -> String {
        let path = self.apis.iter().find(|api| api.name == name).map_or("", |api| &api.path);
        format!("/{}{path}", self.name)
    }

    /// The end of an opaque token; `None` where tokens are JWTs.
    pub(super) fn opaque_suffix(&self) -> Option<&str> {
        (self.token == TokenForm::Opaque).then_some(&self.suffix)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }
}

/// For people: where each of them is, whom it knows, and what its APIs want. The secrets are well-known fakes.
pub(super) fn listing(base_url: &str) -> String {
    let mut text = String::new();
    let mut line = |words: &[&str]| text.extend(words.iter().copied().chain(["\n"]));
    for known in Described::all().map(Described::description) {
        line(&[known.name]);
        line(&["  token endpoint  ", base_url, &known.token_path]);
        let Registered { id, secret } = &known.client;
        let secret = if known.wants_key() { "(signs with /_sandbox/key)" } else { secret.as_str() };
        line(&["  client          ", id, if id.is_empty() { "" } else { "  " }, secret]);
        for (name, value) in &known.vars {
            line(&["  vars            ", name, " = \"", value, "\""]);
        }
        for api in &known.apis {
            line(&["  api             ", base_url, &known.api_path(&api.name), "  ", &api.needs()]);
        }
    }
    text
}

/// The path of a URL, without query.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_can_be_read() {
        for (name, text) in FILES {
            let read = Description::read(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!read.apis.is_empty(), "{name}");
            let is_token = |v: &&String| v.contains("{token}") || v.contains("{jwt}");
            let tokens = |api: &Api| api.headers.values().filter(is_token).count();
            assert!(read.apis.iter().all(|api| tokens(api) == 1), "{name}");
        }
        assert_eq!(Described::all().count(), FILES.len());
    }

    #[test]
    fn the_listing_tells_how_to_ask_each_of_them() {
        let text = listing("http://127.0.0.1:1");
        for known in Described::all().map(Described::description) {
            assert!(text.contains(&format!("\n  token endpoint  http://127.0.0.1:1{}\n", known.token_path)), "{text}");
            assert!(text.contains(&known.client.id) && text.contains(&known.client.secret), "{text}");
        }
    }

    #[test]
    fn the_path_of_a_url_is_what_lies_behind_its_host() {
        assert_eq!(path("https://a.example/b/c?d"), "/b/c");
        assert_eq!(path("https://a.example"), "");
    }
}
