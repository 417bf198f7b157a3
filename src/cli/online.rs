//! What `check --online` and `token` share: which token is asked for, and the asking.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{BAD_CONFIG, REFUSED, check::shown_prefix, output};
use crate::{
    config::{
        self,
        model::{Config, CredentialSpec, RouteSpec, TokenSpec},
    },
    control::{self, Signals},
    token::{Engine, Inquiry, Key, inquiry},
};

/// One token that is to be asked for.
pub(super) struct Question {
    /// What is asked for.
    pub(super) spec: Arc<TokenSpec>,
    /// Prefixes of the routes that use this very token; none = no route uses the credential.
    pub(super) routes: Vec<String>,
    /// The other tokens of the same credential, with their routes: not asked for.
    pub(super) others: Vec<(Arc<TokenSpec>, Vec<String>)>,
}

impl Question {
    pub(super) fn credential(&self) -> &CredentialSpec {
        &self.spec.credential
    }
}

/// The tokens of a credential, each with its routes, in the order of the file.
fn tokens_of(config: &Config, credential: &Arc<CredentialSpec>) -> Vec<(Arc<TokenSpec>, Vec<String>)> {
    let mut tokens: Vec<(Key, Arc<TokenSpec>, Vec<String>)> = Vec::new();
    for route in config.routes.iter().filter(|route| route.token.credential.name == credential.name) {
        let (key, prefix) = (Key::of(&route.token), shown_prefix(route).to_owned());
        match tokens.iter_mut().find(|(known, ..)| *known == key) {
            Some((.., prefixes)) => prefixes.push(prefix),
            None => tokens.push((key, Arc::clone(&route.token), vec![prefix])),
        }
    }
    if tokens.is_empty() {
        return vec![(Arc::new(own_token(credential)), Vec::new())];
    }
    tokens.into_iter().map(|(_, spec, prefixes)| (spec, prefixes)).collect()
}

/// What a credential asks for where no route says otherwise.
fn own_token(credential: &Arc<CredentialSpec>) -> TokenSpec {
    let CredentialSpec { scopes, audience, resource, .. } = &**credential;
    let (scopes, audience, resource) = (scopes.clone(), audience.clone(), resource.clone());
    TokenSpec { credential: Arc::clone(credential), scopes, audience, resource }
}

/// One question for each credential among `names` (none = all), for the token of its first route; with `every`
/// one for each token.
pub(super) fn questions(config: &Config, names: &[String], every: bool) -> Result<Vec<Question>, String> {
    for name in names {
        find(config, name)?;
    }
    let wanted = |c: &&Arc<CredentialSpec>| names.is_empty() || names.contains(&c.name);
    let mut questions = Vec::new();
    for credential in config.credentials.iter().filter(wanted) {
        let mut tokens = tokens_of(config, credential);
        let others = if every { Vec::new() } else { tokens.split_off(1) };
        for (spec, routes) in tokens {
            questions.push(Question { spec, routes, others: others.clone() });
        }
    }
    Ok(questions)
}

