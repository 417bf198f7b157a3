//! What only shows when all is known: open doors, and things that nothing uses.

use super::{Context, Note, caller, credential, route, server};

pub(super) fn check(
    context: &Context<'_>,
    server: &server::Resolved,
    credentials: &[credential::Resolved],
    callers: &[caller::Resolved],
    routes: &[route::Resolved],
) {
    open_door(context, server, callers, routes);
    for credential in credentials {
        if !routes.iter().any(|r| r.credential.as_ref() == Some(&credential.name.value)) {
            let message = format!("no route uses credential `{}`", credential.name.value);
            context.report(Note::warning(&credential.name.span, message).follows());
        }
    }
    for prefix in callers.iter().flat_map(|c| &c.routes) {
        let related = |r: &route::Resolved| {
            r.prefix.as_ref().is_none_or(|p| covers(&p.value, &prefix.value) || covers(&prefix.value, &p.value))
        };
        if !routes.iter().any(related) {
            let message = format!("no route lies at or around `{}`", prefix.value);
            context.report(Note::warning(&prefix.span, message).follows());
        }
    }
}

/// Whether `a` is `b` or lies above it, on a segment boundary.
fn covers(a: &str, b: &str) -> bool {
    b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Other hosts can connect: then every route must know who calls.
fn open_door(
    context: &Context<'_>,
    server: &server::Resolved,
    callers: &[caller::Resolved],
    routes: &[route::Resolved],
) {
    let Some(open) = &server.open else { return };
    if callers.is_empty() {
        let note = Note::error(open, "other hosts can reach this address, and no caller has to identify itself");
        context.report(note.hint("listen on 127.0.0.1, or define [callers.NAME] with api_key = { env = \"NAME\" }"));
    }
    for route in routes {
        if let Some(star) = &route.anyone {
            let note = Note::error(star, "callers = [\"*\"] lets anyone in, and other hosts can reach the address");
            context.report(note.also(open, "not a loopback address").hint("name the callers, or listen on 127.0.0.1"));
        }
    }
}
