//! THE SEAM: control publishes whole immutable values, cores read.
//!
//! A [`Snapshot`] is everything that the data plane needs to judge and forward a request. It is replaced
//! whole; a request keeps the one it started with. The bearers inside are cells of their own: a refresh
//! never republishes a snapshot, and a reload hands an unchanged credential its old cell.
//!
//! What the cores have counted and learned goes on in the snapshot that follows, since requests of the old one still run
//! and upstreams do not start anew: [`Route::running`] by prefix, whatever else of the route has changed, and
//! [`Origin::terms`] by place. Connectors are made anew by a reload, which reads `ca_file` again, and by nothing else.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use arc_swap::{ArcSwap, Cache};

use crate::{
    config::model::{CallerIdentity, Config, CredentialSpec, NetSpec, RouteSpec, Scheme, Server, TokenSpec, Upstream},
    net::Connector,
    rules::{
        headers::RequestRules,
        origin::{Hosts, Origins},
        rewrite::Mappings,
        table::Table,
    },
    telemetry::metrics::Shards,
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
    /// What it wants of the proofs that go with bound tokens; learned from its answers, by all cores for all. Shared with
    /// the snapshots before and after.
    pub terms: Arc<ArcSwap<bearer::Terms>>,
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
    /// Its running requests on all cores, but for those in a core's own places (`max_in_flight`). Shared with the snapshots
    /// before and after.
    pub running: Arc<AtomicUsize>,
    /// What the cores count of it. Shared in the same way.
    pub counters: Arc<Shards>,
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
    pub origins: Vec<Arc<Origin>>,
    /// Browser origins that pass.
    pub browser_origins: Origins,
    /// Upstream references → references behind the prefixes.
    pub mappings: Mappings,
    /// Whether any caller is recognised by an API key, so that one has to be hashed.
    pub has_api_keys: bool,
    /// What the cores count of requests for which no route is found.
    pub unrouted: Arc<Shards>,
}

impl Snapshot {
    /// Compiles a configuration, to follow `before` where there is one. `reader` gives the cell of a token; the error names
    /// the file to blame. The new configuration knows no discovered endpoints: see [`Self::forbidding`].
    pub fn compile(
        config: Config,
        generation: u64,
        before: Option<&Self>,
        mut reader: impl FnMut(&Arc<TokenSpec>) -> Result<bearer::Reader, String>,
    ) -> Result<Self, String> {
        let mut places = Places { before, ..Places::default() };
        let mut routes = Vec::with_capacity(config.routes.len());
        let workers = config.server.workers;
        let earlier: HashMap<&str, &Route> =
            before.iter().flat_map(|b| &b.routes).map(|r| (r.spec.prefix.as_str(), r)).collect();
        for spec in &config.routes {
            let (origin, bearer) = (places.of(spec)?, reader(&spec.token)?);
            let (running, counters) = match earlier.get(spec.prefix.as_str()) {
                Some(route) => (Arc::clone(&route.running), Arc::clone(&route.counters)),
                None => (Arc::default(), Shards::new(workers).into()),
            };
            let headers = RequestRules::new(spec);
            routes.push(Route { spec: spec.clone(), headers, bearer, origin, running, counters });
        }
        let unrouted = before.map_or_else(|| Shards::new(workers).into(), |before| Arc::clone(&before.unrouted));
        Ok(Self::of(config, generation, routes, places.origins, unrouted))
    }

    fn of(
        config: Config,
        generation: u64,
        routes: Vec<Route>,
        origins: Vec<Arc<Origin>>,
        unrouted: Arc<Shards>,
    ) -> Self {
        let prefixes: Vec<&str> = config.routes.iter().map(|r| r.prefix.as_str()).collect();
        Self {
            generation,
            table: Table::new(&prefixes),
            browser_origins: Origins::new(&config.server.allowed_origins),
            mappings: Mappings::new(&config.routes),
            has_api_keys: config.callers.iter().any(|c| matches!(c.identity, CallerIdentity::ApiKey(_))),
            unrouted,
            routes,
            origins,
            config,
        }
    }

    /// The same with these token endpoints (by issuer) out of reach; `None` where no route leads to one of them, or all are out of
    /// reach already. No file is read and nothing forgotten: it cannot fail.
    pub fn forbidding(&self, endpoints: &[(String, Upstream)]) -> Option<Self> {
        let closed = |(at, route)| Some((at, self.route_forbidding(route, endpoints)?));
        let closed: Vec<(usize, RouteSpec)> = self.config.routes.iter().enumerate().filter_map(closed).collect();
        if closed.is_empty() {
            return None;
        }
        let mut config = self.config.clone();
        for (at, route) in closed {
            config.routes[at] = route;
        }
        let same = |(route, spec): (&Route, &RouteSpec)| Route {
            headers: RequestRules::new(spec),
            spec: spec.clone(),
            bearer: route.bearer.clone(),
            origin: route.origin,
            running: Arc::clone(&route.running),
            counters: Arc::clone(&route.counters),
        };
        let routes = self.routes.iter().zip(&config.routes).map(same).collect();
        Some(Self::of(config, self.generation, routes, self.origins.clone(), Arc::clone(&self.unrouted)))
    }

