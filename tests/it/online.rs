//! `check --online` and `token`: the commands that ask a provider and tell what came of it, through the real binary.

use std::process::{Command, Output};

use cupbearer::sandbox::{
    IPXO_CLIENT_ID, IPXO_CLIENT_SECRET, IX_API_KEY, IX_API_SECRET, MYTHIC_KEY_ID, MYTHIC_SECRET, PAX8_CLIENT_ID,
    PAX8_CLIENT_SECRET, Provider,
};
use serde_json::Value;

use crate::support::{Ca, Cupbearer, Ending, OidcProvider, Playground, TestDir, TlsUpstream, Upstream};

/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// The variables that the configurations here name.
const VARIABLES: [(&str, &str); 7] = [
    ("SECRET", "not-a-secret"),
    ("IPXO_SECRET", IPXO_CLIENT_SECRET),
    ("PAX8_SECRET", PAX8_CLIENT_SECRET),
    ("MYTHIC_SECRET", MYTHIC_SECRET),
    ("IX_SECRET", IX_API_SECRET),
    ("WRONG_SECRET", "not-a-secret-but-wrong"),
    ("SEAL_KEY", SEAL_KEY),
];

struct Ran(Output);

impl Ran {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.out(), self.err()))
    }

    /// Panics unless it ended like this, or if it shows a secret or a token.
    fn expect(self, code: i32) -> Self {
        let all = self.out() + &self.err();
        assert_eq!(self.0.status.code(), Some(code), "{all}");
        for secret in ["not-a-token", SEAL_KEY].into_iter().chain(VARIABLES.iter().map(|(_, value)| *value)) {
            assert!(!all.contains(secret), "{secret} is shown: {all}");
        }
        self
    }
}

/// A directory with a configuration that listens nowhere in particular.
struct Desk(TestDir);

impl Desk {
    fn new(config: &str) -> Self {
        let dir = TestDir::new();
        dir.write("proxy.toml", format!("[admin]\nlisten = false\n{config}"));
        Self(dir)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cupbearer"));
        command.args(arguments).current_dir(self.0.path()).env_clear().envs(VARIABLES);
        Ran(command.output().expect("the binary runs"))
    }

    /// The one credential's part of `check --online --format json`.
    fn online(&self, code: i32) -> Value {
        let json = self.run(&["check", "--online", "--format", "json"]).expect(code).json();
        assert_eq!(json["ok"], code == 0);
        assert_eq!(json["online"].as_array().map(Vec::len), Some(1));
        json["online"][0].clone()
    }

