use super::{Asked, Denial, DenialCode, Reason, Verdict, decide};
use crate::{
    config::model::{CallerIdentity, CallerSpec, PolicyMode, RouteCallers, RouteSpec},
    rules::testing::{caller, route, rule},
};

const PREFIX: &str = "/ipxo/billing";

fn billing() -> RouteSpec {
    route(PREFIX, "https://apigw.example/billing", "acme")
}

fn with_rules(allow: &[&str], deny: &[&str]) -> RouteSpec {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    RouteSpec { allow: rules(allow), deny: rules(deny), ..billing() }
}

fn erp() -> CallerSpec {
    caller("erp", CallerIdentity::ApiKey([1; 32]))
}

/// What the route says to a local request for a path below its prefix, where callers are defined only if
/// one asks.
fn judge<'a>(route: &'a RouteSpec, caller: Option<&'a CallerSpec>, method: &'a str, path: &'a str) -> Verdict<'a> {
    assert!(path.starts_with(PREFIX));
    decide(route, &asked(caller, method, path))
}

fn asked<'a>(caller: Option<&'a CallerSpec>, method: &'a str, path: &'a str) -> Asked<'a, 'a> {
    Asked {
        method,
        path: path.as_bytes(),
        rest_at: PREFIX.len(),
        caller,
        callers_defined: caller.is_some(),
        peer_is_local: true,
    }
}

