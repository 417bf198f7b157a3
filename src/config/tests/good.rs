use std::time::Duration;

use super::*;
use crate::config::{
    model::{
        Alg, CallerIdentity, ClientAuth, Expiry, GlobSegment, Grant, HostPolicy, IpFamily, Listen, Param, PolicyMode,
        RouteCallers, Scheme, StoreSpec, TokenBody, Warm,
    },
    profile,
    secret::SecretSource,
};

#[test]
fn a_short_file_becomes_a_whole_configuration_with_the_documented_defaults() {
    let (config, warnings) = good(BASE);
    assert_eq!(warnings, Vec::<String>::new());
    let server = &config.server;
    assert_eq!(server.listen, [Listen { address: "127.0.0.1:8080".parse().unwrap(), tls: None }]);
    assert!(server.workers > 0);
    assert_eq!((server.header_timeout, server.idle_timeout), (Duration::from_secs(10), Duration::from_secs(75)));
    assert_eq!((server.drain_timeout, server.max_connections), (Duration::from_secs(30), 10_000));
    let of = |peer: &str| server.connections_of(peer.parse().unwrap());
    assert_eq!((of("192.0.2.1"), of("::ffff:127.0.0.1"), of("::1")), (5_000, usize::MAX, usize::MAX));
    assert_eq!((server.max_header_bytes, config.admin), (32 * 1024, "127.0.0.1:8081".parse().ok()));
    let credential = &config.credentials[0];
    assert_eq!((credential.name.as_str(), credential.provider.as_deref()), ("acme", Some("ipxo")));
    assert_eq!(credential.token_url.to_string(), "https://hydra.ipxo.com/oauth2/token");
    assert_eq!(credential.token_target, "/oauth2/token");
    assert_eq!(credential.grant_type.as_deref(), Some("client_credentials"));
    assert_eq!((credential.client_auth, credential.body), (ClientAuth::Post, TokenBody::Form));
    assert_eq!((credential.id_param.as_str(), credential.secret_param.as_str()), ("client_id", "client_secret"));
    assert_eq!((credential.token_field.as_str(), credential.expires_field.as_str()), ("/access_token", "/expires_in"));
    assert_eq!((credential.expiry, credential.warm, credential.share), (Expiry::Fixed, Warm::OnUse, true));
    assert_eq!((credential.default_ttl, credential.timeout), (Duration::from_secs(300), Duration::from_secs(10)));
    let route = &config.routes[0];
    assert_eq!(
        (route.prefix.as_str(), route.upstream.to_string().as_str()),
        ("/ipxo", "https://apigw.ipxo.com/billing")
    );
    assert_eq!(route.token.scopes, ["billing"]);
    assert_eq!(
        (&route.callers, route.mode, route.host),
        (&RouteCallers::Known, PolicyMode::Enforce, HostPolicy::Upstream)
    );
    assert_eq!((route.inject.name.as_str(), route.inject.prefix.as_str()), ("authorization", "Bearer "));
    assert_eq!((route.connect_timeout, route.response_timeout), (Duration::from_secs(5), Duration::from_secs(60)));
    assert_eq!((route.body_idle_timeout, route.max_body), (Duration::from_secs(60), None));
    assert_eq!((route.replay_buffer, route.max_in_flight), (64 * 1024, 1000));
    assert_eq!((route.retry_on.as_slice(), route.allow_empty_segments), (&[401][..], false));
}

/// Every key of the first half of the interface.
const EVERY_KEY: &str = r#"
[server]
listen = ["127.0.0.1:${PORT}", "[::1]:9000"]
workers = 3
allowed_hosts = ["Proxy.Corp", "other:81"]
allowed_origins = ["HTTPS://App.Corp:443"]
max_header_bytes = 16384
[admin]
listen = false
[tokens]
store = "memory"
[log]
format = "json"
access = "stdout"
audit = "off"
[telemetry]

[credentials.x]
client_id = "a-${ID}"
client_secret = { env = "SECRET" }
grant = "client_credentials"
grant_type = ""
token_url = "http://127.0.0.1:1/t/?v=1"
client_auth = "basic_raw"
body = "json"
method = "POST"
scopes = ["a", "b"]
scope_separator = ","
audience = "aud"
resource = ["urn:r"]
params = { account_id = "7", pin = { env = "SECRET" } }
headers = { "X-Tenant" = "t" }
id_param = "i"
secret_param = "s"
token_field = ""
expires_field = "/data/ttl"
expires_unit = "ms"
default_ttl = "1h30m"
expiry = "sliding"
warm = "always"
share = false
local_address = "127.0.0.1"
ip_family = "v4"
timeout = "3s"
budget = "50/12h"

