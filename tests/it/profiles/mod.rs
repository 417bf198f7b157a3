//! Every further profile, end to end: `init` writes a file, `check` asks for what is missing, `serve` gets a token from
//! a sandbox that knows the provider from a description of its own, and the API sees exactly what it wants.
//!
//! A profile and its description agree on nothing by construction: one says what cupbearer does, the other what the
//! provider insists on.

mod limits;
mod wrong;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    process::{Command, Output},
};

use cupbearer::sandbox::{Api, Description, Provider};
use serde_json::Value;

use crate::support::{Cupbearer, Playground, TestDir};

/// All providers that are described, with what is known of them.
fn described() -> Vec<(Provider, &'static Description)> {
    let known = |provider| match provider {
        Provider::Described(other) => Some((provider, other.description())),
        _ => None,
    };
    Provider::all().filter_map(known).collect()
}

fn run(dir: &TestDir, words: &[&str], env: &[(String, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupbearer"));
    command.args(words).current_dir(dir.path()).env_clear().envs(env.iter().cloned());
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `cupbearer providers NAME` says, with this account's variables filled in.
fn facts(dir: &TestDir, known: &Description) -> Value {
    let output = run(dir, &["providers", known.name, "--format", "json"], &[]);
    let filled =
        known.vars.iter().fold(text(&output.stdout), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
    serde_json::from_str(&filled).unwrap_or_else(|e| panic!("{}: {e}", known.name))
}

/// The environment that a starter file asks for, with this account's values.
fn environment(facts: &Value, known: &Description, key: &str) -> Vec<(String, String)> {
    let mut env = Vec::new();
    let mut add = |name: &str, value: &str| {
        let name = format!("{}_{name}", known.name).to_uppercase().replace('-', "_");
        env.push((name, value.to_owned()));
    };
    for (name, value) in [("CLIENT_ID", &known.client.id), ("CLIENT_SECRET", &known.client.secret)] {
        if !value.is_empty() {
            add(name, value);
        }
    }
    if known.wants_key() {
        add("KEY", key);
    }
    known.vars.iter().for_each(|(name, value)| add(name, value));
    if token_url(facts).is_none() && !facts["ask_token_url"].is_null() {
        add("TOKEN_URL", &known.token_url);
    }
    for api in known.apis.iter().filter(|api| upstream(facts, &api.name).is_none()) {
        add(&format!("{}_UPSTREAM", api.name), &api.url);
    }
    env
}

/// The token endpoint that the profile knows.
fn token_url(facts: &Value) -> Option<String> {
    let by_credential = || serde_json::from_str(facts["defaults"]["token_url"].as_str()?).ok();
    let by_environment = facts["environments"][0]["token_url"].as_str();
    by_environment.map(str::to_owned).or_else(by_credential)
}

/// The base URL of an API that the profile knows.
fn upstream(facts: &Value, api: &str) -> Option<String> {
    let own = facts["apis"].as_array().expect("a list").iter().find(|a| a["name"] == api);
    let own = own.unwrap_or_else(|| panic!("{api}"))["upstream"].as_str();
    own.or(facts["environments"][0]["upstreams"][api].as_str()).map(str::to_owned)
}

/// Path and query of a URL.
fn target(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or_else(|| panic!("{url}"));
    rest.find('/').map_or("", |at| &rest[at..])
}

/// What a starter file becomes in front of a sandbox: each host is replaced, each path kept.
fn redirected(starter: &str, sandbox: &Playground, all: &[(&Description, Value)]) -> String {
    let (_, starter) = starter.split_once("listen = \"127.0.0.1:8080\"\n").expect("a [server]");
    let of = |name: &str| all.iter().find(|(known, _)| known.name == name).unwrap_or_else(|| panic!("{name}"));
    let here = |name: &str, url: &str| format!("\"{}/{name}{}\"", sandbox.base_url(), target(url));
    let (mut out, mut api) = (String::new(), "");
    for line in starter.lines().filter(|l| !l.starts_with("token_url = ") && !l.starts_with("upstream = ")) {
        let value = |key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        writeln!(out, "{line}").expect("a String");
        api = value("api").unwrap_or(api);
        let is_asked = |facts: &Value| facts["defaults"]["grant"] != "\"self_signed\"";
        if let Some((known, facts)) = value("provider").map(of).filter(|(_, facts)| is_asked(facts)) {
            let name = known.name;
            let url = token_url(facts).unwrap_or_else(|| known.token_url.clone());
            writeln!(out, "token_url = {}", here(name, &url)).expect("a String");
        }
        if let Some(name) = value("credential") {
            let (known, facts) = of(name);
            let own = || known.apis.iter().find(|a| a.name == api).expect("an API").url.clone();
            writeln!(out, "upstream = {}", here(name, &upstream(facts, api).unwrap_or_else(own))).expect("a String");
        }
    }
    out
}

#[test]
fn a_starter_file_asks_for_what_is_missing_and_passes_with_it() {
    let (dir, sandbox) = (TestDir::new(), Playground::new());
    for (_, known) in described() {
        let written = run(&dir, &["init", known.name, "-o", known.name], &[]);
        assert_eq!(written.status.code(), Some(0), "{}: {}", known.name, text(&written.stderr));
        let env = environment(&facts(&dir, known), known, &sandbox.private_key());
        let bare = run(&dir, &["check", "-c", known.name], &[]);
        assert_eq!(bare.status.code(), Some(2), "{}", known.name);
        for (variable, _) in &env {
            assert!(text(&written.stdout).contains(variable), "{}", text(&written.stdout));
            let told = format!("variable {variable} is not set");
            assert!(text(&bare.stderr).contains(&told), "no {told:?}:\n{}", text(&bare.stderr));
        }
        let total = format!("\n{} problem", env.len());
        assert!(text(&bare.stderr).contains(&total), "and nothing else:\n{}", text(&bare.stderr));
        let full = run(&dir, &["check", "-c", known.name], &env);
        assert_eq!((full.status.code(), text(&full.stderr)), (Some(0), String::new()), "{}", known.name);
    }
}

#[test]
fn a_profile_leads_where_the_provider_is() {
    let dir = TestDir::new();
    for (_, known) in described() {
        let facts = facts(&dir, known);
        assert_eq!(token_url(&facts).as_ref().unwrap_or(&known.token_url), &known.token_url, "{}", known.name);
        let apis = facts["apis"].as_array().expect("a list");
        let of_profile: BTreeSet<_> = apis.iter().filter_map(|api| api["name"].as_str()).collect();
        let of_provider: BTreeSet<_> = known.apis.iter().map(|api| api.name.as_str()).collect();
        assert_eq!(of_profile, of_provider, "{}", known.name);
        for api in &known.apis {
            assert_eq!(upstream(&facts, &api.name).as_ref().unwrap_or(&api.url), &api.url, "{}", known.name);
        }
    }
}

/// Fields that are neither the caller's nor the provider's business.
const OF_THE_WAY: [&str; 8] =
    ["host", "x-request-id", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "accept"];

/// One request, as a caller that tries to bring credentials of its own.
fn expect_exactly(proxy: &Cupbearer, known: &Description, api: &Api) {
    let own = api.headers.keys().fold(String::new(), |own, name| own + name + ": of-the-caller\r\n");
    let own = own + if api.headers.contains_key("authorization") { "" } else { "Authorization: Bearer mine\r\n" };
    let path = format!("/{}/{}/echo?a[b]=c&d", known.name, api.name);
    let response = proxy.request("GET", &path, &format!("Accept: */*\r\n{own}"), b"");
    assert_eq!(response.status, 200, "{} {}: {}", known.name, api.name, response.text());
    let echo = response.json();
    assert_eq!(echo["target"], format!("/{}{}/echo?a[b]=c&d", known.name, target(&api.url)));
    let fields = echo["headers"].as_array().expect("a list");
    let field = |f: &Value| (f[0].as_str().expect("a name").to_lowercase(), f[1].as_str().expect("a value").to_owned());
    let seen: BTreeSet<_> = fields.iter().map(field).filter(|(name, _)| !OF_THE_WAY.contains(&name.as_str())).collect();
    let token = echo["token"].as_str().expect("a token");
    let wanted = api.headers.iter().map(|(name, pattern)| {
        (
            name.clone(),
            pattern.replace("{token}", token).replace("{jwt}", token).replace("{client_id}", &known.client.id),
        )
    });
    assert_eq!(seen, wanted.collect(), "{} {}", known.name, api.name);
}

#[test]
fn every_profile_gets_a_token_and_its_api_sees_exactly_what_it_wants() {
    let sandbox = Playground::new();
    let dir = TestDir::new();
    let all = described();
    let names: Vec<&str> = all.iter().map(|(_, known)| known.name).collect();
    let starter = text(&run(&dir, &[&["init", "--stdout"][..], &names].concat(), &[]).stdout);
    let facts: Vec<(&Description, Value)> = all.iter().map(|(_, known)| (*known, facts(&dir, known))).collect();
    let env = facts.iter().flat_map(|(known, facts)| environment(facts, known, &sandbox.private_key()));
    let builder = env.fold(Cupbearer::builder(), |builder, (name, value)| builder.env(&name, &value));
    let proxy = builder.start(&redirected(&starter, &sandbox, &facts));
    for (_, known) in &all {
        known.apis.iter().for_each(|api| expect_exactly(&proxy, known, api));
    }
    let log = sandbox.expect_clean();
    for (provider, known) in &all {
        let asked = known.apis.iter().filter(|api| !api.headers.values().any(|pattern| pattern.contains("{jwt}")));
        let needs: BTreeSet<_> = asked.map(|api| (&api.scope, &api.audience)).collect();
        let seen = &log.providers[provider];
        assert_eq!((seen.tokens_refused, seen.tokens_issued), (0, needs.len() as u64), "{}", known.name);
    }
    let secrets: Vec<&str> =
        all.iter().map(|(_, known)| known.client.secret.as_str()).filter(|s| !s.is_empty()).collect();
    proxy.expect_never_printed(&secrets);
    expect_lives(&proxy.stop(), &facts);
}

/// The lifetime of a credential's token as the log tells it, in seconds.
fn life(log: &str, credential: &str) -> f64 {
    let of_this =
        |line: &&str| line.contains("token fetched") && line.contains(&format!("credential=\"{credential}\""));
    let fetched = log.lines().find(of_this).unwrap_or_else(|| panic!("{credential}: no token was fetched\n{log}"));
    let life = fetched.split("lifetime=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a lifetime");
    life.trim_end_matches('s').parse().unwrap_or_else(|e| panic!("{e}: {life}"))
}

/// Every lifetime was understood: what the provider told, or else what the profile says.
fn expect_lives(log: &str, all: &[(&Description, Value)]) {
    for (known, facts) in all {
        let seconds = life(log, known.name);
        if known.tells_life() {
            assert!((seconds - f64::from(known.ttl)).abs() < 10.0, "{}: {seconds} s, not {}", known.name, known.ttl);
        } else {
            let written =
                facts["defaults"]["default_ttl"].as_str().unwrap_or_else(|| panic!("{}: no default_ttl", known.name));
            let unit = |unit| match unit {
                "m" => 60.0,
                "h" => 3600.0,
                _ => 86_400.0,
            };
            let (number, of) = written.trim_matches('"').split_at(written.len() - 3);
            assert!(
                (seconds - number.parse::<f64>().expect("a number") * unit(of)).abs() < 1.0,
                "{}: {seconds} s",
                known.name
            );
        }
    }
}
