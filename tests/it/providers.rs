//! The four founding providers and the generic IX-API, each through its built-in profile, as a legacy
//! application would use them: no token, no OAuth, plain HTTP.
//!
//! The sandbox plays the other side as strictly as the real ones are known to be; at the end of each test
//! its log must be clean: no doubled header, no missing, stale, foreign or too powerful token.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use cupbearer::sandbox::{
    DIGITAL_REALTY_CLIENT_ID, IPXO_CLIENT_ID, IX_API_KEY, MYTHIC_KEY_ID, Options, PAX8_CLIENT_ID, Provider, Sandbox,
};
use serde_json::{Value, json};

use crate::support::{Client, Cupbearer, Playground, Response, noise, sha256};

/// One API of one profile: where it lies at the provider, a path in it, and the whole of what its token may do.
struct Api {
    provider: Provider,
    profile: &'static str,
    name: &'static str,
    /// Path of the upstream: the real one's and the sandbox's.
    base: &'static str,
    below: &'static str,
    grant: &'static str,
}

const fn api(
    (provider, profile): (Provider, &'static str),
    name: &'static str,
    base: &'static str,
    below: &'static str,
    grant: &'static str,
) -> Api {
    Api { provider, profile, name, base, below, grant }
}

const IPXO: (Provider, &str) = (Provider::Ipxo, "ipxo");
const DIGITAL_REALTY: (Provider, &str) = (Provider::DigitalRealty, "digital-realty");
const IX_API: (Provider, &str) = (Provider::IxApi, "ix-api");
const PAX8: (Provider, &str) = (Provider::Pax8, "pax8");
const MYTHIC: (Provider, &str) = (Provider::MythicBeasts, "mythic-beasts");

const APIS: [Api; 16] = [
    api(IPXO, "billing", "/billing", "/v1/t-1/invoices", "billing"),
    api(IPXO, "ecommerce", "/ecommerce", "/public/u-1/cart", "ecommerce"),
    api(IPXO, "credits", "/credits", "/public/t-1/balances", "credits"),
    api(IPXO, "nethub-data", "/nethub-data", "/t-1/prefixes/metadata", "nethub-data"),
    api(IPXO, "nethub-analytics", "/nethub-analytics", "/announcements", "nethub-analytics"),
    api(IPXO, "dns", "/dns", "/zones", "dns"),
    // No scope is asked for; the provider grants what the client is registered for.
    api(
        DIGITAL_REALTY,
        "ix-api",
        "/ixapi/v2",
        "/connections",
        "resource.api resource.ixapi resource.productcatalogapi",
    ),
    api(IX_API, "de-cix", "/api/v2", "/accounts", ""),
    api(PAX8, "v1", "/v1", "/companies", "https://api.pax8.com"),
    api(PAX8, "quotes", "/v2", "/quotes", "https://api.pax8.com"),
    api(PAX8, "provisioning", "/v2", "/provision-requests/7", "api://provisioning"),
    api(PAX8, "usage", "/v2/usage", "/lines", "api://usage"),
    api(PAX8, "webhooks", "/api/v2/webhooks", "/w-1", "https://api.pax8.com"),
    api(MYTHIC, "dns", "/dns/v2", "/zones/example.com/records", ""),
    api(MYTHIC, "beta", "/beta", "/vps/servers", ""),
    api(MYTHIC, "queue", "/queue", "/echo", ""),
];

fn client(provider: Provider) -> &'static str {
    match provider {
        Provider::Ipxo => IPXO_CLIENT_ID,
        Provider::DigitalRealty => DIGITAL_REALTY_CLIENT_ID,
        Provider::IxApi => IX_API_KEY,
        Provider::Pax8 => PAX8_CLIENT_ID,
        Provider::MythicBeasts => MYTHIC_KEY_ID,
        Provider::Described(other) => &other.description().client.id,
    }
}

