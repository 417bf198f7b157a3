//! The token requests of `cupbearer login` are made like all others: counted, with one secret after the other, with a proof by the
//! key that the login is to be bound to.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::{
    login::{get, told_url},
    support::{Builder, Cupbearer, Judge, Process, Request, TestDir, Tokens, Upstream, bound_api, eventually},
};

/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// What the provider wants, and what it has seen.
#[derive(Default)]
struct Known {
    /// The client secret that it takes; nothing else where there is none.
    secret: Option<&'static str>,
    /// The key that the login is bound to (`dpop_jkt`).
    jkt: Option<String>,
    /// Polls that are answered with "not yet".
    pending: usize,
    /// Refresh tokens given out: only the last one is good.
    given: usize,
    /// The access token beside the refresh token is no good.
    botches: bool,
    /// Answers are held back until this is over.
    delays: bool,
    /// What it grants whatever is asked for, if it says so; a refresh must not ask for more.
    granted: Option<&'static str>,
    /// `scope` of each refresh.
    scopes: Vec<String>,
    /// `grant_type` (or `device`) and the error that it was answered with.
    seen: Vec<(String, &'static str)>,
}

struct Provider {
    upstream: Upstream,
    api: Upstream,
    known: Arc<Mutex<Known>>,
    judge: Judge,
    at_api: Judge,
    dir: TestDir,
}

impl Provider {
    /// With `dpop`, tokens are bound, and every request to the token endpoint needs a proof.
    fn new(dpop: bool) -> Self {
        let (known, judge, tokens) = (Arc::<Mutex<Known>>::default(), Judge::default(), Tokens::default());
        let at_api = Judge::default();
        let upstream = {
            let (known, delayed) = (Arc::clone(&known), Arc::clone(&known));
            let (judge, tokens) = (judge.clone(), tokens.clone());
            Upstream::start(move |connection| {
                while let Some(request) = connection.request() {
                    let is_device = request.line().contains(" /device ");
                    let proof = if dpop && !is_device { Some(judge.proof(&request, None)) } else { None };
                    let (form, fields) = (form(&request), judge.fields());
                    let mut known = known.lock().unwrap();
                    let answer = known.answer(&form, is_device, proof);
                    let asked = form.get("grant_type").cloned().unwrap_or_else(|| "device".to_owned());
                    known.seen.push((asked, answer.as_ref().err().copied().unwrap_or_default()));
                    drop(known);
                    eventually("the answer may go", || !delayed.lock().unwrap().delays);
                    let (status, body) = match answer {
                        Ok((body, bound)) => {
                            if let Some((token, key)) = bound {
                                tokens.issue(&token, &key);
                            }
                            ("200 OK", body)
                        }
                        Err("invalid_client") => ("401 Unauthorized", serde_json::json!({"error": "invalid_client"})),
                        Err(error) => ("400 Bad Request", serde_json::json!({ "error": error })),
                    };
                    let body = body.to_string();
                    connection.send(format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    ));
                }
            })
        };
        let api = if dpop {
            bound_api(&at_api, &tokens)
        } else {
            Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        };
        Self { upstream, api, known, judge, at_api, dir: TestDir::new() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// How often what was asked for was answered so; `""` is a token.
    fn count(&self, asked: &str, error: &str) -> usize {
        self.known().seen.iter().filter(|(a, e)| a.contains(asked) && *e == error).count()
    }

    fn config(&self, lines: &str) -> String {
        let url = self.upstream.url();
        format!(
            "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n[credentials.user]\n\
             grant = \"authorization_code\"\nclient_id = \"id\"\ntoken_url = \"{url}/token\"\n\
             authorize_url = \"{url}/authorize\"\ndevice_url = \"{url}/device\"\n{lines}\n\
             [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"user\"\n",
            self.dir.path().join("tokens").display(),
            self.api.url()
        )
    }

    fn with_key(&self) -> String {
        let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let file = self.dir.write("key.pem", pem);
        self.config(&format!("client_auth = \"none\"\ndpop = true\nkey = {{ file = \"{}\" }}", file.display()))
    }

    /// The browser comes back with the user's agreement.
    fn agree(&self, process: &Process) -> String {
        let url = told_url(process);
        let params = decoded(url.split_once('?').unwrap().1);
        self.known().jkt = params.get("dpop_jkt").cloned();
        let page = get(&format!("{}?code=not-a-code&state={}", params["redirect_uri"], params["state"]));
        page.text()
    }
}

type Given = (serde_json::Value, Option<(String, String)>);

impl Known {
    fn answer(
        &mut self,
        form: &HashMap<String, String>,
        is_device: bool,
        proof: Option<Result<String, &'static str>>,
    ) -> Result<Given, &'static str> {
        if self.secret.is_some_and(|secret| form.get("client_secret").is_none_or(|given| given != secret)) {
            return Err("invalid_client");
        }
        if is_device {
            let codes = serde_json::json!({
                "device_code": "not-a-device-code", "user_code": "ABCD", "verification_uri": "http://127.0.0.1/enter",
                "interval": 1, "expires_in": 60,
            });
            return Ok((codes, None));
        }
        let key = proof.transpose()?;
        if key.is_some() && self.jkt.is_some() && key != self.jkt {
            return Err("invalid_grant");
        }
        match form["grant_type"].as_str() {
            "authorization_code" if form["code"] == "not-a-code" => {}
            "refresh_token" if form["refresh_token"] == format!("not-a-token-r{}", self.given) => {}
            kind if kind.ends_with(":device_code") && self.pending > 0 => {
                self.pending -= 1;
                return Err("authorization_pending");
            }
            kind if kind.ends_with(":device_code") => self.jkt.clone_from(&key), // bound from here on
            _ => return Err("invalid_grant"),
        }
        if form["grant_type"] == "refresh_token" {
            let scope = form.get("scope").map(|scope| scope.replace('+', " ")).unwrap_or_default();
            self.scopes.push(scope.clone());
            if self.granted.is_some_and(|granted| scope.split(' ').any(|one| !granted.contains(one))) {
                return Err("invalid_scope");
            }
        }
        self.given += 1;
        let token = format!("not-a-token-{}", self.given);
        let mut body = serde_json::json!({
            "access_token": token, "token_type": if key.is_some() { "DPoP" } else { "Bearer" }, "expires_in": 2,
            "refresh_token": format!("not-a-token-r{}", self.given),
        });
        if let Some(granted) = self.granted.filter(|_| form["grant_type"] != "refresh_token") {
            body["scope"] = granted.into();
        }
        if self.botches {
            body["expires_in"] = 0.into();
        }
        Ok((body, key.map(|key| (token, key))))
    }
}

fn form(request: &Request) -> HashMap<String, String> {
    decoded(std::str::from_utf8(&request.body).unwrap())
}

fn decoded(form: &str) -> HashMap<String, String> {
    let plain = |text: &str| {
        let parts = text.split('%').enumerate().map(|(at, part)| match at {
            0 => part.to_owned(),
            _ => format!("{}{}", char::from(u8::from_str_radix(&part[..2], 16).unwrap()), &part[2..]),
        });
        parts.collect::<String>()
    };
    form.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (plain(n), plain(v))).collect()
}

