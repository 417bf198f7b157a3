//! Discovery and `cupbearer login` at the certified npm `oidc-provider`, whose pages a `curl` with cookies walks through.

use std::{collections::HashSet, process::Command};

use cupbearer::{
    config::{secret::Secret, signing_key::SigningKey},
    token::dpop::ProofKey,
};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::Value;

use crate::support::{Builder, Cupbearer, OidcProvider, Process, TestDir};

/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// Two routes whose tokens have different scopes, so that each costs a use of the one refresh token.
fn config(provider: &OidcProvider, dir: &TestDir) -> String {
    let (url, ca) = (provider.url(), provider.ca_file());
    let route = |prefix: &str, scope: &str| {
        format!(
            "[[routes]]\nprefix = \"/{prefix}\"\nupstream = \"{url}/api\"\ncredential = \"user\"\nscopes = [\"{scope}\"]\n"
        )
    };
    format!(
        "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n[credentials.user]\n\
         grant = \"authorization_code\"\nissuer = \"{url}\"\nca_file = \"{}\"\nclient_id = \"native\"\n\
         client_auth = \"none\"\nscopes = [\"openid\", \"offline_access\"]\nauthorize_params = {{ prompt = \"consent\" }}\n\
         resource = [\"https://api.example.test/jwt\"]\n{}{}",
        dir.path().join("tokens").display(),
        ca.display(),
        route("read", "read"),
        route("write", "write")
    )
}

fn builder() -> Builder {
    Cupbearer::builder().env("SEAL_KEY", SEAL_KEY)
}

/// A browser of which only the cookies outlive a page.
struct Browser {
    ca: String,
    dir: TestDir,
}

impl Browser {
    fn new(provider: &OidcProvider) -> Self {
        Self { ca: provider.ca_file().display().to_string(), dir: TestDir::new() }
    }

