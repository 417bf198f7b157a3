//! `cupbearer login`, with an HTTP client in the place of the user's browser.

use std::{net::SocketAddr, time::Duration};

use cupbearer::sandbox::{PAX8_CLIENT_ID, PAX8_CLIENT_SECRET, Provider};

use crate::support::{Builder, Client, Cupbearer, Playground, Process, Response, TestDir, Upstream, eventually};

/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";
/// 32 bytes of `t`.
const OTHER_SEAL_KEY: &str = "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ=";

fn builder() -> Builder {
    Cupbearer::builder().env("SECRET", PAX8_CLIENT_SECRET).env("SEAL_KEY", SEAL_KEY)
}

fn store(dir: &TestDir) -> String {
    let path = dir.path().join("tokens");
    format!("[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n", path.display())
}

/// Pax8's delegated login, played by the sandbox; `lines` are further ones of the credential.
fn pax8(sandbox: &Playground, lines: &str) -> String {
    let base = sandbox.base_url();
    format!(
        "[credentials.pax8]\nprovider = \"pax8\"\ngrant = \"authorization_code\"\nclient_id = \"{PAX8_CLIENT_ID}\"\n\
         client_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{base}/pax8/login/oauth/token\"\n\
         authorize_url = \"{base}/pax8/login/authorize\"\ndevice_url = \"{base}/pax8/login/oauth/device/code\"\n{lines}\n{}",
        sandbox.route("/pax8", "/pax8/v1", "pax8", "")
    )
}

/// One GET, as a browser would make it.
pub(crate) fn get(url: &str) -> Response {
    get_with(url, "")
}

fn get_with(url: &str, fields: &str) -> Response {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is no plain URL"));
    let (authority, target) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr = authority.parse().unwrap_or_else(|e| panic!("{authority}: {e}"));
    let mut client = Client::connect(address);
    let host = if fields.contains("Host:") { String::new() } else { format!("Host: {authority}\r\n") };
    client.exchange(format!("GET /{target} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n"))
}

/// The URL that the user is told to open.
pub(crate) fn told_url(process: &Process) -> String {
    let url = process.wait_for_line("  http://").unwrap_or_else(|e| panic!("{e}"));
    format!("http://{url}")
}

/// The user opens it and says `allow` or `deny`; gives back where the provider sends the browser.
fn answered(url: &str, answer: &str) -> String {
    assert!(get(url).text().contains("Allow"), "a page that asks");
    let response = get(&format!("{url}&consent={answer}"));
    assert_eq!(response.status, 302, "{}", response.text());
    response.header("location").expect("a way back").to_owned()
}

fn login(builder: &Builder, config: &str, args: &[&str]) -> Process {
    builder.run(config, &[&["login", "pax8"], args].concat())
}

/// Ends with this status; nothing secret was printed.
fn ends(process: Process, code: i32) -> String {
    let (status, output) = process.finish();
    assert_eq!(status.code(), Some(code), "{output}");
    for secret in [PAX8_CLIENT_SECRET, SEAL_KEY, "v1.", "eyJ", "code_verifier", "panicked"] {
        assert!(!output.contains(secret), "{secret} was printed:\n{output}");
    }
    output
}

/// Logs in by browser, to the end.
fn log_in(config: &str) -> String {
    let builder = builder();
    let process = login(&builder, config, &[]);
    let page = get(&answered(&told_url(&process), "allow"));
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("cupbearer is logged in as pax8"), "{}", page.text());
    ends(process, 0)
}

#[test]
fn a_login_in_the_browser_is_all_that_a_proxy_needs() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let output = log_in(&config);
    assert!(output.contains("Logged in: pax8"), "{output}");
    assert!(output.contains("It was granted: Manage:Pax8Data offline_access"), "{output}");
    let proxy = builder().start(&config);
    assert_eq!(proxy.get("/pax8/companies").status, 200);
    proxy.expect_never_printed(&[PAX8_CLIENT_SECRET, SEAL_KEY, "eyJ"]);
    for file in std::fs::read_dir(dir.path().join("tokens")).expect("the store") {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("readable");
        assert!(memchr::memmem::find(&bytes, b"v1.").is_none(), "{} is readable", path.display());
    }
}