fn builder() -> Builder {
    Cupbearer::builder().env("SEAL_KEY", SEAL_KEY).env("OLD", "not-a-secret-old").env("NEW", "not-a-secret-new")
}

/// Ends with this status; nothing secret was printed.
fn ends(process: Process, code: i32) -> String {
    let (status, output) = process.finish();
    assert_eq!(status.code(), Some(code), "{output}");
    for secret in
        [SEAL_KEY, "not-a-token", "not-a-code", "not-a-device-code", "not-a-secret", "PRIVATE KEY", "panicked"]
    {
        assert!(!output.contains(secret), "{secret} was printed:\n{output}");
    }
    output
}

/// The proxy gets tokens by the login, one after the other.
fn works(provider: &Provider, config: &str) {
    let proxy = builder().start(config);
    assert_eq!(proxy.get("/api/x").text(), "ok");
    let given = provider.known().given;
    eventually("a rotation", || {
        assert_eq!(proxy.get("/api/x").text(), "ok");
        provider.known().given > given
    });
    proxy.expect_never_printed(&[SEAL_KEY, "not-a-token", "PRIVATE KEY"]);
}

#[test]
fn a_login_is_bound_to_the_key_from_the_authorization_request_on() {
    let provider = Provider::new(true);
    provider.judge.want_nonce("p1");
    let config = provider.with_key();
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    assert!(provider.agree(&process).contains("cupbearer is logged in as user"));
    ends(process, 0);
    assert_eq!(provider.known().jkt.as_ref().map(String::len), Some(43), "dpop_jkt was sent");
    assert_eq!(provider.count("authorization_code", "use_dpop_nonce"), 1, "and once more with the nonce");
    assert_eq!(provider.count("authorization_code", ""), 1);
    works(&provider, &config);
    assert_eq!(provider.count("", "invalid_grant"), 0);
    assert!(provider.at_api.refusals().is_empty());
}

