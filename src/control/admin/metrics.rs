//! `/metrics`: what the cores and the token tasks have counted, added up and written down.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::UNIX_EPOCH,
};

use http::Response;

use super::{
    Sources,
    answer::{self, Body},
    health::state,
};
use crate::{
    proxy::{Code, Full},
    snapshot::{Route, Snapshot},
    telemetry::metrics::{
        Durations, ReplayOutcome, RouteCounters, Shards,
        text::{CONTENT_TYPE, Page},
    },
    token::TokenStatus,
};

/// The label of requests for which no route was found. A prefix begins with a slash.
const NO_ROUTE: &str = "none";
const STATES: [&str; 6] = ["empty", "fresh", "advisory", "mandatory", "expired", "failed"];

pub(super) fn answer(sources: &Sources) -> Response<Body> {
    let mut page = Page::default();
    let snapshot = sources.snapshots.snapshot();
    routes(&mut page, &snapshot);
    tokens(&mut page, &sources.engine.status());
    process(&mut page, sources, &snapshot);
    answer::text(200, CONTENT_TYPE, page.finish())
}

/// The route of everything has an empty prefix.
fn label(route: &Route) -> &str {
    if route.spec.prefix.is_empty() { "/" } else { &route.spec.prefix }
}

/// Every route that was used, with its label.
fn used(snapshot: &Snapshot) -> Vec<(&str, &Arc<Shards>)> {
    let routes = snapshot.routes.iter().map(|route| (label(route), &route.counters));
    let all = routes.chain([(NO_ROUTE, &snapshot.unrouted)]);
    all.filter(|(_, shards)| shards.all().next().is_some()).collect()
}

fn routes(page: &mut Page, snapshot: &Snapshot) {
    let used = used(snapshot);
    let name = "cupbearer_requests_total";
    page.metric(name, "counter", "Requests that have ended, by the status that was answered.");
    for (route, shards) in &used {
        let mut by_status = BTreeMap::<String, u64>::new();
        for core in shards.all() {
            for (code, count) in core.statuses.read().filter(|(_, count)| *count > 0) {
                *by_status.entry(code).or_default() += count;
            }
        }
        for (code, count) in by_status {
            page.sample(name, &[("route", route), ("code", &code)], count);
        }
    }
    let name = "cupbearer_request_seconds";
    page.metric(name, "histogram", "From the first byte of a request to the last of its answer.");
    for (route, shards) in &used {
        let mut durations = Durations::default();
        shards.all().for_each(|core| durations.merge(&core.seconds.read()));
        page.histogram(name, &[("route", route)], &durations);
    }
    let name = "cupbearer_in_flight";
    page.metric(name, "gauge", "Requests that run now.");
    for (route, shards) in used.iter().filter(|(route, _)| *route != NO_ROUTE) {
        page.sample(name, &[("route", route)], shards.sum(|core| &core.in_flight));
    }
    errors(page, &used);
    let name = "cupbearer_replays_total";
    page.metric(name, "counter", "What became of requests whose token the upstream refused.");
    for (route, shards) in &used {
        for (at, outcome) in ReplayOutcome::ALL.iter().enumerate() {
            let count = shards.sum(|core| &core.replays[at]);
            if count > 0 {
                page.sample(name, &[("route", route), ("outcome", outcome.as_str())], count);
            }
        }
    }
}

/// Answers of our own, by whose fault they were.
fn errors(page: &mut Page, used: &[(&str, &Arc<Shards>)]) {
    let mut family = |name: &str, label: &str, help: &str, told: &dyn Fn(Code) -> Option<&'static str>| {
        page.metric(name, "counter", help);
        for (route, shards) in used {
            let codes = Code::ALL.iter().enumerate().filter_map(|(at, code)| Some((at, told(*code)?)));
            for (at, value) in codes {
                let count = shards.sum(|core| &core.errors[at]);
                if count > 0 {
                    page.sample(name, &[("route", route), (label, value)], count);
                }
            }
            let truncated = shards.sum(|core: &RouteCounters| &core.truncated);
            if label == "kind" && truncated > 0 {
                page.sample(name, &[("route", route), (label, "truncated")], truncated);
            }
        }
    };
    let by_caller = |code: Code| (code.blame() == "caller").then(|| code.as_str());
    family("cupbearer_denied_total", "reason", "Requests that were refused, the caller being to blame.", &by_caller);
    let kind = |code: Code| code.as_str().strip_prefix("upstream_");
    family("cupbearer_upstream_errors_total", "kind", "Requests that failed at the upstream.", &kind);
    let other = |code: Code| (!matches!(code.blame(), "caller" | "upstream")).then(|| code.as_str());
    let help = "Requests that failed here or at the identity provider.";
    family("cupbearer_failures_total", "reason", help, &other);
}

