//! 3 the asking — one HTTP call and its limits.
//!
//! The connection is driven by the very future that waits for the answer: dropping it leaves nothing behind.
//! Nothing is followed, nothing is reused, nothing is read beyond [`BODY_CAP`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{
    bearer::Now,
    grant::TokenRequest,
    refusal::Refusal,
    reply::{Answer, BODY_CAP},
};
use crate::{
    config::model::{CredentialSpec, Upstream},
    net::{ConnectError, Connector, Stream, Target, certificate_alert, certificate_refused},
};

/// To the end of the TLS handshake. The whole call has `timeout` of the credential.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer. No text of it holds anything that was sent or received.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The provider does not take our certificate, or wants one; it saw nothing of the request.
    #[error("{0}")]
    Certificate(String),
    /// The connection broke, or what came was no HTTP.
    #[error("{}", in_words(.0))]
    Http(#[from] hyper::Error),
    /// The body broke off.
    #[error("the answer broke off: {0}")]
    Body(String),
    /// More than [`BODY_CAP`].
    #[error("its answer is larger than 1 MiB")]
    TooLarge,
    /// The whole call took longer than the credential's `timeout`.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
}

impl CallError {
    /// Whether not a byte of the request has left this host.
    pub fn was_unsent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Certificate(_))
    }

    /// As the failure of a token request: always transient, and our own fault where something has run out here.
    pub fn to_refusal(&self, credential: &CredentialSpec) -> Refusal {
        match self {
            Self::Connect(ConnectError::Certificate { .. }) | Self::Certificate(_) => {
                Refusal::of_certificate(credential, &self.to_string())
            }
            Self::Timeout(_) => Refusal::timeout(credential, &self.to_string()),
            Self::Connect(error) => {
                let advice = error.advice().map_or_else(String::new, |advice| format!(". {advice}"));
                match error.shortage() {
                    Some(shortage) => Refusal::of_shortage(credential, shortage),
                    None if matches!(error, ConnectError::Timeout { .. }) => {
                        Refusal::timeout(credential, &format!("{error}{advice}"))
                    }
                    None if matches!(error, ConnectError::Proxy { .. }) => {
                        Refusal::of_egress(credential, &format!("{error}{advice}"))
                    }
                    None => Refusal::unavailable(credential, &format!("{error}{advice}")),
                }
            }
            _ => Refusal::unavailable(credential, &self.to_string()),
        }
    }
}

/// Sends `request` to the credential's token endpoint and reads the whole answer.
pub async fn call(
    connector: &Connector,
    credential: &CredentialSpec,
    request: TokenRequest,
) -> Result<Answer, CallError> {
    send(connector, &credential.token_url, credential.timeout, request).await
}

/// Sends `request` to the host of `endpoint` and reads the whole answer within `timeout`.
pub async fn send(
    connector: &Connector,
    endpoint: &Upstream,
    timeout: Duration,
    request: TokenRequest,
) -> Result<Answer, CallError> {
    let exchange = async {
        let target = Target::of(endpoint);
        // With sessions of its own, kept for nobody: what is asked with this certificate now is asked with it in full.
        let connector = request.identity.as_ref().map_or_else(|| connector.clone(), |own| connector.presenting(own));
        let stream = connector.connect(target, CONNECT_TIMEOUT.min(timeout)).await?;
        let answer = exchange(stream, request).await;
        answer.map_err(|error| of_tls(error, target, connector.presents()))
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| CallError::Timeout(timeout))?
}

/// One request on a connection of its own, and the whole answer to it.
pub(super) async fn exchange(stream: Stream, request: TokenRequest) -> Result<Answer, CallError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let TokenRequest { method, target, headers, body, identity: _ } = request;
    let mut message = Request::new(Full::new(Bytes::from_owner(body)));
    *message.method_mut() = method;
    *message.uri_mut() = target.parse().map_err(|_| CallError::Body("token_url has an illegal path".to_owned()))?;
    *message.headers_mut() = headers;
    let sent = Now::read();
    let answer = async {
        let response = sender.send_request(message).await?;
        let received = SystemTime::now();
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_CAP).collect().await.map_err(|e| body_error(&*e))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, sent, received })
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Its end or error reaches the sender's side too.
        _ = connection => answer.await,
    }
}

/// In TLS 1.3 a certificate is refused when the handshake is over for us.
fn of_tls(error: CallError, target: Target<'_>, presented: bool) -> CallError {
    let CallError::Http(cause) = &error else { return error };
    let refused = |alert| certificate_refused(target.host, target.port, presented, alert);
    certificate_alert(cause, presented).map(refused).map_or(error, CallError::Certificate)
}

fn body_error(error: &(dyn std::error::Error + 'static)) -> CallError {
    if error.is::<LengthLimitError>() { CallError::TooLarge } else { CallError::Body(told(error)) }
}

/// What hyper says in its own way.
fn in_words(error: &hyper::Error) -> String {
    // hyper reads no more header lines than that, and has its own limit for their length.
    const LINES: usize = 100;
    match error {
        _ if error.is_incomplete_message() => "it closed the connection before its answer was there".to_owned(),
        _ if error.is_parse_too_large() => {
            format!("the head of its answer is larger than is taken here ({LINES} header lines)")
        }
        _ if error.is_parse() => "its answer is no HTTP/1.1: does token_url lead to the right port?".to_owned(),
        _ => told(error),
    }
}

/// The error and its causes, the first of which alone says next to nothing ("connection error").
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