[callers.erp]
api_key = { env = "KEY" }
routes = ["/"]
allow = ["GET /**"]
[callers.net]
cidr = ["10.1.0.0/16", "fd00::/8", "10.2.3.4"]

[[routes]]
prefix = "/"
upstream = "http://Internal.corp/base/"
insecure_http = true
credential = "x"
scopes = []
audience = "mine"
allow = ["GET,POST /v1/*/x*/**"]
deny = ["* /admin"]
callers = ["erp"]
mode = "report"
inject = "X-Token: t={token};"
set_headers = { "x-api-key" = "{client_id}" }
remove_headers = ["Cookie"]
host = "preserve"
connect_timeout = "1s"
response_timeout = "2m"
body_idle_timeout = "90s"
max_body = "1MiB"
replay_buffer = 0
retry_on = [401, 498]
max_in_flight = 5
http = "h1"
allow_empty_segments = true
"#;

#[test]
fn every_built_key_is_taken_over() {
    let (config, warnings) = good(EVERY_KEY);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.listen[0].address.port(), 9000);
    assert_eq!(config.server.allowed_hosts, ["proxy.corp", "other:81"]);
    assert_eq!(config.server.allowed_origins, ["https://app.corp"]);
    let c = &config.credentials[0];
    assert_eq!((c.client_id.as_str(), &c.grant_type), ("a-my-client", &None));
    assert_eq!((c.token_target.as_str(), c.token_url.base_path.as_str()), ("/t/?v=1", "/t"));
    assert_eq!((c.client_auth, c.scope_separator.as_str()), (ClientAuth::BasicRaw, ","));
    assert!(matches!(&c.params[0], (name, Param::Plain(v)) if name == "account_id" && v == "7"));
    assert!(matches!(&c.params[1], (name, Param::Secret(SecretSource::Given { .. })) if name == "pin"));
    assert_eq!(c.headers[0].0, "x-tenant");
    assert_eq!(c.budget.map(|b| (b.limit, b.window)), Some((50, Duration::from_secs(43_200))));
    assert_eq!((c.net.ip_family, c.net.local_address), (IpFamily::V4, Some("127.0.0.1".parse().unwrap())));
    assert!(matches!(config.callers[0].identity, CallerIdentity::ApiKey(hash) if hash[0] != hash[1]));
    let CallerIdentity::Cidr(ranges) = &config.callers[1].identity else { panic!("a range") };
    assert_eq!(ranges[2], ("10.2.3.4".parse().unwrap(), 32));
    let r = &config.routes[0];
    assert_eq!((r.prefix.as_str(), r.upstream.to_string().as_str()), ("", "http://internal.corp/base"));
    assert!(r.upstream.insecure && r.upstream.scheme == Scheme::Http);
    assert_eq!(
        (r.token.scopes.len(), r.token.audience.as_deref(), r.token.resource.as_slice()),
        (0, Some("mine"), &["urn:r".to_owned()][..])
    );
    assert_eq!(r.allow[0].methods, ["GET", "POST"]);
    assert_eq!(r.allow[0].segments[3], GlobSegment::AnyDepth);
    assert_eq!(r.callers, RouteCallers::Named(vec!["erp".to_owned()]));
    assert_eq!((r.inject.prefix.as_str(), r.inject.suffix.as_str()), ("t=", ";"));
    assert_eq!(r.set_headers, [("x-api-key".to_owned(), "a-my-client".to_owned())]);
    assert_eq!((r.max_body, r.replay_buffer, r.retry_on.as_slice()), (Some(1 << 20), 0, &[401, 498][..]));
}

/// A file with one route to every API of every profile.
fn all_profiles() -> String {
    let mut text = String::new();
    for name in profile::names() {
        let profile = profile::find(name).unwrap();
        let head = format!("[credentials.{name}]\nprovider = \"{name}\"\n");
        let needs = profile.needs();
        let of = |need, line: &str| if needs.contains(&need) { line.to_owned() } else { String::new() };
        text += &(head + &of(profile::Need::Id, "client_id = \"i\"\n"));
        text += &of(profile::Need::Secret, "client_secret.env = \"SECRET\"\n");
        text += &of(profile::Need::Key, "key.env = \"RSA_PEM\"\n");
        text.extend(profile.variables.iter().map(|v| format!("vars.{} = \"{}\"\n", v.name, v.example)));
        text.extend(profile.starter.iter().map(|(k, v)| format!("{k} = {v}\n")));
        if profile.asks_token_url() {
            text += "token_url = \"https://acme.example/token\"\n";
        }
        for api in &profile.apis {
            let own = if profile.asks_upstream(api) { "upstream = \"https://acme.example\"\n" } else { "" };
            let api = &api.name;
            let route = format!("[[routes]]\nprefix = \"/{name}/{api}\"\napi = \"{api}\"\ncredential = \"{name}\"\n");
            text += &(route + own);
        }
    }
    text
}

