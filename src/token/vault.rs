//! 1 … secrets that stand in Vault (or `OpenBao`): in its KV store, version 2, asked over HTTP.
//!
//! One request at a time: whoever waits meanwhile finds the answer that the one before got, or its failure. A
//! server that does not answer is left alone for a moment, so that many credentials don't wait for it one after
//! the other.

mod kv;
mod session;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use self::{kv::Fields, session::Session};
use super::{
    endpoint,
    grant::{TokenRequest, USER_AGENT},
    reply::Answer,
};
use crate::{
    config::{
        model::VaultSpec,
        secret::{Secret, SecretError, SecretSource, Shape, VaultSecret},
    },
    net::{Connector, Target},
};

/// One request to Vault.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The server that secrets come from.
#[derive(Debug)]
pub struct Vault {
    spec: VaultSpec,
    connector: Connector,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    session: Session,
    /// By path.
    secrets: HashMap<String, Known>,
    /// It did not answer: since when, and why.
    away: Option<(Instant, String)>,
}

/// What a path gave, and when.
#[derive(Debug)]
struct Known {
    at: Instant,
    /// The fields, or why there are none.
    fields: Result<Arc<Fields>, String>,
    /// Their version, for the log; 0 where there are none.
    version: u64,
}

/// Why Vault gave no secret.
#[derive(Debug)]
enum Trouble {
    /// No usable answer; a sentence's end.
    Away(String),
    /// 403: the token is no good, or may not do this.
    Forbidden,
    /// Anything else that it says, and what to do about it.
    Refused(String),
}

impl Vault {
    /// Reads `ca_file`; nothing is sent yet. The error names the file.
    pub fn new(spec: &VaultSpec) -> Result<Self, String> {
        let connector = Connector::new(Arc::clone(&spec.net)).map_err(|e| format!("[vault]: {e}"))?;
        Ok(Self { spec: spec.clone(), connector, inner: Mutex::default() })
    }

    /// One field of a secret, not older than `max_age`. `source` is what messages call it.
    pub async fn read(
        &self,
        source: &SecretSource,
        secret: &VaultSecret,
        shape: Shape,
        max_age: Duration,
    ) -> Result<Secret, SecretError> {
        let mut inner = self.inner.lock().await;
        let fields = self.fields(&mut inner, secret, max_age).await.map_err(|why| source.of_vault(why))?;
        drop(inner);
        let value = fields.get(&secret.field).map_err(|why| source.of_vault(why))?;
        Secret::checked(value.expose().to_owned(), source, shape)
    }

    async fn fields(&self, inner: &mut Inner, secret: &VaultSecret, max_age: Duration) -> Result<Arc<Fields>, String> {
        let target = kv::target(&self.spec.address.base_path, secret);
        match &inner.away {
            Some((since, why)) if since.elapsed() < max_age / 3 => return Err(why.clone()),
            Some(_) => {}
            None => {
                if let Some(known) = inner.secrets.get(&target).filter(|known| known.at.elapsed() < max_age) {
                    return known.fields.clone();
                }
            }
        }
        let (version, fields) = match self.ask_for(&mut inner.session, &target, secret).await {
            Ok((version, fields)) => (version, Ok(Arc::new(fields))),
            Err(Trouble::Away(why)) => {
                let why = format!("Vault at {} {why}", self.spec.address.authority);
                inner.away = Some((Instant::now(), why.clone()));
                return Err(why);
            }
            Err(Trouble::Refused(why)) => (0, Err(why)),
            Err(Trouble::Forbidden) => (0, Err(may_not_read(secret))),
        };
        inner.away = None;
        let known = Known { at: Instant::now(), fields: fields.clone(), version };
        let before = inner.secrets.insert(target, known).map_or(0, |known| known.version);
        if version != 0 && version != before {
            tracing::info!(version, "{secret} was read");
        }
        fields
    }

