//! What a request to a described API must carry: the token in its place, its companions, and nothing of the kind
//! beside them.

use super::Api;
use crate::sandbox::head::Head;

impl Api {
    /// Whether the client signs its tokens itself.
    pub(in crate::sandbox) fn takes_jwt(&self) -> bool {
        self.headers.values().any(|pattern| pattern.contains("{jwt}"))
    }

    /// The token of the request, if it stands where this API looks for it.
    pub(in crate::sandbox) fn token<'h>(&self, head: &'h Head) -> Option<&'h str> {
        let (name, (before, after)) = self.headers.iter().find_map(|(name, pattern)| {
            Some((name, pattern.split_once("{token}").or_else(|| pattern.split_once("{jwt}"))?))
        })?;
        head.one(name)?.strip_prefix(before)?.strip_suffix(after).filter(|token| !token.is_empty())
    }

    /// For people: what a request must carry.
    pub(in crate::sandbox) fn needs(&self) -> String {
        let headers = self.headers.iter().map(|(name, pattern)| format!("{name}: {pattern}"));
        let scope = self.scope.iter().map(|scope| format!("scope {scope}"));
        let audience = self.audience.iter().map(|audience| format!("audience {audience}"));
        headers.chain(scope).chain(audience).collect::<Vec<_>>().join(", ")
    }

    /// What this API has against the rest of the head.
    pub(in crate::sandbox) fn objection(&self, head: &Head, client_id: &str) -> Option<String> {
        for (name, pattern) in self.headers.iter().filter(|(_, p)| !p.contains("{token}") && !p.contains("{jwt}")) {
            let mut values = head.all(name);
            if values.next() != Some(&*pattern.replace("{client_id}", client_id)) || values.next().is_some() {
                return Some(format!("header {name} is missing, wrong, or there twice"));
            }
        }
        let bare = !self.headers.contains_key("authorization") && head.one("authorization").is_some();
        bare.then(|| "there must be no Authorization".to_owned())
    }
}