#[test]
fn every_api_of_every_profile_resolves_into_a_route() {
    for name in profile::names() {
        let (profile, notes) = profile::read(name, None, |_| Vec::new()).unwrap();
        assert!(notes.is_empty(), "{name}: {notes:?}");
        assert!(!profile.group.is_empty(), "{name}");
        for v in &profile.variables {
            assert!(v.kind.allows(&v.example) && !v.about.is_empty(), "{name} {}", v.name);
        }
        assert!(!profile.title.is_empty() && !profile.docs.is_empty() && !profile.notes.is_empty(), "{name}");
        assert!(!profile.apis.is_empty() && profile.apis.iter().all(|a| !a.about.is_empty()), "{name}");
    }
    let (config, mut warnings) = good(&all_profiles());
    // One key for all; some want another kind.
    warnings.retain(|warning| !warning.contains("does not go with this kind of key"));
    assert_eq!(warnings, Vec::<String>::new());
    let route = |prefix: &str| config.routes.iter().find(|r| r.prefix == prefix).unwrap();
    let wants = |prefix: &str| (route(prefix).token.scopes.join(" "), route(prefix).token.audience.clone());
    for api in ["billing", "ecommerce", "credits", "nethub-data", "nethub-analytics", "dns"] {
        let prefix = format!("/ipxo/{api}");
        assert_eq!(wants(&prefix), (api.to_owned(), None));
        assert_eq!(route(&prefix).upstream.to_string(), format!("https://apigw.ipxo.com/{api}"));
    }
    let audience = |api: &str| wants(&format!("/pax8/{api}")).1.unwrap();
    for (api, expected) in [
        ("v1", "https://api.pax8.com"),
        ("quotes", "https://api.pax8.com"),
        ("webhooks", "https://api.pax8.com"),
        ("provisioning", "api://provisioning"),
        ("usage", "api://usage"),
    ] {
        assert_eq!(audience(api), expected);
    }
    assert_eq!(route("/digital-realty/ix-api").upstream.to_string(), "https://api.interxion.com/ixapi/v2");
    let mythic = &route("/mythic-beasts/dns").token.credential;
    assert_eq!((mythic.client_auth, mythic.expiry, mythic.share), (ClientAuth::Basic, Expiry::Sliding, false));
    let ix = &route("/ix-api/de-cix").token.credential;
    assert_eq!((ix.id_param.as_str(), ix.secret_param.as_str(), &ix.grant_type), ("api_key", "api_secret", &None));
}

#[test]
fn a_token_endpoint_below_an_upstream_is_forbidden_there() {
    let (config, _) = good(&all_profiles());
    let forbidden = |prefix: &str| &config.routes.iter().find(|r| r.prefix == prefix).unwrap().forbidden_paths;
    assert_eq!(forbidden("/pax8/v1"), &["/token"]);
    assert_eq!(forbidden("/ix-api/de-cix"), &["/auth/refresh", "/auth/token"]);
    assert!(forbidden("/pax8/usage").is_empty());
    let text = format!(
        "{BASE}[[routes]]\nprefix = \"/all\"\nupstream = \"https://HYDRA.ipxo.com:443/oauth2\"\ncredential = \"acme\""
    );
    assert_eq!(good(&text).0.routes[1].forbidden_paths, ["/token"]);
}

