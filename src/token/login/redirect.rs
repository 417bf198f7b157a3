//! The loopback redirect: a listener for one answer of the browser, and for nothing else.
//!
//! Any program of this host and, through a browser, any web page can knock here. So the Host must be the address
//! that we gave out, and the answer must carry the `state` that only our own browser knows; whatever else comes
//! is refused and waited past. The code is worth nothing without the verifier, which never leaves this process.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};

use super::page::Page;
use crate::{
    config::secret::Secret,
    token::{params::form_decoded, reply::printable},
};

/// Where the browser comes back to.
const PATH: &str = "/callback";

/// Connections at a time; a browser needs two. One more displaces the oldest: who only occupies places keeps nobody out.
const MOST: usize = 64;

/// From a connection to its whole request head.
const HEAD: Duration = Duration::from_secs(2);

/// From the end to the last byte of the page.
const CLOSE: Duration = Duration::from_secs(5);

/// What the provider said through the browser.
#[derive(Debug)]
pub(super) enum Said {
    /// Yes.
    Code(Secret),
    /// No (RFC 6749 section 4.1.2.1), filtered.
    No {
        /// `error`
        error: String,
        /// `error_description`
        description: Option<String>,
    },
}

/// The one answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) said: Said,
    /// `iss` (RFC 9207).
    pub(super) issuer: Option<String>,
    /// What the browser is to show.
    pub(super) reply: Reply,
}

/// Sends the browser its page.
#[derive(Debug)]
pub(super) struct Reply(oneshot::Sender<Page>);

impl Reply {
    /// A browser that has gone away misses nothing.
    pub(super) fn send(self, page: Page) {
        let _ = self.0.send(page);
    }
}

/// The listener.
pub(super) struct Door {
    tcp: TcpListener,
    keeper: Arc<Keeper>,
    answers: mpsc::Receiver<Answer>,
    connections: JoinSet<()>,
    /// The same, oldest first.
    places: VecDeque<AbortHandle>,
}

/// Who looks at each request.
struct Keeper {
    /// The Host that we gave out.
    host: String,
    state: Secret,
    answered: AtomicBool,
    answers: mpsc::Sender<Answer>,
}

impl Door {
    /// Listens on the loopback address, on this port or, with 0, on any free one.
    pub(super) async fn open(port: u16, state: Secret) -> io::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let host = tcp.local_addr()?.to_string();
        let (sender, answers) = mpsc::channel(1);
        let keeper = Arc::new(Keeper { host, state, answered: AtomicBool::new(false), answers: sender });
        Ok(Self { tcp, keeper, answers, connections: JoinSet::new(), places: VecDeque::new() })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.tcp.local_addr().map_or(0, |address| address.port())
    }

    /// `redirect_uri`
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.keeper.host)
    }

    /// Waits for the answer that is ours.
    pub(super) async fn answer(&mut self) -> Answer {
        loop {
            tokio::select! {
                Some(answer) = self.answers.recv() => return answer,
                accepted = self.tcp.accept() => match accepted {
                    Ok((tcp, _)) => self.let_in(tcp),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await, // no descriptor left, mostly
                },
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() => {}
            }
        }
    }

    fn let_in(&mut self, tcp: TcpStream) {
        self.places.retain(|place| !place.is_finished());
        if self.places.len() >= MOST
            && let Some(oldest) = self.places.pop_front()
        {
            oldest.abort();
        }
        self.places.push_back(self.connections.spawn(serve(tcp, Arc::clone(&self.keeper))));
    }

    /// Lets the browser have its page, and closes.
    pub(super) async fn close(mut self) {
        drop(self.tcp);
        let all = async { while self.connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE, all).await;
    }
}

async fn serve(tcp: TcpStream, keeper: Arc<Keeper>) {
    let service = service_fn(|request| {
        let keeper = Arc::clone(&keeper);
        async move { Ok::<_, Infallible>(keeper.respond(&request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
    let _ = http.serve_connection(TokioIo::new(tcp), service).await;
}

impl Keeper {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let page = match self.judge(request) {
            Ok((said, issuer)) if !self.answered.swap(true, Ordering::SeqCst) => {
                let (reply, page) = oneshot::channel();
                let answer = Answer { said, issuer, reply: Reply(reply) };
                let _ = self.answers.send(answer).await;
                page.await.unwrap_or_else(|_| Page::late())
            }
            Ok(_) => Page::refused(StatusCode::CONFLICT, "this login has been answered already"),
            Err(page) => page,
        };
        page.into_response()
    }

    fn judge(&self, request: &Request<Incoming>) -> Result<(Said, Option<String>), Page> {
        let mut hosts = request.headers().get_all(http::header::HOST).into_iter();
        let host = hosts.next().filter(|_| hosts.next().is_none());
        if host.is_none_or(|host| host.as_bytes() != self.host.as_bytes()) {
            return Err(Page::refused(StatusCode::MISDIRECTED_REQUEST, "this is not the address that was given out"));
        }
        if request.uri().path() != PATH {
            return Err(Page::refused(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        if request.method() != Method::GET {
            return Err(Page::refused(StatusCode::METHOD_NOT_ALLOWED, "only a browser's GET is expected here"));
        }
        let stray = || Page::refused(StatusCode::BAD_REQUEST, "this is no answer to the login that is under way");
        let params = params(request.uri().query().unwrap_or_default()).ok_or_else(stray)?;
        let value = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let state = value("state").ok_or_else(stray)?;
        let equal = aws_lc_rs::constant_time::verify_slices_are_equal;
        equal(state.as_bytes(), self.state.expose().as_bytes()).map_err(|_| stray())?;
        let said = match (value("error"), value("code")) {
            (Some(error), _) => Said::No {
                error: printable(error, 64),
                description: value("error_description").map(|text| printable(text, 200)),
            },
            (None, Some(code)) if !code.is_empty() => Said::Code(Secret::new(code.to_owned())),
            _ => return Err(stray()),
        };
        Ok((said, value("iss").map(str::to_owned)))
    }
}

/// Names and values; `None` where an escape is broken or a name comes twice (RFC 6749 section 3.1).
fn params(query: &str) -> Option<Vec<(String, String)>> {
    let mut params: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = form_decoded(name)?;
        if params.iter().any(|(known, _)| *known == name) {
            return None;
        }
        params.push((name, form_decoded(value)?));
    }
    Some(params)
}