/// The question for the credential `name`, and for the token that the route at `prefix` needs of it.
pub(super) fn question(config: &Config, name: &str, prefix: Option<&str>) -> Result<Question, String> {
    let credential = find(config, name)?;
    let mut tokens = tokens_of(config, credential);
    if let Some(prefix) = prefix {
        let key = Key::of(&route_of(config, credential, prefix)?.token);
        let at = tokens.iter().position(|(spec, _)| Key::of(spec) == key).unwrap_or_default();
        tokens.swap(0, at);
    }
    let others = tokens.split_off(1);
    let (spec, routes) = tokens.remove(0);
    Ok(Question { spec, routes, others })
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Arc<CredentialSpec>, String> {
    let names = || config.credentials.iter().map(|c| c.name.as_str());
    config.credentials.iter().find(|c| c.name == name).ok_or_else(|| {
        let list = names().collect::<Vec<_>>().join(", ");
        let there = if list.is_empty() { "the file defines none".to_owned() } else { format!("there is {list}") };
        let near = config::did_you_mean(name, names()).map_or_else(String::new, |near| format!("{near} "));
        format!("no credential is called `{}`\n  hint: {near}{there}", name.escape_debug())
    })
}

fn route_of<'a>(config: &'a Config, credential: &CredentialSpec, prefix: &str) -> Result<&'a RouteSpec, String> {
    let written = prefix.trim_end_matches('/');
    let written = if written.is_empty() { "/" } else { written };
    let own = || config.routes.iter().filter(|route| route.token.credential.name == credential.name).map(shown_prefix);
    let list = || own().collect::<Vec<_>>().join(", ");
    match config.routes.iter().find(|route| shown_prefix(route) == written) {
        Some(route) if route.token.credential.name == credential.name => Ok(route),
        Some(route) => Err(format!(
            "the route {written} uses the credential `{}`, not `{}`\n  hint: routes of `{}`: {}",
            route.token.credential.name,
            credential.name,
            credential.name,
            list()
        )),
        None => {
            let near = config::did_you_mean(written, own()).map_or_else(String::new, |near| format!("{near} "));
            let there = match list() {
                none if none.is_empty() => format!("no route uses `{}`; leave --route out", credential.name),
                list => format!("routes of `{}`: {list}", credential.name),
            };
            Err(format!("there is no route `{}`\n  hint: {near}{there}", prefix.escape_debug()))
        }
    }
}

/// The exit code for what came of one question, after `so_far` for those before: a bad file comes first, then no token.
pub(super) fn exit_code(so_far: u8, inquiry: &Inquiry) -> u8 {
    match &inquiry.result {
        Ok(_) => so_far,
        Err(_) if inquiry.is_own_fault() || so_far == BAD_CONFIG => BAD_CONFIG,
        Err(_) => REFUSED,
    }
}

/// Asks all at once; hands over what came of each, in the order of the questions. The error is one of the
/// configuration's: then nothing was sent.
pub(super) async fn ask(
    config: &Config,
    questions: &[Question],
    mut tell: impl FnMut(&Question, Inquiry),
) -> Result<(), String> {
    // Before anything is sent: unhandled, a signal would lose the refresh token in an answer.
    let mut signals = Signals::listen().map_err(|e| e.to_string())?;
    let store = questions.iter().any(|question| inquiry::needs_store(question.credential()));
    let engine = control::engine(config, store).map_err(|e| e.to_string())?;
    let asked: Result<Vec<_>, _> = questions.iter().map(|question| engine.inquire(&question.spec)).collect();
    let running: Vec<_> = asked.map_err(|e| e.to_string())?.into_iter().map(tokio::spawn).collect();
    let mut answers = questions.iter().zip(running);
    while let Some((question, mut running)) = answers.next() {
        tokio::select! {
            inquiry = &mut running => tell(question, inquiry.map_err(|e| e.to_string())?),
            signal = signals.stop() => {
                let rest = std::iter::once(running).chain(answers.by_ref().map(|(_, running)| running)).collect();
                end(signal, &engine, rest, &mut signals).await;
            }
        }
    }
    engine.stop().await; // a refresh token that could not be stored has its last chance
    Ok(())
}

/// Ends the process, after those who may have used up a refresh token; a second signal ends it at once.
async fn end(signal: &str, engine: &Engine, running: Vec<JoinHandle<Inquiry>>, signals: &mut Signals) -> ! {
    let rest = async {
        // First, so that nothing new is begun.
        engine.stop().await;
        for running in running {
            // One that panicked has nothing that could be waited for.
            let _ = running.await;
        }
        // What came meanwhile is stored too.
        engine.stop().await;
    };
    output::tell(format_args!("{signal}: no more is asked; what may have used up a refresh token is waited for"));
    tokio::select! {
        () = rest => {}
        signal = signals.stop() => output::tell(format_args!("{signal} again: what still runs is cut off")),
    }
    // As a shell would say it.
    std::process::exit(if signal == "SIGINT" { 130 } else { 143 })
}
