//! Who is played, and what a request path means: one listener stands for all hosts, told apart by the
//! first path segment.

use serde::{Serialize, Serializer};

use super::described::{Api, Described};

use super::login;

/// A provider that the sandbox plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// IPXO: Hydra in front, one scope per API.
    Ipxo,
    /// Digital Realty / Interxion: IX-API behind `OAuth2`.
    DigitalRealty,
    /// IX-API's own key and secret login.
    IxApi,
    /// Pax8: JSON with an audience.
    Pax8,
    /// Mythic Beasts: Basic, sliding, bound to the peer's address.
    MythicBeasts,
    /// Any other, by its description.
    Described(Described),
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Provider {
    /// Those with rules in code and resources of their own.
    pub const FOUNDING: [Self; 5] = [Self::Ipxo, Self::DigitalRealty, Self::IxApi, Self::Pax8, Self::MythicBeasts];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::FOUNDING.into_iter().chain(Described::all().map(Self::Described))
    }

    /// First path segment, and name in fault specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipxo => "ipxo",
            Self::DigitalRealty => "digital-realty",
            Self::IxApi => "ix-api",
            Self::Pax8 => "pax8",
            Self::MythicBeasts => "mythic",
            Self::Described(other) => other.description().name,
        }
    }

    /// The provider of that [`name`](Self::name) (or of its profile's name).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "mythic-beasts" => Some(Self::MythicBeasts),
            _ => Self::all().find(|p| p.name() == name),
        }
    }

    /// Path of the token endpoint.
    pub fn token_path(self) -> &'static str {
        match self {
            Self::Ipxo => "/ipxo/oauth2/token",
            Self::DigitalRealty => "/digital-realty/connect/token",
            Self::IxApi => "/ix-api/api/v2/auth/token",
            Self::Pax8 => "/pax8/v1/token",
            Self::MythicBeasts => "/mythic/login",
            Self::Described(other) => &other.description().token_path,
        }
    }

    /// Base path of an API: `scope` or API name for IPXO (`billing`), `v1`, `v2` or `api/v2` for Pax8,
    /// `dns/v2`, `beta` or `queue` for Mythic Beasts; ignored for the two IX-APIs; the name for any other.
    pub fn api_path(self, api: &str) -> String {
        match self {
            Self::DigitalRealty => "/digital-realty/ixapi/v2".to_owned(),
            Self::IxApi => "/ix-api/api/v2".to_owned(),
            Self::Described(other) => other.description().api_path(api),
            _ => format!("/{}/{api}", self.name()),
        }
    }
}

/// The two halves of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The token endpoint.
    Idp,
    /// The API.
    Api,
}

impl Side {
    /// Name in fault specs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idp => "idp",
            Self::Api => "api",
        }
    }
}

