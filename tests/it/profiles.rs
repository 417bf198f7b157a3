//! Every further profile, end to end: `init` writes a file, `check` asks for what is missing, `serve` gets a token from
//! a sandbox that knows the provider from a description of its own, and the API sees exactly what it wants.
//!
//! A profile and its description agree on nothing by construction: one says what cupbearer does, the other what the
//! provider insists on.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cupbearer::sandbox::{Api, Description, Provider};
use serde_json::Value;

use crate::support::{Client, Cupbearer, Playground, TestDir, eventually};

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
    let dir = TestDir::new();
    for (_, known) in described() {
        let written = run(&dir, &["init", known.name, "-o", known.name], &[]);
        assert_eq!(written.status.code(), Some(0), "{}: {}", known.name, text(&written.stderr));
        let env = environment(&facts(&dir, known), known, "-----BEGIN not-a-key-----");
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

/// A line that makes one key of the profile wrong: for the credential, or for its route.
enum Wrong {
    Credential(String),
    Route(String),
    /// The token comes, its lifetime is another.
    Life(String),
}

/// What is wrong if this key of the profile's `[credential]` says something else; nothing where nothing goes out or
/// comes in by it.
fn wrong(key: &str, value: &Value, secret: &str) -> Vec<Wrong> {
    let credential = |line: String| vec![Wrong::Credential(line)];
    let text = value.as_str().unwrap_or_default();
    match key {
        "client_auth" => match text {
            "post" => credential("client_auth = \"basic\"".to_owned()),
            "basic" | "basic_raw" => {
                let other = if text == "basic" { "basic_raw" } else { "basic" };
                let encoded = secret.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"-._*".contains(&b));
                let others = if encoded { vec!["post", other] } else { vec!["post"] };
                others.into_iter().map(|to| Wrong::Credential(format!("client_auth = \"{to}\""))).collect()
            }
            _ => Vec::new(),
        },
        "body" => credential(format!("body = \"{}\"", if text == "json" { "form" } else { "json" })),
        "method" => credential("method = \"POST\"".to_owned()),
        "grant_type" => credential(format!("grant_type = \"{text}x\"")),
        "token_field" => {
            credential(format!("token_field = \"{}\"", if text.is_empty() { "/x" } else { "/access_token" }))
        }
        "id_param" if text.is_empty() => credential("id_param = \"other\"\nclient_id = \"other\"".to_owned()),
        "id_param" | "secret_param" => credential(format!("{key} = \"other\"")),
        "params" | "headers" => {
            let entries = value.as_object().expect("a table");
            let line = |(name, value): (&String, &Value)| {
                let value = value.as_str().expect("text");
                Wrong::Credential(format!("{key}.\"{name}\" = \"X{value}\""))
            };
            entries.iter().map(line).collect()
        }
        "alg" => credential(format!("alg = \"{}\"", if text == "RS256" { "PS256" } else { "RS256" })),
        "key_id" => credential("key_id = \"other\"".to_owned()),
        "assertion" => {
            let claims = value.as_object().expect("a table");
            let with_other = |other: &String| {
                let claim = |(name, value): (&String, &Value)| {
                    format!("{name} = {}", if name == other { "\"other\"".to_owned() } else { value.to_string() })
                };
                let claims = claims.iter().map(claim).collect::<Vec<_>>().join(", ");
                Wrong::Credential(format!("assertion = {{ {claims} }}"))
            };
            claims.keys().map(with_other).collect()
        }
        "expires_field" => vec![Wrong::Life("expires_field = \"/nothing\"".to_owned())],
        "expires_unit" => vec![Wrong::Life("expires_unit = \"s\"".to_owned())],
        "scopes" | "resource" => vec![Wrong::Route(format!("{key} = [\"other\"]"))],
        "audience" => vec![Wrong::Route("audience = \"other\"".to_owned())],
        _ => Vec::new(),
    }
}

/// Every way to get one key of a profile wrong.
fn all_wrong(facts: &Value, secret: &str) -> Vec<Wrong> {
    let mut all: Vec<Wrong> = Vec::new();
    for (key, written) in facts["defaults"].as_object().expect("a table") {
        let toml: toml::Table = format!("v = {}", written.as_str().expect("TOML")).parse().expect("TOML");
        // A GET has no body; and where a header says who asks, no parameter does.
        let has = |other: &str| !facts["defaults"][other].is_null();
        if (key == "body" && has("method")) || (key == "id_param" && has("headers")) {
            continue;
        }
        all.extend(wrong(key, &serde_json::to_value(&toml["v"]).expect("JSON"), secret));
    }
    let api = &facts["apis"][0];
    for key in ["scopes", "resource", "audience"] {
        if !api[key].is_null() && facts["defaults"][key].is_null() {
            all.extend(wrong(key, &api[key], secret));
        }
    }
    if !facts["inject"].is_null() {
        all.push(Wrong::Route("inject = \"X-Elsewhere: {token}\"".to_owned()));
    }
    let headers = facts["set_headers"].as_object().expect("a table");
    all.extend(headers.keys().map(|name| Wrong::Route(format!("set_headers.\"{name}\" = \"other\""))));
    all
}

