//! 7 … a token request as a `curl` command line to be copied: the very request, with a shell variable (or where its
//! file is) in the place of every secret. Pure.
//!
//! The request is built once more, by the same code, from a [`Material`] with marks instead of secrets: what is not in
//! there cannot get out.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, header};

use super::{
    credential::Material,
    grant::{self, TokenRequest},
    params::{form_decoded, form_encode},
};
use crate::config::{
    model::{ClientAuth, CredentialSpec, EgressKind, Grant, IpFamily, TokenBody, TokenSpec},
    secret::{Secret, SecretSource, hides},
};

/// The command line of the request that `material` goes into; `None` where it makes no request.
pub(super) fn curl(spec: &TokenSpec, material: &Material) -> Option<String> {
    let mut marks = Marks { credential: &spec.credential, shell: Vec::new() };
    let marked = material.marked(&spec.credential, &mut |key, source| marks.new_mark(key, source));
    let request = grant::build(spec, &marked).ok()?;
    let mut line = Line { credential: &spec.credential, marks: &marks, words: Vec::new() };
    line.request(&request)?;
    line.way_out();
    let notes = notes(&spec.credential, material);
    Some(format!("{notes}curl -sS {}", line.words.join(" \\\n  ")))
}

/// What stands for each mark, by its number.
struct Marks<'a> {
    credential: &'a CredentialSpec,
    shell: Vec<String>,
}

/// Letters only, so that no encoding changes a mark; its number in three digits follows.
const MARK: &str = "zZcupbearerZz";

impl Marks<'_> {
    fn new_mark(&mut self, key: &str, source: Option<&SecretSource>) -> Secret {
        let id = &self.credential.client_id;
        let is_plain = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let shell = match source.and_then(SecretSource::shell) {
            Some(shell) => shell,
            // Of the client secret, which was marked before.
            None if key == "basic" && is_plain => {
                let secret = self.shell.first().map_or("", String::as_str);
                format!("$(printf %s \"{id}:{secret}\" | base64 -w0)")
            }
            None => format!("${}", variable(&self.credential.name, key)),
        };
        self.shell.push(shell);
        Secret::new(format!("{MARK}{:03}", self.shell.len() - 1))
    }

    /// `text` as one word of a shell, with what stands for its marks.
    fn word(&self, text: &str) -> String {
        let pieces: Vec<(&str, Option<&str>)> = self.pieces(text);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,*".contains(c);
        if pieces.iter().all(|(literal, shell)| shell.is_none() && !literal.is_empty() && literal.chars().all(plain)) {
            return text.to_owned();
        }
        let quotable = |literal: &str| !literal.contains(['"', '\\', '$', '`', '!', '\'']);
        let mut word = String::new();
        if pieces.iter().all(|(literal, _)| quotable(literal)) && pieces.iter().any(|(_, shell)| shell.is_some()) {
            word.push('"');
            for (position, (literal, shell)) in pieces.iter().enumerate() {
                word.push_str(literal);
                let next = pieces.get(position + 1).and_then(|(literal, _)| literal.chars().next());
                match shell.and_then(|shell| shell.strip_prefix('$')) {
                    Some(name)
                        if !name.starts_with('(') && next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') =>
                    {
                        let _ = write!(word, "${{{name}}}"); // writing to a String cannot fail
                    }
                    _ => word.push_str(shell.unwrap_or_default()),
                }
            }
            word.push('"');
            return word;
        }
        for (literal, shell) in pieces {
            if !literal.is_empty() {
                let _ = write!(word, "'{}'", literal.replace('\'', r"'\''"));
            }
            if let Some(shell) = shell {
                let _ = write!(word, "\"{shell}\"");
            }
        }
        if word.is_empty() { "''".to_owned() } else { word }
    }

    /// The text cut at its marks: what stands before each, and what stands for it.
    fn pieces<'t>(&'t self, text: &'t str) -> Vec<(&'t str, Option<&'t str>)> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(MARK) {
            let (number, after) = after.split_at(after.len().min(3));
            pieces.push((before, number.parse().ok().and_then(|n: usize| self.shell.get(n)).map(String::as_str)));
            rest = after;
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push((rest, None));
        }
        pieces
    }
}

/// `acme`, `client_secret` → `ACME_CLIENT_SECRET`
fn variable(credential: &str, key: &str) -> String {
    let name = format!("{credential}_{key}").to_ascii_uppercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

struct Line<'a> {
    credential: &'a CredentialSpec,
    marks: &'a Marks<'a>,
    /// One line each.
    words: Vec<String>,
}