#[test]
fn the_authorization_request_has_pkce_a_state_and_the_audience() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "authorize_params = { prompt = \"consent\", login_hint = \"a b&c\" }");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let url = told_url(&process);
    for part in [
        "response_type=code&",
        &format!("client_id={PAX8_CLIENT_ID}&"),
        "&code_challenge_method=S256",
        "&scope=Manage%3APax8Data+offline_access",
        "&audience=https%3A%2F%2Fapi.pax8.com",
        "&prompt=consent",
        "&login_hint=a+b%26c",
        "&redirect_uri=http%3A%2F%2F127.0.0.1%3A",
    ] {
        assert!(url.contains(part), "{part} is not in {url}");
    }
    let value = |name: &str| {
        url.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}="))).expect("there").to_owned()
    };
    assert_eq!((value("state").len(), value("code_challenge").len()), (43, 43));
}

#[test]
fn a_running_proxy_says_what_to_do_and_takes_the_login_up_by_itself() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let proxy = builder().start(&config);
    let problem = proxy.get("/pax8/companies").expect_problem(503, "secret_unavailable");
    assert_eq!(problem["blame"], "config");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("cupbearer login pax8")), "{problem}");
    log_in(&config);
    eventually("the login is taken up", || proxy.get("/pax8/companies").status == 200);
    proxy.expect_never_printed(&[PAX8_CLIENT_SECRET, SEAL_KEY, "eyJ"]);
}

#[test]
fn a_login_under_another_seal_key_is_neither_used_nor_replaced() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    log_in(&config);
    let is_refresh = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-refresh");
    let files = std::fs::read_dir(dir.path().join("tokens")).expect("the store");
    let record = files.map(|file| file.expect("a file").path()).find(is_refresh).expect("the login");
    let sealed = std::fs::read(&record).expect("readable");
    let wrong = || builder().env("SEAL_KEY", OTHER_SEAL_KEY);
    for args in [&[][..], &["--device"]] {
        let builder = wrong();
        let output = ends(login(&builder, &config, args), 2);
        assert!(!output.contains("Open this address"), "nobody is bothered in vain: {output}");
        assert!(output.contains("is sealed with another seal_key, or damaged"), "{output}");
        let hint = format!("remove {} and run: cupbearer login pax8", record.display());
        assert!(output.contains("hint: Give the seal_key") && output.contains(&hint), "{output}");
    }
    let proxy = wrong().start(&config);
    let problem = proxy.get("/pax8/companies").expect_problem(503, "secret_unavailable");
    assert_eq!(problem["blame"], "config");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("see cupbearer's log") && !detail.contains("nobody"), "{problem}");
    let place = record.display().to_string();
    assert!(!detail.contains(&place), "no caller's business: {problem}");
    eventually("the log has all of it", || {
        let log = proxy.process().output();
        log.lines().any(|line| line.contains("sealed with another seal_key") && line.contains(&place))
    });
    drop(proxy);
    assert!(std::fs::read(&record).expect("still there") == sealed, "the login was replaced");
    assert_eq!(builder().start(&config).get("/pax8/companies").status, 200, "with the right key it is as good as ever");
    // What the hint says, where the key is lost.
    std::fs::remove_file(&record).expect("removed");
    log_in(&config);
}

#[test]
fn a_login_that_the_provider_has_ended_is_asked_for_again() {
    let (sandbox, dir) = (Playground::with(&["pax8.idp=ttl:2"]), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    log_in(&config);
    // A copy of the store is what a thief has: the second use of a refresh token ends them all.
    let copy = TestDir::new();
    std::fs::create_dir(copy.path().join("tokens")).expect("a directory");
    for file in std::fs::read_dir(dir.path().join("tokens")).expect("the store") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), copy.path().join("tokens").join(file.file_name())).expect("copied");
    }
    std::process::Command::new("chmod").arg("700").arg(copy.path().join("tokens")).status().expect("chmod runs");
    let thief = builder().start(&(store(&copy) + &pax8(&sandbox, "")));
    assert_eq!(thief.get("/pax8/companies").status, 200);
    let proxy = builder().start(&config);
    let problem = proxy.get("/pax8/companies").expect_problem(503, "secret_unavailable");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("invalid_grant") && detail.contains("cupbearer login pax8"), "{detail}");
    log_in(&config);
    eventually("the new login is taken up", || proxy.get("/pax8/companies").status == 200);
}

#[test]
fn a_user_who_says_no_is_believed_and_nothing_is_echoed_as_markup() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let back = answered(&told_url(&process), "deny");
    let page = get(&back.replace("the%20user%20said%20no", "%3Cscript%3Ealert(1)%3C%2Fscript%3E"));
    assert_eq!(page.status, 400);
    assert!(!page.text().contains("<script>") && page.text().contains("&lt;script&gt;"), "{}", page.text());
    assert!(page.text().contains("access_denied"), "{}", page.text());
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let output = ends(process, 3);
    assert!(output.contains("error: the provider refused the login: access_denied"), "{output}");
}

