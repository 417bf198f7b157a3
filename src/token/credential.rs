//! 1 who — the secrets of one token request, read from their sources just before it ([`reading`]), with a [`version`] that
//! tells them from others.

mod reading;
mod version;

use std::{collections::BTreeSet, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{params::form_decoded, sources::Keep};
use crate::{
    config::{
        model::{CredentialSpec, Param},
        secret::{Secret, SecretSource, hides},
        signing_key::Thumbprints,
    },
    net::Identity,
};
pub use reading::MaterialError;
pub(super) use reading::is_watched;
use reading::{Slot, grant_keep, grant_key};
pub use version::Version;
use version::digest_of;

/// Text this long or longer that occurs both in a secret and in a text means that the text quotes it.
const QUOTE: usize = 6;

/// What one request of a login asks with.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The code that the browser brought (RFC 6749 section 4.1.3), and what proves that we had asked for it
    /// (RFC 7636 section 4.5).
    Code {
        /// `code`
        code: Secret,
        /// `code_verifier`
        verifier: Secret,
        /// `redirect_uri`: the one that was asked with.
        redirect_uri: String,
    },
    /// For a code that the user enters elsewhere (RFC 8628 section 3.1).
    AskDevice,
    /// Whether the user has entered it (RFC 8628 section 3.4).
    Device {
        /// `device_code`
        code: Secret,
    },
}

impl Step {
    fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Code { code, verifier, .. } => vec![code, verifier],
            Self::AskDevice => Vec::new(),
            Self::Device { code } => vec![code],
        }
    }
}

/// Everything secret that goes into one token request.
#[derive(Debug, Clone)]
pub struct Material {
    /// `client_secret`: the one that this request goes out with.
    pub client_secret: Option<Secret>,
    /// All entries of `client_secret` that could be read, by position.
    pub client_secrets: Vec<(usize, Secret)>,
    /// What the grant itself brings: token, password, first refresh token.
    pub of_grant: Option<Secret>,
    /// `key`: PEM or JWK.
    pub key: Option<Secret>,
    /// Names the certificate of the key in what it signs.
    pub(super) key_cert: Option<Thumbprints>,
    /// A ready assertion.
    pub assertion: Option<Secret>,
    /// The certificate that is presented.
    pub identity: Option<Identity>,
    /// When, by the provider's clock: what is signed is dated with it.
    pub signed_at: SystemTime,
    /// The refresh token to use, which is in no version: it changes with every use.
    pub(super) refresh: Option<Secret>,
    /// What to ask for with it, where that is not what the route needs.
    pub(super) scopes: Option<Vec<String>>,
    /// The step of a login to make, which is in no version either.
    pub(super) step: Option<Step>,
    /// `params`, values read.
    pub params: Vec<(String, Secret)>,
    /// `headers`, values read.
    pub headers: Vec<(String, Secret)>,
    /// Headers that are templates, by index, as they were written.
    templates: Vec<(usize, Secret)>,
    /// A template among `headers` names the client.
    pub(super) is_named_by_a_header: bool,
    /// Which of all these came from secret sources.
    slots: Vec<Slot>,
    /// What stands for the assertions that would be signed, of the client and of the grant: only where marks stand
    /// for secrets.
    pub(super) unsigned: Option<(Secret, Secret)>,
    /// What else must not be quoted: every client secret that was chosen, also as `Authorization: Basic` carries
    /// it, and what stands in the sources where this material is older.
    guarded: Vec<Secret>,
}

impl Material {
    /// The same, to ask with this client secret.
    #[must_use]
    pub fn with_secret(&self, credential: &CredentialSpec, secret: Secret) -> Self {
        let mut chosen = self.clone();
        chosen.set_secret(credential, Some(secret));
        chosen
    }

