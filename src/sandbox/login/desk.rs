//! What was agreed to and not yet fetched: codes, devices, and refresh tokens that may be used once each.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;

use crate::sandbox::{
    digest::{Sha256, hex, random, sha256},
    idp::Refusal,
};

/// How long a code of the browser's is good for.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// … and one for another device.
pub(super) const DEVICE_LIFE: Duration = Duration::from_secs(600);
/// Between two questions about a device.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// More are not kept: then all are forgotten.
const MOST: usize = 10_000;

/// What a user agreed to.
#[derive(Debug, Clone)]
pub(super) struct Agreed {
    pub(super) client: String,
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
}

/// What a token is asked for with.
pub(super) enum Asked<'a> {
    Code { code: &'a str, redirect_uri: &'a str, verifier: &'a str },
    Device(&'a str),
    Refresh(&'a str),
}

/// A yes.
pub(super) struct Granted {
    pub(super) agreed: Agreed,
    /// Only where `offline_access` was asked for.
    pub(super) refresh: Option<String>,
}

struct Code {
    agreed: Agreed,
    redirect_uri: String,
    challenge: String,
    until: Instant,
}

struct Device {
    agreed: Agreed,
    user_code: String,
    answer: Option<bool>,
    until: Instant,
    asked: Option<Instant>,
}

struct Refresh {
    agreed: Agreed,
    /// All refresh tokens of one login.
    family: u64,
    used: bool,
}

/// All logins of one sandbox.
#[derive(Default)]
pub(in crate::sandbox) struct Desk {
    codes: HashMap<String, Code>,
    devices: HashMap<String, Device>,
    refresh: HashMap<Sha256, Refresh>,
    families: u64,
}

fn invalid_grant(why: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "invalid_grant", why)
}

fn secret() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

impl Desk {
    /// A code for the browser to bring.
    pub(super) fn code(&mut self, agreed: Agreed, redirect_uri: &str, challenge: &str) -> String {
        let code = secret();
        let (redirect_uri, challenge) = (redirect_uri.to_owned(), challenge.to_owned());
        if self.codes.len() >= MOST {
            self.codes.clear();
        }
        self.codes.insert(code.clone(), Code { agreed, redirect_uri, challenge, until: Instant::now() + CODE_LIFE });
        code
    }

    /// A device code and the code that the user enters for it.
    pub(super) fn device(&mut self, agreed: Agreed) -> (String, String) {
        let text = hex(&random::<4>()).to_ascii_uppercase();
        let (code, user_code) = (secret(), format!("{}-{}", &text[..4], &text[4..]));
        let until = Instant::now() + DEVICE_LIFE;
        if self.devices.len() >= MOST {
            self.devices.clear();
        }
        let device = Device { agreed, user_code: user_code.clone(), answer: None, until, asked: None };
        self.devices.insert(code.clone(), device);
        (code, user_code)
    }

    /// What the device with this code wants, if it waits for an answer.
    pub(super) fn waiting_for(&self, user_code: &str) -> Option<Agreed> {
        let waits = |d: &&Device| d.user_code == user_code && d.answer.is_none() && Instant::now() < d.until;
        self.devices.values().find(waits).map(|device| device.agreed.clone())
    }

    /// The user's answer.
    pub(super) fn answer(&mut self, user_code: &str, allowed: bool) {
        if let Some(device) = self.devices.values_mut().find(|device| device.user_code == user_code) {
            device.answer = Some(allowed);
        }
    }

    /// One token request.
    pub(super) fn token(&mut self, client: &str, asked: &Asked<'_>) -> Result<Granted, Refusal> {
        let (agreed, family) = match asked {
            Asked::Code { code, redirect_uri, verifier } => (self.of_code(code, redirect_uri, verifier)?, None),
            Asked::Device(code) => (self.of_device(code)?, None),
            Asked::Refresh(token) => self.of_refresh(token)?,
        };
        if agreed.client != client {
            return Err(invalid_grant("it was given to another client"));
        }
        let offline = agreed.scopes.iter().any(|scope| scope == "offline_access");
        let refresh = offline.then(|| self.refresh(agreed.clone(), family));
        Ok(Granted { agreed, refresh })
    }

    /// RFC 6749 section 4.1.3 and RFC 7636 section 4.6; a code is good once, whatever comes of it.
    fn of_code(&mut self, code: &str, redirect_uri: &str, verifier: &str) -> Result<Agreed, Refusal> {
        let known = self.codes.remove(code).filter(|code| Instant::now() < code.until);
        let known = known.ok_or_else(|| invalid_grant("the code is unknown, used or too old"))?;
        if known.redirect_uri != redirect_uri {
            return Err(invalid_grant("the redirect_uri is not the one that was asked with"));
        }
        if URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())) != known.challenge {
            return Err(invalid_grant("the code_verifier does not fit"));
        }
        Ok(known.agreed)
    }

    /// RFC 8628 section 3.5.
    fn of_device(&mut self, code: &str) -> Result<Agreed, Refusal> {
        let denied = |code, why: &str| Refusal::new(StatusCode::FORBIDDEN, code, why);
        let device = self.devices.get_mut(code).ok_or_else(|| invalid_grant("there is no such device_code"))?;
        if Instant::now() >= device.until {
            return Err(denied("expired_token", "the device_code has expired"));
        }
        // A little mercy for timers.
        let soon = |at: Instant| at.elapsed() < INTERVAL * 9 / 10;
        if device.asked.replace(Instant::now()).is_some_and(soon) {
            return Err(denied("slow_down", "you are polling faster than the interval allows"));
        }
        match device.answer {
            None => Err(denied("authorization_pending", "the user has not answered yet")),
            Some(false) => Err(denied("access_denied", "the user said no")),
            Some(true) => {
                let agreed = device.agreed.clone();
                self.devices.remove(code);
                Ok(agreed)
            }
        }
    }

    /// A second use of a refresh token means that it was stolen: the whole family ends.
    fn of_refresh(&mut self, token: &str) -> Result<(Agreed, Option<u64>), Refusal> {
        let unknown = || invalid_grant("Unknown or invalid refresh token.");
        let known = self.refresh.get_mut(&sha256(token.as_bytes())).ok_or_else(unknown)?;
        let (agreed, family) = (known.agreed.clone(), known.family);
        if std::mem::replace(&mut known.used, true) {
            self.refresh.retain(|_, other| other.family != family);
            return Err(unknown());
        }
        Ok((agreed, Some(family)))
    }

    fn refresh(&mut self, agreed: Agreed, family: Option<u64>) -> String {
        let token = format!("v1.{}", secret());
        let family = family.unwrap_or_else(|| {
            self.families += 1;
            self.families
        });
        if self.refresh.len() >= MOST {
            self.refresh.clear();
        }
        self.refresh.insert(sha256(token.as_bytes()), Refresh { agreed, family, used: false });
        token
    }
}
