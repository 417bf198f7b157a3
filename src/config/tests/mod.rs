//! Whole files in, configurations or exact diagnostics out.

mod documented;
mod egress;
mod good;
mod identities;
mod masking;
mod problems;
mod properties;
mod sources;

use super::{Diagnostic, Problems, Severity, Warning, model::Config, parse};

/// An environment in which nothing is real.
fn env(name: &str) -> Option<String> {
    match name {
        "ID" => Some("my-client".to_owned()),
        "SECRET" => Some("not-a-secret\n".to_owned()),
        "KEY" => Some("not-a-secret-key-for-tests".to_owned()),
        "KEY_2" => Some("not-a-secret-key-for-others".to_owned()),
        "SHORT" => Some("not-secret".to_owned()),
        "EMPTY" => Some(String::new()),
        "SEAL_KEY" => Some("c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=".to_owned()),
        "PEM" => Some(p256_key().to_owned()),
        "RSA_PEM" => Some(rsa_key().to_owned()),
        "BAD_PEM" => Some("-----BEGIN\nnot-a-key\nEND-----\n".to_owned()),
        "PORT" => Some("9000".to_owned()),
        _ => None,
    }
}

/// The same, for what signs by RS256 or PS256.
pub(crate) fn rsa_key() -> &'static str {
    use aws_lc_rs::{encoding::AsDer, encoding::Pkcs8V1Der, rsa};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    static KEY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    KEY.get_or_init(|| {
        let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
    })
}

/// Made anew in each run: no key material stands in the repository.
fn p256_key() -> &'static str {
    static KEY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    KEY.get_or_init(|| rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem())
}

/// A credential and a route that are right, for files that are wrong elsewhere.
const BASE: &str = r#"
[credentials.acme]
provider = "ipxo"
client_id = "my-client"
client_secret = { env = "SECRET" }

[[routes]]
prefix = "/ipxo"
api = "billing"
credential = "acme"
"#;

/// The configuration and its warnings.
fn good(text: &str) -> (Config, Vec<String>) {
    let (config, warnings) = parse(text, &env).unwrap_or_else(|problems| panic!("{problems}"));
    (config, warnings.iter().map(|Warning(d)| short(d)).collect())
}

/// Every diagnostic of a file that is refused, as `LINE:COLUMN message (hint)`.
fn bad(text: &str) -> Vec<String> {
    let Problems(list) = parse(text, &env).err().unwrap_or_else(|| panic!("no problem in:\n{text}"));
    list.iter().filter(|d| d.severity == Severity::Error).map(short).collect()
}

/// What is wrong in `section`, which is put before a good rest; lines count from the section's first.
fn bad_with(section: &str) -> Vec<String> {
    bad(&format!("{section}\n{BASE}"))
}

fn short(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.place.as_ref().map(|p| format!("{}:{} ", p.line, p.column)).unwrap_or_default();
    let hint = diagnostic.hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default();
    format!("{place}{}{hint}", diagnostic.message)
}