    /// This older material for a request of now: what lives for minutes is taken from `now`.
    #[must_use]
    pub(super) fn renewed(&self, credential: &CredentialSpec, now: &Self) -> Self {
        let mut renewed = self.clone();
        renewed.signed_at = now.signed_at;
        renewed.step.clone_from(&now.step);
        renewed.assertion.clone_from(&now.assertion);
        if grant_keep(&credential.grant) == Keep::Nothing {
            renewed.of_grant.clone_from(&now.of_grant);
        }
        for slot in &now.slots {
            if !renewed.guarded.contains(&slot.secret) {
                renewed.guarded.push(slot.secret.clone());
            }
        }
        renewed
    }

    fn set_secret(&mut self, credential: &CredentialSpec, secret: Option<Secret>) {
        let basic = secret.as_ref().map(|secret| {
            let pair = Zeroizing::new(format!("{}:{}", credential.client_id, secret.expose()));
            Secret::new(STANDARD.encode(pair.as_bytes()))
        });
        self.fill_templates(&credential.client_id, secret.as_ref(), basic.as_ref());
        self.guarded.extend(basic);
        self.guarded.extend(secret.clone());
        self.client_secret = secret;
    }

    fn fill_templates(&mut self, id: &str, secret: Option<&Secret>, basic: Option<&Secret>) {
        for (index, template) in &self.templates {
            let words = [
                ("{client_id}", id),
                ("{client_secret}", secret.map_or("", Secret::expose)),
                ("{basic}", basic.map_or("", Secret::expose)),
            ];
            self.headers[*index].1 = filled(template, &words);
        }
    }

    /// The same with a mark in the place of every secret, to show what a request is made of. `mark` gets the key of
    /// the file that the secret stands for, and its source where it has one.
    pub(super) fn marked(
        &self,
        credential: &CredentialSpec,
        mark: &mut dyn FnMut(&str, Option<&SecretSource>) -> Secret,
    ) -> Self {
        let mut marked = self.clone();
        let secret = self.client_secret.as_ref().map(|secret| {
            let position = self.client_secrets.iter().find(|(_, known)| known == secret).map(|(position, _)| *position);
            let mut sources = credential.client_secret.iter().chain(&credential.more_secrets);
            mark("client_secret", position.and_then(|position| sources.nth(position)))
        });
        marked.of_grant = self.of_grant.as_ref().map(|_| mark(grant_key(&credential.grant), credential.grant.source()));
        marked.assertion = self.assertion.as_ref().map(|_| mark("assertion", credential.assertion.ready.as_ref()));
        marked.key = self.key.as_ref().map(|_| mark("key", None));
        marked.refresh = self.refresh.as_ref().map(|refresh| match &self.of_grant {
            Some(first) if first == refresh => mark("refresh_token", credential.grant.source()),
            _ => mark("refresh_token", None),
        });
        marked.unsigned = Some((mark("client_assertion", None), mark("assertion", None)));
        for (given, values) in [(&credential.params, &mut marked.params), (&credential.headers, &mut marked.headers)] {
            for ((name, param), (_, value)) in given.iter().zip(values) {
                match param {
                    Param::Secret(source) => *value = mark(name, Some(source)),
                    Param::Plain(text) if hides(name, text) => *value = mark(name, None),
                    Param::Plain(_) | Param::Template(_) => {}
                }
            }
        }
        let basic = secret.as_ref().map(|_| mark("basic", None));
        marked.fill_templates(&credential.client_id, secret.as_ref(), basic.as_ref());
        marked.client_secret = secret;
        marked
    }

    /// The same, to ask with this refresh token.
    #[must_use]
    pub fn with_refresh(&self, token: Secret) -> Self {
        Self { refresh: Some(token), ..self.clone() }
    }

    /// The same, to ask for these scopes, if any are given, and not for those that the route needs.
    #[must_use]
    pub(super) fn with_scopes(&self, scopes: Option<Vec<String>>) -> Self {
        Self { scopes, ..self.clone() }
    }

    /// The same, to make this step of a login.
    #[must_use]
    pub(super) fn with_step(&self, step: Step) -> Self {
        Self { step: Some(step), ..self.clone() }
    }

    /// Whether what a token of `credential` may be bound to, certificate and key, is the same.
    pub(super) fn binds_like(&self, credential: &CredentialSpec, other: &Self) -> bool {
        self.identity == other.identity && (!credential.dpop || self.key == other.key)
    }