#[test]
fn refresh_and_device_endpoints_are_forbidden_too_under_any_name_of_the_host() {
    let credential = "[credentials.c]\nclient_id = \"id\"\nclient_secret = { env = \"SECRET\" }\ngrant = \"password\"\nusername = \"u\"\n\
                      password = { env = \"SECRET\" }\ntoken_url = \"http://127.0.0.1:9000/auth/token\"\nrefresh_url = \"./refresh\"\n\
                      [credentials.d]\nclient_id = \"id\"\nclient_auth = \"none\"\ngrant = \"device_code\"\n\
                      token_url = \"https://id.example/token\"\ndevice_url = \"http://127.0.0.1:9000/auth/device\"\n";
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        let upstream = format!("http://{host}:9000/auth");
        let plain = if host.contains("ffff") { "insecure_http = true\n" } else { "" };
        let route = format!("[[routes]]\nprefix = \"/x\"\nupstream = \"{upstream}\"\ncredential = \"c\"\n{plain}");
        let forbidden = good(&format!("{credential}{route}")).0.routes[0].forbidden_paths.clone();
        assert_eq!(forbidden, ["/device", "/refresh", "/token"], "{host}");
    }
}

#[test]
fn an_issuer_stands_in_for_the_token_url_of_a_profile_too() {
    let text =
        BASE.replace("provider", "issuer = \"https://id.example/\"\nendpoint_hosts = [\"APIGW.ipxo.com\"]\nprovider");
    let (config, _) = good(&text);
    let credential = &config.credentials[0];
    assert!(credential.is_discovered());
    let issuer = credential.issuer.as_ref().unwrap();
    assert_eq!(issuer.identifier, "https://id.example/");
    assert_eq!(issuer.hosts, ["apigw.ipxo.com"]);
    assert!(config.routes[0].unknown_endpoint, "its token endpoint may turn out to be there");
    let (config, _) = good(&text.replace("issuer", "token_url = \"https://id.example/t\"\nissuer"));
    let credential = &config.credentials[0];
    assert_eq!(
        (credential.is_discovered(), credential.token_url.to_string().as_str()),
        (false, "https://id.example/t")
    );
    assert!(!config.routes[0].unknown_endpoint);
}

#[test]
fn an_explicit_upstream_overrides_only_the_upstream_of_an_api() {
    let text = BASE.replace("api = ", "upstream = \"http://127.0.0.1:9/ipxo\"\napi = ");
    let (config, _) = good(&text);
    assert_eq!(config.routes[0].upstream.to_string(), "http://127.0.0.1:9/ipxo");
    assert_eq!(config.routes[0].token.scopes, ["billing"]);
}

#[test]
fn an_environment_chooses_the_urls_of_a_profile() {
    let credential =
        "[credentials.d]\nprovider = \"digital-realty\"\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\n";
    let route = "[[routes]]\nprefix = \"/ix\"\napi = \"ix-api\"\ncredential = \"d\"\n";
    let url = |text: &str| good(text).0.routes[0].token.credential.token_url.to_string();
    let production = format!("{credential}environment = \"production\"\n{route}");
    assert_eq!(url(&production), "https://login.digitalrealty.com/connect/token");
    let acceptance = format!(
        "{credential}environment = \"acceptance\"\ntoken_url = \"https://login.acc.example/connect/token\"\n{route}upstream = \"https://acc.example/ixapi/v2\"\n"
    );
    assert_eq!(url(&acceptance), "https://login.acc.example/connect/token");
    assert_eq!(good(&acceptance).0.routes[0].upstream.host, "acc.example");
}

#[test]
fn a_reachable_listener_is_fine_as_soon_as_callers_identify_themselves() {
    let text = format!("[server]\nlisten = \"0.0.0.0:8080\"\n[callers.erp]\napi_key = {{ env = \"KEY\" }}\n{BASE}");
    assert_eq!(good(&text).0.callers.len(), 1);
}

#[test]
fn what_nothing_uses_earns_a_warning() {
    let text = format!(
        "[credentials.idle]\nprovider = \"ipxo\"\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\n\
         [callers.erp]\napi_key = {{ env = \"SHORT\" }}\nroutes = [\"/ipxo/deep\", \"/other\"]\n{BASE}"
    );
    assert_eq!(
        good(&text).1,
        [
            "1:14 no route uses credential `idle`",
            "6:11 `api_key` in [callers.erp] is shorter than 16 characters (make one: openssl rand -hex 32)",
            "7:25 no route lies at or around `/other`",
        ]
    );
}

#[test]
fn a_scope_with_a_space_in_it_earns_a_warning() {
    let text = "[credentials.c]\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\ntoken_url = \"https://a.example/t\"\n\
                scopes = [\"r w\", \"x\"]\n[[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"c\"\n\
                scopes = [\"r\", \"x y\"]\n";
    let told = "this scope has a space in it: the provider will see several (one entry each: scopes = [\"a\", \"b\"])";
    assert_eq!(good(text).1, [format!("5:11 {told}"), format!("10:16 {told}")]);
}

