//! How a sandbox is started: where it listens and which clients it knows.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    fault::{FaultSpec, SpecError},
    provider::Provider,
};

/// IPXO's well-known client: the company "Acme".
pub const IPXO_CLIENT_ID: &str = "sandbox-ipxo-acme";
/// Its secret.
pub const IPXO_CLIENT_SECRET: &str = "not-a-secret-ipxo-acme";
/// IPXO's second client: one key per company.
pub const IPXO_OTHER_CLIENT_ID: &str = "sandbox-ipxo-globex";
/// Its secret.
pub const IPXO_OTHER_CLIENT_SECRET: &str = "not-a-secret-ipxo-globex";
/// Digital Realty's client.
pub const DIGITAL_REALTY_CLIENT_ID: &str = "Jupiter-12";
/// Its secret.
pub const DIGITAL_REALTY_CLIENT_SECRET: &str = "not-a-secret-digital-realty";
/// IX-API's `api_key`.
pub const IX_API_KEY: &str = "sandbox-ix-key";
/// Its `api_secret`.
pub const IX_API_SECRET: &str = "not-a-secret-ix-api";
/// Pax8's client.
pub const PAX8_CLIENT_ID: &str = "sandbox-pax8-partner";
/// Its secret.
pub const PAX8_CLIENT_SECRET: &str = "not-a-secret-pax8";
/// Mythic Beasts' key id.
pub const MYTHIC_KEY_ID: &str = "sandboxmythickey";
/// Its secret.
pub const MYTHIC_SECRET: &str = "not-a-secret-mythic";

/// A client that an identity provider knows.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it is registered.
    pub provider: Provider,
    /// Its id; no secret.
    pub id: String,
    /// Its secret, obviously fake.
    pub secret: String,
    /// Registered for `client_secret_basic` where the provider lets clients choose (IPXO). Each client
    /// has exactly one method; the other is refused.
    pub basic: bool,
}

impl Client {
    /// A client with the provider's usual authentication method.
    pub fn new(provider: Provider, id: &str, secret: &str) -> Self {
        let basic = provider == Provider::MythicBeasts;
        Self { provider, id: id.to_owned(), secret: secret.to_owned(), basic }
    }
}

/// How a sandbox is started. [`Options::default`] is what `cupbearer sandbox --port 0` does.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen: loopback.
    pub address: IpAddr,
    /// Port; 0 picks a free one.
    pub port: u16,
    /// Who may ask for tokens.
    pub clients: Vec<Client>,
    /// Standing faults and settings, as if armed before the first request.
    pub faults: Vec<FaultSpec>,
    /// Mythic Beasts' tokens live from their last use (else from their issue).
    pub mythic_sliding: bool,
    /// How long Mythic Beasts keeps an idle connection.
    pub mythic_keep_alive: Duration,
    /// How many times a queued task answers "pending" before it is done.
    pub queue_polls: u32,
}

impl Default for Options {
    fn default() -> Self {
        let described = Provider::all().filter_map(|provider| match provider {
            Provider::Described(other) => Some((provider, &other.description().client)),
            _ => None,
        });
        let described = described.map(|(provider, client)| Client::new(provider, &client.id, &client.secret));
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            clients: [
                Client::new(Provider::Ipxo, IPXO_CLIENT_ID, IPXO_CLIENT_SECRET),
                Client::new(Provider::Ipxo, IPXO_OTHER_CLIENT_ID, IPXO_OTHER_CLIENT_SECRET),
                Client::new(Provider::DigitalRealty, DIGITAL_REALTY_CLIENT_ID, DIGITAL_REALTY_CLIENT_SECRET),
                Client::new(Provider::IxApi, IX_API_KEY, IX_API_SECRET),
                Client::new(Provider::Pax8, PAX8_CLIENT_ID, PAX8_CLIENT_SECRET),
                Client::new(Provider::MythicBeasts, MYTHIC_KEY_ID, MYTHIC_SECRET),
            ]
            .into_iter()
            .chain(described)
            .collect(),
            faults: Vec::new(),
            mythic_sliding: true,
            mythic_keep_alive: Duration::from_secs(5),
            queue_polls: 2,
        }
    }
}

impl Options {
    /// Listens on this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Knows one more client, or another secret for a known one.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.retain(|c| (c.provider, &c.id) != (client.provider, &client.id));
        self.clients.push(client);
        self
    }

    /// Orders a fault from the start: `PROVIDER.SIDE=FAULT`, see [`FaultSpec`].
    pub fn fault(mut self, spec: &str) -> Result<Self, SpecError> {
        self.faults.push(spec.parse()?);
        Ok(self)
    }
}
