//! `cupbearer check`: reads the file as `serve` would, without any network; with `--online` it asks each provider for
//! one token.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{
    BAD_CONFIG, FileArgs, Format, Global, OutputArgs, online,
    output::{columns, say, tell},
    serve,
    told::Told,
};
use crate::config::{
    self, Diagnostic, Severity, Warning,
    model::{CallerIdentity, ClientAuth, Config, CredentialSpec, Grant, RouteCallers, RouteSpec, TokenBody, TokenSpec},
    secret::SecretSource,
};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Asks for one real token per credential and explains what came of it.
    #[arg(long)]
    online: bool,
    /// With --online: only these credentials.
    #[arg(value_name = "CREDENTIAL", requires = "online")]
    credentials: Vec<String>,
    /// With --online: one request for each token that the routes need, instead of one per credential.
    #[arg(long, requires = "online")]
    every_token: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Prints what the file would do and its warnings (exit 0), or all its problems (exit 2). Online also what each
/// provider said; exit 2 if any token is missing for want of something here, else 3 if any provider gave none.
pub(super) fn run(args: &CheckArgs, global: &Global) -> ExitCode {
    let loaded = config::load(&global.config);
    if let Ok((config, _)) = &loaded
        && let Err(error) = online::questions(config, &args.credentials, args.every_token)
    {
        tell(format_args!("error: {error}"));
        return ExitCode::from(BAD_CONFIG);
    }
    match (loaded, args.output.format) {
        (Ok((config, warnings)), Format::Text) => {
            for Warning(diagnostic) in &warnings {
                tell(format!("{diagnostic}\n"));
            }
            say(format!("{} is fine: {}", global.config.display(), counts(&config, warnings.len())));
            say(summary(&config).trim_end());
            ask(args, &config, |told| say(format!("\n{}", told.text().trim_end())))
        }
        (Ok((config, warnings)), Format::Json) => {
            let warnings: Vec<Value> = warnings.iter().map(|Warning(d)| d.to_json()).collect();
            let mut answer = as_json(&config);
            answer["problems"] = json!([]);
            answer["warnings"] = warnings.into();
            let mut online = Vec::new();
            let code = ask(args, &config, |told| online.push(told.json()));
            answer["ok"] = (code == ExitCode::SUCCESS).into();
            if args.online {
                answer["online"] = online.into();
            }
            say(format!("{answer:#}"));
            code
        }
        (Err(problems), Format::Text) => {
            tell(problems);
            ExitCode::from(BAD_CONFIG)
        }
        (Err(problems), Format::Json) => {
            let of = |severity: Severity| -> Vec<Value> {
                problems.0.iter().filter(|d| d.severity == severity).map(Diagnostic::to_json).collect()
            };
            let answer = json!({ "ok": false, "problems": of(Severity::Error), "warnings": of(Severity::Warning) });
            say(format!("{answer:#}"));
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// Asks the providers, if that is wanted.
fn ask(args: &CheckArgs, config: &Config, mut show: impl FnMut(&Told<'_>)) -> ExitCode {
    if !args.online {
        return ExitCode::SUCCESS;
    }
    let mut code = 0;
    let asked = online::questions(config, &args.credentials, args.every_token).and_then(|questions| {
        let asking = online::ask(config, &questions, |question, inquiry| {
            show(&Told { question, inquiry: &inquiry });
            code = online::exit_code(code, &inquiry);
        });
        serve::block_on(asking).map_err(|e| e.to_string()).and_then(|asked| asked)
    });
    match asked {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(BAD_CONFIG)
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn counts(config: &Config, warnings: usize) -> String {
    let mut parts = vec![counted(config.routes.len(), "route"), counted(config.credentials.len(), "credential")];
    if !config.callers.is_empty() {
        parts.push(counted(config.callers.len(), "caller"));
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    parts.join(", ")
}

fn summary(config: &Config) -> String {
    let listen: Vec<Vec<String>> =
        config.server.listen.iter().map(|l| vec![format!("{}://{}", l.scheme().as_str(), l.address)]).collect();
    let routes: Vec<Vec<String>> = config.routes.iter().map(route_row).collect();
    let credentials: Vec<Vec<String>> = config.credentials.iter().map(|c| credential_row(c)).collect();
    let callers: Vec<Vec<String>> = config
        .callers
        .iter()
        .map(|c| {
            vec![
                c.name.clone(),
                identity(&c.identity).to_owned(),
                c.routes.as_ref().map_or("all routes".to_owned(), |r| r.join(" ")),
            ]
        })
        .collect();
    let section = |title: &str, rows: &[Vec<String>]| match rows {
        [] => String::new(),
        rows => format!("\n{title}\n{}", columns(rows)),
    };
    section("listening on", &listen)
        + &section("routes", &routes)
        + &section("credentials", &credentials)
        + &section("callers", &callers)
}

/// What a token is asked for: `scopes billing, audience …`; empty = nothing in particular.
pub(super) fn wants(token: &TokenSpec) -> String {
    let mut wants = Vec::new();
    if !token.scopes.is_empty() {
        wants.push(format!("scopes {}", token.scopes.join(" ")));
    }
    wants.extend(token.audience.iter().map(|a| format!("audience {a}")));
    if !token.resource.is_empty() {
        wants.push(format!("resource {}", token.resource.join(" ")));
    }
    wants.join(", ")
}

fn route_row(route: &RouteSpec) -> Vec<String> {
    let callers = match &route.callers {
        RouteCallers::Known => String::new(),
        RouteCallers::Anyone => "anyone".to_owned(),
        RouteCallers::Named(names) => format!("for {}", names.join(" ")),
    };
    vec![
        shown_prefix(route).to_owned(),
        format!("→ {}", route.upstream),
        format!("credential {}", route.token.credential.name),
        wants(&route.token),
        callers,
    ]
}

pub(super) fn shown_prefix(route: &RouteSpec) -> &str {
    if route.prefix.is_empty() { "/" } else { &route.prefix }
}

fn credential_row(credential: &CredentialSpec) -> Vec<String> {
    vec![
        credential.name.clone(),
        credential.provider.clone().unwrap_or_default(),
        match credential.grant {
            Grant::Static { .. } => "static token, no token request".to_owned(),
            Grant::SelfSigned => "token signed here, no token request".to_owned(),
            _ => format!("{} → {}", how(credential), origin(credential)),
        },
        secrets(credential),
    ]
}

/// Where its tokens come from.
pub(super) fn origin(credential: &CredentialSpec) -> String {
    match &credential.grant {
        Grant::Static { token } => token.to_string(),
        Grant::SelfSigned => "nobody: it is signed here".to_owned(),
        _ => match credential.issuer.as_ref().filter(|issuer| issuer.tells_token_url) {
            Some(issuer) => format!("the token endpoint of {}", issuer.identifier),
            None => credential.token_url.to_string(),
        },
    }
}

/// Where its tokens come from, for programs; `None` where that is yet to be discovered.
pub(super) fn token_url(credential: &CredentialSpec) -> Option<String> {
    (!credential.is_discovered()).then(|| origin(credential))
}

/// The one that matters most, and with several client secrets all of them, in the order in which they are tried.
fn secrets(credential: &CredentialSpec) -> String {
    let Some(first) = secret(credential) else { return "no secret".to_owned() };
    let more = credential.client_secret.is_some().then_some(&credential.more_secrets).into_iter().flatten();
    more.fold(format!("secret: {first}"), |all, next| format!("{all}, then {next}"))
}

/// The one that matters most.
fn secret(credential: &CredentialSpec) -> Option<&SecretSource> {
    let of_key = || credential.key.as_ref().or(credential.assertion.ready.as_ref());
    let of_certificate = || credential.net.client_cert.as_ref().map(|certificate| &certificate.key);
    credential.client_secret.as_ref().or_else(|| credential.grant.source()).or_else(of_key).or_else(of_certificate)
}

/// How a token is asked for: `post form`.
pub(super) fn how(credential: &CredentialSpec) -> String {
    let bound = if credential.dpop { " dpop" } else { "" };
    format!("{} {}{bound}", auth(credential.client_auth), body(credential.body))
}

pub(super) fn auth(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::Basic => "basic",
        ClientAuth::BasicRaw => "basic_raw",
        ClientAuth::Post => "post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
        ClientAuth::Mtls => "mtls",
        ClientAuth::ClientSecretJwt => "client_secret_jwt",
        ClientAuth::None => "none",
    }
}

pub(super) fn body(body: TokenBody) -> &'static str {
    match body {
        TokenBody::Form => "form",
        TokenBody::Json => "json",
        TokenBody::Query => "query",
    }
}

pub(super) fn identity(identity: &CallerIdentity) -> &'static str {
    match identity {
        CallerIdentity::ApiKey(_) => "api key",
        CallerIdentity::Cidr(_) => "address",
    }
}

fn as_json(config: &Config) -> Value {
    let route = |r: &RouteSpec| {
        json!({
            "prefix": shown_prefix(r),
            "upstream": r.upstream.to_string(),
            "credential": r.token.credential.name,
            "scopes": r.token.scopes,
            "audience": r.token.audience,
            "resource": r.token.resource,
        })
    };
    let credential = |c: &CredentialSpec| {
        json!({
            "name": c.name,
            "provider": c.provider,
            "token_url": token_url(c),
            "issuer": c.issuer.as_ref().map(|issuer| &issuer.identifier),
            "client_auth": auth(c.client_auth),
            "body": body(c.body),
            "grant": c.grant.as_str(),
            "dpop": c.dpop,
            "secret": secret(c).map(ToString::to_string),
        })
    };
    json!({
        "listen": config.server.listen.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(),
        "routes": config.routes.iter().map(route).collect::<Vec<_>>(),
        "credentials": config.credentials.iter().map(|c| credential(c)).collect::<Vec<_>>(),
        "callers": config.callers.iter().map(|c| json!({ "name": c.name, "identity": identity(&c.identity) })).collect::<Vec<_>>(),
    })
}
