//! 1 which certificate — the pair that the sources give, unless it is no good: then the one before stays in use.
//!
//! A pair is replaced file by file, so for a moment it does not match; that is no other pair, and nothing to be
//! tried. Whether a good one replaces the one before is decided where all secrets are tried: [`super::secrets`].

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::{
    config::secret::Secret,
    net::{Identity, IdentityError},
};

/// The certificate of one credential.
#[derive(Debug, Default)]
pub struct Presented(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// The last good pair, with the texts that it was made of.
    good: Option<(Secret, Secret, Identity)>,
    /// What is wrong with the texts of now, which has been said.
    wrong: Option<IdentityError>,
}

impl Presented {
    /// What to present while the sources of the credential called `name` give these texts. An error where they are
    /// no good and nothing was before.
    pub fn of(&self, name: &str, chain: &Secret, key: &Secret, now: SystemTime) -> Result<Identity, IdentityError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at every second: parsed only when it is another one.
        let known = held.good.as_ref().filter(|(old_chain, old_key, _)| (old_chain, old_key) == (chain, key));
        let read = known.map_or_else(|| Identity::of_pem(chain.expose(), key), |(_, _, known)| Ok(known.clone()));
        match read.and_then(|identity| identity.expired(now).map(|()| identity)) {
            Ok(identity) => {
                *held = Held { good: Some((chain.clone(), key.clone(), identity.clone())), wrong: None };
                Ok(identity)
            }
            Err(error) => {
                let before = held.good.as_ref().map(|(_, _, identity)| identity.clone());
                let before = before.filter(|before| before.expired(now).is_ok());
                if before.is_some() && held.wrong.replace(error.clone()).as_ref() != Some(&error) {
                    tracing::warn!(credential = name, "{error}; the certificate before stays in use, in memory only");
                }
                before.ok_or(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(year: i32) -> (Secret, Secret) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        (Secret::new(params.self_signed(&key).unwrap().pem()), Secret::new(key.serialize_pem()))
    }

    #[test]
    fn texts_that_make_no_pair_leave_the_one_before_in_use() {
        let (presented, old, new) = (Presented::default(), pair(2050), pair(2050));
        let of = |chain: &Secret, key: &Secret| presented.of("acme", chain, key, SystemTime::now());
        assert_eq!(of(&old.0, &new.1), Err(IdentityError::Mismatch), "nothing was before");
        let first = of(&old.0, &old.1).unwrap();
        assert_eq!(of(&new.0, &old.1).unwrap(), first);
        assert_eq!(of(&new.0, &Secret::new("half".to_owned())).unwrap(), first);
        assert_ne!(of(&new.0, &new.1).unwrap(), first);
    }

    #[test]
    fn what_has_expired_is_not_presented() {
        let (presented, old, over) = (Presented::default(), pair(2050), pair(2020));
        let expired = |year: i32| IdentityError::Expired(format!("{year}-01-01"));
        let of = |pair: &(Secret, Secret), now| presented.of("acme", &pair.0, &pair.1, now);
        let now = SystemTime::now();
        assert_eq!(of(&over, now), Err(expired(2020)));
        let first = of(&old, now).unwrap();
        assert_eq!(of(&over, now).unwrap(), first);
        let later = now + std::time::Duration::from_secs(30 * 366 * 86_400);
        assert_eq!(of(&old, later), Err(expired(2050)));
        assert_eq!(of(&over, later), Err(expired(2020)), "and neither is the one before");
    }
}
