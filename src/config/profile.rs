//! Built-in providers: data files, compiled in. Adding one is adding a file and its line in [`FILES`].

use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::{Note, Span},
    nearest::did_you_mean,
    raw::RawCredential,
    reader::{Context, Table},
};

/// The files, in the order in which `cupbearer providers` lists them.
const FILES: &[(&str, &str)] = &[
    ("ipxo", include_str!("../../profiles/ipxo.toml")),
    ("digital-realty", include_str!("../../profiles/digital-realty.toml")),
    ("ix-api", include_str!("../../profiles/ix-api.toml")),
    ("pax8", include_str!("../../profiles/pax8.toml")),
    ("mythic-beasts", include_str!("../../profiles/mythic-beasts.toml")),
];

/// What is known about a provider.
#[derive(Debug)]
pub struct Profile {
    /// As `provider = "NAME"` names it.
    pub name: &'static str,
    /// Its full name.
    pub title: String,
    /// Where it documents what stands here.
    pub docs: Vec<String>,
    /// What a user should know.
    pub notes: Vec<String>,
    /// Keys of the credential that are filled in, as (key, TOML text), in file order.
    pub defaults: Vec<(String, String)>,
    /// Its APIs, in file order.
    pub apis: Vec<Api>,
    /// Its environments, the default one first; empty where there is only one world.
    pub environments: Vec<Environment>,
    /// Further lines of a starter file's credential, as (key, TOML text).
    pub starter: Vec<(String, String)>,
    /// What to say where there is no `token_url` and the user must give one.
    pub ask_token_url: Option<String>,
    /// The credential's defaults.
    pub(super) credential: RawCredential,
    /// What comes before them where a user logs in.
    pub(super) login: RawCredential,
}

/// One API of a provider.
#[derive(Debug)]
pub struct Api {
    /// As `api = "NAME"` names it.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Its base URL; `None` = by environment, or the user gives it.
    pub upstream: Option<String>,
    /// The least scopes for it; `None` = the credential's.
    pub scopes: Option<Vec<String>>,
    /// The audience of its tokens.
    pub audience: Option<String>,
    /// The resources of its tokens.
    pub resource: Option<Vec<String>>,
}

/// One environment of a provider.
#[derive(Debug)]
pub struct Environment {
    /// As `environment = "NAME"` names it.
    pub name: String,
    /// Its token endpoint; `None` = the user gives it.
    pub token_url: Option<String>,
    /// Base URLs by API; what is missing here the user gives.
    pub upstreams: Vec<(String, String)>,
    /// Where the user gets the URLs that are missing.
    pub ask: Option<String>,
}

impl Profile {
    /// The API of this name.
    pub fn api(&self, name: &str) -> Option<&Api> {
        self.apis.iter().find(|a| a.name == name)
    }

    /// The environment of this name; without a name the default one.
    pub fn environment(&self, name: Option<&str>) -> Option<&Environment> {
        match name {
            Some(name) => self.environments.iter().find(|e| e.name == name),
            None => self.environments.first(),
        }
    }
}

/// The names of all profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The profile of this name.
pub fn find(name: &str) -> Option<Profile> {
    read(name, None).map(|(profile, _)| profile)
}

/// The hint for a name that is none.
pub fn suggest(name: &str) -> String {
    let list = || format!("the built-in providers are {}", names().collect::<Vec<_>>().join(", "));
    did_you_mean(name, names()).unwrap_or_else(list)
}

/// The profile; all its values stand where `origin` says. The notes are empty, or the profile is wrong.
pub(super) fn read(name: &str, origin: Option<Span>) -> Option<(Profile, Vec<Note>)> {
    let (name, text) = FILES.iter().find(|(n, _)| *n == name)?;
    let nothing = |_: &str| None;
    let context = Context::new(&nothing, std::path::PathBuf::new(), true);
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        context.error(&error.span().unwrap_or_default(), error.message());
    }
    let profile = {
        let root = Table::new(&context, ((*name).to_owned(), ""), tree.get_ref(), 0..0, origin);
        let profile = profile(name, text, &root);
        root.finish();
        profile
    };
    let (notes, _) = context.take();
    Some((profile, notes))
}

fn profile(name: &'static str, text: &str, root: &Table<'_>) -> Profile {
    let (raw, login) = (credential(root, "credential"), credential(root, "login"));
    let ask = root.table("ask", "");
    let ask_token_url = ask.as_ref().and_then(|t| t.string("token_url")).map(|at| at.value);
    Profile {
        name,
        title: root.word("title").map(|at| at.value).unwrap_or_default(),
        docs: texts(root, "docs").unwrap_or_default(),
        notes: texts(root, "notes").unwrap_or_default(),
        defaults: written(root, "credential", text),
        apis: root.tables("apis", "").into_iter().map(|(name, t)| api(name.value, &t)).collect(),
        environments: root.tables("environments", "").into_iter().map(|(n, t)| environment(n.value, &t)).collect(),
        starter: written(root, "starter", text),
        ask_token_url,
        credential: raw,
        login,
    }
}

fn credential(root: &Table<'_>, key: &'static str) -> RawCredential {
    let Some(table) = root.table(key, "credentials") else { return RawCredential::default() };
    let raw = RawCredential::read(&table);
    table.finish();
    raw
}

fn api(name: String, t: &Table<'_>) -> Api {
    let api = Api {
        name,
        about: t.word("about").map(|at| at.value).unwrap_or_default(),
        upstream: t.word("upstream").map(|at| at.value),
        scopes: texts(t, "scopes"),
        audience: t.word("audience").map(|at| at.value),
        resource: texts(t, "resource"),
    };
    t.finish();
    api
}

fn environment(name: String, t: &Table<'_>) -> Environment {
    let upstreams = t.map("upstreams");
    let upstreams = upstreams.iter().flat_map(|m| m.entries().iter().map(move |e| (m, e)));
    let environment = Environment {
        name,
        token_url: t.word("token_url").map(|at| at.value),
        upstreams: upstreams.filter_map(|(m, e)| Some((e.key.to_owned(), m.entry_text(e)?.value))).collect(),
        ask: t.word("ask").map(|at| at.value),
    };
    t.finish();
    environment
}

fn texts(t: &Table<'_>, key: &'static str) -> Option<Vec<String>> {
    Some(t.strings(key)?.value.into_iter().map(|at| at.value).collect())
}

/// The entries of a table as they stand in the file.
fn written(root: &Table<'_>, key: &'static str, text: &str) -> Vec<(String, String)> {
    let Some(entry) = root.entry(key) else { return Vec::new() };
    let DeValue::Table(table) = entry.value else { return Vec::new() };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(k, _)| k.span().start);
    entries.into_iter().map(|(k, v)| (k.get_ref().to_string(), text[v.span()].to_owned())).collect()
}