#[test]
fn whatever_else_knocks_at_the_redirect_is_refused_and_waited_past() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let back = answered(&told_url(&process), "allow");
    let (place, query) = back.split_once("/callback?").expect("the callback");
    let state = query.split('&').find_map(|pair| pair.strip_prefix("state=")).expect("a state");
    let port = place.rsplit(':').next().expect("a port");
    for (status, url, fields) in [
        (404, format!("{place}/favicon.ico"), ""),
        (404, format!("{place}/"), ""),
        (400, format!("{place}/callback"), ""),
        (400, format!("{place}/callback?code=stolen&state=guessed"), ""),
        (400, format!("{place}/callback?error=access_denied"), ""),
        (400, format!("{place}/callback?state={state}"), ""),
        (400, format!("{place}/callback?code=a&code=b&state={state}"), ""),
        (400, format!("{place}/callback?code=%zz&state={state}"), ""),
        (421, back.clone(), "Host: evil.example\r\n"),
        (421, back.clone(), &format!("Host: localhost:{port}\r\n")),
    ] {
        let answer = get_with(&url, fields);
        assert_eq!(answer.status, status, "{url} {fields}: {}", answer.text());
    }
    let mut other = Client::connect(address_of(place));
    let target = back.strip_prefix(place).expect("below");
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(other.exchange(head).status, 405);
    // Connections that say nothing are in nobody's way.
    let silent: Vec<_> = (0..4).map(|_| Client::connect(address_of(place))).collect();
    assert_eq!(get(&back).status, 200);
    drop(silent);
    ends(process, 0);
}

/// Where a `http://ADDRESS/…` leads.
fn address_of(url: &str) -> SocketAddr {
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    authority.parse().expect("an address")
}

#[test]
fn whoever_occupies_all_places_at_the_redirect_does_not_keep_the_browser_out() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let back = answered(&told_url(&process), "allow");
    let address = address_of(&back);
    let mut silent: Vec<_> = (0..300).map(|_| Client::connect(address)).collect();
    silent.iter_mut().step_by(2).for_each(|client| client.send("GET /callback HTTP/1.1\r\n"));
    assert_eq!(get(&back).status, 200);
    drop(silent);
    ends(process, 0);
}

#[test]
fn an_answer_of_another_provider_is_not_used() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let issuer = format!("{}/pax8/login", sandbox.base_url());
    let config = store(&dir) + &pax8(&sandbox, &format!("issuer = \"{issuer}\""));
    let written = ["token_url", "authorize_url", "device_url"];
    let unwritten = |line: &&str| !written.iter().any(|key| line.starts_with(key));
    let discovered = config.lines().filter(unwritten).collect::<Vec<_>>().join("\n");
    for (change, part) in
        [("iss=http%3A%2F%2Fevil.example", "another provider"), ("x=y", "does not say which provider")]
    {
        let builder = builder();
        let process = login(&builder, &discovered, &[]);
        let back = answered(&told_url(&process), "allow");
        let (start, _) = back.split_once("iss=").expect("an iss");
        assert_eq!(get(&format!("{start}{change}")).status, 400);
        assert!(ends(process, 3).contains(part));
    }
    log_in(&discovered);
    assert_eq!(builder().start(&discovered).get("/pax8/companies").status, 200);
}

#[test]
fn without_the_audience_the_provider_refuses() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir)
        + &pax8(&sandbox, "").replace("provider = \"pax8\"\n", "scopes = [\"offline_access\"]\nbody = \"json\"\n");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let response = get(&told_url(&process));
    let page = get(response.header("location").expect("sent back at once"));
    assert!(page.text().contains("audience"), "{}", page.text());
    assert!(ends(process, 3).contains("an audience that is known is required"));
}

#[test]
fn a_code_for_another_device_does_the_same() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &["--device"]);
    let url = told_url(&process);
    let code = process.wait_for_line("and enter the code").unwrap_or_else(|e| panic!("{e}"));
    assert!(url.ends_with("/pax8/login/activate") && code.len() == 9, "{url} {code}");
    let before = sandbox.token_requests(Provider::Pax8);
    eventually("it asks", || sandbox.token_requests(Provider::Pax8) > before);
    assert!(get(&format!("{url}?user_code={}", code.to_lowercase())).text().contains("Allow"));
    assert_eq!(get(&format!("{url}?user_code={code}&consent=allow")).status, 200);
    assert!(ends(process, 0).contains("Logged in: pax8"));
    assert_eq!(builder.start(&config).get("/pax8/companies").status, 200);
}