/// `/PROFILE/API` of every API of every profile, in front of a sandbox.
fn proxy(sandbox: &Playground) -> Cupbearer {
    let mut config = String::new();
    let mut builder = Cupbearer::builder();
    for provider in Provider::FOUNDING {
        let variable = format!("SECRET_OF_{}", provider.name().to_uppercase().replace('-', "_"));
        builder = builder.env(&variable, sandbox.secret(provider, client(provider)).expect("a known client"));
        let secret = format!("{{ env = \"{variable}\" }}");
        config += &sandbox.credential(provider.name(), provider, client(provider), &secret, "");
    }
    for Api { provider, profile, name, base, .. } in &APIS {
        let upstream = format!("/{}{base}", provider.name());
        let prefix = format!("/{profile}/{name}");
        config += &sandbox.route(&prefix, &upstream, provider.name(), &format!("api = \"{name}\""));
    }
    builder.start(&config)
}

fn ok(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{:?} {}", response.headers, response.text());
    response.json()
}

/// What the API says it received, which many answers carry within.
fn echo(answer: &Value) -> &Value {
    answer.get("_echo").unwrap_or(answer)
}

fn expect_no_secret(sandbox: &Sandbox, proxy: &Cupbearer) {
    let secrets: Vec<&str> = sandbox.clients().iter().map(|c| c.secret.as_str()).filter(|s| !s.is_empty()).collect();
    proxy.expect_never_printed(&secrets);
}

#[test]
fn the_table_of_these_tests_is_what_the_profiles_say() {
    let mut known = BTreeSet::new();
    for Api { profile, name, base, .. } in &APIS {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("profiles/{profile}.toml"));
        let text = fs::read_to_string(file).expect("the profile's file");
        let text: toml::Table = text.parse().expect("TOML");
        for api in text["apis"].as_table().expect("a table").keys() {
            known.insert(format!("{profile} {api}"));
        }
        let own = text["apis"][*name].get("upstream");
        let upstream = own.or_else(|| Some(&text["environments"]["production"]["upstreams"][*name]));
        let upstream = upstream.and_then(|u| u.as_str()).expect("an upstream");
        let path = upstream.strip_prefix("https://").and_then(|u| u.split_once('/')).map_or("", |(_, path)| path);
        assert_eq!(format!("/{path}"), *base, "{profile} {name}");
    }
    let tested = APIS.iter().map(|a| format!("{} {}", a.profile, a.name)).collect();
    assert_eq!(known, tested);
}

#[test]
fn every_api_gets_a_token_that_is_good_for_it_and_for_nothing_else() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    for round in 0..2 {
        for Api { provider, profile, name, base, below, .. } in &APIS {
            let answer = ok(&proxy.get(&format!("/{profile}/{name}{below}?round={round}")));
            if answer.is_object() {
                let echo = echo(&answer);
                let target = format!("/{}{base}{below}?round={round}", provider.name());
                assert_eq!(echo["target"], target, "{profile} {name}");
                assert_eq!(echo["client"], client(*provider), "{profile} {name}");
            }
        }
    }
    let log = sandbox.expect_clean();
    let expected: BTreeSet<(&str, &str)> = APIS.iter().map(|api| (api.provider.name(), api.grant)).collect();
    let used: BTreeSet<(&str, &str)> =
        log.tokens.values().map(|t| (t.provider.expect("a provider").name(), t.grant.as_str())).collect();
    assert_eq!(used, expected);
    assert_eq!(log.tokens.len(), expected.len(), "one token for each need: {:?}", log.tokens);
    let requests: u64 = log.providers.values().map(|p| p.token_requests).sum();
    assert_eq!(requests, expected.len() as u64, "and not one token request more");
    assert!(log.providers.values().all(|p| p.tokens_refused == 0), "each was asked in its own way at once");
    expect_no_secret(&sandbox, &proxy);
    proxy.stop();
}

#[test]
fn the_path_and_query_arrive_byte_for_byte() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    for target in [
        "",
        "/",
        "?",
        "/v1/x/",
        "/v1/x?",
        "/records?exclude-template&exclude-generated&verify",
        "/public/u/orders?filter[status]=paid&filter[date][from]=2024-01-01&sort=-id",
        "/p?filter%5Bstatus%5D=paid&q=a+b%20c%2Bd%26e&empty=&=novalue&&a&a=1&a=2",
        "/p?next=https://example.com/x?y=z//%2e%2e/&semi=1;2",
        "/p?utf8=%C3%A4%e2%82%ac&bad=%zz&percent=%",
        "/zones/example.com/records/*/A/%7Etilde~/%C3%A4/%c3%a4",
        "/x/a:b@c!$&'()*+,;=-._~/1.0.0.0%201",
        "/x/%5Bbrackets%5D/[brackets]",
        "/x?question?marks??",
    ] {
        let answer = ok(&proxy.get(&format!("/ipxo/dns/echo{target}")));
        assert_eq!(answer["target"], format!("/ipxo/dns/echo{target}"));
    }
    let answer = ok(&proxy.get("/mythic-beasts/dns/zones/example.com/records?exclude-template&exclude-generated"));
    assert_eq!(
        answer["_echo"]["target"],
        "/mythic/dns/v2/zones/example.com/records?exclude-template&exclude-generated"
    );
    sandbox.expect_clean();
}

