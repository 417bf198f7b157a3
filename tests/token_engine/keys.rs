//! The identity of a token: everything that changes the token changes the key, and nothing else does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cupbearer::{
    config::{
        model::{
            Alg, ClientAuth, ClientCert, CredentialSpec, ExpiresUnit, Expiry, Grant, IpFamily, NetSpec, Param, Scheme,
            TokenBody, TokenMethod, TokenSpec, Warm,
        },
        secret::{Secret, SecretSource, VaultSecret},
    },
    token::Key,
};

use crate::support::{credential, need};

type Change = (&'static str, fn(&mut TokenSpec));

fn keyring(service: &str, account: &str) -> SecretSource {
    SecretSource::Keyring { service: service.to_owned(), account: account.to_owned() }
}

fn vault(mount: &str, path: &str, field: &str) -> SecretSource {
    let [mount, path, field] = [mount, path, field].map(str::to_owned);
    SecretSource::Vault(VaultSecret { mount, path, field })
}

fn credential_of(spec: &mut TokenSpec) -> &mut CredentialSpec {
    Arc::make_mut(&mut spec.credential)
}

fn net(spec: &mut TokenSpec) -> &mut NetSpec {
    Arc::make_mut(&mut credential_of(spec).net)
}

fn other() -> String {
    "other".to_owned()
}

fn password(username: &str, variable: &str) -> Grant {
    Grant::Password { username: username.to_owned(), password: SecretSource::Env(variable.to_owned()) }
}

fn exchange(variable: &str, kind: &str, requested: Option<&str>) -> Grant {
    Grant::TokenExchange {
        subject_token: SecretSource::Env(variable.to_owned()),
        subject_token_type: kind.to_owned(),
        requested_token_type: requested.map(str::to_owned),
    }
}

fn pair(chain: &str, variable: &str) -> ClientCert {
    ClientCert { chain: SecretSource::File(PathBuf::from(chain)), key: SecretSource::Env(variable.to_owned()) }
}

const CHANGES: &[Change] = &[
    ("scheme", |s| credential_of(s).token_url.scheme = Scheme::Https),
    ("host", |s| credential_of(s).token_url.host = other()),
    ("port", |s| credential_of(s).token_url.port = 2),
    ("path", |s| credential_of(s).token_target = other()),
    ("client_id", |s| credential_of(s).client_id = other()),
    ("no secret", |s| credential_of(s).client_secret = None),
    ("secret file", |s| credential_of(s).client_secret = Some(SecretSource::File(PathBuf::from("other")))),
    ("secret env", |s| credential_of(s).client_secret = Some(SecretSource::Env("other".to_owned()))),
    ("secret in vault", |s| credential_of(s).client_secret = Some(vault("secret", "a", "b"))),
    ("another mount", |s| credential_of(s).client_secret = Some(vault("kv", "a", "b"))),
    ("another path", |s| credential_of(s).client_secret = Some(vault("secret", "c", "b"))),
    ("another field", |s| credential_of(s).client_secret = Some(vault("secret", "a", "c"))),
    ("secret in a keyring", |s| credential_of(s).client_secret = Some(keyring("a", "b"))),
    ("another account", |s| credential_of(s).client_secret = Some(keyring("a", "c"))),
    ("another service", |s| credential_of(s).client_secret = Some(keyring("c", "b"))),
    ("secret command", |s| credential_of(s).client_secret = Some(SecretSource::Command(vec!["other".to_owned()]))),
    ("given secret", |s| {
        let value = Secret::new("not-a-secret".to_owned());
        credential_of(s).client_secret = Some(SecretSource::Given { name: "other".to_owned(), value });
    }),
    ("client_auth", |s| credential_of(s).client_auth = ClientAuth::Basic),
    ("client_auth raw", |s| credential_of(s).client_auth = ClientAuth::BasicRaw),
    ("no grant_type", |s| credential_of(s).grant_type = None),
    ("empty grant_type", |s| credential_of(s).grant_type = Some(String::new())),
    ("body", |s| credential_of(s).body = TokenBody::Json),
    ("body in the query", |s| credential_of(s).body = TokenBody::Query),
    ("method", |s| credential_of(s).method = TokenMethod::Get),
    ("header template", |s| {
        credential_of(s).headers = vec![("a".to_owned(), Param::Template("b".to_owned()))];
    }),
    ("static", |s| credential_of(s).grant = Grant::Static { token: SecretSource::Env("a".to_owned()) }),
    ("another static", |s| credential_of(s).grant = Grant::Static { token: SecretSource::Env("b".to_owned()) }),
    ("password", |s| credential_of(s).grant = password("a", "b")),
    ("another user", |s| credential_of(s).grant = password("b", "b")),
    ("another password", |s| credential_of(s).grant = password("a", "a")),
    ("refresh_token", |s| credential_of(s).grant = Grant::RefreshToken { first: None }),
    ("first refresh_token", |s| {
        credential_of(s).grant = Grant::RefreshToken { first: Some(SecretSource::Env("a".to_owned())) };
    }),
    ("refresh_token of another login", |s| {
        credential_of(s).grant = Grant::RefreshToken { first: None };
        credential_of(s).name = other();
    }),
    ("jwt_bearer", |s| credential_of(s).grant = Grant::JwtBearer),
    ("self_signed", |s| credential_of(s).grant = Grant::SelfSigned),
    ("token_exchange", |s| credential_of(s).grant = exchange("a", "b", None)),
    ("subject_token", |s| credential_of(s).grant = exchange("b", "b", None)),
    ("subject_token_type", |s| credential_of(s).grant = exchange("a", "a", None)),
    ("requested_token_type", |s| credential_of(s).grant = exchange("a", "b", Some("c"))),
    ("private_key_jwt", |s| credential_of(s).client_auth = ClientAuth::PrivateKeyJwt),
    ("client_secret_jwt", |s| credential_of(s).client_auth = ClientAuth::ClientSecretJwt),
    ("key", |s| credential_of(s).key = Some(SecretSource::Env("a".to_owned()))),
    ("key_id", |s| credential_of(s).key_id = Some("a".to_owned())),
    ("alg", |s| credential_of(s).alg = Some(Alg::Es256)),
    ("ready assertion", |s| credential_of(s).assertion.ready = Some(SecretSource::Env("a".to_owned()))),
    ("dpop", |s| credential_of(s).dpop = true),
    ("claims", |s| credential_of(s).assertion.claims = vec![("a".to_owned(), "b".to_owned())]),
    ("refresh_url", |s| credential_of(s).refresh_target = Some(other())),
    ("id_param", |s| credential_of(s).id_param = other()),
    ("secret_param", |s| credential_of(s).secret_param = other()),
    ("scopes", |s| s.scopes = vec!["a b".to_owned()]),
    ("more scopes", |s| s.scopes = vec!["a".to_owned(), "b".to_owned()]),
    ("scope_separator", |s| credential_of(s).scope_separator = other()),
    ("audience", |s| s.audience = Some("a".to_owned())),
    ("empty audience", |s| s.audience = Some(String::new())),
    ("resource", |s| s.resource = vec!["a".to_owned()]),
    ("params", |s| credential_of(s).params = vec![("a".to_owned(), Param::Plain("b".to_owned()))]),
    ("secret params", |s| {
        credential_of(s).params = vec![("a".to_owned(), Param::Secret(SecretSource::Env("b".to_owned())))];
    }),
    ("headers", |s| credential_of(s).headers = vec![("a".to_owned(), Param::Plain("b".to_owned()))]),
    ("token_field", |s| credential_of(s).token_field = other()),
    ("expires_field", |s| credential_of(s).expires_field = other()),
    ("expires_unit", |s| credential_of(s).expires_unit = ExpiresUnit::Millis),
    ("default_ttl", |s| credential_of(s).default_ttl = Duration::from_secs(1)),
    ("expiry", |s| credential_of(s).expiry = Expiry::Sliding),
    ("warm", |s| credential_of(s).warm = Warm::Always),
    ("share", |s| credential_of(s).share = false),
    ("timeout", |s| credential_of(s).timeout = Duration::from_secs(1)),
    ("local_address", |s| net(s).local_address = Some([127, 0, 0, 2].into())),
    ("ip_family", |s| net(s).ip_family = IpFamily::V4),
    ("ca_file", |s| net(s).ca_file = Some(PathBuf::from("other"))),
    ("client_auth mtls", |s| credential_of(s).client_auth = ClientAuth::Mtls),
    ("client_cert", |s| net(s).client_cert = Some(pair("a", "b"))),
    ("another client_cert", |s| net(s).client_cert = Some(pair("b", "b"))),
    ("another client_key", |s| net(s).client_cert = Some(pair("a", "a"))),
];

#[test]
fn whatever_changes_a_token_or_its_keeping_changes_its_key() {
    let base = need(credential(1));
    let mut keys = vec![("nothing", Key::of(&base))];
    for (what, change) in CHANGES {
        let mut spec = (*base).clone();
        change(&mut spec);
        let key = Key::of(&spec);
        if let Some((other, _)) = keys.iter().find(|(_, known)| *known == key) {
            panic!("{what} gives the same key as {other}");
        }
        keys.push((what, key));
    }
}

#[test]
fn neither_the_name_nor_any_order_is_part_of_the_key() {
    let mut one = (*need(credential(1))).clone();
    let pair = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    let params = |a: &str, b: &str| [a, b].map(|n| (n.to_owned(), Param::Plain(n.to_owned()))).to_vec();
    (one.scopes, one.resource) = (pair("a", "b"), pair("c", "d"));
    let mut other = one.clone();
    (other.scopes, other.resource) = (pair("b", "a"), pair("d", "c"));
    other.scopes.push("a".to_owned());
    credential_of(&mut one).params = params("x", "y");
    credential_of(&mut other).params = params("y", "x");
    credential_of(&mut other).name = "another".to_owned();
    assert_eq!(Key::of(&one), Key::of(&other));
}

#[test]
fn a_key_shows_eight_digits_of_itself() {
    let key = Key::of(&need(credential(1)));
    assert_eq!(key.to_string().len(), 8);
    assert_eq!(format!("{key:?}"), format!("Key({key})"));
}
