//! What the data plane would do with a request, found out by the very code that would do it: the strict
//! head, the canonical path, the table, the policy, the header rules. No socket, no token; for `explain`.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    admission,
    error::{Code, ProxyError},
    guard::{self, Approved, Marks, Refused},
};
use crate::{
    config::model::{CallerIdentity, CallerSpec, Scheme},
    rules::{
        headers::RequestFacts,
        policy::{Denial, Verdict},
    },
    snapshot::Snapshot,
    wire::RequestHead,
};

/// Fields that callers send and that routes may leave out: what becomes of each is asked of the route.
const PROBES: &str = "Authorization: x\r\nDPoP: x\r\nX-Api-Key: x\r\nCookie: x\r\nProxy-Authorization: x\r\nForwarded: x\r\n\
    X-Forwarded-For: x\r\nX-Real-Ip: x\r\nX-Original-Url: x\r\nX-Rewrite-Url: x\r\nX-Http-Method-Override: x\r\n\
    Connection: keep-alive\r\nKeep-Alive: x\r\nUpgrade: x\r\n";

/// A request that is not sent.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent: path and query.
    pub target: &'a str,
    /// `Host`, as sent.
    pub host: &'a str,
    /// Who asks; `None` = a request that nothing identifies, from this host.
    pub caller: Option<&'a CallerSpec>,
    /// What stands where the request's id would.
    pub request_id: &'a str,
}

/// What would happen.
#[derive(Debug)]
pub struct Rehearsal<'s> {
    /// Position of the route, once one was found.
    pub route: Option<usize>,
    /// Who asked, by the marks of the request.
    pub caller: Option<&'s CallerSpec>,
    /// Forwarded, or answered by cupbearer itself.
    pub outcome: Result<Forwarded<'s>, Answered<'s>>,
}

/// The request would be forwarded.
#[derive(Debug)]
pub struct Forwarded<'s> {
    /// The rule that allowed it, and what report mode would say.
    pub verdict: Verdict<'s>,
    /// The head that the upstream would get, `<token of NAME>` in the place of the token.
    pub head: String,
    /// Names of well-known fields that the route leaves out wherever a caller sends them.
    pub left_out: Vec<String>,
}

/// cupbearer would answer by itself.
#[derive(Debug)]
pub struct Answered<'s> {
    /// What.
    pub code: Code,
    /// Why, as the caller would read it.
    pub detail: String,
    /// The denial, where it was one of callers and policy.
    pub denial: Option<Denial<'s>>,
}

impl Answered<'_> {
    fn of(error: ProxyError) -> Self {
        Self { code: error.code, detail: error.detail, denial: None }
    }
}

/// Judges a request that is not sent.
pub fn rehearse<'s>(snapshot: &'s Snapshot, question: &Question<'_>) -> Rehearsal<'s> {
    let Question { method, target, host, .. } = question;
    let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let bytes = text.as_bytes();
    let head = match RequestHead::parse(bytes, Vec::new()) {
        Ok(head) => head,
        Err(error) => {
            let outcome = Err(Answered::of(admission::refusal(error)));
            return Rehearsal { route: None, caller: None, outcome };
        }
    };
    let listen = snapshot.server().listen.first();
    let listen = listen.map_or((([127, 0, 0, 1], 80).into(), Scheme::Http), |l| (l.address, l.scheme()));
    let hosts = snapshot.hosts(listen.0, listen.1);
    let marks = marks(question.caller);
    let peer = marks.peer;
    match guard::judge_marked(snapshot, &hosts, || marks, &head, bytes) {
        Ok(approved) => {
            let forwarded = forwarded(snapshot, &approved, question, &head, bytes, (peer, listen.1));
            Rehearsal { route: Some(approved.route), caller: approved.caller, outcome: Ok(forwarded) }
        }
        Err(Refused { error, route, caller, denial }) => {
            Rehearsal { route, caller, outcome: Err(Answered { denial, ..Answered::of(error) }) }
        }
    }
}

/// A caller's own key or address. Its key's hash is all that is known of the key, and all that is needed.
fn marks(caller: Option<&CallerSpec>) -> Marks {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match caller.map(|caller| &caller.identity) {
        None => Marks { peer: here, keys: Vec::new() },
        Some(CallerIdentity::ApiKey(hash)) => Marks { peer: here, keys: vec![*hash] },
        Some(CallerIdentity::Cidr(ranges)) => {
            Marks { peer: ranges.first().map_or(here, |(network, _)| *network), keys: Vec::new() }
        }
    }
}

fn forwarded<'s>(
    snapshot: &'s Snapshot,
    approved: &Approved<'s>,
    question: &Question<'_>,
    head: &RequestHead,
    bytes: &[u8],
    (peer, scheme): (IpAddr, Scheme),
) -> Forwarded<'s> {
    let route = &snapshot.routes[approved.route];
    let (peer, credential) = (peer.to_canonical().to_string(), &route.spec.token.credential);
    let facts = RequestFacts {
        base_path: route.spec.upstream.base_path.as_bytes(),
        rest: &head.target(bytes)[approved.rest.clone()],
        peer: peer.as_bytes(),
        websocket: false,
        scheme: scheme.as_str().as_bytes(),
        request_id: question.request_id.as_bytes(),
        token: &format!("<token of {}>", credential.name),
        proof: if credential.dpop { "<proof, signed anew for each request>" } else { "" },
    };
    let mut out = Vec::new();
    route.headers.write(&mut out, head, bytes, facts);
    let mut left_out = Vec::new();
    let probe =
        format!("{} / HTTP/1.1\r\nHost: x\r\n{PROBES}{}\r\n", question.method, own_probes(snapshot, approved.route));
    if let Ok(probed) = RequestHead::parse(probe.as_bytes(), Vec::new()) {
        let names = route.headers.left_out(&probed, probe.as_bytes()).into_iter();
        left_out = names.map(|name| String::from_utf8_lossy(name).into_owned()).filter(|name| name != "Host").collect();
    }
    Forwarded { verdict: approved.verdict, head: String::from_utf8_lossy(&out).into_owned(), left_out }
}

/// The names that this route itself removes or sets, unless they are among the well-known ones.
fn own_probes(snapshot: &Snapshot, route: usize) -> String {
    let spec = &snapshot.routes[route].spec;
    let removed = spec.remove_headers.iter().map(String::as_str);
    let set = spec.set_headers.iter().map(|(name, _)| name.as_str()).chain([spec.inject.name.as_str()]);
    let known =
        |name: &str| PROBES.lines().any(|line| line.split(':').next().is_some_and(|p| p.eq_ignore_ascii_case(name)));
    let names = removed.chain(set).filter(|name| !known(name));
    names.flat_map(|name| [name, ": x\r\n"]).collect()
}
