//! The login: a token that was given, or one by `AppRole`, renewed while that is possible.

use std::time::{Duration, Instant};

use http::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Answer, Trouble, Vault, wipe};
use crate::config::{model::VaultLogin, secret::Secret};

/// No lease is taken for longer: Vault's own limit is 32 days unless an operator raises it, and what is no time
/// at all must not be reckoned with.
const MOST: u64 = 365 * 24 * 3600;

/// What we are logged in with.
#[derive(Debug, Default)]
pub(super) struct Session {
    token: Option<Secret>,
    lease: Option<Lease>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    since: Instant,
    /// `None` = it does not end.
    length: Option<Duration>,
    renewable: bool,
}

impl Lease {
    fn has_passed(&self, part: u32, of: u32) -> bool {
        self.length.is_some_and(|length| self.since.elapsed() >= length * part / of)
    }
}

#[derive(Serialize)]
struct AppRole<'a> {
    role_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Granted {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Session {
    /// The token to send.
    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Sees to it that there is a token.
    pub(super) async fn open(&mut self, vault: &Vault) -> Result<(), Trouble> {
        let (mount, role_id, secret_id) = match &vault.spec.login {
            VaultLogin::Token(source) => {
                let token = source.read().await.map_err(|e| Trouble::Refused(format!("[vault] token: {e}")))?;
                self.token = Some(token);
                return Ok(());
            }
            VaultLogin::AppRole { mount, role_id, secret_id } => (mount, role_id, secret_id),
        };
        if let Some(lease) = self.lease.filter(|lease| self.token.is_some() && !lease.has_passed(19, 20)) {
            if lease.renewable && lease.has_passed(2, 3) {
                self.renew(vault).await;
            }
            return Ok(());
        }
        let secret_id = match secret_id {
            Some(source) => Some(source.read().await.map_err(|e| Trouble::Refused(format!("[vault] secret_id: {e}")))?),
            None => None,
        };
        let login = AppRole { role_id, secret_id: secret_id.as_ref().map(Secret::expose) };
        // Text always makes valid JSON.
        let body = Zeroizing::new(serde_json::to_vec(&login).unwrap_or_default());
        let target = format!("{}/v1/auth/{mount}/login", vault.spec.address.base_path);
        let answer = vault.call(Method::POST, &target, None, Some(body)).await;
        let auth = match answer {
            Ok(answer) if answer.status == 200 => granted(answer),
            Ok(answer) => return Err(refused(answer.status, mount)),
            Err(Trouble::Forbidden) => return Err(refused(403, mount)),
            Err(trouble) => return Err(trouble),
        };
        let Some(auth) = auth else {
            return Err(Trouble::Away("answered the login with something that is no token".to_owned()));
        };
        tracing::info!(lease = auth.lease_duration, renewable = auth.renewable, "logged in to Vault by AppRole");
        self.adopt(auth);
        Ok(())
    }

    /// Ends the session, so that the next one begins with a login; `false` where no login can help.
    pub(super) fn close(&mut self, vault: &Vault) -> bool {
        let can_log_in = matches!(vault.spec.login, VaultLogin::AppRole { .. });
        if can_log_in {
            (self.lease, self.token) = (None, None);
        }
        can_log_in
    }

    /// For as long again as the role allows. Where that fails, a login follows when the lease ends.
    async fn renew(&mut self, vault: &Vault) {
        let target = format!("{}/v1/auth/token/renew-self", vault.spec.address.base_path);
        let body = Zeroizing::new(b"{}".to_vec());
        match vault.call(Method::POST, &target, self.token.as_ref(), Some(body)).await {
            Ok(answer) if answer.status == 200 => {
                if let Some(auth) = granted(answer) {
                    self.adopt(auth);
                }
            }
            _ => {
                if let Some(lease) = &mut self.lease {
                    lease.renewable = false;
                }
            }
        }
    }

    fn adopt(&mut self, auth: Auth) {
        let length = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration.min(MOST)));
        self.lease = Some(Lease { since: Instant::now(), length, renewable: auth.renewable });
        self.token = Some(Secret::new(auth.client_token));
    }
}

fn granted(answer: Answer) -> Option<Auth> {
    let granted = serde_json::from_slice::<Granted>(&answer.body).ok();
    wipe(answer);
    granted?.auth
}

fn refused(status: u16, mount: &str) -> Trouble {
    Trouble::Refused(format!(
        "Vault refused the login at auth/{mount} (HTTP {status}): check role_id, secret_id (wrong, expired or used up) and approle_mount"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_no_time_at_all_is_taken_for_a_year() {
        for (lease_duration, length) in [(u64::MAX, Some(MOST)), (MOST, Some(MOST)), (60, Some(60)), (0, None)] {
            let mut session = Session::default();
            session.adopt(Auth { client_token: "not-a-token".to_owned(), lease_duration, renewable: true });
            let lease = session.lease.expect("adopted");
            assert_eq!(lease.length, length.map(Duration::from_secs));
            assert!(!lease.has_passed(2, 3) && !lease.has_passed(19, 20));
        }
    }
}
