//! Written → may run: profiles filled in, names looked up, everything checked against everything.
//!
//! 1. `server`: `[server]`, `[admin]`, `[tokens]`, `[log]`, `[telemetry]`; `vault`: `[vault]`
//! 2. `credential`, `vars`, `grant`, `identity`, `login` and `issuer`: `[credentials.*]` with their profiles
//! 3. `caller`: `[callers.*]`
//! 4. `route` and `upstream`: `[[routes]]`, which refer to both; `net`: how connections leave, of credentials and routes
//! 5. `access`: what only shows when all is known
//!
//! Every step goes on after a problem; what could not be made is `None` and its problem is in the context.

mod access;
mod caller;
mod credential;
mod grant;
mod identity;
mod issuer;
mod listen;
mod login;
mod net;
mod route;
mod server;
mod upstream;
mod vars;
mod vault;

use super::{
    diagnostic::Note,
    model::{Config, Rule},
    not_built,
    reader::{At, Context, Table},
    rule,
    url::Refused,
};
use vault::Vault;

/// Everything, or `None` and at least one problem in the context.
pub(super) fn resolve(context: &Context<'_>, root: &Table<'_>) -> Option<Config> {
    let server = server::server(root);
    let admin = server::admin(root, &server);
    let tokens = server::tokens(root);
    let log = server::log(root);
    server::telemetry(root);
    let credentials = credential::credentials(root);
    if let Some(tokens) = &tokens {
        grant::warn_of_forgetful_store(context, tokens, &credentials);
    }
    let callers = caller::callers(root);
    let routes = route::routes(root, &credentials, &callers);
    let vault = vault::vault(root);
    if let Some(span) = context.uses_vault.borrow().as_ref().filter(|_| matches!(vault, Vault::Nowhere)) {
        vault::report_missing(context, span);
    }
    if !root.has("routes") {
        let note = Note::warning(&root.place, "there are no routes: every request will be answered 404");
        context.report(note.hint("give it [[routes]] with prefix, upstream and credential").follows());
    }
    access::check(context, &server, &credentials, &callers, &routes);
    root.finish();
    let total = (credentials.len(), callers.len(), routes.len());
    let config = Config {
        server: server.spec?,
        admin,
        tokens: tokens?,
        vault: vault.into_spec(),
        uses_vault: context.uses_vault.borrow().is_some(),
        credentials: credentials.into_iter().filter_map(|c| c.spec).collect(),
        callers: callers.into_iter().filter_map(|c| c.spec).collect(),
        routes: routes.into_iter().filter_map(|r| r.spec).collect(),
        log: log.unwrap_or_default(),
    };
    ((config.credentials.len(), config.callers.len(), config.routes.len()) == total).then_some(config)
}

/// Reports why a value is refused: "`token_url` has a query".
fn refused(context: &Context<'_>, at: &At<String>, what: &str, reason: Refused) {
    let hint = context.hint_about(at, reason.hint);
    context.report(Note::error(&at.span, format!("{what} {}", reason.why)).maybe_hint(hint));
}

/// A list of rules; the ones that are wrong are reported.
fn rules(context: &Context<'_>, key: &str, list: Option<At<Vec<At<String>>>>) -> Vec<Rule> {
    let parse = |at: At<String>| match rule::parse(&at.value) {
        Ok(rule) => Some(rule),
        Err(reason) => {
            refused(context, &at, &format!("an entry of `{key}`"), reason);
            None
        }
    };
    list.map(|l| l.value).unwrap_or_default().into_iter().filter_map(parse).collect()
}

/// The values of a list without their places.
fn bare(list: At<Vec<At<String>>>) -> Vec<String> {
    list.value.into_iter().map(|at| at.value).collect()
}

/// A separator within an entry makes several scopes of it, for the provider; here it is one.
fn warn_of_joined_scopes(context: &Context<'_>, scopes: Option<&At<Vec<At<String>>>>) {
    let joined = |scope: &&At<String>| scope.value.trim().contains(' ');
    for scope in scopes.iter().flat_map(|at| &at.value).filter(joined) {
        let note = Note::warning(&scope.span, "this scope has a space in it: the provider will see several");
        context.report(note.hint("one entry each: scopes = [\"a\", \"b\"]"));
    }
}

/// Names of credentials and callers stand in logs, metrics and messages.
fn check_name(context: &Context<'_>, what: &str, name: &At<String>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
        let note =
            Note::error(&name.span, format!("the name of {what} has up to 64 letters, digits, `-`, `_` and `.`"));
        context.report(note);
    }
}