fn reason(verdict: Verdict<'_>) -> Option<Reason<'_>> {
    verdict.denied().map(|denial| denial.reason)
}

const ALLOWED: Verdict<'static> = Verdict::Allowed { rule: None, reported: None };

#[test]
fn where_nothing_is_listed_everything_is_allowed() {
    let route = billing();
    for method in ["GET", "DELETE", "PURGE"] {
        for path in ["/ipxo/billing", "/ipxo/billing/", "/ipxo/billing/v1/x"] {
            assert_eq!(judge(&route, None, method, path), ALLOWED);
        }
    }
}

#[test]
fn an_allow_list_allows_what_it_lists_and_tells_the_rule() {
    let route = with_rules(&["POST /v1/*/invoices/search", "GET /**"], &[]);
    let verdict = |method, path| judge(&route, None, method, path);
    assert_eq!(verdict("GET", "/ipxo/billing"), Verdict::Allowed { rule: Some("GET /**"), reported: None });
    assert_eq!(
        verdict("POST", "/ipxo/billing/v1/T/invoices/search"),
        Verdict::Allowed { rule: Some("POST /v1/*/invoices/search"), reported: None }
    );
    assert_eq!(reason(verdict("POST", "/ipxo/billing/v1/T/invoices")), Some(Reason::NoAllowRule));
    assert_eq!(reason(verdict("PUT", "/ipxo/billing")), Some(Reason::NoAllowRule));
}

#[test]
fn deny_wins_over_allow() {
    let route = with_rules(&["* /**"], &["DELETE /**"]);
    let denial = judge(&route, None, "DELETE", "/ipxo/billing/v1").denied().expect("a denial");
    assert_eq!(denial, Reason::DenyRule("DELETE /**").into());
    assert_eq!((denial.code(), denial.rule()), (DenialCode::PolicyDenied, Some("DELETE /**")));
    assert_eq!(denial.to_string(), "the route's deny rule `DELETE /**` covers this request");
    assert_eq!(judge(&route, None, "GET", "/ipxo/billing/v1").denied(), None);
}

#[test]
fn rules_are_matched_below_the_prefix_and_a_bare_prefix_is_the_root() {
    let route = with_rules(&["GET /"], &[]);
    assert_eq!(judge(&route, None, "GET", "/ipxo/billing").denied(), None);
    assert_eq!(judge(&route, None, "GET", "/ipxo/billing/").denied(), None);
    assert_eq!(reason(judge(&route, None, "GET", "/ipxo/billing/x")), Some(Reason::NoAllowRule));
}

#[test]
fn as_soon_as_callers_are_defined_a_request_must_be_one() {
    let route = billing();
    let mut stranger = asked(None, "GET", PREFIX);
    assert_eq!(decide(&route, &stranger), ALLOWED);
    stranger.callers_defined = true;
    let denial = decide(&route, &stranger).denied().expect("a denial");
    assert_eq!(denial.code(), DenialCode::CallerUnknown);
    assert_eq!(denial.rule(), None);
    let erp = erp();
    assert_eq!(judge(&route, Some(&erp), "GET", PREFIX), ALLOWED);
}

#[test]
fn a_route_with_named_callers_takes_only_those() {
    let route = RouteSpec { callers: RouteCallers::Named(vec!["cron".to_owned(), "erp".to_owned()]), ..billing() };
    let (erp, other) = (erp(), caller("other", CallerIdentity::ApiKey([2; 32])));
    assert_eq!(judge(&route, Some(&erp), "GET", PREFIX), ALLOWED);
    assert_eq!(reason(judge(&route, None, "GET", PREFIX)), Some(Reason::Unidentified));
    let denial = judge(&route, Some(&other), "GET", PREFIX).denied().expect("a denial");
    assert_eq!((denial.reason, denial.code()), (Reason::NotListed("other"), DenialCode::CallerDenied));
}

#[test]
fn anyone_means_anyone_on_this_host_only() {
    let route = RouteSpec { callers: RouteCallers::Anyone, ..billing() };
    let erp = erp();
    for caller in [None, Some(&erp)] {
        let mut asked = asked(caller, "GET", PREFIX);
        asked.callers_defined = true;
        assert_eq!(decide(&route, &asked), ALLOWED);
        asked.peer_is_local = false;
        let denial = decide(&route, &asked).denied().expect("a denial");
        assert_eq!((denial.reason, denial.code()), (Reason::NotLocal, DenialCode::CallerDenied));
    }
}

#[test]
fn a_caller_may_use_only_its_own_prefixes() {
    let route = billing();
    let with_routes = |routes: &[&str]| {
        let routes = Some(routes.iter().map(|&prefix| prefix.to_owned()).collect());
        CallerSpec { routes, ..erp() }
    };
    for prefixes in [&["/ipxo"][..], &["/other", "/ipxo/billing"], &[""], &["/"], &["/ipxo/"], &["/ipxo/billing/v1"]] {
        let caller = with_routes(prefixes);
        assert_eq!(judge(&route, Some(&caller), "GET", "/ipxo/billing/v1/x"), ALLOWED, "{prefixes:?}");
    }
    let caller = with_routes(&["/%69pxo/%62illing"]);
    assert_eq!(judge(&route, Some(&caller), "GET", "/ipxo/billing"), ALLOWED, "prefixes are compared decoded");
    for prefixes in [&["/ipx"][..], &["/other"], &["/ipxo/billing/v2"], &["/ipxo/billing/v1/x/y"], &["/ipxo/bill"], &[]]
    {
        let caller = with_routes(prefixes);
        let denial = judge(&route, Some(&caller), "GET", "/ipxo/billing/v1/x").denied().expect("a denial");
        assert_eq!((denial.reason, denial.code()), (Reason::OutsideRoutes("erp"), DenialCode::CallerDenied));
    }
}

#[test]
fn a_callers_own_allow_list_stands_on_top_of_the_routes() {
    let route = with_rules(&["GET,POST /**"], &[]);
    let reader = CallerSpec { allow: vec![rule("GET /**"), rule("DELETE /**")], ..erp() };
    assert_eq!(judge(&route, Some(&reader), "HEAD", PREFIX).denied(), None);
    let denial = judge(&route, Some(&reader), "POST", PREFIX).denied().expect("a denial");
    assert_eq!((denial.reason, denial.code()), (Reason::NoAllowRuleOfCaller("erp"), DenialCode::PolicyDenied));
    assert_eq!(reason(judge(&route, Some(&reader), "DELETE", PREFIX)), Some(Reason::NoAllowRule));
}

#[test]
fn the_providers_token_endpoint_is_never_reachable_also_in_report_mode() {
    let forbidden_paths = vec!["/v1/token".to_owned()];
    for mode in [PolicyMode::Enforce, PolicyMode::Report] {
        let route = RouteSpec { forbidden_paths: forbidden_paths.clone(), mode, ..with_rules(&["* /**"], &[]) };
        for rest in [
            "/v1/token",
            "/v1/token/",
            "/v1/token//",
            "/v1/token;x",
            "/v1;a/token;b=c/",
            "//v1//token",
            "/;x/v1/token",
            "/V1/Token",
            "/v1/%74oken",
        ] {
            let path = format!("{PREFIX}{rest}");
            let denial = judge(&route, None, "POST", &path).denied().expect(rest);
            assert_eq!((denial.reason, denial.code()), (Reason::TokenEndpoint, DenialCode::PolicyDenied));
        }
        for rest in ["", "/", "/v1", "/v1/tokens", "/v1/token/x", "/v2/token", "/x/v1/token"] {
            let path = format!("{PREFIX}{rest}");
            assert_eq!(judge(&route, None, "POST", &path).denied(), None, "{rest}");
        }
    }
}

#[test]
fn report_mode_allows_and_tells_what_it_would_have_denied() {
    let route = RouteSpec { mode: PolicyMode::Report, ..with_rules(&["GET /**"], &["GET /admin/**"]) };
    let reported = |method, path| match judge(&route, None, method, path) {
        Verdict::Allowed { reported, .. } => reported.map(|denial| denial.reason),
        Verdict::Denied(denial) => panic!("{denial}"),
    };
    assert_eq!(reported("GET", "/ipxo/billing/x"), None);
    assert_eq!(reported("POST", "/ipxo/billing/x"), Some(Reason::NoAllowRule));
    assert_eq!(reported("GET", "/ipxo/billing/admin"), Some(Reason::DenyRule("GET /admin/**")));
}

#[test]
fn report_mode_makes_no_caller_of_a_stranger_from_another_host() {
    for callers in [RouteCallers::Known, RouteCallers::Named(vec!["erp".to_owned()]), RouteCallers::Anyone] {
        let route = RouteSpec { mode: PolicyMode::Report, callers, ..billing() };
        let mut stranger = Asked { callers_defined: true, ..asked(None, "GET", PREFIX) };
        assert_eq!(decide(&route, &stranger).denied(), None);
        stranger.peer_is_local = false;
        assert!(decide(&route, &stranger).denied().is_some());
    }
    // A known caller that is not listed is only reported: who it is, is certain.
    let route = RouteSpec { mode: PolicyMode::Report, callers: RouteCallers::Named(Vec::new()), ..billing() };
    let erp = erp();
    let known = Asked { peer_is_local: false, ..asked(Some(&erp), "GET", PREFIX) };
    let reported = Some(Denial::from(Reason::NotListed("erp")));
    assert_eq!(decide(&route, &known), Verdict::Allowed { rule: None, reported });
}

#[test]
fn a_stranger_learns_nothing_about_rules_and_nobody_about_other_callers() {
    let callers = RouteCallers::Named(vec!["finance".to_owned()]);
    let forbidden_paths = vec!["/token".to_owned()];
    let route = RouteSpec { forbidden_paths, callers, ..with_rules(&["GET /secret-project/**"], &["* /admin"]) };
    let erp = erp();
    for (caller, path) in [
        (None, "/ipxo/billing/admin"),
        (None, "/ipxo/billing/token"),
        (None, "/ipxo/billing/x"),
        (Some(&erp), "/ipxo/billing/admin"),
        (Some(&erp), "/ipxo/billing/secret-project"),
    ] {
        let denial = judge(&route, caller, "GET", path).denied().expect("a denial");
        assert!(matches!(denial.reason, Reason::Unidentified | Reason::NotListed("erp")));
        for secret in ["finance", "secret-project", "admin", "token"] {
            assert!(!denial.to_string().contains(secret), "{denial}");
        }
    }
}

#[test]
fn two_identities_have_a_denial_of_their_own() {
    assert_eq!(Denial::two_identities().code().as_str(), "caller_denied");
}