/// What a token must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No token at all (IX-API's `/health`).
    Nothing,
    /// Any token of this provider.
    Token,
    /// A token with this scope.
    Scope(&'static str),
    /// A token for this audience.
    Audience(&'static str),
    /// Whatever the description of this API says.
    Described(&'static Api),
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `/_sandbox/…`, without that prefix.
    Control(&'a str),
    /// A token endpoint.
    Token(Provider),
    /// IX-API's refresh endpoint.
    Refresh,
    /// An API: what it needs, and the path below the provider's segment.
    Api(Provider, Need, &'a str),
    /// Pax8's delegated login: the rest behind `/pax8/login/`.
    Login(&'a str),
    /// Nothing here.
    Nowhere,
}

impl Place<'_> {
    /// The fault target that this place belongs to.
    pub(super) fn target(self) -> Option<(Provider, Side)> {
        match self {
            Self::Token(provider) => Some((provider, Side::Idp)),
            Self::Refresh => Some((Provider::IxApi, Side::Idp)),
            Self::Login(login::TOKEN) => Some((Provider::Pax8, Side::Idp)),
            Self::Api(provider, ..) => Some((provider, Side::Api)),
            Self::Control(_) | Self::Login(_) | Self::Nowhere => None,
        }
    }
}

/// Scopes that IPXO's clients may have; each is the name of an API too.
pub(super) const IPXO_SCOPES: [&str; 6] = ["billing", "ecommerce", "credits", "nethub-data", "nethub-analytics", "dns"];

/// Audiences that Pax8 knows.
pub(super) const PAX8_AUDIENCES: [&str; 4] =
    ["https://api.pax8.com", "api://p8p.client", "api://provisioning", "api://usage"];

/// For people: where the APIs are, and what their tokens need.
pub(super) const APIS: [(&str, &str); 11] = [
    ("/ipxo/billing/v1", "scope billing; likewise ecommerce, credits, nethub-data, nethub-analytics, dns"),
    ("/digital-realty/ixapi/v2", "any token of Digital Realty"),
    ("/ix-api/api/v2", "any token of IX-API"),
    ("/pax8/v1", "audience https://api.pax8.com"),
    ("/pax8/v2/quotes", "audience https://api.pax8.com"),
    ("/pax8/api/v2/webhooks", "audience https://api.pax8.com"),
    ("/pax8/v2/provision-requests", "audience api://provisioning"),
    ("/pax8/v2/usage", "audience api://usage"),
    ("/mythic/dns/v2", "any token of Mythic Beasts, from the address that asked for it"),
    ("/mythic/beta", "the same"),
    ("/mythic/queue", "the same"),
];

/// Reads a path (without query).
pub(super) fn place(path: &str) -> Place<'_> {
    if let Some(rest) = path.strip_prefix("/_sandbox/") {
        return Place::Control(rest);
    }
    if let Some(rest) = path.strip_prefix(login::BASE) {
        return Place::Login(rest);
    }
    if path == "/ix-api/api/v2/auth/refresh" {
        return Place::Refresh;
    }
    if let Some(provider) = Provider::all().find(|p| p.token_path() == path) {
        return Place::Token(provider);
    }
    let Some((name, _)) = path[1..].split_once('/') else { return Place::Nowhere };
    let Some(provider) = Provider::all().find(|p| p.name() == name) else { return Place::Nowhere };
    let rest = &path[1 + name.len()..];
    need(provider, rest).map_or(Place::Nowhere, |need| Place::Api(provider, need, rest))
}

/// Whether `path` is `base` or lies below it.
fn under(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn need(provider: Provider, rest: &str) -> Option<Need> {
    match provider {
        Provider::Ipxo => IPXO_SCOPES.into_iter().find(|s| under(&rest[1..], s)).map(Need::Scope),
        Provider::DigitalRealty => under(rest, "/ixapi/v2").then_some(Need::Token),
        Provider::IxApi if rest == "/api/v2/health" => Some(Need::Nothing),
        Provider::IxApi => under(rest, "/api/v2").then_some(Need::Token),
        Provider::Pax8 => pax8_need(rest),
        Provider::Described(other) => other.description().api(rest).map(Need::Described),
        Provider::MythicBeasts => ["/dns/v2", "/beta", "/queue"].iter().any(|b| under(rest, b)).then_some(Need::Token),
    }
}

/// One host, three audiences by path.
fn pax8_need(rest: &str) -> Option<Need> {
    let partner = ["/v1", "/v2/quotes", "/v2/quote-attachments", "/v2/quote-preferences", "/api/v2/webhooks"];
    let provisioning = ["/v2/provision-requests", "/v2/provisioners", "/v2/provision-simulations"];
    if partner.iter().any(|b| under(rest, b)) {
        Some(Need::Audience("https://api.pax8.com"))
    } else if provisioning.iter().any(|b| under(rest, b)) {
        Some(Need::Audience("api://provisioning"))
    } else {
        under(rest, "/v2/usage").then_some(Need::Audience("api://usage"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_of_pax8_has_three_audiences_by_path() {
        let audience = |path| match place(path) {
            Place::Api(Provider::Pax8, Need::Audience(a), _) => a,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(audience("/pax8/v1/companies"), "https://api.pax8.com");
        assert_eq!(audience("/pax8/api/v2/webhooks"), "https://api.pax8.com");
        assert_eq!(audience("/pax8/v2/provision-requests/7"), "api://provisioning");
        assert_eq!(audience("/pax8/v2/usage/lines"), "api://usage");
        assert_eq!(place("/pax8/v2/quotesque"), Place::Nowhere);
    }

    #[test]
    fn a_token_endpoint_is_not_an_api_although_it_lies_below_one() {
        assert_eq!(place("/pax8/v1/token"), Place::Token(Provider::Pax8));
        assert_eq!(place("/ix-api/api/v2/auth/token"), Place::Token(Provider::IxApi));
    }

    #[test]
    fn every_api_that_people_are_told_of_is_one() {
        assert!(APIS.iter().all(|(path, _)| matches!(place(path), Place::Api(..))));
    }

    #[test]
    fn short_and_foreign_paths_lead_nowhere() {
        for path in ["/", "/ipxo", "/ipxo/", "/nobody/x", "//", "/ipxo/billings"] {
            assert_eq!(place(path), Place::Nowhere, "{path}");
        }
    }
}
