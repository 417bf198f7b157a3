//! Client certificates: what a pair must be, and exactly what is said where it is not.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};

use super::{sources::Dir, *};
use crate::config::{model::ClientAuth, secret::SecretSource};

/// A certificate that is valid until the beginning of this day, in a file; and its key.
fn pair(dir: &Dir, (year, month, day): (i32, u8, u8)) -> (PathBuf, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(year, month, day);
    (dir.file("client.pem", &params.self_signed(&key).unwrap().pem()), key.serialize_pem())
}

fn text(lines: &str) -> String {
    let url = "token_url = \"https://a.example/t\"";
    let route = "[[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"acme\"\n";
    format!("[credentials.acme]\n{url}\nclient_id = \"i\"\n{lines}\n{route}")
}

fn parsed(text: &str, key: &str) -> Result<(Config, Vec<String>), Vec<String>> {
    let with_key = |name: &str| if name == "CLIENT_KEY" { Some(key.to_owned()) } else { env(name) };
    match parse(text, &with_key) {
        Ok((config, warnings)) => Ok((config, warnings.iter().map(|Warning(d)| short(d)).collect())),
        Err(Problems(list)) => Err(list.iter().map(short).collect()),
    }
}

fn lines(chain: &std::path::Path, more: &str) -> String {
    text(&format!("client_cert = \"{}\"\nclient_key.env = \"CLIENT_KEY\"\n{more}", chain.display()))
}

#[test]
fn a_pair_belongs_to_the_way_out_and_goes_with_any_client_auth() {
    let dir = Dir::new("pair");
    let (chain, key) = pair(&dir, (2200, 1, 1));
    let (config, warnings) = parsed(&lines(&chain, "client_auth = \"mtls\""), &key).unwrap();
    let credential = &config.credentials[0];
    assert_eq!(
        (credential.client_auth, credential.presents_certificate(), warnings.len()),
        (ClientAuth::Mtls, true, 0)
    );
    let identity = credential.net.client_cert.as_ref().unwrap();
    assert_eq!(identity.chain, SecretSource::File(chain.clone()));
    assert!(matches!(&identity.key, SecretSource::Given { name, .. } if name == "CLIENT_KEY"));
    let (config, _) = parsed(&lines(&chain, "client_secret.env = \"SECRET\""), &key).unwrap();
    assert_eq!(config.credentials[0].client_auth, ClientAuth::Post);
    // What a command would print is not asked for now.
    let by_command = lines(&chain, "client_auth = \"mtls\"").replace("env = \"CLIENT_KEY\"", "command = [\"false\"]");
    parsed(&by_command, &key).unwrap();
}

#[test]
fn the_certificate_is_the_credentials_also_where_a_route_has_a_way_out_of_its_own() {
    let dir = Dir::new("route");
    let (chain, key) = pair(&dir, (2200, 1, 1));
    let own = format!("{}local_address = \"127.0.0.2\"\n", lines(&chain, "client_auth = \"mtls\""));
    let (config, _) = parsed(&own, &key).unwrap();
    let (route, credential) = (&config.routes[0], &config.credentials[0]);
    assert_ne!(route.net, credential.net);
    assert!(route.net.client_cert.is_some() && route.net.client_cert == credential.net.client_cert);
}

#[test]
fn the_end_of_a_certificate_is_warned_of_and_then_a_problem() {
    let dir = Dir::new("end");
    let in_days = |days: i64| {
        let day = jiff::Zoned::now().date().saturating_add(jiff::Span::new().days(days));
        let number = |n: i8| u8::try_from(n).unwrap();
        ((i32::from(day.year()), number(day.month()), number(day.day())), day)
    };
    let (soon, day) = in_days(5);
    let (chain, key) = pair(&dir, soon);
    let (_, warnings) = parsed(&lines(&chain, "client_auth = \"mtls\""), &key).unwrap();
    assert_eq!(warnings, [format!("4:15 the `client_cert` of [credentials.acme] expires on {day}")]);
    let (over, day) = in_days(-1);
    let (chain, key) = pair(&dir, over);
    let problems = parsed(&lines(&chain, "client_auth = \"mtls\""), &key).unwrap_err();
    let hint = "ask its issuer for a new one; files that change later are re-read at once";
    let expected = format!("4:15 [credentials.acme]: the certificate of client_cert expired on {day} ({hint})");
    assert_eq!(problems, [expected]);
}