/// One profile with one key wrong, as a credential and a route of its own.
struct Trial {
    name: String,
    line: String,
    known: &'static Description,
    is_life: bool,
}

impl Trial {
    /// The first route of a starter file, renamed and made wrong.
    fn config(&self, first_route: &str, wrong: &Wrong) -> String {
        let Self { name, line, known, .. } = self;
        let (of_credential, of_route) = match wrong {
            Wrong::Credential(_) | Wrong::Life(_) => (format!("{line}\n"), String::new()),
            Wrong::Route(_) => (String::new(), format!("{line}\n")),
        };
        let old = known.name;
        first_route
            .replace(&format!("[credentials.{old}]\n"), &format!("[credentials.{name}]\n{of_credential}"))
            .replace(&format!("credential = \"{old}\"\n"), &format!("credential = \"{name}\"\n{of_route}"))
            .replace(&format!("prefix = \"/{old}/"), &format!("prefix = \"/{name}/"))
    }

    fn status(&self, proxy: &Cupbearer) -> u16 {
        proxy.get(&format!("/{}/{}/echo", self.name, self.known.apis[0].name)).status
    }
}

#[test]
fn a_profile_with_any_key_wrong_gets_nothing() {
    let sandbox = Playground::new();
    let dir = TestDir::new();
    let (mut config, mut trials, mut builder) = (String::new(), Vec::new(), Cupbearer::builder());
    for (_, known) in described() {
        let facts = facts(&dir, known);
        builder = environment(&facts, known, &sandbox.private_key())
            .into_iter()
            .fold(builder, |builder, (name, value)| builder.env(&name, &value));
        let starter = text(&run(&dir, &["init", "--stdout", known.name], &[]).stdout);
        let right = redirected(&starter, &sandbox, &[(known, facts.clone())]);
        let first_route = right.split("[[routes]]").take(2).collect::<Vec<_>>().join("[[routes]]");
        for (number, wrong) in all_wrong(&facts, &known.client.secret).into_iter().enumerate() {
            let (Wrong::Credential(line) | Wrong::Route(line) | Wrong::Life(line)) = &wrong;
            let (name, line) = (format!("{}-{number}", known.name), line.clone());
            let trial = Trial { name, line, known, is_life: matches!(wrong, Wrong::Life(_)) };
            config += &trial.config(&first_route, &wrong);
            trials.push(trial);
        }
    }
    let proxy = builder.start(&config);
    let mut unnoticed = Vec::new();
    for trial in &trials {
        let status = trial.status(&proxy);
        assert!(status == 200 || !trial.is_life, "{}: {}", trial.name, trial.line);
        if status == 200 && !trial.is_life {
            unnoticed.push(format!("{}: {}", trial.name, trial.line));
        }
    }
    let log = proxy.stop();
    for trial in trials.iter().filter(|t| t.is_life) {
        if (life(&log, &trial.name) - f64::from(trial.known.ttl)).abs() < 10.0 {
            unnoticed.push(format!("{}: {}", trial.name, trial.line));
        }
    }
    assert!(unnoticed.is_empty(), "nobody notices: {unnoticed:#?}");
    assert!(trials.len() > 3 * described().len(), "{}", trials.len());
}

#[test]
fn a_wrong_secret_is_refused_in_each_providers_own_words_and_shown_to_it_once() {
    let sandbox = Playground::new();
    let dir = TestDir::new();
    let (mut config, mut builder) = (String::new(), Cupbearer::builder());
    let all: Vec<_> = described().into_iter().filter(|(_, known)| !known.wants_key()).collect();
    for (_, known) in &all {
        let facts = facts(&dir, known);
        for (name, value) in environment(&facts, known, "") {
            let wrong = if name.ends_with("_SECRET") { "not-a-secret-but-a-wrong-one" } else { &value };
            builder = builder.env(&name, wrong);
        }
        let starter = text(&run(&dir, &["init", "--stdout", known.name], &[]).stdout);
        config += &redirected(&starter, &sandbox, &[(known, facts)]);
    }
    let proxy = builder.start(&config);
    for _ in 0..3 {
        for (_, known) in &all {
            let response = proxy.get(&format!("/{}/{}/echo", known.name, known.apis[0].name));
            let problem = response.expect_problem(502, "idp_refused");
            assert_eq!(problem["credential"], known.name);
        }
    }
    let log = sandbox.expect_clean();
    for (provider, known) in &all {
        let seen = &log.providers[provider];
        assert_eq!((seen.tokens_issued, seen.api_requests), (0, 0), "{}", known.name);
        // A second trial may be due by now on a slow machine; five would lock an account (Equinix).
        assert!((1..=3).contains(&seen.token_requests), "{}: {seen:?}", known.name);
    }
    proxy.expect_never_printed(&["not-a-secret-but-a-wrong-one"]);
}

