//! One HTTP/2 connection to an upstream: who is on it, what is known of it, and the task that moves its bytes.

use std::{
    cell::{Cell, RefCell, RefMut},
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::Notify,
    time::{Sleep, sleep},
};

use super::{STREAMS, session::Session, stream::Failure, watched::Watched};
use crate::{net::alerted, proxy::clock, wire::h2::frame::Code};

/// Heads that may have arrived unread. No window of HTTP/2 bounds them; each answer has one, and trailers, and interim ones.
const MOST_HEADS: u32 = 64 * STREAMS;
/// So many come with a request: its own and its trailers, and interim ones that are not read because the caller has gone.
const HEADS: u32 = 10;
/// How much is read at once.
const READ: usize = 64 * 1024;
/// How long others wait for the server's SETTINGS before they make a connection of their own.
const GREETING: Duration = Duration::from_secs(1);
/// How long a connection that closes waits for its server to take the rest.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long a connection that cannot be written to is read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often one connection reads before others have their turn.
const READS: usize = 16;

/// The first of both that is ready.
fn ready_or<T>(first: Poll<T>, second: impl FnOnce() -> Poll<T>) -> Poll<T> {
    if first.is_ready() { first } else { second() }
}

thread_local! {
    /// What was just read: none of it stays here.
    static ARRIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The connection as its requests see it.
#[derive(Debug)]
pub(super) struct Lane {
    session: RefCell<Session>,
    running: Cell<usize>,
    closed: Cell<bool>,
    used: Cell<Option<Instant>>,
    /// How many more heads may come.
    heads: Cell<u32>,
    alert: Cell<Option<AlertDescription>>,
    /// The server has said how many streams it takes, or will not any more.
    greeted: Cell<bool>,
    greeting: Notify,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            session: RefCell::new(Session::new()),
            running: Cell::new(0),
            closed: Cell::new(false),
            used: Cell::new(None),
            heads: Cell::new(MOST_HEADS),
            alert: Cell::new(None),
            greeted: Cell::new(false),
            greeting: Notify::new(),
        }
    }

    /// For one step that waits for nothing.
    pub(super) fn session(&self) -> RefMut<'_, Session> {
        self.session.borrow_mut()
    }

    pub(super) fn enter(&self) {
        self.running.set(self.running.get() + 1);
        self.expect(HEADS);
    }

    pub(super) fn leave(&self) {
        self.running.set(self.running.get() - 1);
        self.used.set(Some(clock::now()));
        if self.running.get() == 0 {
            self.session().vacated();
        }
    }

    /// How many requests are on it.
    pub(super) fn running(&self) -> usize {
        self.running.get()
    }

    /// When the last one left it.
    pub(super) fn used(&self) -> Option<Instant> {
        self.used.get()
    }

    /// Whether one more has a place. Until the server has said how many it takes, there is one.
    pub(super) fn has_place(&self) -> bool {
        let most = if self.greeted.get() { STREAMS as usize } else { 1 };
        let session = self.session();
        session.has_room() && self.running.get() < session.most_streams().min(most)
    }

    /// Whether its server has not said how many streams it takes.
    pub(super) fn is_new(&self) -> bool {
        !self.greeted.get()
    }

    /// Waits until the server has said how many streams it takes; not for long, for it may say so with its first answer.
    pub(super) async fn greeted(&self) {
        let greeting = self.greeting.notified();
        if self.is_new() {
            let _ = tokio::time::timeout(GREETING, greeting).await;
            // It may say so with its first answer, which takes as long as it takes: what is too much it will refuse.
            self.greet();
        }
    }

    fn greet(&self) {
        if !self.greeted.replace(true) {
            self.greeting.notify_waiters();
        }
    }

    /// Whether it takes requests at all.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.get() && self.session().most_streams() > 0
    }

    /// Nobody enters any more.
    pub(super) fn close(&self) {
        self.closed.set(true);
    }

    /// So many heads more may come: one for each interim response that was read. Never more than [`MOST_HEADS`]: those that do
    /// not come are not saved up.
    pub(super) fn expect(&self, more: u32) {
        self.heads.set((self.heads.get() + more).min(MOST_HEADS));
    }

    /// Whether so many heads may have come.
    pub(super) fn expected(&self, come: u32) -> bool {
        let left = self.heads.get().checked_sub(come);
        self.heads.set(left.unwrap_or(0));
        left.is_some()
    }

    /// The TLS alert that the connection ends with. Once the server has spoken HTTP/2, it is not about who we are.
    pub(super) fn end_with(&self, alert: AlertDescription) {
        if !self.session().has_settings() {
            self.alert.set(Some(alert));
        }
    }

    /// The TLS alert that its connection ended with, as an error.
    pub(super) fn alert(&self) -> Option<io::Error> {
        self.alert.get().map(alerted)
    }

    /// Moves bytes until the connection ends, and tells the requests on it.
    pub(super) async fn drive(self: Rc<Self>, mut io: Watched) {
        let mut is_mute = false;
        let mut last_wait = None;
        let result = poll_fn(|cx| {
            ready_or(self.poll_drive(&mut io, cx, &mut is_mute), || self.poll_abandoned(cx, &mut last_wait))
        })
        .await;
        self.close();
        if is_mute {
            // A server that leaves says what it has acted on, which lies unread where a write fails first.
            let last_words = poll_fn(|cx| self.receive(&mut io, cx).err().map_or(Poll::Pending, Poll::Ready));
            let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        }
        self.greet();
        let code = match result {
            Ok(()) => Some(Code::NO_ERROR),
            Err(failure) => {
                tracing::debug!("an HTTP/2 connection to an upstream ended: {}", failure.to_io());
                self.session().fail(&failure);
                failure.code()
            }
        };
        // It may hear why, if it listens; nobody waits for that. Behind half a frame nothing can be said.
        if let Some(code) = code.filter(|_| self.session().unsent().is_empty()) {
            self.session().part(code);
            let _ = poll_fn(|cx| Poll::Ready(self.poll_send(&mut io, cx))).await;
        }
        let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_shutdown(cx))).await;
    }

    /// `is_mute` is set where the end is that nothing can be sent.
    fn poll_drive(&self, io: &mut Watched, cx: &mut Context<'_>, is_mute: &mut bool) -> Poll<Result<(), Failure>> {
        self.session().driven_by(cx.waker());
        // What has arrived comes first: where that is the connection's end, a request that was not sent yet can go elsewhere.
        self.receive(io, cx)?;
        if let Poll::Ready(Err(e)) = self.poll_send(io, cx) {
            *is_mute = true;
            return Poll::Ready(Err(Failure::of_connection(&e)));
        }
        let is_done = self.running() == 0 && self.session().is_done();
        if is_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ready once everybody has left a connection that closes, and the server has taken nothing of what is left for so long.
    fn poll_abandoned(&self, cx: &mut Context<'_>, wait: &mut Option<Pin<Box<Sleep>>>) -> Poll<Result<(), Failure>> {
        if self.running() > 0 || !self.session().is_closing() {
            *wait = None;
            return Poll::Pending;
        }
        ready!(wait.get_or_insert_with(|| Box::pin(sleep(LAST_WAIT))).as_mut().poll(cx));
        Poll::Ready(Err(Failure::of_connection(&io::ErrorKind::TimedOut.into())))
    }

    /// Takes what has arrived, up to [`READS`] times as much as is read at once.
    fn receive(&self, io: &mut Watched, cx: &mut Context<'_>) -> Result<(), Failure> {
        ARRIVED.with_borrow_mut(|arrived| {
            for _ in 0..READS {
                let mut buf = ReadBuf::new(arrived);
                match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Err(e)) => return Err(Failure::of_connection(&e)),
                    Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                        let end = io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed");
                        return Err(Failure::of_connection(&end));
                    }
                    Poll::Ready(Ok(())) => self.session().receive(buf.filled()).map_err(Failure::Wrong)?,
                }
                // Its first frame was one of SETTINGS, else it had failed.
                if self.session().has_settings() {
                    self.greet();
                }
            }
            // Others have their turn first.
            cx.waker().wake_by_ref();
            Ok(())
        })
    }

    fn poll_send(&self, io: &mut Watched, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        while !session.unsent().is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, session.unsent())) {
                Ok(n) if n > 0 => session.sent(n),
                failed => {
                    // Some of it may have left all the same: TLS sends in records of its own.
                    let all = session.unsent().len();
                    session.sent(all);
                    return Poll::Ready(failed.and(Err(io::ErrorKind::WriteZero.into())));
                }
            }
        }
        Pin::new(io).poll_flush(cx)
    }
}
