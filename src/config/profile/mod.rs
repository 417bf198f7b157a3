//! Built-in providers: data files, compiled in. Adding one is adding a file and its name in [`files`].

mod files;
mod variable;

use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::{Note, Span},
    header::Holds,
    model::ClientAuth,
    nearest::did_you_mean,
    raw::{GrantName, RawCredential},
    reader::{At, Context, Table},
};
use files::FILES;
pub use variable::{Kind, Variable, filled};

/// What is known about a provider.
#[derive(Debug)]
pub struct Profile {
    /// As `provider = "NAME"` names it.
    pub name: &'static str,
    /// Its full name.
    pub title: String,
    /// What it is about, for the list: providers of one group stand together.
    pub group: String,
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
    /// What the user fills in beyond id and secret, in file order.
    pub variables: Vec<Variable>,
    /// How its APIs take the token, where that is not `Authorization: Bearer {token}`.
    pub inject: Option<String>,
    /// What its APIs want beside the token.
    pub set_headers: Vec<(String, String)>,
    /// Further lines of a starter file's credential, as (key, TOML text).
    pub starter: Vec<(String, String)>,
    /// What to say where there is no `token_url` and the user must give one.
    pub ask_token_url: Option<String>,
    /// The credential's defaults.
    pub(super) credential: RawCredential,
    /// What comes before them where a user logs in.
    pub(super) login: RawCredential,
    /// `inject` and `set_headers`, placed.
    pub(super) route: RouteDefaults,
}

/// What a route of the provider's credentials has where it says nothing itself.
#[derive(Debug, Default)]
pub(super) struct RouteDefaults {
    pub(super) inject: Option<At<String>>,
    pub(super) set_headers: Vec<(At<String>, At<String>)>,
}

/// What a credential of the provider cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `client_id`
    Id,
    /// `client_secret`
    Secret,
    /// `key`
    Key,
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

    /// What the user must bring, beyond the variables.
    pub fn needs(&self) -> Vec<Need> {
        let raw = &self.credential;
        let (auth, grant) = (raw.client_auth, raw.grant.unwrap_or(GrantName::ClientCredentials));
        let signs = auth == Some(ClientAuth::PrivateKeyJwt)
            || matches!(grant, GrantName::JwtBearer | GrantName::SelfSigned)
            || raw.has_template(Holds::Assertion);
        let mut needs = Vec::new();
        if raw.needs_id(auth.unwrap_or(ClientAuth::Post)) {
            needs.push(Need::Id);
        }
        needs.push(if signs { Need::Key } else { Need::Secret });
        needs
    }

    /// Whether the user gives `token_url`, and no starter file has it.
    pub fn asks_token_url(&self) -> bool {
        let fixed = |key: &str| self.defaults.iter().chain(&self.starter).any(|(k, _)| k == key);
        self.ask_token_url.is_some() && !fixed("token_url")
    }

    /// Whether the user gives this API's `upstream`.
    pub fn asks_upstream(&self, api: &Api) -> bool {
        api.upstream.is_none() && self.environments.is_empty()
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

/// The profile of this name; its variables stand in it as `{NAME}`.
pub fn find(name: &str) -> Option<Profile> {
    read(name, None, |_| Vec::new()).map(|(profile, _)| profile)
}

/// The hint for a name that is none.
pub fn suggest(name: &str) -> String {
    let list = || format!("the built-in providers are {}", names().collect::<Vec<_>>().join(", "));
    did_you_mean(name, names()).unwrap_or_else(list)
}

/// The profile with its variables filled in by `values`; all that it says stands where `origin` says. The notes are
/// empty, or the profile is wrong.
pub(super) fn read(
    name: &str,
    origin: Option<Span>,
    values: impl FnOnce(&[Variable]) -> Vec<(String, String)>,
) -> Option<(Profile, Vec<Note>)> {
    let (name, text) = FILES.iter().find(|(n, _)| *n == name)?;
    let nothing = |_: &str| None;
    let context = Context::new(&nothing, std::path::PathBuf::new(), true);
    let (mut tree, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        context.error(&error.span().unwrap_or_default(), error.message());
    }
    let file = || (format!("profiles/{name}.toml"), "");
    let variables = variable::read(&Table::new(&context, file(), tree.get_ref(), 0..0, origin.clone()));
    variable::fill(tree.get_mut(), &values(&variables));
    let profile = {
        let root = Table::new(&context, file(), tree.get_ref(), 0..0, origin);
        let profile = profile(name, text, &root, variables);
        root.finish();
        profile
    };
    let (notes, _) = context.take();
    Some((profile, notes))
}

fn profile(name: &'static str, text: &str, root: &Table<'_>, variables: Vec<Variable>) -> Profile {
    let (raw, login) = (credential(root, "credential"), credential(root, "login"));
    let ask = root.table("ask", "");
    let ask_token_url = ask.as_ref().and_then(|t| t.string("token_url")).map(|at| at.value);
    let _ = root.entry("vars");
    let route = root.table("route", "").map(|t| route(&t)).unwrap_or_default();
    Profile {
        name,
        title: root.word("title").map(|at| at.value).unwrap_or_default(),
        group: root.word("group").map(|at| at.value).unwrap_or_default(),
        docs: texts(root, "docs").unwrap_or_default(),
        notes: texts(root, "notes").unwrap_or_default(),
        defaults: written(root, "credential", text),
        apis: root.tables("apis", "").into_iter().map(|(name, t)| api(name.value, &t)).collect(),
        environments: root.tables("environments", "").into_iter().map(|(n, t)| environment(n.value, &t)).collect(),
        variables,
        inject: route.inject.as_ref().map(|at| at.value.clone()),
        set_headers: route.set_headers.iter().map(|(n, v)| (n.value.clone(), v.value.clone())).collect(),
        starter: written(root, "starter", text),
        ask_token_url,
        credential: raw,
        login,
        route,
    }
}

fn credential(root: &Table<'_>, key: &'static str) -> RawCredential {
    let Some(table) = root.table(key, "credentials") else { return RawCredential::default() };
    let raw = RawCredential::read(&table);
    table.finish();
    raw
}

fn route(t: &Table<'_>) -> RouteDefaults {
    let defaults = RouteDefaults { inject: t.word("inject"), set_headers: super::raw::set_headers(t) };
    t.finish();
    defaults
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