#[test]
fn half_a_pair_and_one_that_does_not_fit_are_problems_with_their_place() {
    let dir = Dir::new("misfit");
    let (chain, key) = pair(&dir, (2200, 1, 1));
    let mtls = "client_auth = \"mtls\"";
    let other = KeyPair::generate().unwrap().serialize_pem();
    let misfit = "4:15 [credentials.acme]: client_cert and client_key don't belong together: the key is not the one of \
                  the first certificate (the certificate of this key stands first in client_cert, then its issuers)";
    assert_eq!(parsed(&lines(&chain, mtls), &other).unwrap_err(), [misfit]);
    let no_key = "5:1 [credentials.acme]: client_key is no private key in PEM form (PKCS#8, PKCS#1 or SEC1, not \
                  encrypted; RSA, ECDSA or Ed25519) (`openssl pkey -in OLD -out NEW` writes any private key in this \
                  form, without its password)";
    assert_eq!(parsed(&lines(&chain, mtls), "not-a-key").unwrap_err(), [no_key]);
    let half = |keys: &str| parsed(&text(keys), &key).unwrap_err();
    let cert_hint = "client_cert = \"client.pem\": the chain, in PEM form";
    let key_hint = "client_key = { file = \"client.key\" }, or another secret source: in PEM form";
    assert_eq!(
        half(mtls),
        [
            format!("1:14 [credentials.acme] has no `client_cert` ({cert_hint})"),
            format!("1:14 [credentials.acme] has no `client_key` ({key_hint})"),
        ]
    );
    let secret = "client_secret.env = \"SECRET\"";
    assert_eq!(
        half(&format!("{secret}\nclient_key.env = \"CLIENT_KEY\"")),
        [format!("1:14 [credentials.acme] has no `client_cert` to go with its `client_key` ({cert_hint})")]
    );
    let sent = "6:1 [credentials.acme] has a `client_secret`, but client_auth = \"mtls\" sends none";
    assert_eq!(parsed(&lines(&chain, &format!("{secret}\n{mtls}")), &key).unwrap_err(), [sent]);
}

#[test]
fn over_plain_http_nothing_is_presented_which_is_said() {
    let dir = Dir::new("plain");
    let (chain, key) = pair(&dir, (2200, 1, 1));
    let plain = |auth: &str| {
        let text = lines(&chain, auth);
        parsed(&text.replace("https://a.example", "http://127.0.0.1:9"), &key)
    };
    let token = "2:1 `token_url` is plain http, where no `client_cert` is presented (https:// to the provider itself)";
    let api = "9:12 this `upstream` is plain http, where the credential's `client_cert` is not presented";
    assert_eq!(plain("client_secret.env = \"SECRET\"").unwrap().1, [token, api]);
    assert_eq!(plain("client_auth = \"mtls\"").unwrap_err()[0], token);
}

#[test]
fn a_certificate_that_an_assertion_is_to_name_is_that_of_its_key() {
    let dir = Dir::new("key-cert");
    let (chain, key) = pair(&dir, (2200, 1, 1));
    let signs = "client_auth = \"private_key_jwt\"\nkey.env = \"CLIENT_KEY\"";
    let written = text(&format!("{signs}\nkey_cert = {{ file = \"{}\" }}", chain.display()));
    let (config, warnings) = parsed(&written, &key).unwrap();
    assert_eq!((config.credentials[0].presents_certificate(), warnings.len()), (false, 0));
    let other = KeyPair::generate().unwrap().serialize_pem();
    let told = parsed(&written, &other).unwrap_err();
    assert_eq!(
        told,
        [
            "6:12 `key_cert` in [credentials.acme] is no good: key_cert and key don't belong together: the key is not the one of the \
          first certificate (the certificate of this key stands first in key_cert, then its issuers)"
        ]
    );
}
