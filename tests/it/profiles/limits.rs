//! How providers refuse, limit and share tokens.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cupbearer::sandbox::{Description, Provider};

use super::{described, environment, facts, life, redirected, run, text};
use crate::support::{Client, Cupbearer, Playground, TestDir, eventually};

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