/// The request's body, framed: fields and bytes.
fn framed(body: &[u8], chunks: usize) -> (String, Vec<u8>) {
    if chunks == 0 {
        return (format!("Content-Length: {}\r\n", body.len()), body.to_vec());
    }
    let mut bytes = Vec::new();
    for chunk in body.chunks(body.len().div_ceil(chunks).max(1)) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
}

fn send(client: &mut Client, line: &str, fields: &str, body: &[u8], chunks: usize) -> Response {
    let (framing, bytes) = framed(body, chunks);
    let host = client.stream().peer_addr().expect("connected");
    client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}{framing}\r\n"));
    client.send(bytes);
    client.response()
}

#[test]
fn bodies_travel_with_every_method_also_with_delete_and_get() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    let mut client = proxy.connect();
    let body = br#"{"amount":42,"note":"\u00e4 body where few expect one"}"#;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"] {
        for chunks in [0, 1, 3] {
            let line = format!("{method} /pax8/v1/echo/{method}");
            let answer = ok(&send(&mut client, &line, "Content-Type: application/json\r\n", body, chunks));
            assert_eq!(answer["method"], method);
            assert_eq!(answer["body"]["sha256"], sha256(body), "{method} in {chunks} chunks");
            assert_eq!((&answer["body"]["complete"], &answer["body"]["length"]), (&json!(true), &json!(body.len())));
        }
    }
    let line = "DELETE /ipxo/ecommerce/public/u-1/cart/c-1/credits";
    let answer = ok(&send(&mut client, line, "Content-Type: application/json\r\n", body, 0));
    assert_eq!(answer["removed"], 42, "the API understood it");
    sandbox.expect_clean();
}