#[test]
fn the_example_file_passes_as_soon_as_its_variables_are_set() {
    let example = include_str!("../../../proxy.toml");
    let any = |name: &str| Some(format!("not-a-secret-{name}"));
    let (config, warnings) = parse(example, &any).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(warnings, []);
    let providers: Vec<_> = config.credentials.iter().filter_map(|c| c.provider.as_deref()).collect();
    assert_eq!(providers, ["ipxo", "digital-realty", "pax8", "mythic-beasts"]);
}

#[test]
fn a_redis_store_has_its_password_beside_its_address() {
    let text = format!(
        "[tokens]\nseal_key = {{ env = \"SEAL_KEY\" }}\nstore = {{ redis = \"redis://[::1]:6380/3\", username = \"cup\", \
         password = {{ env = \"KEY\" }} }}\n{BASE}"
    );
    let (config, _) = good(&text);
    let StoreSpec::Redis(redis) = &config.tokens.store else { panic!("{:?}", config.tokens.store) };
    assert_eq!((redis.host.as_str(), redis.port, redis.database), ("::1", 6380, 3));
    assert!(redis.username.as_deref() == Some("cup") && redis.password.is_some());
    assert_eq!(redis.scheme, Scheme::Http);
}

#[test]
fn each_grant_takes_what_belongs_to_it() {
    let file = |grant: &str| {
        let text = format!(
            "[credentials.c]\n{grant}\n[[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"c\"\n"
        );
        let (config, warnings) = good(&text);
        ((*config.credentials[0]).clone(), warnings)
    };
    let (c, _) = file("grant = \"static\"\ntoken.env = \"SECRET\"");
    assert!(matches!(c.grant, Grant::Static { .. }) && c.client_id.is_empty() && c.client_auth == ClientAuth::None);
    assert_eq!(c.default_ttl.as_secs(), 366 * 86_400, "it is watched, not asked for");
    let (c, _) = file("grant = \"static\"\ntoken.command = [\"print-a-token\"]");
    assert_eq!(c.default_ttl.as_secs(), 300, "printed anew");
    let url = "token_url = \"https://a.example/v2/login?v=1\"";
    let (c, _) = file(&format!(
        "{url}\ngrant = \"password\"\nclient_auth = \"none\"\nusername = \"ann\"\npassword.env = \"SECRET\"\nrefresh_url = \"./refresh?x=1\""
    ));
    assert!(matches!(&c.grant, Grant::Password { username, .. } if username == "ann"));
    assert_eq!((c.grant_type.as_deref(), c.refresh_target.as_deref()), (Some("password"), Some("/v2/refresh?x=1")));
    let (c, warnings) = file(&format!(
        "{url}\ngrant = \"refresh_token\"\nclient_id = \"i\"\nclient_auth = \"none\"\nrefresh_token.env = \"SECRET\""
    ));
    assert!(matches!(c.grant, Grant::RefreshToken { first: Some(_) }));
    let lost = "1:14 a rotated refresh token of this credential is lost at restart ([tokens] store = { file = \"…\" } keeps it)";
    assert_eq!(warnings, [lost]);
    let jwt =
        "client_id = \"i\"\nclient_auth = \"private_key_jwt\"\nkey.env = \"PEM\"\nkey_id = \"k\"\nalg = \"ES256\"";
    let (c, warnings) = file(&format!("{url}\n{jwt}\nassertion = {{ aud = \"https://a.example\" }}"));
    assert_eq!((c.client_auth, c.alg, warnings.len()), (ClientAuth::PrivateKeyJwt, Some(Alg::Es256), 0));
    assert_eq!(c.assertion.claims, [("aud".to_owned(), "https://a.example".to_owned())]);
    let exchange = "grant = \"token_exchange\"\nclient_auth = \"none\"\nsubject_token.env = \"SECRET\"\nsubject_token_type = \"jwt\"";
    let (c, _) = file(&format!("{url}\n{exchange}"));
    assert!(
        matches!(&c.grant, Grant::TokenExchange { subject_token_type, .. } if subject_token_type == "urn:ietf:params:oauth:token-type:jwt")
    );
}