#[test]
fn a_login_on_another_device_is_bound_to_the_key_by_its_last_poll() {
    let provider = Provider::new(true);
    provider.judge.want_nonce("p1");
    provider.known().pending = 1;
    let config = provider.with_key();
    let builder = builder();
    ends(builder.run(&config, &["login", "user", "--device"]), 0);
    assert_eq!(provider.count("device_code", "use_dpop_nonce"), 0, "the answer with the code brought the nonce");
    assert_eq!(provider.count("device_code", "authorization_pending"), 1);
    works(&provider, &config);
    assert_eq!(provider.count("", "invalid_grant"), 0);
}

#[test]
fn a_clock_that_is_wrong_is_made_up_for_in_a_login_too() {
    let provider = Provider::new(true);
    provider.judge.set_clock(-600);
    let config = provider.with_key();
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    assert!(provider.agree(&process).contains("cupbearer is logged in as user"));
    ends(process, 0);
    assert_eq!(provider.judge.refusals(), ["invalid_dpop_proof: iat"]);
}

#[test]
fn a_login_without_a_key_to_be_bound_to_is_a_problem_of_the_file() {
    let provider = Provider::new(true);
    let output = ends(builder().run(&provider.config("client_auth = \"none\"\ndpop = true"), &["login", "user"]), 2);
    assert!(output.contains("has no `key`"), "{output}");
}

/// One that asks for `r` and `w`, and routes that need `x` and `w`.
fn with_scopes(provider: &Provider, routes: &[&str]) -> String {
    let routes = routes.iter().map(|scope| {
        let url = provider.api.url();
        format!(
            "[[routes]]\nprefix = \"/{scope}\"\nupstream = \"{url}\"\ncredential = \"user\"\nscopes = [\"{scope}\"]\n"
        )
    });
    provider.config("client_auth = \"none\"\nscopes = [\"r\", \"w\"]") + &routes.collect::<String>()
}

fn log_in(provider: &Provider, config: &str) -> String {
    let builder = builder();
    let process = builder.run(config, &["login", "user"]);
    assert!(provider.agree(&process).contains("cupbearer is logged in as user"));
    ends(process, 0)
}

#[test]
fn a_login_that_was_granted_less_than_it_asked_for_works_with_that() {
    let provider = Provider::new(false);
    provider.known().granted = Some("r");
    let config = with_scopes(&provider, &[]);
    let output = log_in(&provider, &config);
    assert!(output.contains("It was granted: r.") && output.contains("Not among that: w."), "{output}");
    works(&provider, &config);
    assert_eq!(provider.count("", "invalid_scope"), 0);
    assert!(
        provider.known().scopes.iter().all(String::is_empty),
        "the whole grant is meant: {:?}",
        provider.known().scopes
    );
}

#[test]
fn a_route_gets_what_it_needs_of_a_grant_or_is_told_what_the_login_lacks() {
    let provider = Provider::new(false);
    provider.known().granted = Some("r x");
    let config = with_scopes(&provider, &["x", "w"]);
    log_in(&provider, &config);
    let proxy = builder().start(&config);
    for (path, scope) in [("/api/1", "r"), ("/x/1", "x")] {
        assert_eq!(proxy.get(path).status, 200);
        assert_eq!(provider.known().scopes.last().map(String::as_str), Some(scope));
    }
    let problem = proxy.get("/w/1").expect_problem(503, "secret_unavailable");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("was not granted \"w\"") && detail.contains("cupbearer login user"), "{problem}");
    assert_eq!(provider.count("", "invalid_scope"), 0);
    provider.known().granted = Some("r w x");
    log_in(&provider, &config);
    eventually("the new login is taken up", || proxy.get("/w/1").status == 200);
}

#[test]
fn of_several_client_secrets_the_next_one_is_tried_by_a_login_too() {
    let lines = "client_auth = \"post\"\nclient_secret = [{ env = \"OLD\" }, { env = \"NEW\" }]";
    for (args, refused) in [(&["login", "user"][..], "authorization_code"), (&["login", "user", "--device"], "device")]
    {
        let provider = Provider::new(false);
        provider.known().secret = Some("not-a-secret-new");
        let (config, builder) = (provider.config(lines), builder());
        let process = builder.run(&config, args);
        if args.len() == 2 {
            provider.agree(&process);
        }
        ends(process, 0);
        assert_eq!(provider.count(refused, "invalid_client"), 1);
        assert_eq!(provider.count("", "invalid_client"), 1, "what was found out holds for the next request");
    }
}