#[test]
fn an_answer_without_content_leaves_the_connection_in_order() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    let mut client = proxy.connect();
    for _ in 0..3 {
        let answer = send(&mut client, "POST /ipxo/ecommerce/public/u-1/cart", "", b"{}", 0);
        assert_eq!(
            (answer.status, answer.header("content-length"), answer.header("transfer-encoding")),
            (204, None, None)
        );
        let answer = send(&mut client, "DELETE /pax8/webhooks/w-1", "", b"", 0);
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(send(&mut client, "GET /ix-api/de-cix/status/304", "", b"", 0).status, 304);
        let host = proxy.address();
        client.send(format!("HEAD /digital-realty/ix-api/connections HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let head = client.head_response();
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
        ok(&send(&mut client, "GET /mythic-beasts/dns/zones", "", b"", 0));
    }
    sandbox.expect_clean();
}

#[test]
fn a_provisioning_task_is_polled_to_its_end_by_following_only_what_the_proxy_says() {
    let sandbox = Playground::start(Options { queue_polls: 3, ..Options::default() });
    let proxy = proxy(&sandbox);
    let mut client = proxy.connect();
    let (line, body) = ("POST /mythic-beasts/beta/vps/servers/web1", br#"{"product":"VPSX4"}"#);
    let accepted = send(&mut client, line, "Content-Type: application/json\r\n", body, 0);
    assert_eq!((accepted.status, accepted.header("retry-after")), (202, None));
    assert_eq!(accepted.json()["_echo"]["body"]["sha256"], sha256(body));
    let task = accepted.header("location").expect("where the task is").to_owned();
    assert!(task.starts_with("/mythic-beasts/queue/vps/"), "behind the proxy, as a path: {task}");
    let mut polls = 0;
    let made = loop {
        let answer = send(&mut client, &format!("GET {task}"), "", b"", 0);
        match answer.status {
            200 => assert_eq!(answer.json()["status"], "pending"),
            303 => break answer.header("location").expect("where the server is").to_owned(),
            other => panic!("{other}: {}", answer.text()),
        }
        polls += 1;
        assert!(polls <= 3, "it should be done by now");
    };
    assert_eq!((polls, made.as_str()), (3, "/mythic-beasts/beta/vps/servers/web1"));
    let server = ok(&send(&mut client, &format!("GET {made}"), "", b"", 0));
    assert_eq!((&server["identifier"], &server["status"]), (&json!("web1"), &json!("running")));
    sandbox.expect_clean();
}

#[test]
fn a_multipart_upload_arrives_as_it_was_sent() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    let boundary = "------------------------d74496d66958873e";
    let mut body = Vec::new();
    for (name, file, media_type, content) in [
        ("meta", "", "application/json", b"{\"kind\":\"invoice\"}".to_vec()),
        ("file", "r\u{e4}chnung.pdf", "application/pdf", noise(700_001)),
        ("empty", "empty.bin", "application/octet-stream", Vec::new()),
    ] {
        let file = if file.is_empty() { String::new() } else { format!("; filename=\"{file}\"") };
        body.extend_from_slice(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: {media_type}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let media_type = format!("multipart/form-data; boundary={boundary}");
    let fields = format!("Content-Type: {media_type}\r\n");
    let mut client = proxy.connect();
    for route in
        ["/ipxo/billing", "/digital-realty/ix-api", "/ix-api/de-cix", "/pax8/quotes/quotes", "/mythic-beasts/beta"]
    {
        for chunks in [0, 7] {
            let answer = ok(&send(&mut client, &format!("POST {route}/upload"), &fields, &body, chunks));
            assert_eq!(answer["body"]["sha256"], sha256(&body), "{route} in {chunks} chunks");
            let header = |name: &str| {
                let fields = answer["headers"].as_array().expect("a list").iter();
                let mut found = fields.filter(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
                (found.next().map(|f| f[1].clone()), found.count())
            };
            assert_eq!(header("content-type"), (Some(json!(media_type)), 0));
            let framing = if chunks == 0 {
                ("content-length", json!(body.len().to_string()))
            } else {
                ("transfer-encoding", json!("chunked"))
            };
            assert_eq!(header(framing.0), (Some(framing.1), 0), "framed as it came");
        }
    }
    sandbox.expect_clean();
}

#[test]
fn a_binary_download_arrives_as_it_was_sent() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    let mut client = proxy.connect();
    for route in ["/ipxo/billing", "/digital-realty/ix-api", "/ix-api/de-cix", "/pax8/v1", "/mythic-beasts/beta"] {
        for (size, kind) in [(0, "pdf"), (1, "csv"), (1_300_021, "zip"), (6_000_000, "pdf")] {
            for chunked in [false, true] {
                let query = if chunked { "&chunked" } else { "" };
                let line = format!("GET {route}/invoices/i-1/download?size={size}&type={kind}{query}");
                let answer = send(&mut client, &line, "", b"", 0);
                assert_eq!((answer.status, answer.body.len()), (200, size), "{line}");
                assert_eq!(answer.header("x-sha256"), Some(sha256(&answer.body).as_str()), "{line}");
                assert_eq!(answer.header("transfer-encoding").is_some(), chunked, "framed as it came: {line}");
                let media_type = if kind == "csv" { "text/csv".to_owned() } else { format!("application/{kind}") };
                assert_eq!(answer.header("content-type"), Some(media_type.as_str()));
                assert!(answer.header("content-disposition").is_some_and(|d| d.starts_with("attachment; filename=\"")));
            }
        }
    }
    sandbox.expect_clean();
}

#[test]
fn links_redirects_and_cookies_stay_behind_the_prefix() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    for Api { profile, name, base, provider, .. } in &APIS {
        // Pax8's /v2 is no API by itself; what lies below it is.
        let below = match *name {
            "quotes" => "/quotes",
            "provisioning" => "/provisioners",
            _ => "",
        };
        let prefix = format!("/{profile}/{name}{below}");
        let links = proxy.get(&format!("{prefix}/a/links?page=1"));
        let link = format!(
            "<{prefix}/a/links?page=2>; rel=\"next\", <{prefix}/a/links?page=9>; rel=\"last\", \
             <https://example.com/>; rel=\"help\""
        );
        let here = format!("{prefix}/a/links");
        assert_eq!(links.header("link"), Some(link.as_str()));
        assert_eq!(links.header("content-location"), Some(here.as_str()));
        for query in ["", "?relative", "?status=307", "?status=301&relative"] {
            let moved = proxy.get(&format!("{prefix}/a/redirect{query}"));
            let to = moved.header("location").expect("a Location");
            assert_eq!(to, format!("{prefix}/a/echo?redirected"), "{query}");
            let answer = ok(&proxy.get(to));
            assert_eq!(answer["target"], format!("/{}{base}{below}/a/echo?redirected", provider.name()));
        }
        let foreign = proxy.get(&format!("{prefix}/a/redirect?foreign"));
        assert_eq!(foreign.header("location"), Some("https://example.com/elsewhere"), "not ours to change");
        let cookies = proxy.get(&format!("{prefix}/a/cookies"));
        let cookies: Vec<&str> = cookies.all("set-cookie").collect();
        let [session, theme] = cookies.as_slice() else { panic!("{cookies:?}") };
        assert_eq!(*session, format!("session=not-a-secret; Path={prefix}/a; HttpOnly; SameSite=Lax"));
        assert!(!theme.to_ascii_lowercase().contains("domain="), "no caller has that host: {theme}");
        let path = theme.split(';').find_map(|part| part.trim().strip_prefix("Path="));
        assert_eq!(path, Some(format!("/{profile}/{name}").as_str()), "{theme}");
    }
    sandbox.expect_clean();
}

#[test]
fn the_callers_own_credentials_never_reach_a_provider() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    for Api { profile, name, below, .. } in &APIS {
        let fields = "Authorization: Bearer of-the-caller\r\nProxy-Authorization: Basic bm90OmhpbQ==\r\n\
                      Connection: Authorization, close\r\nX-Api-Key: of-the-caller\r\n";
        let answer = ok(&proxy.request("GET", &format!("/{profile}/{name}{below}"), fields, b""));
        let text = echo(&answer).to_string();
        assert!(!text.contains("of-the-caller") && !text.contains("roxy-"), "{profile} {name}: {text}");
    }
    sandbox.expect_clean();
}

/// How long Mythic Beasts' tokens live here: 300 s, scaled down.
const SLIDING: Duration = Duration::from_millis(1500);

#[test]
fn a_sliding_token_that_is_in_use_is_never_fetched_again() {
    let sandbox = Playground::with(&["mythic.idp=ttl:1500ms"]);
    let proxy = proxy(&sandbox);
    // On a machine that stops us for longer than a token lives between two uses, there is nothing to see.
    for attempt in 1.. {
        sandbox.clear_log();
        let mut client = proxy.connect();
        let (started, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while started.elapsed() < 2 * SLIDING + SLIDING / 2 {
            ok(&send(&mut client, "GET /mythic-beasts/dns/zones", "", b"", 0));
            longest = longest.max(last.elapsed());
            last = Instant::now();
            thread::sleep(Duration::from_millis(100));
        }
        sandbox.expect_clean();
        let requests = sandbox.token_requests(Provider::MythicBeasts);
        if longest < SLIDING / 2 {
            // From the second attempt on there may be a token already.
            assert!(requests == 1 || (attempt > 1 && requests == 0), "{requests} token requests in attempt {attempt}");
            return;
        }
        assert!(attempt < 5, "this machine is too slow: {longest:?} between two uses");
    }
}

#[test]
fn each_request_has_an_id_that_comes_back_and_one_authorization() {
    let sandbox = Playground::new();
    let proxy = proxy(&sandbox);
    let mut text = String::new();
    for Api { profile, name, below, .. } in &APIS {
        let answer = proxy.get(&format!("/{profile}/{name}{below}/echo"));
        let id = answer.header("x-request-id").expect("an id").to_owned();
        let echo = ok(&answer);
        let fields = echo["headers"].as_array().expect("a list");
        let all =
            |name: &str| fields.iter().filter(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name))).count();
        assert_eq!((all("authorization"), all("host"), all("x-request-id"), all("via")), (1, 1, 1, 1));
        assert!(echo["headers"].to_string().contains(&id));
        let _ = write!(text, "{id} ");
    }
    assert_eq!(text.split_whitespace().collect::<BTreeSet<_>>().len(), APIS.len());
    sandbox.expect_clean();
}
