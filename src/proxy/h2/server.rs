//! A caller's HTTP/2 connection: streams are accepted here, each is served by a task of its own.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    ext::Protocol,
    server::{Builder, SendResponse},
};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CONNECTION_WINDOW, Incoming, STREAM_WINDOW, STREAMS};
use crate::{
    config::model::Server,
    proxy::{
        buffer::Buffer,
        clock,
        connection::{self, Peer},
        seats::Seat,
        socket::Socket,
        timer::Timer,
        worker::Worker,
    },
    wire::{flood::Watch, translate::request_to_h1},
};

/// What an HTTP/2 client says first (RFC 9113 section 3.4), up to where HTTP/1.1 would end a head.
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How many bytes of one stream's body lie ready to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a peer that has been told to leave may take to do so once nothing runs.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection some bytes of which were read already; it ends when it is flooded.
struct Watched {
    io: Socket,
    read: Buffer,
    watch: Watch,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.read.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let n = this.read.len().min(buf.remaining());
            buf.put_slice(&this.read.filled()[..n]);
            this.read.consume(n);
        }
        if !this.watch.allows(&buf.filled()[before..], Instant::now) {
            return Poll::Ready(Err(io::Error::other("a flood of frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, data);
        if let Poll::Ready(Ok(n)) = &polled {
            this.watch.sent(&data[..*n]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The streams that run.
struct Running {
    count: Cell<usize>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
}

/// One stream's place among them.
struct Place(Rc<Running>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.idle_since.set(clock::now());
    }
}

/// Serves a connection to its end. `read`: what was read of it already, from its first byte.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, io: Socket, read: Buffer, peer: Peer, seat: Seat) {
    let core = worker.core();
    let limits = core.snapshot.server();
    let io = Watched { io, read, watch: Watch::of_client(Instant::now()) };
    let handshake = builder(limits).handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    let peer = Rc::new(peer);
    let running = Rc::new(Running { count: Cell::new(0), idle_since: Cell::new(clock::now()) });
    let turned_away = peer.turned_away.is_some();
    let patience = if turned_away { FAREWELL } else { limits.idle_timeout };
    let mut timer = Timer::new(clock::now() + patience);
    let mut leaving = None;
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Next::of(accepted));
            }
            let patience = if leaving.is_some() { FAREWELL } else { patience };
            let since = if running.count.get() > 0 { clock::now() } else { running.idle_since.get() };
            timer.set(since.max(leaving.unwrap_or(since)) + patience);
            if leaving.is_none() && seat.idle().poll_leave(cx) {
                return Poll::Ready(Next::Leave);
            }
            timer.poll(cx).map(|()| if leaving.is_some() { Next::Ended } else { Next::Leave })
        });
        match next.await {
            Next::Stream(request, respond) => {
                running.count.set(running.count.get() + 1);
                let place = Place(Rc::clone(&running));
                tokio::task::spawn_local(stream(Rc::clone(&worker), Rc::clone(&peer), *request, respond, place));
                if turned_away && leaving.is_none() {
                    connection.graceful_shutdown();
                    leaving = Some(clock::now());
                }
            }
            Next::Leave => {
                connection.graceful_shutdown();
                leaving = Some(clock::now());
            }
            Next::Ended => return,
        }
    }
}

/// What happens next on a connection.
enum Next {
    Stream(Box<Request<RecvStream>>, SendResponse<Bytes>),
    Leave,
    Ended,
}

type Accepted = Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>;

impl Next {
    fn of(accepted: Option<Accepted>) -> Self {
        match accepted {
            Some(Ok((request, respond))) => Self::Stream(Box::new(request), respond),
            Some(Err(error)) => {
                tracing::debug!("an HTTP/2 connection of a caller ended: {error}");
                Self::Ended
            }
            None => Self::Ended,
        }
    }
}

/// What is somewhat above `max_header_bytes` is let in, to be answered like a head of HTTP/1.1; what is far above is refused where it
/// is unpacked, by a bare 431.
fn builder(limits: &Server) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.max_header_bytes * 2).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    builder
}

/// Serves one request.
async fn stream(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    _place: Place,
) {
    let (parts, body) = request.into_parts();
    // Any other protocol is a CONNECT like others, and refused as such.
    let websocket = parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    let key = (websocket && parts.method == Method::CONNECT).then(|| worker.websocket_key());
    let mut head = worker.scratch();
    let told = request_to_h1(&mut head, &parts, !body.is_end_stream(), key.as_deref());
    let socket = Socket::H2(Box::new(Incoming::new(body, respond)));
    connection::serve_stream(&worker, &peer, socket, told.map(|()| &head[..])).await;
    worker.give_scratch(head);
}