    /// Follows redirects; gives back where that ended, and the page there.
    fn open(&self, url: &str, form: Option<&[(String, String)]>) -> (String, String) {
        let jar = self.dir.path().join("cookies");
        let mut command = Command::new("curl");
        command.args(["-sSL", "--cacert", &self.ca, "-w", "\n%{url_effective}", "-c"]).arg(&jar).arg("-b").arg(&jar);
        for (name, value) in form.unwrap_or_default() {
            command.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let ran = command.arg(url).output().expect("curl runs");
        assert!(ran.status.success(), "{url}: {}", String::from_utf8_lossy(&ran.stderr));
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let (page, place) = text.rsplit_once('\n').expect("where it ended");
        (place.to_owned(), page.to_owned())
    }

    /// Sends form after form, as a user does who agrees to everything, until a page has none.
    fn walk(&self, url: &str) -> String {
        let (mut place, mut page) = self.open(url, None);
        for _ in 0..8 {
            let Some((action, fields)) = form(&page) else { return page };
            let action = match action.as_str() {
                "" => place.clone(),
                path if path.starts_with('/') => {
                    let host = place.split('/').nth(2).expect("a host");
                    format!("https://{host}{path}")
                }
                whole => whole.to_owned(),
            };
            (place, page) = self.open(&action, Some(&fields));
        }
        panic!("no end of forms: {page}");
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!("{name}=\""))? + name.len() + 2;
    Some(tag[start..].split('"').next()?.replace("&amp;", "&"))
}

/// The first form of a page: where it goes, and its fields filled in.
fn form(page: &str) -> Option<(String, Vec<(String, String)>)> {
    let form = page.split("<form").nth(1)?.split("</form>").next()?;
    let action = attribute(form.split('>').next()?, "action").unwrap_or_default();
    let field = |tag: &str| {
        let tag = tag.split('>').next()?;
        let name = attribute(tag, "name")?;
        let typed = matches!(name.as_str(), "login" | "password").then(|| "ann".to_owned());
        Some((name, typed.or_else(|| attribute(tag, "value")).unwrap_or_default()))
    };
    Some((action, form.split("<input").skip(1).filter_map(field).collect()))
}

fn told_url(process: &Process) -> String {
    format!("https://{}", process.wait_for_line("  https://").unwrap_or_else(|e| panic!("{e}")))
}

fn ends_well(process: Process) {
    let (status, output) = process.finish();
    assert!(status.success(), "{output}");
    assert!(output.contains("Logged in: user") && !output.contains("eyJ"), "{output}");
}

/// The proxy has tokens for both routes, from one chain of refresh tokens that was never used twice.
fn works(provider: &OidcProvider, config: &str, processes: usize) {
    let mut fingerprints = HashSet::new();
    for _ in 0..processes {
        let proxy = builder().start(config);
        for scope in ["read", "write"] {
            let response = proxy.get(&format!("/{scope}/x"));
            assert_eq!(response.status, 200, "{}\n{}", response.text(), provider.output());
            let token = &response.json()["token"];
            assert_eq!((&token["client_id"], &token["scope"]), (&Value::from("native"), &Value::from(scope)));
            fingerprints.insert(token["fingerprint"].to_string());
        }
        proxy.expect_never_printed(&["eyJ", SEAL_KEY]);
        proxy.process().signal("KILL");
        // The next one finds no access token, only the refresh token.
        let store = config.split("file = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("the store");
        for file in std::fs::read_dir(store).expect("the store") {
            let path = file.expect("a file").path();
            if path.extension().is_some_and(|kind| kind == "token") {
                std::fs::remove_file(path).expect("removed");
            }
        }
    }
    assert_eq!(fingerprints.len(), 2 * processes);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_user_logs_in_by_browser_and_refresh_tokens_rotate_over_processes() {
    let (provider, dir) = (OidcProvider::start(), TestDir::new());
    let config = config(&provider, &dir);
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    let page = Browser::new(&provider).walk(&told_url(&process));
    assert!(page.contains("cupbearer is logged in as user"), "{page}");
    ends_well(process);
    works(&provider, &config, 3);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_user_logs_in_by_a_code_on_another_device() {
    let (provider, dir) = (OidcProvider::start(), TestDir::new());
    let config = config(&provider, &dir);
    let builder = builder();
    let process = builder.run(&config, &["login", "user", "--device"]);
    let url = told_url(&process);
    let code = process.wait_for_line("and enter the code").unwrap_or_else(|e| panic!("{e}"));
    let page = Browser::new(&provider).walk(&format!("{url}?user_code={code}"));
    assert!(page.contains("success") || page.contains("Success"), "{page}");
    ends_well(process);
    works(&provider, &config, 2);
}

/// The same user, and a key that all is bound to.
fn with_key(provider: &OidcProvider, dir: &TestDir) -> (String, String) {
    let pem = KeyPair::generate_for(&PKCS_ED25519).expect("a key").serialize_pem();
    let key = SigningKey::of_text(&Secret::new(pem.clone()), None).expect("a key that signs");
    let jkt = ProofKey::new(key).thumbprint().to_owned();
    let lines =
        format!("client_auth = \"none\"\ndpop = true\nkey = {{ file = \"{}\" }}", dir.write("key", pem).display());
    (config(provider, dir).replace("client_auth = \"none\"", &lines), jkt)
}

fn is_bound(config: &str, jkt: &str) {
    let token = builder().start(config).get("/read/x").json()["token"].clone();
    assert_eq!((&token["jkt"], &token["client_id"]), (&jkt.into(), &"native".into()));
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_login_by_browser_is_bound_to_the_key() {
    let (provider, dir) = (OidcProvider::start(), TestDir::new());
    let (config, jkt) = with_key(&provider, &dir);
    let builder = builder();
    let process = builder.run(&config, &["login", "user"]);
    let url = told_url(&process);
    assert!(url.contains(&format!("&dpop_jkt={jkt}")), "{url}");
    let page = Browser::new(&provider).walk(&url);
    assert!(page.contains("cupbearer is logged in as user"), "{page}");
    ends_well(process);
    works(&provider, &config, 2);
    is_bound(&config, &jkt);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_login_by_a_code_on_another_device_is_bound_to_the_key() {
    let (provider, dir) = (OidcProvider::start(), TestDir::new());
    let (config, jkt) = with_key(&provider, &dir);
    let builder = builder();
    let process = builder.run(&config, &["login", "user", "--device"]);
    let url = told_url(&process);
    let code = process.wait_for_line("and enter the code").unwrap_or_else(|e| panic!("{e}"));
    Browser::new(&provider).walk(&format!("{url}?user_code={code}"));
    ends_well(process);
    works(&provider, &config, 2);
    is_bound(&config, &jkt);
}

/// A credential that asks for itself, with `/NAME-read` and `/NAME-write`, one token each.
fn asking(provider: &OidcProvider, name: &str, lines: &str) -> String {
    let (url, ca) = (provider.url(), provider.ca_file());
    let mut text =
        format!("[credentials.{name}]\ntoken_url = \"{url}/token\"\nca_file = \"{}\"\n{lines}\n\n", ca.display());
    let route = |scope: &str| {
        format!(
            "[[routes]]\nprefix = \"/{name}-{scope}\"\nupstream = \"{url}/api\"\ncredential = \"{name}\"\n\
             scopes = [\"{scope}\"]\n\n"
        )
    };
    text.extend(["read", "write"].map(route));
    text
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn the_issuer_alone_is_enough_and_assertions_are_made_out_to_it() {
    let provider = OidcProvider::start();
    let url = provider.url();
    let lines = |auth: &str| {
        let key = provider.key_file("ES256").display().to_string();
        match auth {
            "post" => "client_id = \"poster\"\nclient_secret = { env = \"POST_SECRET\" }".to_owned(),
            _ => format!("client_id = \"signer-ES256\"\nclient_auth = \"{auth}\"\nkey = {{ file = \"{key}\" }}"),
        }
    };
    let by_issuer =
        |text: String| text.replace(&format!("token_url = \"{url}/token\""), &format!("issuer = \"{url}\""));
    let config = by_issuer(asking(&provider, "post", &lines("post")))
        + &by_issuer(asking(&provider, "jwt", &lines("private_key_jwt")))
        + &asking(&provider, "slash", &lines("post")).replace("token_url", "issuer").replace("/token\"", "/\"");
    let proxy = Cupbearer::builder().env("POST_SECRET", "not-a-secret").start(&config);
    assert_eq!(proxy.get("/post-read/").json()["token"]["client_id"], "poster");
    assert_eq!(proxy.get("/jwt-read/").json()["token"]["client_id"], "signer-ES256");
    let problem = proxy.get("/slash-read/").expect_problem(502, "idp_refused");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("trailing slash")), "{problem}");
    proxy.expect_never_printed(&["not-a-secret"]);
}
