//! THE SEAM: control publishes whole immutable values, cores read.
//!
//! A [`Snapshot`] is everything that the data plane needs to judge and forward a request. It is replaced
//! whole; a request keeps the one it started with. The bearers inside are cells of their own: a refresh
//! never republishes a snapshot, and a reload hands an unchanged credential its old cell.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use arc_swap::ArcSwap;

use crate::{
    config::model::{CallerIdentity, Config, CredentialSpec, NetSpec, RouteSpec, Scheme, Server, TokenSpec, Upstream},
    net::Connector,
    rules::{
        headers::RequestRules,
        origin::{Hosts, Origins},
        rewrite::Mappings,
        table::Table,
    },
    token::bearer,
};

/// Where connections go and how: one for each distinct upstream and egress identity.
#[derive(Debug)]
pub struct Origin {
    /// Scheme, host, port; the base path is the route's.
    pub upstream: Upstream,
    /// Egress identity.
    pub net: Arc<NetSpec>,
    /// Makes the connections.
    pub connector: Connector,
    /// What it wants of the proofs that go with bound tokens; learned from its answers, by all cores for all.
    pub terms: ArcSwap<bearer::Terms>,
}

/// One route, ready to be used.
#[derive(Debug)]
pub struct Route {
    /// As configured.
    pub spec: RouteSpec,
    /// Its header rules.
    pub headers: RequestRules,
    /// Its token.
    pub bearer: bearer::Reader,
    /// Which of [`Snapshot::origins`] it leads to.
    pub origin: usize,
    /// Its running requests on all cores; counted only where `max_in_flight` is small.
    pub running: AtomicUsize,
}

/// All that the cores read.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the configurations, from 1.
    pub generation: u64,
    /// The whole configuration.
    pub config: Config,
    /// Prefix → position in `routes`.
    pub table: Table,
    /// In file order.
    pub routes: Vec<Route>,
    /// Distinct origins.
    pub origins: Vec<Origin>,
    /// Browser origins that pass.
    pub browser_origins: Origins,
    /// Upstream references → references behind the prefixes.
    pub mappings: Mappings,
    /// Whether any caller is recognised by an API key, so that one has to be hashed.
    pub has_api_keys: bool,
}

impl Snapshot {
    /// Compiles a configuration. `reader` gives the cell of a token; the error names the file to blame.
    pub fn compile(
        config: Config,
        generation: u64,
        mut reader: impl FnMut(&Arc<TokenSpec>) -> Result<bearer::Reader, String>,
    ) -> Result<Self, String> {
        let mut origins: Vec<Origin> = Vec::new();
        let mut connectors: HashMap<Arc<NetSpec>, Connector> = HashMap::new();
        let mut known: HashMap<(Upstream, Arc<NetSpec>), usize> = HashMap::new();
        let mut routes = Vec::with_capacity(config.routes.len());
        for spec in &config.routes {
            let net = Arc::clone(&spec.token.credential.net);
            let place = (Upstream { base_path: String::new(), ..spec.upstream.clone() }, Arc::clone(&net));
            let origin = if let Some(&at) = known.get(&place) {
                at
            } else {
                let connector = if let Some(connector) = connectors.get(&net) {
                    connector.clone()
                } else {
                    let connector = Connector::new(Arc::clone(&net))?;
                    connectors.insert(Arc::clone(&net), connector.clone());
                    connector
                };
                let terms = ArcSwap::default();
                origins.push(Origin { upstream: place.0.clone(), net, connector, terms });
                known.insert(place, origins.len() - 1);
                origins.len() - 1
            };
            let (headers, bearer) = (RequestRules::new(spec), reader(&spec.token)?);
            routes.push(Route { spec: spec.clone(), headers, bearer, origin, running: AtomicUsize::new(0) });
        }
        let prefixes: Vec<&str> = config.routes.iter().map(|r| r.prefix.as_str()).collect();
        Ok(Self {
            generation,
            table: Table::new(&prefixes),
            browser_origins: Origins::new(&config.server.allowed_origins),
            mappings: Mappings::new(&config.routes),
            has_api_keys: config.callers.iter().any(|c| matches!(c.identity, CallerIdentity::ApiKey(_))),
            routes,
            origins,
            config,
        })
    }

    /// The same with these token endpoints (by issuer) out of reach; `None` where no route leads to one of them, or all are out of
    /// reach already. The cells of the bearers stay.
    pub fn forbidding(&self, endpoints: &[(String, Upstream)]) -> Result<Option<Self>, String> {
        let mut config = self.config.clone();
        let mut changed = false;
        for route in &mut config.routes {
            for path in endpoints.iter().filter_map(|(_, endpoint)| route.upstream.path_below(endpoint)) {
                if !route.forbidden_paths.contains(&path) {
                    route.forbidden_paths.push(path);
                    changed = true;
                }
            }
            let unknown = |c: &Arc<CredentialSpec>| {
                let here =
                    c.issuer.as_ref().filter(|i| i.tells_token_url && i.may_have_endpoints_at(&route.upstream.host));
                here.is_some_and(|issuer| !endpoints.iter().any(|(known, _)| *known == issuer.identifier))
            };
            if route.unknown_endpoint && !config.credentials.iter().any(unknown) {
                route.unknown_endpoint = false;
                changed = true;
            }
        }
        if !changed {
            return Ok(None);
        }
        let cell = |spec: &Arc<TokenSpec>| {
            let route = self.routes.iter().find(|route| Arc::ptr_eq(&route.spec.token, spec));
            route.map(|route| route.bearer.clone()).ok_or_else(|| "a route without a token".to_owned())
        };
        Self::compile(config, self.generation, cell).map(Some)
    }

    /// `[server]`
    pub fn server(&self) -> &Server {
        &self.config.server
    }

    /// The `Host` names that pass on one listener.
    pub fn hosts(&self, listen: SocketAddr, scheme: Scheme) -> Hosts {
        Hosts::new(listen, scheme, &self.config.server.allowed_hosts)
    }
}

/// The half that control holds.
pub struct Publisher(Arc<ArcSwap<Snapshot>>);

/// The half of each core.
#[derive(Clone)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

/// Makes the two halves.
pub fn seam(first: Snapshot) -> (Publisher, Reader) {
    let shared = Arc::new(ArcSwap::from_pointee(first));
    (Publisher(Arc::clone(&shared)), Reader(shared))
}

impl Publisher {
    /// Replaces the snapshot for all requests that start from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

impl Reader {
    /// Whether `held` is still the published one: one load, no shared write.
    pub fn is_current(&self, held: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.0.load(), held)
    }

    /// The published snapshot, to be held by a core.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
