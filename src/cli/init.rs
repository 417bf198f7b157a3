//! `cupbearer init PROVIDER…`: a starter file that passes `check` as soon as its variables are set.

use std::{fmt::Write, io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    BAD_CONFIG,
    output::{say, tell},
};
use crate::config::profile::{self, Api, Need, Profile, Variable};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Built-in providers, as `cupbearer providers` lists them.
    #[arg(value_name = "PROVIDER", required = true)]
    pub(crate) providers: Vec<String>,
    /// Where to write; an existing file is never overwritten.
    #[arg(short, long, value_name = "FILE", default_value = "proxy.toml", conflicts_with = "stdout")]
    pub(crate) output: PathBuf,
    /// Print instead of writing a file.
    #[arg(long)]
    pub(crate) stdout: bool,
}

/// Writes the file (exit 0); exit 2 for an unknown provider, 1 where the file exists or can't be written.
pub(super) fn run(args: &InitArgs) -> ExitCode {
    let mut profiles: Vec<Profile> = Vec::new();
    for name in &args.providers {
        match profile::find(name) {
            Some(profile) if profiles.iter().all(|p| p.name != profile.name) => profiles.push(profile),
            Some(_) => {}
            None => {
                tell(format!("error: no provider is called `{name}`\n  hint: {}", profile::suggest(name)));
                return ExitCode::from(BAD_CONFIG);
            }
        }
    }
    let text = starter(&profiles);
    if args.stdout {
        say(text.trim_end());
        return ExitCode::SUCCESS;
    }
    let path = args.output.display();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&args.output);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            let variables: Vec<String> = profiles.iter().flat_map(variables).collect();
            say(format!("wrote {path}\nset {}\nthen: cupbearer check -c {path}", variables.join(", ")));
            ExitCode::SUCCESS
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            tell(format!(
                "error: {path} exists and is not overwritten\n  hint: -o FILE writes elsewhere, --stdout prints"
            ));
            ExitCode::FAILURE
        }
        Err(e) => {
            tell(format!("error: can't write {path}: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// What a provider's part of the file asks the environment for.
fn variables(profile: &Profile) -> Vec<String> {
    let needs = profile.needs().into_iter().map(|need| match need {
        Need::Id => "CLIENT_ID",
        Need::Secret => "CLIENT_SECRET",
        Need::Key => "KEY",
    });
    let vars = profile.variables.iter().map(|v| v.name.as_str());
    let token_url = profile.asks_token_url().then_some("TOKEN_URL");
    let names = token_url.into_iter().chain(needs).chain(vars).map(|name| variable(profile, name));
    names.chain(profile.apis.iter().filter(|a| profile.asks_upstream(a)).map(|a| upstream(profile, a))).collect()
}

/// `microsoft-entra`, `tenant` → `MICROSOFT_ENTRA_TENANT`.
fn variable(profile: &Profile, name: &str) -> String {
    format!("{}_{name}", profile.name).to_ascii_uppercase().replace('-', "_")
}

fn upstream(profile: &Profile, api: &Api) -> String {
    variable(profile, &format!("{}_UPSTREAM", api.name))
}

fn starter(profiles: &[Profile]) -> String {
    let names: Vec<&str> = profiles.iter().map(|p| p.name).collect();
    let mut text = format!(
        "# A starter by `cupbearer init {}`.\n# Callers on this machine need no credentials: curl http://127.0.0.1:8080/…\n\n\
         [server]\nlisten = \"127.0.0.1:8080\"\n",
        names.join(" ")
    );
    for profile in profiles {
        // Writing to a String can't fail.
        let _ = section(&mut text, profile);
    }
    text
}

fn section(text: &mut String, profile: &Profile) -> std::fmt::Result {
    let name = profile.name;
    write!(text, "\n# {}\n", profile.title)?;
    for note in &profile.notes {
        writeln!(text, "#  - {note}")?;
    }
    writeln!(text, "[credentials.{name}]\nprovider = \"{name}\"")?;
    for (key, value) in &profile.starter {
        writeln!(text, "{key} = {value}")?;
    }
    if profile.asks_token_url() {
        writeln!(text, "token_url = \"${{{}}}\"", variable(profile, "token_url"))?;
    }
    for need in profile.needs() {
        match need {
            Need::Id => writeln!(text, "client_id = \"${{{}}}\"", variable(profile, "client_id"))?,
            Need::Secret => writeln!(text, "client_secret = {{ env = \"{}\" }}", variable(profile, "client_secret"))?,
            Need::Key => {
                let variable = variable(profile, "key");
                writeln!(text, "key = {{ env = \"{variable}\" }}   # PEM or JWK; or {{ file = \"key.pem\" }}")?;
            }
        }
    }
    for Variable { name, about, example, .. } in &profile.variables {
        writeln!(text, "vars.{name} = \"${{{}}}\"   # {about}, for example \"{example}\"", variable(profile, name))?;
    }
    for api in &profile.apis {
        write!(text, "\n# {}\n[[routes]]\n", api.about)?;
        writeln!(text, "prefix = \"/{name}/{api}\"\napi = \"{api}\"\ncredential = \"{name}\"", api = api.name)?;
        if profile.asks_upstream(api) {
            writeln!(text, "upstream = \"${{{}}}\"", upstream(profile, api))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, tests::rsa_key};

    #[test]
    fn a_starter_of_every_provider_passes_as_soon_as_its_variables_are_set() {
        let all: Vec<Profile> = profile::names().filter_map(profile::find).collect();
        let mut known: Vec<(String, String)> = Vec::new();
        for profile in &all {
            let example = |name: &str| profile.variables.iter().find(|v| variable(profile, &v.name) == name);
            known.extend(variables(profile).into_iter().map(|name| {
                let url = name.ends_with("_URL") || name.ends_with("_UPSTREAM");
                let key = name.ends_with("_KEY");
                let other = if url {
                    "https://acme.example/x"
                } else if key {
                    rsa_key()
                } else {
                    "not-a-secret"
                };
                let value = example(&name).map_or_else(|| other.to_owned(), |v| v.example.clone());
                (name, value)
            }));
        }
        let env = |name: &str| known.iter().find(|(k, _)| k == name).map(|(_, value)| value.clone());
        let (config, warnings) = config::parse(&starter(&all), &env).unwrap_or_else(|p| panic!("{p}"));
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.credentials.len(), all.len());
        assert_eq!(config.routes.len(), all.iter().map(|p| p.apis.len()).sum::<usize>());
    }

    #[test]
    fn a_starter_without_its_variables_names_each_of_them() {
        let all = [profile::find("ipxo").expect("built in")];
        let problems = config::parse(&starter(&all), &|_| None).expect_err("nothing is set").to_string();
        for variable in variables(&all[0]) {
            assert!(problems.contains(&format!("variable {variable} is not set")), "{problems}");
        }
    }
}