fn tokens(page: &mut Page, tokens: &[TokenStatus]) {
    let mut by_credential = BTreeMap::<&str, (u64, u64, Durations)>::new();
    for token in tokens {
        let (succeeded, failed, durations) = by_credential.entry(&token.credential).or_default();
        *succeeded += token.succeeded;
        *failed += token.failed;
        durations.merge(&token.fetch_seconds);
    }
    let name = "cupbearer_token_fetches_total";
    page.metric(name, "counter", "Token requests.");
    for (credential, (succeeded, failed, _)) in &by_credential {
        page.sample(name, &[("credential", credential), ("outcome", "success")], succeeded);
        page.sample(name, &[("credential", credential), ("outcome", "failure")], failed);
    }
    let name = "cupbearer_token_fetch_seconds";
    page.metric(name, "histogram", "How long token requests took.");
    for (credential, (_, _, durations)) in &by_credential {
        page.histogram(name, &[("credential", credential)], durations);
    }
    let keyed = |token: &TokenStatus| token.key.to_string();
    let name = "cupbearer_token_expiry_timestamp_seconds";
    page.metric(name, "gauge", "When the token that is held expires.");
    for token in tokens {
        let end = token.expires_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        if let Some(end) = end {
            let labels = [("credential", token.credential.as_str()), ("key", &keyed(token))];
            page.sample(name, &labels, end.as_secs_f64());
        }
    }
    let name = "cupbearer_token_state";
    page.metric(name, "gauge", "1 for the state in which a token is, 0 for the others.");
    for token in tokens {
        for known in STATES {
            let labels = [("credential", token.credential.as_str()), ("key", &keyed(token)), ("state", known)];
            page.sample(name, &labels, u8::from(state(token) == known));
        }
    }
    secrets(page, tokens);
    let budgets: BTreeMap<&str, _> =
        tokens.iter().filter_map(|token| Some((token.credential.as_str(), token.budget.as_ref()?))).collect();
    for (name, help, value) in [
        ("cupbearer_budget_used", "Token requests within the budget's window.", true),
        ("cupbearer_budget_limit", "How many token requests the budget allows.", false),
    ] {
        page.metric(name, "gauge", help);
        for (credential, budget) in &budgets {
            page.sample(name, &[("credential", credential)], if value { budget.used } else { budget.limit });
        }
    }
}

/// By the newest token of each credential.
fn secrets(page: &mut Page, tokens: &[TokenStatus]) {
    let mut newest = BTreeMap::<&str, _>::new();
    for token in tokens {
        if let Some(place) = token.place {
            let known = newest.entry(token.credential.as_str()).or_insert((token.issued_at, place));
            if token.issued_at > known.0 {
                *known = (token.issued_at, place);
            }
        }
    }
    let name = "cupbearer_client_secret";
    page.metric(name, "gauge", "1 for the client secret of the list that gave the newest token, 0 for the others.");
    for (credential, (_, place)) in newest {
        for index in 1..=place.count {
            let labels = [("credential", credential), ("index", &index.to_string())];
            page.sample(name, &labels, u8::from(place.index == Some(index)));
        }
    }
}

fn process(page: &mut Page, sources: &Sources, snapshot: &Snapshot) {
    let name = "cupbearer_config_generation";
    page.metric(name, "gauge", "Counts the configurations that were applied, from 1.");
    page.sample(name, &[], snapshot.generation);
    let name = "cupbearer_config_reloads_total";
    page.metric(name, "counter", "Reloads of the configuration.");
    for (outcome, count) in [("applied", &sources.counts.applied), ("rejected", &sources.counts.rejected)] {
        page.sample(name, &[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
    let name = "cupbearer_connections";
    page.metric(name, "gauge", "Connections of callers.");
    for (listener, open) in &sources.connections {
        page.sample(name, &[("listener", listener)], open.get());
    }
    let name = "cupbearer_connections_refused_total";
    page.metric(name, "counter", "Connections of callers that found no place, by the limit that was reached.");
    for limit in Full::BOTH {
        page.sample(name, &[("limit", limit.as_str())], sources.balance.refusals.count(limit));
    }
    if let Some(lost) = &sources.lost {
        let name = "cupbearer_access_lines_lost_total";
        page.metric(name, "counter", "Lines of the access log that could not be written.");
        page.sample(name, &[], lost.count());
    }
    let name = "cupbearer_build_info";
    page.metric(name, "gauge", "Always 1.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}
