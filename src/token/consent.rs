//! 2 … what a user's login asked for, and what of it was granted: a refresh may not ask for more (RFC 6749 section 6).

use serde::{Deserialize, Serialize};

/// What says who the user is, or that there is to be a refresh token. Many providers don't name it among what they grant.
const OF_THE_LOGIN: [&str; 4] = ["openid", "profile", "email", OFFLINE];

/// Asks for the refresh token itself.
const OFFLINE: &str = "offline_access";

/// What a refresh token was granted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// What the authorization request asked for.
    asked: Vec<String>,
    /// What the answer says was granted.
    granted: Vec<String>,
}

/// Scopes that a refresh token is not good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beyond {
    /// The login asked for these, and they were not granted.
    NotGranted(Vec<String>),
    /// The login did not ask for these.
    NotAsked(Vec<String>),
}

impl Consent {
    /// Of a login that asked for `asked`, to which the provider said `scope`; where it said nothing, all was granted (RFC 6749
    /// section 5.1).
    pub fn of(asked: &[String], scope: Option<&str>) -> Self {
        let asked = words(asked);
        let granted = scope.map(|text| words(&[text.to_owned()])).filter(|granted| !granted.is_empty());
        Self { granted: granted.unwrap_or_else(|| asked.clone()), asked }
    }

    /// What was asked for and is not named among what was granted.
    pub fn missing(&self) -> Vec<String> {
        needed(without(&self.asked, &self.granted))
    }

    /// The `scope` of a refresh that is to give a token for `wanted`; none where the whole grant is meant.
    ///
    /// Who `insists` on all of `wanted` takes no less; else what was granted of it will do, if that is anything. A provider that
    /// answers with names of its own (Google) leaves open what is missing: it is to judge by itself then.
    pub fn narrowed(&self, wanted: &[String], insists: bool) -> Result<Vec<String>, Beyond> {
        let wanted = words(wanted);
        let unasked = needed(without(&wanted, &[&self.asked[..], &self.granted].concat()));
        if !unasked.is_empty() {
            return Err(Beyond::NotAsked(unasked));
        }
        let (mut rest, mut refused) = (wanted.clone(), Vec::new());
        if self.is_comparable() {
            // A refresh token is there, so this was granted whether named or not.
            rest.retain(|scope| holds(&self.granted, scope) || scope == OFFLINE);
            refused = needed(without(&wanted, &rest));
        }
        if !refused.is_empty() && (insists || needed(rest.clone()).is_empty()) {
            return Err(Beyond::NotGranted(refused));
        }
        let is_whole = without(&self.asked, &wanted).is_empty() || without(&self.granted, &rest).is_empty();
        Ok(if is_whole { Vec::new() } else { rest })
    }

    /// What was granted, in one text.
    pub fn granted(&self) -> String {
        self.granted.join(" ")
    }

    /// Whether the provider's names are those that it was asked by.
    fn is_comparable(&self) -> bool {
        needed(without(&self.granted, &self.asked)).is_empty()
    }
}

/// One scope each, whatever they were written as.
fn words(scopes: &[String]) -> Vec<String> {
    scopes.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn holds(scopes: &[String], scope: &str) -> bool {
    scopes.iter().any(|known| known.eq_ignore_ascii_case(scope))
}

fn without(scopes: &[String], others: &[String]) -> Vec<String> {
    scopes.iter().filter(|scope| !holds(others, scope)).cloned().collect()
}

/// Those that a token is of no use without.
fn needed(mut scopes: Vec<String>) -> Vec<String> {
    scopes.retain(|scope| !OF_THE_LOGIN.contains(&scope.as_str()));
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        words(&[text.to_owned()])
    }

    fn narrowed(asked: &str, granted: Option<&str>, wanted: &str, insists: bool) -> Result<String, Beyond> {
        Consent::of(&list(asked), granted).narrowed(&list(wanted), insists).map(|scopes| scopes.join(" "))
    }

    #[test]
    fn who_takes_what_was_granted_asks_for_no_more_than_that() {
        assert_eq!(narrowed("r w", Some("r"), "r w", false), Ok(String::new()), "all that there is");
        assert_eq!(narrowed("r w x", Some("r w"), "r x", false), Ok("r".to_owned()));
        assert_eq!(narrowed("r w", Some("r w"), "r", false), Ok("r".to_owned()));
        assert_eq!(narrowed("r w", None, "w r", true), Ok(String::new()), "silence grants all");
        assert_eq!(narrowed("r w", Some(""), "r", true), Ok("r".to_owned()));
        assert_eq!(narrowed("r w", Some("r,w"), "r", true), Ok("r".to_owned()), "a list by commas");
        assert_eq!(narrowed("r w", Some("r"), "", true), Ok(String::new()));
    }

    #[test]
    fn who_needs_what_was_not_granted_or_never_asked_for_is_told_what() {
        let not_granted = |scope: &str| Err(Beyond::NotGranted(list(scope)));
        assert_eq!(narrowed("r w", Some("r"), "w", true), not_granted("w"));
        assert_eq!(narrowed("r w", Some("r"), "r w", true), not_granted("w"));
        assert_eq!(narrowed("r w", Some("r"), "w", false), not_granted("w"), "nothing would be left");
        assert_eq!(narrowed("r w", Some("r w"), "r x", false), Err(Beyond::NotAsked(list("x"))));
    }

    #[test]
    fn what_says_who_the_user_is_is_missed_by_nobody() {
        let asked = "openid r offline_access";
        assert_eq!(Consent::of(&list(asked), Some("r")).missing(), Vec::<String>::new());
        assert_eq!(narrowed(asked, Some("r"), asked, true), Ok(String::new()));
        let more = "openid r w offline_access";
        assert_eq!(narrowed(more, Some("r w"), "openid r offline_access", true), Ok("r offline_access".to_owned()));
    }

    #[test]
    fn a_provider_with_names_of_its_own_judges_by_itself() {
        let (asked, granted) = ("email drive mail", Some("https://p.example/userinfo.email https://p.example/drive"));
        assert_eq!(narrowed(asked, granted, "drive", true), Ok("drive".to_owned()));
        assert_eq!(narrowed(asked, granted, asked, true), Ok(String::new()));
    }
}
