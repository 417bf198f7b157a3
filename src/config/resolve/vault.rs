//! `[vault]`, with the variables that Vault's own tools read.

use std::sync::Arc;

use super::{Context, Note, Table, refused};
use crate::config::{
    diagnostic::Span,
    model::{NetSpec, Scheme, VaultLogin, VaultSpec},
    reader::At,
    secret::SecretSource,
    source, url,
};

/// What is known about the server.
pub(super) enum Vault {
    /// Everything.
    At(Box<VaultSpec>),
    /// Something is wrong, which has been reported.
    Wrong,
    /// Nothing.
    Nowhere,
}

impl Vault {
    pub(super) fn into_spec(self) -> Option<VaultSpec> {
        match self {
            Self::At(spec) => Some(*spec),
            Self::Wrong | Self::Nowhere => None,
        }
    }
}

/// A secret comes from a server that nobody has named.
pub(super) fn report_missing(context: &Context<'_>, span: &Span) {
    let note = Note::error(span, "this secret comes from Vault, but there is no address of it");
    context.report(note.hint("[vault] address = \"https://…:8200\", or VAULT_ADDR in the environment").follows());
}

/// What stands in the file comes first, then the environment.
pub(super) fn vault(root: &Table<'_>) -> Vault {
    let context = root.context;
    let Some(t) = root.table("vault", "vault") else {
        return match variable(context, "VAULT_ADDR") {
            Some(_) if context.uses_vault.borrow().is_none() => Vault::Nowhere, // nobody's business here
            Some(at) => Settings { address: Some(at), ..Settings::default() }.resolve(context),
            None => Vault::Nowhere,
        };
    };
    let settings = Settings {
        address: t.word("address").or_else(|| variable(context, "VAULT_ADDR")),
        namespace: t.word("namespace"),
        ca_file: t.word("ca_file"),
        token: source::read_here(&t, "token"),
        role_id: t.word("role_id"),
        secret_id: source::read_here(&t, "secret_id"),
        approle_mount: t.word("approle_mount"),
        has_token: t.has("token"),
        place: t.place.clone(),
    };
    if settings.address.is_none() && !t.has("address") {
        let note = Note::error(&t.place, "[vault] has no `address`");
        context.report(note.hint("address = \"https://…:8200\", or VAULT_ADDR in the environment"));
    }
    for key in ["secret_id", "approle_mount"].into_iter().filter(|key| t.has(key) && !t.has("role_id")) {
        context.error(&t.key_place(key), format!("`{key}` in [vault] goes with `role_id`"));
    }
    t.finish();
    settings.resolve(context)
}

#[derive(Default)]
struct Settings {
    address: Option<At<String>>,
    namespace: Option<At<String>>,
    ca_file: Option<At<String>>,
    token: Option<At<SecretSource>>,
    role_id: Option<At<String>>,
    secret_id: Option<At<SecretSource>>,
    approle_mount: Option<At<String>>,
    has_token: bool,
    place: Span,
}

impl Settings {
    fn resolve(self, context: &Context<'_>) -> Vault {
        let ca_file = self.ca_file.clone().or_else(|| variable(context, "VAULT_CACERT"));
        let ca_file = ca_file.map(|at| super::net::ca_file(context, &at));
        let namespace = self.namespace.clone().or_else(|| variable(context, "VAULT_NAMESPACE"));
        let login = self.login(context);
        let Some(at) = &self.address else { return Vault::Wrong };
        let address = match url::upstream(&at.value) {
            Ok(address) if address.scheme == Scheme::Http && !url::is_loopback(&address.host) => {
                let note = Note::error(&at.span, "Vault's address would send secrets over plain http");
                context.report(note.hint("use https://; http:// is only possible to this machine itself"));
                return Vault::Wrong;
            }
            Ok(address) => address,
            Err(reason) => {
                refused(context, at, "the address of Vault", reason);
                return Vault::Wrong;
            }
        };
        let Some(login) = login else { return Vault::Wrong };
        let net = Arc::new(NetSpec { ca_file, resolver: context.resolver.borrow().clone(), ..NetSpec::default() });
        Vault::At(Box::new(VaultSpec { address, login, namespace: namespace.map(|at| at.value), net }))
    }

    fn login(&self, context: &Context<'_>) -> Option<VaultLogin> {
        match (&self.role_id, &self.token) {
            (Some(role), None) if !self.has_token => Some(VaultLogin::AppRole {
                mount: self.approle_mount.as_ref().map_or("approle", |at| at.value.trim_matches('/')).to_owned(),
                role_id: role.value.clone(),
                secret_id: self.secret_id.as_ref().map(|at| at.value.clone()),
            }),
            (Some(role), _) => {
                context.error(&role.span, "[vault] has a `token` and a `role_id`: one of them logs in");
                None
            }
            (None, Some(token)) => Some(VaultLogin::Token(token.value.clone())),
            (None, None) if self.has_token => None,
            (None, None) => {
                let token = source::variable(context, "VAULT_TOKEN");
                if token.is_none() {
                    let note = Note::error(&self.place, "there is nothing to log in to Vault with");
                    let hint =
                        "[vault] token = { file = \"…\" }, or role_id and secret_id, or VAULT_TOKEN in the environment";
                    context.report(note.hint(hint));
                }
                token.map(VaultLogin::Token)
            }
        }
    }
}

/// A variable that is set to something.
fn variable(context: &Context<'_>, name: &str) -> Option<At<String>> {
    let value = context.env(name).filter(|value| !value.is_empty())?;
    Some(At { value, span: 0..0 })
}