#[test]
fn a_device_that_is_refused_or_forgotten_is_told_so() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "").replace("authorization_code", "device_code");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    let url = told_url(&process);
    let code = process.wait_for_line("and enter the code").unwrap_or_else(|e| panic!("{e}"));
    // A provider that is down for a moment is asked again.
    sandbox.order("pax8.idp=status:503,times:1");
    get(&format!("{url}?user_code={code}&consent=deny"));
    assert!(ends(process, 3).contains("access_denied"));
    let process = login(&builder, &config, &["--timeout", "2"]);
    assert!(ends(process, 1).contains("nobody has entered the code in time"));
}

#[test]
fn slow_down_and_expired_codes_are_understood() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &["--device", "--timeout", "60"]);
    told_url(&process);
    sandbox.order("pax8.idp=status:400,error:slow_down,times:1");
    let asked = sandbox.token_requests(Provider::Pax8);
    eventually("it was told to slow down", || sandbox.token_requests(Provider::Pax8) > asked);
    sandbox.order("pax8.idp=status:400,error:expired_token,times:1");
    let slowed = std::time::Instant::now();
    assert!(ends(process, 3).contains("the code has expired"));
    assert!(slowed.elapsed() > Duration::from_secs(4), "five seconds slower than before");
}

#[test]
fn a_login_that_could_not_be_kept_or_used_is_not_begun() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let builder = builder();
    let output = ends(login(&builder, &pax8(&sandbox, ""), &[]), 2);
    assert!(output.contains("error: a login would be lost at once"), "{output}");
    assert!(output.contains("hint: [tokens] store = { file ="), "{output}");
    let plain = store(&dir)
        + &sandbox.credential("pax8", Provider::Pax8, PAX8_CLIENT_ID, "{ env = \"SECRET\" }", "")
        + &sandbox.route("/pax8", "/pax8/v1", "pax8", "");
    let output = ends(login(&builder, &plain, &[]), 2);
    assert!(output.contains("needs no login: its grant is client_credentials"), "{output}");
    let output = ends(builder.run(&plain, &["login", "pax9"]), 2);
    assert!(output.contains("no credential is called \"pax9\"") && output.contains("pax8"), "{output}");
    assert_eq!(sandbox.token_requests(Provider::Pax8), 0);
}

#[test]
fn a_provider_that_gives_no_refresh_token_is_no_success() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "scopes = [\"Manage:Pax8Data\"]");
    let builder = builder();
    let process = login(&builder, &config, &[]);
    assert_eq!(get(&answered(&told_url(&process), "allow")).status, 400);
    let output = ends(process, 3);
    assert!(output.contains("gave no refresh token") && output.contains("offline_access"), "{output}");
    assert!(output.contains("nothing was kept and \"pax8\" cannot work"), "{output}");
    log_in(&(store(&dir) + &pax8(&sandbox, "")));
    let process = login(&builder, &config, &[]);
    assert_eq!(get(&answered(&told_url(&process), "allow")).status, 400);
    let output = ends(process, 3);
    assert!(output.contains("nothing was kept: the login of \"pax8\" from before stays as it was"), "{output}");
}

#[test]
fn nobody_is_waited_for_longer_than_was_said() {
    let (sandbox, dir) = (Playground::new(), TestDir::new());
    let config = store(&dir) + &pax8(&sandbox, "");
    let builder = builder();
    let process = login(&builder, &config, &["--timeout", "1"]);
    let back = answered(&told_url(&process), "allow");
    let output = ends(process, 1);
    assert!(output.contains("nobody has logged in within 1s"), "{output}");
    let address = address_of(&back);
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err(), "it still listens");
}

#[test]
fn a_fixed_redirect_port_is_used_and_one_that_is_taken_is_told() {
    let (sandbox, dir, taken) = (Playground::new(), TestDir::new(), Upstream::always(""));
    let port = taken.address().port();
    let config = store(&dir) + &pax8(&sandbox, &format!("redirect_port = {port}"));
    let builder = builder();
    let output = ends(login(&builder, &config, &[]), 1);
    assert!(output.contains(&format!("cannot wait for the browser on 127.0.0.1:{port}")), "{output}");
    assert!(output.contains("redirect_port = 0"), "{output}");
    drop(taken);
    let process = login(&builder, &config, &[]);
    assert!(told_url(&process).contains(&format!("redirect_uri=http%3A%2F%2F127.0.0.1%3A{port}%2Fcallback")));
}