    /// Runs a command line that cupbearer printed; gives back what it printed.
    fn sh(&self, line: &str) -> String {
        let mut shell = Command::new("sh");
        let path = std::env::var_os("PATH").unwrap_or_default();
        shell.args(["-c", line]).current_dir(self.0.path()).env_clear().env("PATH", path).envs(VARIABLES);
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A credential with a secret of its own at `tokens`, and a route of it.
fn one(tokens: &Upstream, more: &str) -> String {
    format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n{more}\n[[routes]]\nprefix = \"/api\"\nupstream = \"http://127.0.0.1:9\"\n\
         credential = \"c\"\n",
        tokens.url()
    )
}

/// A provider that answers every request with this.
fn answering(status: &str, fields: &str, body: &str) -> Upstream {
    let fields = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}");
    Upstream::always(format!("{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn check_online_asks_every_provider_once_and_explains_what_came() {
    let sandbox = Playground::new();
    let ipxo =
        sandbox.credential("ipxo", Provider::Ipxo, IPXO_CLIENT_ID, "{ env = \"IPXO_SECRET\" }", "budget = \"50/12h\"");
    let pax8 = sandbox.credential("pax8", Provider::Pax8, PAX8_CLIENT_ID, "{ env = \"PAX8_SECRET\" }", "");
    let mythic = sandbox.credential("mythic", Provider::MythicBeasts, MYTHIC_KEY_ID, "{ env = \"MYTHIC_SECRET\" }", "");
    let ix = sandbox.credential("ix", Provider::IxApi, IX_API_KEY, "{ env = \"IX_SECRET\" }", "");
    let desk = Desk::new(
        &[
            ipxo,
            pax8,
            mythic,
            ix,
            sandbox.route("/billing", "/ipxo/billing", "ipxo", "scopes = [\"billing\"]"),
            sandbox.route("/more", "/ipxo/billing", "ipxo", "scopes = [\"billing\"]"),
            sandbox.route("/dns", "/ipxo/dns", "ipxo", "scopes = [\"dns\"]"),
            sandbox.route("/pax8", "/pax8/v2/usage", "pax8", "audience = \"api://usage\""),
            sandbox.route("/mythic", "/mythic/dns/v2", "mythic", ""),
            sandbox.route("/ix", "/ix-api/api/v2", "ix", ""),
        ]
        .concat(),
    );
    assert!(desk.run(&["check"]).expect(0).out().starts_with("proxy.toml is fine"));
    let asked = |provider| sandbox.token_requests(provider);
    assert_eq!(asked(Provider::Ipxo), 0, "offline means offline");

    let text = desk.run(&["check", "--online"]).expect(0).out();
    for row in [
        "credential ipxo (ipxo): token\n",
        "asked for  scopes billing; for /billing, /more\n",
        "method     grant client_credentials, client_auth post, body form, at ",
        "answer     HTTP 200 after ",
        "lifetime   86399 s (23h 59m 59s), as the answer says (expires_in)\n",
        "scopes     billing (granted, says the answer)\n",
        "token      opaque, fingerprint ",
        "clock      the provider's agrees with ours\n",
        "budget     1 of 50 token requests in 43200 s (12h) used",
        "not asked  scopes dns; for /dns\n",
        "asked for  audience api://usage; for /pax8\n",
        "body json, at ",
        "client_auth basic",
        "lifetime   300 s (5m)",
        "as the token's own exp says\n",
        "note       The status is 201; any 2xx with a token will do.\n",
        "claim      ",
    ] {
        assert!(text.contains(row), "{row:?} is missing:\n{text}");
    }
    let all = [Provider::Ipxo, Provider::Pax8, Provider::MythicBeasts, Provider::IxApi];
    assert_eq!(all.map(asked), [1; 4]);

    // What it prints to be copied is what it sent.
    let json = desk.run(&["check", "--online", "--format", "json"]).expect(0).json();
    let online = json["online"].as_array().expect("a list");
    assert_eq!(
        online.iter().map(|told| told["credential"].as_str().unwrap()).collect::<Vec<_>>(),
        ["ipxo", "pax8", "mythic", "ix"]
    );
    for told in online {
        let answer: Value =
            serde_json::from_str(&desk.sh(told["requests"][0]["curl"].as_str().unwrap())).expect("JSON");
        assert!(answer["access_token"].is_string(), "{told}");
    }
    assert_eq!(all.map(asked), [3; 4]);
    assert_eq!((&online[0]["token"]["kind"], &online[0]["token"]["lifetime_s"]), (&"opaque".into(), &86399.into()));
    assert_eq!(online[0]["not_asked_for"][0]["scopes"][0], "dns");
    assert_eq!(online[3]["token"]["lifetime_from"], "jwt_exp");

    // Only the named ones; and every token.
    let json = desk.run(&["check", "--online", "ipxo", "--every-token", "--format", "json"]).expect(0).json();
    let scopes = |n: usize| json["online"][n]["token"]["scopes"]["granted"][0].clone();
    assert_eq!((scopes(0), scopes(1), &json["online"][2]), ("billing".into(), "dns".into(), &Value::Null));
    assert_eq!(all.map(asked), [5, 3, 3, 3]);
    sandbox.expect_clean();
}

#[test]
fn a_provider_that_refuses_is_explained_and_ends_in_3() {
    let sandbox = Playground::new();
    let basic = sandbox.credential(
        "basic",
        Provider::Ipxo,
        IPXO_CLIENT_ID,
        "{ env = \"IPXO_SECRET\" }",
        "client_auth = \"basic\"",
    );
    let wrong = sandbox.credential("wrong", Provider::Pax8, PAX8_CLIENT_ID, "{ env = \"WRONG_SECRET\" }", "");
    let right = sandbox.credential("right", Provider::MythicBeasts, MYTHIC_KEY_ID, "{ env = \"MYTHIC_SECRET\" }", "");
    let scope = sandbox.credential(
        "scope",
        Provider::Ipxo,
        IPXO_CLIENT_ID,
        "{ env = \"IPXO_SECRET\" }",
        "scopes = [\"bananas\"]",
    );
    let desk = Desk::new(&[basic, wrong, right, scope].concat());
    let json = desk.run(&["check", "--online", "--format", "json"]).expect(3).json();
    let told = json["online"].as_array().expect("a list");
    assert_eq!(json["ok"], false);
    assert_eq!(
        told.iter().map(|told| told["ok"].as_bool()).collect::<Vec<_>>(),
        [Some(false), Some(false), Some(true), Some(false)]
    );
    let error = |n: usize, key: &str| told[n]["error"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (error(0, "code"), error(0, "means")),
        ("invalid_client".into(), "This client is registered for client_secret_post.".into())
    );
    assert_eq!(error(0, "advice"), "Set client_auth to \"post\".");
    assert_eq!((told[1]["requests"][0]["http_status"].clone(), error(1, "code")), (401.into(), "access_denied".into()));
    assert!(error(1, "means").starts_with("Pax8 takes neither"), "{told:?}");
    assert_eq!(error(3, "code"), "invalid_scope");
    assert!(error(3, "description").contains("bananas"), "{told:?}");
    let text = desk.run(&["check", "--online", "wrong"]).expect(3).out();
    for row in [
        "credential wrong (pax8): no token\n",
        "answer      HTTP 401 after ",
        "code        access_denied\n",
        "its words   \"Unauthorized\"\n",
    ] {
        assert!(text.contains(row), "{row:?} is missing:\n{text}");
    }
}

#[test]
fn known_codes_are_translated_and_the_providers_words_shown_without_secrets() {
    let entra = r#"{"error":"invalid_client","error_description":"AADSTS700016: Application was not found.\u001b[2J Trace ID: 1","error_codes":[700016]}"#;
    let echo = r#"{"error":"invalid_client","error_description":"no client with secret not-a-secret"}"#;
    for (body, means, words) in [
        (
            entra,
            "The tenant knows no application of this client_id.",
            "AADSTS700016: Application was not found.[2J Trace ID: 1",
        ),
        (echo, "", ""),
    ] {
        let tokens = answering("401 Unauthorized", "Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n", body);
        let desk = Desk::new(&one(&tokens, ""));
        let told = desk.online(3);
        assert_eq!(told["error"]["code"], "invalid_client");
        assert_eq!(told["error"]["means"].as_str().unwrap_or_default(), means);
        assert_eq!(told["error"]["description"].as_str().unwrap_or_default(), words);
        assert!(told["clock_skew_s"].as_i64().is_some_and(|skew| skew < -300_000_000), "{told}");
        let text = desk.run(&["check", "--online"]).expect(3).out();
        assert!(text.contains("behind ours; set this machine's clock") && !text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn what_is_wrong_here_ends_in_2_and_what_the_provider_says_in_3() {
    let tokens = Upstream::tokens(3600);
    let secret = one(&tokens, "").replace("env = \"SECRET\"", "command = [\"false\"]");
    let login = "[tokens]\nstore = { file = \"store\" }\nseal_key = { env = \"SEAL_KEY\" }\n[credentials.l]\n\
                 grant = \"authorization_code\"\nclient_id = \"id\"\nclient_auth = \"none\"\n\
                 authorize_url = \"http://127.0.0.1:9/authorize\"\ntoken_url = \"http://127.0.0.1:9/token\"\n";
    for file in [secret.as_str(), login] {
        let text = Desk::new(file).run(&["check", "--online"]).expect(2).out();
        assert!(text.contains("no token, no token request was sent"), "{text}");
    }
    assert!(Desk::new(login).run(&["token", "l"]).expect(2).out().contains("cupbearer login l"));
    assert!(tokens.requests().is_empty());
    let refusing = answering("400 Bad Request", "", r#"{"error":"invalid_client"}"#);
    Desk::new(&one(&refusing, "")).run(&["check", "--online"]).expect(3);
    // Where both are true, what is wrong here is to be mended first.
    let both = one(&refusing, "")
        + &secret.replace("credentials.c", "credentials.d").replace("/api", "/d").replace("\"c\"", "\"d\"");
    Desk::new(&both).run(&["check", "--online"]).expect(2);
}

#[test]
fn answers_that_are_no_refusal_are_told_in_our_own_words_and_no_promise_is_made() {
    let many = "X-Many: 1\r\n".repeat(150);
    let breaking = Upstream::start(|connection| {
        connection.request();
    });
    for (tokens, part) in [
        (answering("200 OK", &many, "{}"), "the head of its answer is larger than is taken here"),
        (breaking, "it closed the connection before its answer was there"),
        (Upstream::always("SSH-2.0-none\r\n\r\n"), "its answer is no HTTP/1.1"),
        (answering("500 Oops", "", ""), "it answered (HTTP 500), a failure of its own."),
        (
            answering("429 Slow", "Retry-After: Thu, 01 Jan 2099 00:00:00 GMT\r\n", ""),
            "it limits how often it may be asked: (HTTP 429), until 20",
        ),
        (answering("429 Slow", "", ""), "it limits how often it may be asked: (HTTP 429), it does not say until when."),
    ] {
        let told = Desk::new(&one(&tokens, "")).online(3);
        let message = told["error"]["message"].as_str().expect("a text");
        assert!(message.contains(part) && !message.contains("asked again"), "{part}: {message}");
    }
}

#[test]
fn a_provider_that_does_not_take_the_client_is_told_by_what_the_client_has() {
    let tokens = answering("401 Unauthorized", "", r#"{"error":"invalid_client"}"#);
    let file = one(&tokens, "key = { file = \"key.pem\" }")
        .replace("client_auth = \"post\"", "client_auth = \"private_key_jwt\"")
        .replace("client_secret = { env = \"SECRET\" }\n", "");
    let desk = Desk::new(&file);
    desk.0.write("key.pem", rcgen::KeyPair::generate().expect("a key").serialize_pem());
    let told = desk.online(3);
    let message = told["error"]["message"].as_str().expect("a text");
    assert!(
        message.contains("Check client_id, key, key_id and alg") && !message.contains("client_secret"),
        "{message}"
    );
    for (words, advice) in [
        ("The request body must contain the following parameter: 'scope'.", "Set scopes"),
        ("The request body must contain the following parameter: 'grant_type'.", "Set body to \"form\""),
        ("The request body must contain the following parameter: 'assertion'.", "Set the one that its words name"),
    ] {
        let words = format!(r#"{{"error":"invalid_request","error_description":"AADSTS900144: {words}"}}"#);
        let told = Desk::new(&one(&answering("400 Bad Request", "", &words), "")).online(3);
        assert!(told["error"]["advice"].as_str().is_some_and(|text| text.starts_with(advice)), "{told}");
    }
}

#[test]
fn check_names_every_secret_of_a_list() {
    let file = one(&Upstream::tokens(3600), "")
        .replace("{ env = \"SECRET\" }", "[{ env = \"SECRET\" }, { env = \"WRONG_SECRET\" }]");
    let text = Desk::new(&file).run(&["check"]).expect(0).out();
    let all = "secret: environment variable SECRET, then environment variable WRONG_SECRET";
    assert!(text.contains(all), "{text}");
}

#[test]
fn a_provider_that_cannot_be_reached_is_explained() {
    let dead = Upstream::always("");
    let gone = dead.url();
    drop(dead);
    let credential = |url: &str| {
        format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"basic\"\ntoken_url = \"{url}/token\"\ntimeout = \"2s\"\n"
        )
    };
    let told = Desk::new(&credential(&gone)).online(3);
    assert_eq!((&told["error"]["kind"], &told["requests"][0]["http_status"]), (&"unavailable".into(), &Value::Null));
    assert!(told["error"]["message"].as_str().unwrap().contains("Nothing listens there"), "{told}");

    let (certificate, key) = Ca::new().issue(&["localhost"]);
    let private = TlsUpstream::start(&certificate, &key, "", Ending::CloseNotify);
    let told = Desk::new(&credential(&private.url())).online(3);
    assert!(told["error"]["message"].as_str().unwrap().contains("ca_file"), "{told}");

    let hanging = Upstream::start(|connection| {
        connection.request();
        connection.request();
    });
    let told = Desk::new(&credential(&hanging.url())).online(3);
    assert_eq!(told["error"]["kind"], "timeout");

    let none = Desk::new(&credential("http://no-such-host.invalid").replace("http:", "https:")).online(3);
    assert!(none["error"]["message"].as_str().unwrap().contains("DNS"), "{none}");
}

#[test]
fn granted_scopes_are_compared_and_oddities_named() {
    let body = r#"{"access_token":"not-a-token-1","token_type":"mac","expires_in":"3600","scope":"read admin","refresh_token":"not-a-token-2"}"#;
    let tokens = answering("200 OK", "", body);
    let desk = Desk::new(&one(&tokens, "scopes = [\"read\", \"write\"]"));
    let told = desk.online(0);
    let scopes = &told["token"]["scopes"];
    assert_eq!((&scopes["missing"][0], &scopes["extra"][0]), (&"write".into(), &"admin".into()));
    assert_eq!((&scopes["missing"][1], &scopes["from"]), (&Value::Null, &"answer".into()));
    let notes = told["notes"].to_string();
    for odd in ["token_type is \\\"mac\\\"", "is a text, not a number", "refresh token came"] {
        assert!(notes.contains(odd), "{odd}: {notes}");
    }
    let text = desk.run(&["check", "--online"]).expect(0).out();
    assert!(text.contains("read admin (granted, says the answer); missing: write; not asked for: admin\n"), "{text}");
}

#[test]
fn the_claims_of_a_jwt_are_shown_and_the_token_is_not() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = r#"{"iss":"https://login.test","aud":"api","exp":4102444800,"tid":"t1","scp":"read","email":"someone@login.test"}"#;
    let (head, claims) = (part(r#"{"alg":"RS256","kid":"k1"}"#), part(claims));
    let token = format!("{head}.{claims}.bm90LWEtc2lnbmF0dXJl");
    let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#);
    let tokens = answering("200 OK", "", &body);
    let desk = Desk::new(&one(&tokens, "scopes = [\"read\"]"));
    let told = desk.run(&["token", "c"]).expect(0);
    for shown in [
        "iss = https://login.test",
        "tid = t1",
        "exp = 4102444800 (2100-01-01T00:00:00Z)",
        "kid k1",
        "not shown: email",
        "read (granted, says the token)",
    ] {
        assert!(told.out().contains(shown), "{shown}: {}", told.out());
    }
    for hidden in ["someone@", "bm90LWEt", claims.as_str(), head.as_str()] {
        assert!(!told.out().contains(hidden), "{}", told.out());
    }
    assert!(told.out().contains("The token's own exp leaves it"), "{}", told.out());
    let revealed = desk.run(&["token", "c", "--reveal"]).expect(0);
    assert_eq!(revealed.out(), format!("{token}\n"));
    assert!(revealed.err().starts_with("credential c: token\n") && !revealed.err().contains(&token));
    let json = desk.run(&["token", "c", "--format", "json"]).expect(0).json();
    assert_eq!(
        (&json["token"]["claims"]["aud"], &json["token"]["claims_not_shown"][0]),
        (&"api".into(), &"email".into())
    );
}

#[test]
fn token_takes_the_route_that_is_named_and_helps_with_names() {
    let tokens = Upstream::tokens(3600);
    let more = "[[routes]]\nprefix = \"/wide\"\nupstream = \"http://127.0.0.1:9\"\ncredential = \"c\"\nscopes = [\"a\", \"b\"]\naudience = \"x y\"\n\
        [credentials.other]\ntoken = { env = \"SECRET\" }\ngrant = \"static\"\n\
        [[routes]]\nprefix = \"/other\"\nupstream = \"http://127.0.0.1:9\"\ncredential = \"other\"\n";
    let desk = Desk::new(&(one(&tokens, "") + more));
    desk.run(&["token", "c"]).expect(0);
    desk.run(&["token", "c", "--route", "/wide/"]).expect(0);
    let bodies: Vec<String> = tokens.requests().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert!(
        !bodies[0].contains("scope=") && bodies[1].contains("scope=a+b") && bodies[1].contains("audience=x+y"),
        "{bodies:?}"
    );
    for (arguments, error) in [
        (&["token", "d"][..], "error: no credential is called `d`\n  hint: did you mean `c`? there is c, other\n"),
        (
            &["token", "c", "--route", "/wid"],
            "error: there is no route `/wid`\n  hint: did you mean `/wide`? routes of `c`: /api, /wide\n",
        ),
        (
            &["token", "c", "--route", "/other"],
            "error: the route /other uses the credential `other`, not `c`\n  hint: routes of `c`: /api, /wide\n",
        ),
        (&["check", "--online", "nobody"], "error: no credential is called `nobody`\n  hint: there is c, other\n"),
    ] {
        let ran = desk.run(arguments).expect(2);
        assert_eq!((ran.out().as_str(), ran.err().as_str()), ("", error));
    }
    assert_eq!(desk.run(&["check", "c"]).expect(2).out(), "", "a name goes with --online");
    assert_eq!(tokens.requests().len(), 2);
    let given = desk.run(&["token", "other"]).expect(0).out();
    assert!(given.contains("static: the token is read from environment variable SECRET, nobody is asked\n"), "{given}");
    let signed =
        Desk::new("[credentials.s]\ngrant = \"self_signed\"\nclient_id = \"me\"\nkey = { file = \"key.pem\" }\n");
    signed.0.write("key.pem", rcgen::KeyPair::generate().expect("a key").serialize_pem());
    let told = signed.run(&["token", "s"]).expect(0).out();
    assert!(told.contains("self_signed: the token is signed here, nobody is asked\n"), "{told}");
    assert!(told.contains("JWT (ES256") && told.contains("iss = me\n"), "{told}");
    let bad = Desk::new("[credentials.c]\n").run(&["token", "c"]).expect(2);
    assert!(bad.err().contains("has no `token_url`"), "{}", bad.err());
}

#[test]
fn a_refused_token_is_not_revealed_and_a_spent_budget_is_not_overdrawn() {
    let tokens = Upstream::tokens(3600);
    let store = "[tokens]\nstore = { file = \"store\" }\nseal_key = { env = \"SEAL_KEY\" }\n";
    let desk = Desk::new(&(store.to_owned() + &one(&tokens, "budget = \"2/1h\"")));
    assert_eq!(desk.online(0)["budget"]["used"], 1);
    assert_eq!(desk.online(0)["budget"]["used"], 2);
    assert_eq!(tokens.requests().len(), 2);
    let told = desk.online(3);
    assert_eq!((&told["error"]["kind"], &told["requests"][0]), (&"budget".into(), &Value::Null));
    let revealed = desk.run(&["token", "c", "--reveal"]).expect(3);
    assert_eq!(revealed.out(), "");
    assert!(revealed.err().contains("credential c: no token, no token request was sent\n"), "{}", revealed.err());
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_refresh_token_is_asked_with_only_where_the_next_one_is_kept() {
    let rotating = |number: usize| {
        format!(
            r#"{{"access_token":"not-a-token-{number}","token_type":"bearer","expires_in":60,"refresh_token":"not-a-token-r{number}"}}"#
        )
    };
    let tokens = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let used = body
                .split("refresh_token=")
                .nth(1)
                .and_then(|rest| rest.split('&').next())
                .unwrap_or_default()
                .to_owned();
            let next = if used == "not-a-secret" {
                1
            } else {
                used.trim_start_matches("not-a-token-r").parse::<usize>().map_or(0, |n| n + 1)
            };
            let answer = rotating(next);
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            ));
        }
    });
    let credential = format!(
        "[credentials.c]\ngrant = \"refresh_token\"\nclient_id = \"id\"\nclient_auth = \"none\"\n\
         refresh_token = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n",
        tokens.url()
    );
    let told = Desk::new(&credential).online(2);
    assert!(told["error"]["message"].as_str().unwrap().contains("would not keep the next one"), "{told}");
    assert!(tokens.requests().is_empty());

    let store = "[tokens]\nstore = { file = \"store\" }\nseal_key = { env = \"SEAL_KEY\" }\n";
    let desk = Desk::new(&(store.to_owned() + &credential));
    for (round, sent) in ["not-a-secret", "not-a-token-r1", "not-a-token-r2"].into_iter().enumerate() {
        let told = desk.online(0);
        assert_eq!(told["requests"][0]["refreshing"], true);
        let curl = told["requests"][0]["curl"].as_str().unwrap();
        let by = if round == 0 { "$SECRET" } else { "$C_REFRESH_TOKEN" };
        assert!(
            curl.contains(&format!("\"refresh_token={by}\"")) && curl.contains("# a refresh token may be"),
            "{curl}"
        );
        let body = String::from_utf8_lossy(&tokens.requests()[round].body).into_owned();
        assert!(body.contains(&format!("refresh_token={sent}")), "{body}");
    }
}

/// What matters of a request: method, target, the fields that cupbearer sets, the pairs or the JSON of its body.
fn essence(request: &crate::support::Request) -> (String, Vec<String>, Vec<String>) {
    let decode = |text: &str| text.replace("%20", "+").to_ascii_lowercase();
    let mut lines = request.head.lines();
    let first = decode(lines.next().unwrap_or_default());
    let kept = ["authorization:", "accept:", "content-type:", "x-"];
    let mut fields: Vec<String> = lines
        .filter(|line| kept.iter().any(|name| line.to_ascii_lowercase().starts_with(name)))
        .map(|line| {
            line.split_once(':')
                .map_or_else(String::new, |(name, value)| format!("{}:{}", name.to_ascii_lowercase(), value.trim()))
        })
        .collect();
    fields.sort();
    let body = decode(&String::from_utf8_lossy(&request.body));
    (first, fields, body.split('&').map(str::to_owned).collect())
}

#[test]
fn the_curl_line_makes_the_very_request_however_awkward_it_is() {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let secret = "SECRET";
    let quiet = format!("client_secret = {{ env = \"{secret}\" }}");
    let variants = [
        format!(
            "{quiet}\nclient_auth = \"post\"\nscopes = [\"a b\", \"it's\"]\naudience = \"$HOME `x` \\\\ \\\"q\\\"\""
        ),
        format!("{quiet}\nclient_auth = \"basic\"\nresource = [\"urn:a\", \"urn:b\"]"),
        format!(
            "{quiet}\nclient_auth = \"basic_raw\"\nparams = {{ \"odd name\" = \"x\", pin = {{ file = \"it's a pin\" }} }}"
        ),
        format!("{quiet}\nclient_auth = \"post\"\nbody = \"json\"\nparams = {{ \"/deep/0\" = \"it's $HOME\" }}"),
        format!("{quiet}\nclient_auth = \"post\"\nbody = \"query\"\nmethod = \"GET\""),
        format!("{quiet}\nclient_auth = \"post\"\nbody = \"query\""),
        format!(
            "{quiet}\nclient_auth = \"none\"\nheaders = {{ authorization = \"ID {{basic}}\", x-pin = {{ env = \"{secret}\" }} }}"
        ),
        "client_auth = \"none\"\nparams = { api_key = \"plain-but-looks-like-one\" }".to_owned(),
    ];
    for variant in &variants {
        let tokens = Upstream::tokens(3600);
        let id = if variant.contains("basic") { "my-id" } else { "my id %2B" };
        let config = format!(
            "[credentials.c]\nclient_id = \"{id}\"\ntoken_url = \"{}/token?tenant=a%2Fb\"\n{variant}\n",
            tokens.url()
        );
        let desk = Desk::new(&config);
        desk.0.write("it's a pin", "not-a-secret\n");
        let told = desk.online(0);
        let curl = told["requests"][0]["curl"].as_str().expect("a line");
        assert!(!curl.contains("looks-like-one"), "{curl}");
        if curl.contains("C_API_KEY") || curl.contains("$C_PIN") {
            let set = "C_API_KEY=plain-but-looks-like-one C_PIN=not-a-secret; export C_API_KEY C_PIN;";
            desk.sh(&format!("{set}\n{curl}"));
        } else {
            desk.sh(curl);
        }
        let requests = tokens.requests();
        assert_eq!(essence(&requests[0]), essence(&requests[1]), "{curl}");
    }
    // What is signed for one request is a variable, and a command is never shown: its arguments may be secrets.
    for (more, variable) in [
        ("client_auth = \"private_key_jwt\"\nkey = { file = \"key.pem\" }", "\"client_assertion=$C_CLIENT_ASSERTION\""),
        ("grant = \"jwt_bearer\"\nclient_auth = \"none\"\nkey = { file = \"key.pem\" }", "\"assertion=$C_ASSERTION\""),
        (
            "client_auth = \"client_secret_jwt\"\nclient_secret = { command = [\"printf\", \"not-a-secret-of-some-length-for-hs256\"] }",
            "$C_CLIENT_ASSERTION",
        ),
        (
            "client_auth = \"post\"\nclient_secret = { command = [\"printf\", \"not-a-secret\"] }",
            "\"client_secret=$C_CLIENT_SECRET\"",
        ),
    ] {
        let tokens = Upstream::tokens(3600);
        let desk = Desk::new(&format!(
            "[credentials.c]\nclient_id = \"id\"\ntoken_url = \"{}/token\"\n{more}\n",
            tokens.url()
        ));
        desk.0.write("key.pem", &key);
        let told = desk.online(0);
        let curl = told["requests"][0]["curl"].as_str().expect("a line");
        assert!(curl.contains(variable) && !curl.contains("printf") && !curl.contains("ey"), "{curl}");
    }
}

#[test]
fn a_budget_is_counted_together_with_the_cupbearer_that_runs_beside() {
    let tokens = Upstream::tokens(1);
    let store = TestDir::new();
    let config = format!(
        "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n{}",
        store.path().join("tokens").display(),
        one(&tokens, "budget = \"3/1h\"")
    );
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY).start(&config);
    assert_eq!(proxy.get("/api/x").expect_problem(502, "upstream_connect")["code"], "upstream_connect");
    let desk = Desk::new(&config);
    assert_eq!(desk.online(0)["budget"]["used"], 2);
    assert_eq!(desk.online(0)["budget"]["used"], 3);
    crate::support::eventually("its token has ended and the budget too", || proxy.get("/api/x").status == 503);
    proxy.get("/api/x").expect_problem(503, "budget_exhausted");
    assert_eq!(tokens.requests().len(), 3);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_real_provider_is_asked_and_what_it_grants_and_refuses_is_told() {
    let provider = OidcProvider::start();
    let credential = |name: &str, secret: &str, more: &str| {
        format!(
            "[credentials.{name}]\nclient_id = \"poster\"\nclient_secret = {{ env = \"{secret}\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\nca_file = \"{}\"\n{more}\n",
            provider.url(),
            provider.ca_file().display()
        )
    };
    let jwt = "scopes = [\"read\", \"write\"]\nresource = [\"https://api.example.test/jwt\"]";
    let nowhere = "resource = [\"https://api.example.test/nowhere\"]";
    let desk = Desk::new(
        &[
            credential("jwt", "SECRET", jwt),
            credential("opaque", "SECRET", "scopes = [\"read\"]"),
            credential("wrong", "WRONG_SECRET", ""),
            credential("nowhere", "SECRET", nowhere),
            credential("distrusted", "SECRET", "").replace("ca_file", "# ca_file"),
        ]
        .concat(),
    );
    let json = desk.run(&["check", "--online", "--format", "json"]).expect(3).json();
    let told = json["online"].as_array().expect("a list");
    let token = &told[0]["token"];
    assert_eq!((&token["kind"], &token["scopes"]["missing"]), (&"jwt".into(), &serde_json::json!([])), "{}", told[0]);
    assert_eq!(
        (&token["claims"]["client_id"], &token["claims"]["aud"]),
        (&"poster".into(), &"https://api.example.test/jwt".into())
    );
    assert_eq!((&told[1]["ok"], &told[2]["error"]["code"]), (&true.into(), &"invalid_client".into()), "{}", told[1]);
    assert_eq!(told[3]["error"]["code"], "invalid_target");
    assert!(told[4]["error"]["message"].as_str().unwrap().contains("ca_file"), "{}", told[4]);
    let again: Value = serde_json::from_str(&desk.sh(told[0]["requests"][0]["curl"].as_str().unwrap())).expect("JSON");
    assert_eq!(again["scope"], "read write");
}

/// A provider that is known by its issuer alone; `{url}` in its document is its URL.
fn discovered(document: &'static str) -> Upstream {
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let url = format!("http://{}", request.header("host").expect("a host"));
            let body = match request.target() {
                "/.well-known/openid-configuration" => document.replace("{url}", &url),
                "/mint" => r#"{"access_token":"not-a-token-1","token_type":"bearer","expires_in":3600}"#.to_owned(),
                other => panic!("nobody should ask for {other}"),
            };
            let fields = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
            connection.send(format!("{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

fn by_issuer(provider: &Upstream) -> Desk {
    let url = provider.url();
    Desk::new(&one(provider, "").replace(&format!("token_url = \"{url}/token\""), &format!("issuer = \"{url}\"")))
}

#[test]
fn with_an_issuer_the_token_endpoint_is_discovered_and_told() {
    let provider = discovered(r#"{"issuer":"{url}","token_endpoint":"{url}/mint"}"#);
    let told = by_issuer(&provider).online(0);
    assert_eq!(
        (&told["requests"][0]["http_status"], &told["token"]["lifetime_s"]),
        (&200.into(), &3600.into()),
        "{told}"
    );
    let curl = told["requests"][0]["curl"].as_str().expect("a command");
    assert!(curl.contains(&format!("{}/mint", provider.url())), "{curl}");
    let text = by_issuer(&provider).run(&["check", "--online"]).expect(0).out();
    assert!(text.contains("accepted"), "{text}");
}

#[test]
fn with_an_issuer_that_says_it_is_another_nothing_is_sent() {
    let provider = discovered(r#"{"issuer":"https://other.example","token_endpoint":"{url}/mint"}"#);
    let told = by_issuer(&provider).online(3);
    let message = told["error"]["message"].as_str().expect("a text");
    assert!(message.contains("discovery failed") && message.contains("https://other.example"), "{message}");
    assert!(provider.requests().iter().all(|request| request.line().starts_with("GET ")));
}

#[test]
fn a_static_token_that_says_nothing_of_its_life_is_told_as_it_is() {
    let of = |more: &str| {
        let desk = Desk::new(&format!("[credentials.c]\ngrant = \"static\"\ntoken = {{ env = \"SECRET\" }}\n{more}"));
        desk.run(&["check", "--online"]).expect(0).out()
    };
    let text = of("");
    assert!(text.contains("unknown: it is used until environment variable SECRET gives another one"), "{text}");
    let text = of("default_ttl = \"1h\"");
    assert!(
        text.contains("unknown: environment variable SECRET is read anew after 3600 s (1h), by default_ttl"),
        "{text}"
    );
}

#[test]
fn a_static_token_that_has_expired_is_called_that() {
    let desk = Desk::new("[credentials.c]\ngrant = \"static\"\ntoken = { file = \"token\" }\n");
    // A JWT without a signature: {"alg":"none"} and {"exp":1000000000}.
    desk.0.write("token", "eyJhbGciOiJub25lIn0.eyJleHAiOjEwMDAwMDAwMDB9.bm90LWEtc2lnbmF0dXJl");
    let text = desk.run(&["check", "--online"]).expect(2).out();
    assert!(text.contains("the credential \"c\" has no token: the token in file token has expired"), "{text}");
}
