//! One connection: hyper serves it until a play takes the bare socket, or it has idled for too long.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::Notify};

use super::{
    fault::Plan,
    provider::{Provider, Side},
    reply::Body,
    server::Shared,
    service,
    tap::{Heads, Tap},
};

/// An idle connection is closed after this, where the provider says nothing else.
const IDLE: Duration = Duration::from_secs(75);

/// What the service knows of its connection.
pub(super) struct Conn {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Heads,
    pub(super) peer: IpAddr,
    /// Requests so far.
    pub(super) requests: AtomicU64,
    play: Mutex<Option<Plan>>,
    busy: AtomicUsize,
    /// Milliseconds; 0 = never.
    idle_limit: AtomicU64,
    changed: Notify,
}

impl Conn {
    /// Gives the bare socket to a play. Never returns: this request gets no answer from hyper.
    pub(super) async fn hand_over(&self, plan: Plan) -> ! {
        *self.play.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        self.changed.notify_one();
        std::future::pending().await
    }

    /// From now on the connection is closed after idling this long.
    pub(super) fn limit_idle(&self, limit: Duration) {
        self.idle_limit.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn take_play(&self) -> Option<Plan> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Resolves when a play wants the socket (`Some`) or the connection has idled for too long (`None`).
    async fn interrupted(&self) -> Option<Plan> {
        loop {
            let changed = self.changed.notified();
            if let Some(plan) = self.take_play() {
                return Some(plan);
            }
            let limit = Duration::from_millis(self.idle_limit.load(Ordering::Relaxed));
            if self.busy.load(Ordering::Relaxed) > 0 || limit.is_zero() {
                changed.await;
            } else if tokio::time::timeout(limit, changed).await.is_err() {
                return None;
            }
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (tap, heads) = Tap::new(stream);
    let conn = Arc::new(Conn {
        shared,
        heads,
        peer,
        requests: AtomicU64::new(0),
        play: Mutex::new(None),
        busy: AtomicUsize::new(0),
        idle_limit: AtomicU64::new(0),
        changed: Notify::new(),
    });
    let for_service = Arc::clone(&conn);
    let service = service_fn(move |request| answer(Arc::clone(&for_service), request));
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(tap), service);
    let interrupted = tokio::select! {
        _ = &mut http => return,
        interrupted = conn.interrupted() => interrupted,
    };
    if let Some(plan) = interrupted {
        plan.play(http.into_parts().io.into_inner().into_stream()).await;
    } else {
        Pin::new(&mut http).graceful_shutdown();
        let _ = http.await;
    }
}

async fn answer(conn: Arc<Conn>, request: Request<Incoming>) -> Result<Response<Tracked>, std::convert::Infallible> {
    let mut under_way = UnderWay::begin(Arc::clone(&conn));
    let reply = service::handle(&conn, request, &mut under_way).await;
    Ok(reply.map(|body| Tracked { body, _under_way: under_way }))
}

/// A request that is not answered to its end; counted while it lives.
pub(super) struct UnderWay {
    conn: Arc<Conn>,
    target: Option<(Provider, Side)>,
}

impl UnderWay {
    fn begin(conn: Arc<Conn>) -> Self {
        conn.busy.fetch_add(1, Ordering::Relaxed);
        conn.requests.fetch_add(1, Ordering::Relaxed);
        conn.changed.notify_one();
        Self { conn, target: None }
    }

    /// It is known whom it concerns.
    pub(super) fn concerns(&mut self, provider: Provider, side: Side) {
        self.conn.shared.book().begin(provider, side);
        self.target = Some((provider, side));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((provider, side)) = self.target {
            self.conn.shared.book().end(provider, side);
        }
        self.conn.busy.fetch_sub(1, Ordering::Relaxed);
        self.conn.changed.notify_one();
    }
}

/// A body that knows when it is over.
struct Tracked {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