#[test]
fn a_login_counts_against_the_budget_and_a_question_whether_the_user_has_answered_does_not() {
    let provider = Provider::new(false);
    provider.known().pending = 2;
    let config = provider.config("client_auth = \"none\"\nbudget = \"1/1h\"");
    let builder = builder();
    ends(builder.run(&config, &["login", "user", "--device"]), 0);
    assert_eq!(provider.count("device_code", "authorization_pending"), 2);
    for args in [&["login", "user"][..], &["login", "user", "--device"]] {
        let output = ends(builder.run(&config, args), 1);
        assert!(output.contains("has spent its budget of 1 token requests in 1h"), "{output}");
        assert!(!output.contains("Open this address"), "nobody is bothered in vain: {output}");
    }
    let proxy = builder.start(&config);
    proxy.get("/api/x").expect_problem(503, "budget_exhausted");
    assert_eq!(provider.count("device_code", ""), 1);
}

#[test]
fn a_refresh_token_beside_an_access_token_that_is_no_good_is_kept() {
    let provider = Provider::new(false);
    let config = provider.config("client_auth = \"none\"");
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    provider.agree(&process);
    ends(process, 0);
    provider.known().botches = true;
    let proxy = builder.start(&config);
    let problem = proxy.get("/api/x").expect_problem(503, "idp_unavailable");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("less than a second")), "{problem}");
    provider.known().botches = false;
    eventually("the next one, with the refresh token that came", || proxy.get("/api/x").status == 200);
    assert_eq!(provider.count("refresh_token", "invalid_grant"), 0);
}

/// A user's agreement is good once: what it gives is stored, also where the command is told to end meanwhile.
#[test]
fn a_login_that_is_interrupted_stores_what_its_last_answer_brings_and_says_what_is_known() {
    let provider = Provider::new(false);
    let config = provider.config("client_auth = \"none\"");
    let builder = builder();
    for device in [&[][..], &["--device"]] {
        let process = builder.run(&config, &[&["login", "user"], device].concat());
        process.wait_for_line("Open this address").unwrap();
        process.signal("TERM");
        let output = ends(process, 1);
        assert!(output.contains("SIGTERM: given up, nothing was stored for \"user\""), "{output}");
    }
    provider.known().delays = true;
    let process = builder.run(&config, &["login", "user"]);
    thread::scope(|scope| {
        let page = scope.spawn(|| provider.agree(&process));
        eventually("the exchange", || provider.count("authorization_code", "") == 1);
        process.signal("TERM");
        process.wait_for(|text| text.contains("waiting for an answer").then_some(())).unwrap();
        provider.known().delays = false;
        assert!(page.join().unwrap().contains("is logged in as user"));
    });
    assert!(ends(process, 0).contains("Logged in: user"));
    works(&provider, &config);
}

#[test]
fn a_login_that_the_store_does_not_take_is_no_success_unless_it_takes_it_in_time() {
    for returns in [true, false] {
        let provider = Provider::new(false);
        let config = provider.config("client_auth = \"none\"");
        let builder = builder();
        let process = builder.run(&config, &["login", "user"]);
        provider.known().delays = true;
        let (place, away) = (provider.dir.path().join("tokens"), provider.dir.path().join("away"));
        thread::scope(|scope| {
            scope.spawn(|| provider.agree(&process));
            eventually("the exchange", || provider.count("authorization_code", "") == 1);
            fs::rename(&place, &away).unwrap();
            provider.known().delays = false;
            process.wait_for(|text| text.contains("cannot be stored").then_some(())).unwrap();
            if returns {
                fs::rename(&away, &place).unwrap();
            }
        });
        if returns {
            ends(process, 0);
            works(&provider, &config);
        } else {
            let output = ends(process, 1);
            assert!(output.contains("the store has not taken it within 5s"), "{output}");
            assert!(output.contains("log in again once it can be written to"), "{output}");
        }
    }
}

#[test]
fn a_login_whose_access_token_is_no_good_says_that_its_refresh_token_is_kept() {
    let provider = Provider::new(false);
    let config = provider.config("client_auth = \"none\"");
    provider.known().botches = true;
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    provider.agree(&process);
    let output = ends(process, 1);
    assert!(output.contains("The refresh token beside it is in the store all the same"), "{output}");
    provider.known().botches = false;
    works(&provider, &config);
}