    /// The route with those endpoints out of reach that are not yet; `None`: they all are.
    fn route_forbidding(&self, route: &RouteSpec, endpoints: &[(String, Upstream)]) -> Option<RouteSpec> {
        let mut paths: Vec<String> =
            endpoints.iter().filter_map(|(_, endpoint)| route.upstream.path_below(endpoint)).collect();
        paths.retain(|path| !route.forbidden_paths.contains(path));
        let unknown = |c: &Arc<CredentialSpec>| {
            let here = c.issuer.as_ref().filter(|i| i.tells_token_url && i.may_stand_at(&route.upstream.host));
            here.is_some_and(|issuer| !endpoints.iter().any(|(known, _)| *known == issuer.identifier))
        };
        let unknown_endpoint = route.unknown_endpoint && self.config.credentials.iter().any(unknown);
        if paths.is_empty() && unknown_endpoint == route.unknown_endpoint {
            return None;
        }
        let mut route = route.clone();
        route.forbidden_paths.append(&mut paths);
        route.unknown_endpoint = unknown_endpoint;
        Some(route)
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

/// Finds the distinct origins of routes.
#[derive(Default)]
struct Places<'a> {
    before: Option<&'a Snapshot>,
    origins: Vec<Arc<Origin>>,
    known: HashMap<(Upstream, Arc<NetSpec>), usize>,
    connectors: HashMap<Arc<NetSpec>, Connector>,
}

impl Places<'_> {
    /// The position of the route's origin; the error names the file to blame.
    fn of(&mut self, route: &RouteSpec) -> Result<usize, String> {
        let net = Arc::clone(&route.net);
        let upstream = Upstream { base_path: String::new(), ..route.upstream.clone() };
        let place = (upstream.clone(), Arc::clone(&net));
        if let Some(&at) = self.known.get(&place) {
            return Ok(at);
        }
        let connector = match self.connectors.get(&net) {
            Some(connector) => connector.clone(),
            None => Connector::new(Arc::clone(&net))?,
        };
        self.connectors.insert(Arc::clone(&net), connector.clone());
        let mut before = self.before.iter().flat_map(|before| &before.origins);
        let before = before.find(|origin| origin.upstream == upstream && origin.net == net);
        let terms = before.map(|origin| Arc::clone(&origin.terms)).unwrap_or_default();
        self.origins.push(Arc::new(Origin { upstream, net, connector, terms }));
        self.known.insert(place, self.origins.len() - 1);
        Ok(self.origins.len() - 1)
    }
}

/// The half that control holds.
pub struct Publisher(Arc<ArcSwap<Snapshot>>);

/// The half of the readers.
#[derive(Clone)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

/// What one core holds of it.
pub struct Latest(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

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
    /// The published snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// The same for one core, which looks again and again.
    pub fn latest(&self) -> Latest {
        Latest(Cache::new(Arc::clone(&self.0)))
    }
}

impl Latest {
    /// The published snapshot: one load where it is still the one that is held, no write.
    pub fn snapshot(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(before: Option<&Snapshot>, routes: &str) -> Snapshot {
        let text = format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"S\" }}\nissuer = \"https://id.example\"\n{routes}"
        );
        let config = crate::config::parse(&text, &|_| Some("not-a-secret".to_owned())).expect("a good file").0;
        Snapshot::compile(config, 1, before, |_| Ok(bearer::cell().1)).expect("nothing is read")
    }

    fn route(prefix: &str, upstream: &str) -> String {
        format!("[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{upstream}\"\ncredential = \"c\"\n")
    }

    fn origin<'a>(snapshot: &'a Snapshot, prefix: &str) -> &'a Arc<Origin> {
        let route = snapshot.routes.iter().find(|route| route.spec.prefix == prefix).expect("such a route");
        &snapshot.origins[route.origin]
    }

    #[test]
    fn the_snapshot_that_follows_goes_on_counting_and_knows_what_was_learned() {
        let [a, b] = [route("/a", "https://a.example"), route("/b", "https://b.example")];
        let before = compiled(None, &[a.as_str(), &b].concat());
        let moved = route("/b", "https://c.example");
        let after = compiled(Some(&before), &[route("/new", "https://b.example"), moved, a].concat());
        assert!(Arc::ptr_eq(&after.routes[2].running, &before.routes[0].running), "the same route");
        assert!(Arc::ptr_eq(&after.routes[1].running, &before.routes[1].running), "its requests still run");
        assert_eq!(Arc::strong_count(&after.routes[0].running), 1, "a new route");
        assert!(Arc::ptr_eq(&origin(&after, "/a").terms, &origin(&before, "/a").terms));
        assert!(Arc::ptr_eq(&origin(&after, "/new").terms, &origin(&before, "/b").terms), "the same upstream");
        assert_eq!(Arc::strong_count(&origin(&after, "/b").terms), 1, "another upstream");
    }

    #[test]
    fn a_token_endpoint_is_put_out_of_reach_and_nothing_else_changes() {
        let before = compiled(None, &[route("/a", "https://a.example"), route("/id", "https://id.example")].concat());
        let mut endpoint = before.routes[1].spec.upstream.clone();
        endpoint.base_path = "/mint".to_owned();
        let found = [("https://id.example".to_owned(), endpoint)];
        let after = before.forbidding(&found).expect("a route leads there");
        assert_eq!(after.routes[1].spec.forbidden_paths, ["/mint"]);
        assert!(after.forbidding(&found).is_none(), "it is out of reach");
        for (after, before) in after.routes.iter().zip(&before.routes) {
            assert!(Arc::ptr_eq(&after.running, &before.running));
        }
        for (after, before) in after.origins.iter().zip(&before.origins) {
            assert!(Arc::ptr_eq(after, before), "connector and terms");
        }
    }
}
