//! A small client: hyper over one new connection a request, or bare bytes.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::sandbox::{Options, Provider, Sandbox};

/// A sandbox with these faults.
pub(super) async fn sandbox(faults: &[&str]) -> Sandbox {
    let options = faults.iter().try_fold(Options::default(), |o, f| o.fault(f)).unwrap();
    Sandbox::start(options).await.unwrap()
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// `METHOD /path`, headers as `name: value`, a body.
pub(super) async fn send(at: &Sandbox, request: &str, headers: &[&str], body: impl Into<Bytes>) -> Answer {
    try_send(at.address(), None, request, headers, body.into()).await.unwrap()
}

/// The same from another address of this host, and with its failure.
pub(super) async fn try_send(
    at: SocketAddr,
    from: Option<IpAddr>,
    request: &str,
    headers: &[&str],
    body: Bytes,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let socket = TcpSocket::new_v4()?;
    if let Some(ip) = from {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket.connect(at).await?)).await?;
    let driver = tokio::spawn(connection);
    let (method, target) = request.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(target).header("host", at.to_string());
    for (name, value) in headers.iter().map(|h| h.split_once(": ").unwrap()) {
        builder = builder.header(name, value);
    }
    let (parts, body) = client.send_request(builder.body(Full::new(body))?).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Bare bytes out, bare bytes back until the end.
pub(super) async fn raw(at: &Sandbox, bytes: &[u8]) -> (String, std::io::Result<usize>) {
    let mut stream = TcpStream::connect(at.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut back = Vec::new();
    let end = stream.read_to_end(&mut back).await;
    (String::from_utf8_lossy(&back).into_owned(), end)
}

pub(super) const FORM: &str = "content-type: application/x-www-form-urlencoded";
pub(super) const JSON: &str = "content-type: application/json";

/// IPXO's token request for these scopes, and its answer.
pub(super) async fn ipxo_login(at: &Sandbox, scope: &str) -> Answer {
    use crate::sandbox::{IPXO_CLIENT_ID, IPXO_CLIENT_SECRET};
    let form = format!(
        "grant_type=client_credentials&client_id={IPXO_CLIENT_ID}&client_secret={IPXO_CLIENT_SECRET}&scope={scope}"
    );
    send(at, "POST /ipxo/oauth2/token", &[FORM], form).await
}

/// `authorization: Bearer …` with a good token of this provider.
pub(super) async fn bearer(at: &Sandbox, provider: Provider, audience: &str) -> String {
    use crate::sandbox::{
        DIGITAL_REALTY_CLIENT_ID, DIGITAL_REALTY_CLIENT_SECRET, IX_API_KEY, IX_API_SECRET, PAX8_CLIENT_ID,
        PAX8_CLIENT_SECRET,
    };
    let path = format!("POST {}", provider.token_path());
    let answer = match provider {
        Provider::Ipxo => ipxo_login(at, audience).await,
        Provider::DigitalRealty => {
            let form = format!(
                "grant_type=client_credentials&client_id={DIGITAL_REALTY_CLIENT_ID}&client_secret=\
                 {DIGITAL_REALTY_CLIENT_SECRET}"
            );
            send(at, &path, &[FORM], form).await
        }
        Provider::IxApi => {
            let body = serde_json::json!({ "api_key": IX_API_KEY, "api_secret": IX_API_SECRET });
            send(at, &path, &[JSON], body.to_string()).await
        }
        Provider::Pax8 => {
            let body = serde_json::json!({
                "client_id": PAX8_CLIENT_ID, "client_secret": PAX8_CLIENT_SECRET,
                "audience": audience, "grant_type": "client_credentials",
            });
            send(at, &path, &[JSON], body.to_string()).await
        }
        Provider::MythicBeasts => send(at, &path, &[FORM, &mythic_basic()], "grant_type=client_credentials").await,
        Provider::Described(_) => unreachable!("each asks in its own way"),
    };
    format!("authorization: Bearer {}", answer.json()["access_token"].as_str().unwrap())
}

/// `authorization: Basic …` of Mythic Beasts' key.
pub(super) fn mythic_basic() -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let pair = format!("{}:{}", crate::sandbox::MYTHIC_KEY_ID, crate::sandbox::MYTHIC_SECRET);
    format!("authorization: Basic {}", STANDARD.encode(pair))
}