    /// The same, dated `at`.
    #[must_use]
    pub(super) fn dated(&self, at: SystemTime) -> Self {
        Self { signed_at: at, ..self.clone() }
    }

    /// Tells what stands in the sources now from what stood there before.
    pub fn version(&self) -> Version {
        let lasting = self.slots.iter().filter(|slot| !slot.is_passing);
        let lasting = digest_of(lasting.map(|slot| &slot.secret));
        Version { all: digest_of(self.slots.iter().map(|slot| &slot.secret)), lasting }
    }

    /// Tells what this very request goes out with from other choices among the secrets. What lives for minutes
    /// only (a ready assertion, a subject token) makes no difference.
    pub fn choice(&self) -> Version {
        let others = self.slots.iter().filter(|slot| slot.keep == Keep::Last && slot.what != CLIENT_SECRET);
        let digest = digest_of(self.client_secret.iter().chain(others.map(|slot| &slot.secret)));
        Version { all: digest, lasting: digest }
    }

    /// What differs from an older material, by key and source: `client_secret (file /run/secret)`.
    pub(super) fn changes_since(&self, before: &Self) -> String {
        let is_old =
            |slot: &&Slot| before.slots.iter().any(|old| (&old.what, &old.secret) == (&slot.what, &slot.secret));
        let changed = self.slots.iter().filter(|slot| slot.keep == Keep::Last && !is_old(slot));
        let names: BTreeSet<String> = changed.map(|slot| format!("{} ({})", slot.what, slot.source)).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// What a chain of refresh tokens hangs on: the configured first one. Another client secret ends no chain.
    pub(super) fn root_of_refresh(&self) -> [u8; 32] {
        let mut root = [0; 32];
        if let Some(first) = &self.of_grant {
            root.copy_from_slice(digest(&SHA256, first.expose().as_bytes()).as_ref());
        }
        root
    }

    /// Whether a whole secret of ours stands in `text`, as it is or percent-encoded.
    pub(super) fn is_contained_in(&self, text: &str) -> bool {
        let decoded = form_decoded(text);
        let slots = self.slots.iter().map(|slot| &slot.secret);
        slots
            .chain(&self.guarded)
            .chain(&self.refresh)
            .map(Secret::expose)
            .filter(|secret| !secret.is_empty())
            .any(|secret| text.contains(secret) || decoded.as_deref().is_some_and(|decoded| decoded.contains(secret)))
    }

    /// Whether `text` quotes a secret of ours, or a good part of one: then it must not be shown.
    pub fn is_quoted_in(&self, text: &str) -> bool {
        let slots = self.slots.iter().map(|slot| &slot.secret);
        let of_step = self.step.iter().flat_map(Step::secrets);
        let mut all = slots.chain(&self.guarded).chain(&self.refresh).chain(of_step);
        all.any(|secret| quotes(text, secret.expose()))
    }
}

const CLIENT_SECRET: &str = "client_secret";

/// Whether `text` holds `secret` or a part of it that is at least [`QUOTE`] bytes long.
pub(super) fn quotes(text: &str, secret: &str) -> bool {
    let (text, secret) = (text.as_bytes(), secret.as_bytes());
    let part = secret.len().min(QUOTE);
    part > 0 && secret.windows(part).any(|window| memchr::memmem::find(text, window).is_some())
}

/// The template with each word replaced; what is filled in is not looked at again.
fn filled(template: &Secret, words: &[(&str, &str)]) -> Secret {
    let mut rest = template.expose();
    let mut text = Zeroizing::new(String::with_capacity(rest.len() + words.iter().map(|w| w.1.len()).sum::<usize>()));
    while let Some(next) = rest.chars().next() {
        if let Some((word, value)) = words.iter().find(|(word, _)| rest.starts_with(word)) {
            text.push_str(value);
            rest = &rest[word.len()..];
        } else {
            text.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    Secret::new(std::mem::take(&mut *text))
}