impl Line<'_> {
    fn option(&mut self, option: &str, text: &str) {
        self.words.push(format!("{option} {}", self.marks.word(text)));
    }

    fn request(&mut self, request: &TokenRequest) -> Option<()> {
        let credential = self.credential;
        let is_query = credential.body == TokenBody::Query;
        let bases = [Some(&credential.token_target), credential.refresh_target.as_ref()];
        let base = bases.into_iter().flatten().filter(|base| request.target.starts_with(base.as_str()));
        let base = base.max_by_key(|base| base.len())?;
        let url =
            format!("{}://{}{}", credential.token_url.scheme.as_str(), credential.token_url.authority, shown(base));
        let method =
            if request.method == Method::POST && (is_query || request.body.is_empty()) { "-X POST " } else { "" };
        let place = if is_query { "-G " } else { "" };
        self.words.push(format!("{method}{place}{}", self.marks.word(&url)));
        self.headers(request)?;
        let body = std::str::from_utf8(&request.body).ok()?;
        match credential.body {
            TokenBody::Json => self.option("-d", body),
            TokenBody::Form => self.pairs(body)?,
            TokenBody::Query => self.pairs(request.target[base.len()..].trim_start_matches(['?', '&']))?,
        }
        Some(())
    }

    fn headers(&mut self, request: &TokenRequest) -> Option<()> {
        for (name, value) in &request.headers {
            let value = value.to_str().ok()?;
            let is_default = name == header::HOST
                || name == header::USER_AGENT
                || (name == header::CONTENT_TYPE && value == "application/x-www-form-urlencoded");
            if is_default {
                continue;
            }
            match basic(value).filter(|pair| name == header::AUTHORIZATION && pair.contains(MARK)) {
                Some(pair) => self.option("-u", &pair),
                None => self.option("-H", &format!("{}: {value}", titled(name.as_str()))),
            }
        }
        Some(())
    }

    fn pairs(&mut self, form: &str) -> Option<()> {
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // curl encodes what stands behind the first `=`.
            self.option("--data-urlencode", &format!("{name}={}", form_decoded(value)?));
        }
        Some(())
    }

    /// An option that takes a file: the one that the source is, or a variable that names one.
    fn file(&mut self, option: &str, source: &SecretSource, key: &str) {
        match source {
            SecretSource::File(path) => self.option(option, &path.to_string_lossy()),
            _ => self.words.push(format!("{option} \"${}_FILE\"", variable(&self.credential.name, key))),
        }
    }

    /// How the connection leaves this host.
    fn way_out(&mut self) {
        let net = &self.credential.net;
        if let Some(file) = net.ca_file.as_ref().and_then(|file| file.to_str()) {
            self.option("--cacert", file);
        }
        if let Some(own) = &net.client_cert {
            self.file("--cert", &own.chain, "client_cert");
            self.file("--key", &own.key, "client_key");
        }
        if let Some(proxy) = &net.egress_proxy {
            let scheme = match proxy.kind {
                EgressKind::Http => "http",
                EgressKind::Socks5 => "socks5h",
            };
            let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
            self.option("--proxy", &format!("{scheme}://{host}:{}", proxy.port));
        }
        if let Some(address) = net.local_address {
            self.option("--interface", &address.to_string());
        }
        match net.ip_family {
            IpFamily::Any => {}
            IpFamily::V4 => self.words.push("-4".to_owned()),
            IpFamily::V6 => self.words.push("-6".to_owned()),
        }
    }
}

/// `content-type` → `Content-Type`
fn titled(name: &str) -> String {
    let word = |word: &str| word[..1.min(word.len())].to_ascii_uppercase() + word.get(1..).unwrap_or_default();
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// A path and query without values that look like secrets.
fn shown(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if hides(name, value) => format!("{name}=****"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&"))
}

/// What `Authorization: Basic …` holds.
fn basic(value: &str) -> Option<String> {
    let bytes = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    String::from_utf8(bytes).ok()
}

/// What must be known before the command is run, as comments.
fn notes(credential: &CredentialSpec, material: &Material) -> String {
    let mut notes = String::new();
    let mut note = |text: &str| {
        let _ = writeln!(notes, "# {text}"); // writing to a String cannot fail
    };
    let secret = material.client_secret.as_ref().map_or("", Secret::expose);
    let changes = |encode: &dyn Fn(&str) -> String| !secret.is_empty() && encode(secret) != secret;
    let form = |text: &str| {
        let mut encoded = zeroize::Zeroizing::new(String::new());
        form_encode(text, &mut encoded);
        std::mem::take(&mut *encoded)
    };
    let json = |text: &str| serde_json::to_string(text).unwrap_or_default().trim_matches('"').to_owned();
    if credential.client_auth == ClientAuth::Basic && changes(&form) {
        note("cupbearer percent-encodes the client secret before it goes into Authorization (RFC 6749 section 2.3.1)");
    }
    if credential.client_auth == ClientAuth::Post && credential.body == TokenBody::Json && changes(&json) {
        note("the client secret has characters that JSON escapes");
    }
    if material.refresh.is_some() {
        note("a refresh token may be good for one use only: sent from here, it is lost to cupbearer");
    }
    let signs = credential.client_auth == ClientAuth::PrivateKeyJwt || matches!(credential.grant, Grant::JwtBearer);
    if (material.key.is_some() && signs) || credential.client_auth == ClientAuth::ClientSecretJwt {
        note("the assertion is signed anew for each request, and good for a minute");
    }
    if credential.dpop {
        note("the header DPoP is missing here: its proof is signed anew for each request (RFC 9449)");
    }
    notes
}