/// The provider of this name, a proxy in front of it with these further lines for its credential, and the sandbox.
fn alone(name: &str, lines: &str) -> (Provider, &'static Description, Cupbearer, Playground) {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let (provider, known) = described().into_iter().find(|(_, known)| known.name == name).expect("described");
    let facts = facts(&dir, known);
    let env = environment(&facts, known, &sandbox.private_key());
    let builder = env.into_iter().fold(Cupbearer::builder(), |builder, (name, value)| builder.env(&name, &value));
    let starter = text(&run(&dir, &["init", "--stdout", name], &[]).stdout);
    let config = redirected(&starter, &sandbox, &[(known, facts)]);
    let head = format!("[credentials.{name}]\n");
    (provider, known, builder.start(&config.replace(&head, &format!("{head}{lines}"))), sandbox)
}

#[test]
fn soundcloud_is_asked_for_no_more_tokens_than_it_gives() {
    // Its own 50 in 12 hours are in the profile; a smaller one shows that it is kept to.
    let (provider, _, proxy, sandbox) =
        alone("soundcloud", "budget = \"2/12h\"\nexpires_field = \"/nothing\"\ndefault_ttl = \"1s\"\n");
    let spent = || {
        let response = proxy.get("/soundcloud/api/echo");
        (response.status != 200).then(|| response.expect_problem(503, "budget_exhausted"))
    };
    let mut problem = None;
    eventually("the budget is spent", || {
        problem = spent();
        problem.is_some()
    });
    assert!(problem.expect("spent")["retry_after"].as_u64().is_some_and(|s| s > 43_000));
    assert_eq!(sandbox.tokens_issued(provider), 2);
}

#[test]
fn soundclouds_429_is_obeyed_where_no_budget_kept_from_it() {
    let (provider, known, proxy, sandbox) =
        alone("soundcloud", "budget = \"1000/h\"\nexpires_field = \"/nothing\"\ndefault_ttl = \"1s\"\n");
    assert_eq!(proxy.get("/soundcloud/api/echo").status, 200);
    // Others with the same client use up what is left.
    let pair = format!("{}:{}", known.client.id, known.client.secret);
    let (basic, body) = (STANDARD.encode(pair), "grant_type=client_credentials");
    let request = format!(
        "POST /soundcloud/oauth/token HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {basic}\r\nContent-Type: \
         application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let refused = loop {
        let mut other = Client::connect(sandbox.address());
        other.send(&request);
        let response = other.response();
        if response.status != 200 {
            break response;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("43200")));
    eventually("the last token ends", || proxy.get("/soundcloud/api/echo").status != 200);
    let asked = sandbox.token_requests(provider);
    for _ in 0..5 {
        let problem = proxy.get("/soundcloud/api/echo").expect_problem(503, "idp_unavailable");
        assert!(problem["retry_after"].as_u64().is_some_and(|s| (3000..=3600).contains(&s)), "{problem}");
    }
    assert_eq!(sandbox.token_requests(provider), asked, "not asked again before the provider said");
}

#[test]
fn a_token_that_marketo_hands_to_everybody_is_kept_only_for_what_is_left_of_its_life() {
    let (_, _, first, sandbox) = alone("marketo", "");
    sandbox.order("marketo.idp=ttl:40");
    assert_eq!(first.get("/marketo/rest/echo").status, 200);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let second = sandbox.token_url(described().into_iter().find(|(_, k)| k.name == "marketo").expect("described").0);
    let known = described().into_iter().find(|(_, k)| k.name == "marketo").expect("described").1;
    let config = format!(
        "[credentials.late]\nprovider = \"marketo\"\nvars.munchkin = \"a\"\nclient_id = \"{}\"\nclient_secret.env = \"S\"\n\
         token_url = \"{second}\"\n[[routes]]\nprefix = \"/\"\nupstream = \"{}/marketo/rest\"\ncredential = \"late\"\n",
        known.client.id,
        sandbox.base_url()
    );
    let late = Cupbearer::builder().env("S", &known.client.secret).start(&config);
    assert_eq!(late.get("/echo").status, 200);
    let (first, late) = (life(&first.stop(), "marketo"), life(&late.stop(), "late"));
    assert!(late < first && late > 20.0, "{first} {late}");
}
