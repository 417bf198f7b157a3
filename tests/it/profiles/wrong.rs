//! Every key of every profile, made wrong: somebody must notice, or the key would not be tested.

use cupbearer::sandbox::Description;
use serde_json::Value;

use super::{described, environment, facts, life, redirected, run, text};
use crate::support::{Cupbearer, Playground, TestDir};

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
        // All trials of a provider are one account; its budget is not what is tried here.
        let budget = "budget = \"1000/h\"\n";
        let (of_credential, of_route) = match wrong {
            Wrong::Credential(_) | Wrong::Life(_) => (format!("{budget}{line}\n"), String::new()),
            Wrong::Route(_) => (budget.to_owned(), format!("{line}\n")),
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