    /// Asks, and once more after a new login where the session turns out to have ended.
    async fn ask_for(
        &self,
        session: &mut Session,
        target: &str,
        secret: &VaultSecret,
    ) -> Result<(u64, Fields), Trouble> {
        session.open(self).await?;
        match self.get(session, target).await {
            Err(Trouble::Forbidden) => {}
            other => return other,
        }
        // A 403 says the same of a token that has ended and of one that may not read this.
        if self.is_taken(session).await {
            return Err(Trouble::Refused(may_not_read(secret)));
        }
        if session.close(self) {
            session.open(self).await?;
            return self.get(session, target).await;
        }
        let why = "Vault does not take the token of [vault] (HTTP 403): it is wrong, revoked or has expired";
        Err(Trouble::Refused(why.to_owned()))
    }

    async fn get(&self, session: &Session, target: &str) -> Result<(u64, Fields), Trouble> {
        let answer = self.call(Method::GET, target, session.token(), None).await?;
        let fields = kv::read(&answer);
        wipe(answer);
        fields
    }

    async fn is_taken(&self, session: &Session) -> bool {
        let target = format!("{}/v1/auth/token/lookup-self", self.spec.address.base_path);
        self.call(Method::GET, &target, session.token(), None).await.is_ok_and(|answer| answer.status == 200)
    }

    /// One request, and the judgement that is the same for all of them.
    async fn call(
        &self,
        method: Method,
        target: &str,
        token: Option<&Secret>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Trouble> {
        let request = TokenRequest {
            method,
            target: Zeroizing::new(target.to_owned()),
            headers: self.headers(token, body.is_some())?,
            body: body.unwrap_or_default(),
            identity: None,
        };
        let exchange = async {
            let stream = self.connector.connect(Target::of(&self.spec.address), TIMEOUT).await?;
            endpoint::exchange(stream, request).await
        };
        let answer = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Trouble::Away(format!("gave no answer: {error}"))),
            Err(_) => return Err(Trouble::Away(format!("gave no answer within {TIMEOUT:?}"))),
        };
        match answer.status {
            200 | 204 | 400 | 404 => Ok(answer),
            403 => Err(Trouble::Forbidden),
            503 => Err(Trouble::Away("is sealed or in maintenance (HTTP 503): unseal it".to_owned())),
            429 => Err(Trouble::Away("asks for patience: its rate limit is used up (HTTP 429)".to_owned())),
            472 | 473 => Err(Trouble::Away(format!("is a standby that does not answer (HTTP {})", answer.status))),
            300..=399 => Err(Trouble::Away(format!(
                "is a standby or another service that redirects (HTTP {}), and redirects are never followed: \
                 write the active node's or the load balancer's address",
                answer.status
            ))),
            status => Err(Trouble::Away(format!("answered HTTP {status}"))),
        }
    }

    fn headers(&self, token: Option<&Secret>, has_body: bool) -> Result<HeaderMap, Trouble> {
        let legal = |text: &str, what: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Trouble::Refused(format!("{what} of [vault] holds characters that no header may have")))
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, legal(&self.spec.address.authority, "the address")?);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        if has_body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(namespace) = &self.spec.namespace {
            headers.insert(HeaderName::from_static("x-vault-namespace"), legal(namespace, "the namespace")?);
        }
        if let Some(token) = token {
            let mut value = legal(token.expose(), "the token")?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-vault-token"), value);
        }
        Ok(headers)
    }
}

fn may_not_read(secret: &VaultSecret) -> String {
    let VaultSecret { mount, path, .. } = secret;
    format!(
        "the login of [vault] may not read it (HTTP 403): its policy needs path \"{mount}/data/{path}\" with the capability \"read\""
    )
}

/// What came from Vault is wiped, where nobody else still reads it.
fn wipe(answer: Answer) {
    if let Ok(mut body) = answer.body.try_into_mut() {
        body.as_mut().zeroize();
    }
}
