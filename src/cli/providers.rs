//! `cupbearer providers [NAME]`: what is built in.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    BAD_CONFIG, Format, OutputArgs,
    output::{columns, say, tell},
};
use crate::config::profile::{self, Profile};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct ProvidersArgs {
    /// One provider, in full.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Prints the list, or one profile; exit 2 where the name is none.
pub(super) fn run(args: &ProvidersArgs) -> ExitCode {
    let Some(name) = &args.name else {
        let all: Vec<Profile> = profile::names().filter_map(profile::find).collect();
        match args.output.format {
            Format::Text => say(list(&all).trim_end()),
            Format::Json => say(format!("{:#}", Value::from(all.iter().map(as_json).collect::<Vec<_>>()))),
        }
        return ExitCode::SUCCESS;
    };
    match (profile::find(name), args.output.format) {
        (Some(profile), Format::Text) => say(describe(&profile).trim_end()),
        (Some(profile), Format::Json) => say(format!("{:#}", as_json(&profile))),
        (None, _) => {
            tell(format!("error: no provider is called `{name}`\n  hint: {}", profile::suggest(name)));
            return ExitCode::from(BAD_CONFIG);
        }
    }
    ExitCode::SUCCESS
}

/// One line each, those of a group together.
fn list(all: &[Profile]) -> String {
    let apis = |p: &Profile| p.apis.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    let rows: Vec<_> = all.iter().map(|p| vec![p.name.to_owned(), p.title.clone(), apis(p)]).collect();
    let table = columns(&rows);
    let lines: Vec<&str> = table.lines().collect();
    let mut groups: Vec<&str> = Vec::new();
    for profile in all {
        if !groups.contains(&profile.group.as_str()) {
            groups.push(&profile.group);
        }
    }
    let mut text = String::new();
    for group in groups {
        text.extend([group, "\n"]);
        let of_group = all.iter().zip(&lines).filter(|(profile, _)| profile.group == group);
        of_group.for_each(|(_, line)| text.extend([line, "\n"]));
        text.push('\n');
    }
    text + "`cupbearer providers NAME` tells more, `cupbearer init NAME…` writes a starter file.\n"
}

// Writing to a String can't fail: the results are dropped.
fn describe(profile: &Profile) -> String {
    let mut text = format!("{}: {}\n", profile.name, profile.title);
    let filled: Vec<_> = profile.defaults.iter().map(|(k, v)| vec![k.clone(), format!("= {v}")]).collect();
    let _ = write!(text, "\nprovider = \"{}\" fills in\n{}", profile.name, columns(&filled));
    if !profile.variables.is_empty() {
        let row = |v: &profile::Variable| vec![v.name.clone(), format!("{}, for example \"{}\"", v.about, v.example)];
        let rows: Vec<_> = profile.variables.iter().map(row).collect();
        let _ = write!(text, "\nvars = (yours to give: it stands in braces here)\n{}", columns(&rows));
    }
    if !profile.environments.is_empty() {
        let row = |e: &profile::Environment| {
            let url =
                e.token_url.clone().or_else(|| e.ask.as_ref().map(|ask| format!("token_url and upstream: {ask}")));
            vec![e.name.clone(), url.unwrap_or_default()]
        };
        let rows: Vec<_> = profile.environments.iter().map(row).collect();
        let _ = write!(text, "\nenvironment = (the first one is the default)\n{}", columns(&rows));
    }
    let rows: Vec<_> = profile.apis.iter().map(|api| api_row(profile, api)).collect();
    let _ = write!(text, "\napi =\n{}", columns(&rows));
    let inject = profile.inject.iter().map(|inject| vec!["inject".to_owned(), format!("= \"{inject}\"")]);
    let headers = profile.set_headers.iter().map(|(n, v)| vec![format!("set_headers.{n}"), format!("= \"{v}\"")]);
    let rows: Vec<_> = inject.chain(headers).collect();
    if !rows.is_empty() {
        let _ = write!(text, "\nits routes get\n{}", columns(&rows));
    }
    for (title, lines) in [("to know", &profile.notes), ("documented at", &profile.docs)] {
        let _ = writeln!(text, "\n{title}\n  - {}", lines.join("\n  - "));
    }
    text
}

fn api_row(profile: &Profile, api: &profile::Api) -> Vec<String> {
    let by_environment =
        || profile.environment(None)?.upstreams.iter().find(|(n, _)| *n == api.name).map(|(_, u)| u.clone());
    let upstream = api.upstream.clone().or_else(by_environment).unwrap_or_default();
    let mut wants: Vec<String> = api.scopes.iter().map(|s| format!("scopes {}", s.join(" "))).collect();
    wants.extend(api.audience.iter().map(|a| format!("audience {a}")));
    vec![api.name.clone(), upstream, wants.join(", "), api.about.clone()]
}

fn as_json(profile: &Profile) -> Value {
    let api = |a: &profile::Api| {
        json!({
            "name": a.name,
            "about": a.about,
            "upstream": a.upstream,
            "scopes": a.scopes,
            "audience": a.audience,
            "resource": a.resource,
        })
    };
    let environment = |e: &profile::Environment| {
        let upstreams: serde_json::Map<String, Value> =
            e.upstreams.iter().map(|(api, url)| (api.clone(), url.clone().into())).collect();
        json!({ "name": e.name, "token_url": e.token_url, "upstreams": upstreams })
    };
    let defaults: serde_json::Map<String, Value> =
        profile.defaults.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let variable = |v: &profile::Variable| json!({ "name": v.name, "about": v.about, "example": v.example });
    let set_headers: serde_json::Map<String, Value> =
        profile.set_headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json!({
        "name": profile.name,
        "title": profile.title,
        "group": profile.group,
        "docs": profile.docs,
        "notes": profile.notes,
        "defaults": defaults,
        "vars": profile.variables.iter().map(variable).collect::<Vec<_>>(),
        "ask_token_url": profile.ask_token_url,
        "inject": profile.inject,
        "set_headers": set_headers,
        "environments": profile.environments.iter().map(environment).collect::<Vec<_>>(),
        "apis": profile.apis.iter().map(api).collect::<Vec<_>>(),
    })
}