#[test]
fn a_profile_knows_where_its_users_log_in() {
    let text = BASE.replace("\"ipxo\"", "\"pax8\"\ngrant = \"authorization_code\"").replace("billing", "v1");
    let (config, warnings) = good(&text);
    let credential = &config.credentials[0];
    let place =
        |found: &Option<(crate::config::model::Upstream, String)>| found.as_ref().map(|(url, _)| url.to_string());
    assert_eq!(place(&credential.login.authorize_url).as_deref(), Some("https://login.pax8.com/authorize"));
    assert_eq!(credential.token_url.to_string(), "https://login.pax8.com/oauth/token");
    assert_eq!(credential.audience.as_deref(), Some("https://api.pax8.com"));
    assert!(credential.scopes.contains(&"offline_access".to_owned()));
    assert_eq!(warnings.len(), 1, "a login needs a store: {warnings:?}");
    let own = text.replace("grant", "issuer = \"https://id.example\"\ngrant");
    let credential = &good(&own).0.credentials[0];
    assert_eq!((credential.is_discovered(), place(&credential.login.authorize_url)), (true, None));
}

#[test]
fn variables_of_a_profile_are_filled_in_and_its_routes_get_what_its_apis_want() {
    let file = |route: &str| {
        format!(
            "[credentials.shop]\nprovider = \"shopify\"\nvars.shop = \"${{ID}}\"\nclient_id = \"i\"\n\
             client_secret.env = \"SECRET\"\n[credentials.tv]\nprovider = \"twitch\"\nclient_id = \"tv-id\"\n\
             client_secret.env = \"SECRET\"\n[[routes]]\nprefix = \"/shop\"\napi = \"admin\"\ncredential = \"shop\"\n\
             [[routes]]\nprefix = \"/tv\"\nupstream = \"https://other.example\"\ncredential = \"tv\"\n{route}"
        )
    };
    let (config, _) = good(&file(""));
    let [shop, tv] = &config.routes[..] else { panic!("two routes") };
    assert_eq!(shop.upstream.to_string(), "https://my-client.myshopify.com/admin/api");
    let token_url = &shop.token.credential.token_url;
    assert_eq!(token_url.to_string(), "https://my-client.myshopify.com/admin/oauth/access_token");
    assert_eq!((shop.inject.name.as_str(), shop.inject.prefix.as_str()), ("x-shopify-access-token", ""));
    // Also where only the upstream is the route's own.
    assert_eq!(tv.set_headers, [("client-id".to_owned(), "tv-id".to_owned())]);
    let route = |lines: &str| good(&file(lines)).0.routes[1].clone();
    let own = route("set_headers = { Client-ID = \"mine\", a = \"b\" }");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(own.set_headers, [pair("client-id", "mine"), pair("a", "b")]);
    assert_eq!(route("inject = \"Client-Id: {token}\"").set_headers, []);
}

#[test]
fn a_bound_token_goes_with_its_own_scheme_and_a_key_of_the_file_or_of_the_process() {
    let file = |store: &str, credential: &str, route: &str| {
        good(&format!(
            "{store}[credentials.c]\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\ntoken_url = \"https://a.example/t\"\n\
             {credential}\n[[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"c\"\n{route}\n"
        ))
    };
    let scheme = |config: &Config| config.routes[0].inject.prefix.clone();
    let (config, warnings) = file("", "dpop = false", "");
    assert_eq!((config.credentials[0].dpop, scheme(&config).as_str(), warnings.len()), (false, "Bearer ", 0));
    let (config, warnings) = file("", "dpop = true", "");
    assert_eq!((scheme(&config).as_str(), warnings.len()), ("DPoP ", 0));
    assert!(config.credentials[0].is_bound_to_this_process());
    let (config, warnings) =
        file("", "dpop = true\nkey.env = \"PEM\"\nalg = \"ES256\"", "inject = \"X-Token: {token}\"");
    assert_eq!((config.routes[0].inject.name.as_str(), warnings.len()), ("x-token", 0));
    assert!(!config.credentials[0].is_bound_to_this_process());

    let store = "[tokens]\nstore = { file = \"/tmp/x\" }\nseal_key.env = \"SEAL_KEY\"\n";
    let (_, warnings) = file(store, "dpop = true", "");
    let fleeting = "4:14 its tokens are bound to a key that ends with this process, so they are not stored \
        (key = { file = \"key.pem\" } beside dpop = true is the same key after a restart)";
    assert_eq!(warnings, [fleeting]);
    assert!(file(store, "dpop = true\nkey.env = \"PEM\"", "").1.is_empty());
    let (_, warnings) = file("", "dpop = true", "inject = \"Authorization: Bearer {token}\"");
    let bearer = "10:10 a token of dpop = true is mostly refused as a bearer token \
        (leave `inject` out: it is \"Authorization: DPoP {token}\" then)";
    assert_eq!(warnings, [bearer]);
}
