//! One request and its answer on one upstream connection: both directions at once, under deadlines.
//!
//! The connection is driven by the task of the request itself; there is no task and no channel between the
//! caller's socket and the upstream's.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::sink;

use super::{
    body::{Pump, PumpError, Replay, Side, Way},
    buffer::{Buffer, Buffers},
    clock,
    error::{Code, ProxyError},
    record::Tally,
    socket::{Link, Socket},
    timer::Timer,
};
use crate::{
    config::model::RouteSpec,
    net::{certificate_alert, certificate_refused},
    rules::headers,
    snapshot::Route,
    wire::{
        Framing, ResponseHead,
        head::{HeadError, head_end},
    },
};

/// Largest response head that is read.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// A body that is thrown away is read up to so many bytes, else its connection is given up.
const DISCARD: u64 = 64 * 1024;
/// ... and for so long.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The caller's side of a connection.
pub(super) struct Caller {
    pub(super) side: Side<Socket>,
    pub(super) timer: Timer,
    /// When the first byte of the current request was there.
    pub(super) arrived: Instant,
    /// Whether some of the current request's body may have been taken out of `side`.
    pub(super) body_begun: bool,
}

impl Caller {
    /// One that has sent nothing yet, with a timer at `deadline`.
    pub(super) fn new(io: Socket, now: Instant, deadline: Instant) -> Self {
        let side = Side { io, buf: Buffer::default() };
        Self { side, timer: Timer::new(deadline), arrived: now, body_begun: false }
    }

    /// Notices a caller that closes while it waits; what it sends meanwhile is kept, up to a buffer of it.
    /// Costs no system call while it is silent.
    fn poll_gone(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Result<(), Broken> {
        let side = &mut self.side;
        while side.io.poll_readable(cx).is_ready() {
            if side.buf.size() == 0 {
                side.buf = buffers.small();
            }
            if side.buf.space().is_empty() {
                break;
            }
            match side.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(GONE),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Waits for something on behalf of the caller, but not longer than the caller itself does: nothing
    /// is sent upstream for one that is gone.
    pub(super) async fn wait_for<T>(
        &mut self,
        buffers: &Buffers,
        mut what: Pin<Box<impl Future<Output = Result<T, ProxyError>>>>,
    ) -> Result<T, Broken> {
        let mut waited = false;
        poll_fn(|cx| {
            if let Poll::Ready(result) = what.as_mut().poll(cx) {
                // The end of one that has sent more than the buffer takes lies behind what is unread.
                let gone = waited && self.side.io.has_ended();
                return Poll::Ready(if gone { Err(GONE) } else { result.map_err(Broken::Answer) });
            }
            waited = true;
            self.poll_gone(cx, buffers)?;
            Poll::Pending
        })
        .await
    }
}

/// What is true of every upstream that was sent a request and did not say otherwise.
const MAY_HAVE_ACTED: &str = "it may have acted on the request";

/// Nobody is left to hear the answer.
const GONE: Broken = Broken::Abort("the caller went away before the answer");

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing was sent to the caller yet: it gets this answer.
    Answer(ProxyError),
    /// The caller is gone, or its answer cannot be completed: the connection is dropped without an end.
    Abort(&'static str),
    /// Nothing of the request was executed: the upstream closed a kept connection before any byte could be sent, or
    /// said itself that it refused it.
    Stale,
}

impl From<ProxyError> for Broken {
    fn from(error: ProxyError) -> Self {
        Self::Answer(error)
    }
}

/// One attempt at an upstream.
pub(super) struct Exchange<'a> {
    pub(super) caller: &'a mut Caller,
    pub(super) up: &'a mut Side<Link>,
    pub(super) upload: &'a mut Pump,
    pub(super) replay: &'a mut Replay,
    pub(super) buffers: &'a Buffers,
    pub(super) route: &'a Route,
    pub(super) tally: &'a Tally,
    /// Whether the upload is still under way.
    pub(super) uploading: bool,
    /// The upload ended because the upstream took no more.
    refused: Option<io::Error>,
    seen: u64,
    /// The upload's progress when this attempt began.
    began_at: u64,
    /// What had left on its connection by then.
    had_left: u64,
    /// When something last moved.
    moved: Instant,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        caller: &'a mut Caller,
        up: &'a mut Side<Link>,
        upload: &'a mut Pump,
        replay: &'a mut Replay,
        buffers: &'a Buffers,
        (route, tally): (&'a Route, &'a Tally),
        now: Instant,
    ) -> Self {
        let seen = upload.progress;
        let had_left = up.io.has_left();
        caller.body_begun = true;
        Self {
            caller,
            up,
            upload,
            replay,
            buffers,
            route,
            tally,
            uploading: true,
            refused: None,
            seen,
            began_at: seen,
            had_left,
            moved: now,
        }
    }

    /// Whether the whole request went out on the upstream connection.
    pub(super) fn is_sent(&self) -> bool {
        !self.uploading && self.refused.is_none()
    }

    /// Moves the request's body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if !self.uploading {
            return Ok(());
        }
        if self.caller.side.buf.size() == 0 && !self.upload.source_is_done() {
            self.caller.side.buf = self.buffers.small();
        }
        let rules = &self.route.headers;
        let way = Way { replay: Some(self.replay), trailers: &|section, out| rules.write_trailers(out, section) };
        let polled = self.upload.poll(cx, &mut self.caller.side, &mut self.up.io, way);
        if self.upload.progress != self.seen {
            self.seen = self.upload.progress;
            self.moved = clock::now();
            self.tally.request_bytes.set(self.upload.taken);
        }
        match polled {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
            // The upstream may have answered before it closed; its answer is read first.
            Poll::Ready(Err(PumpError::Write(e))) => self.refused = Some(e),
            Poll::Ready(Err(PumpError::Truncated | PumpError::Read)) => {
                return Err(Broken::Abort("the caller went away while it sent the body"));
            }
            Poll::Ready(Err(PumpError::Grammar(e))) => return Err(bad_body(e).into()),
            Poll::Ready(Err(PumpError::Trailers(e))) => return Err(bad_body(e).into()),
            Poll::Ready(Err(PumpError::TooLarge)) => return Err(too_large(self.route).into()),
        }
        self.uploading = false;
        Ok(())
    }

    /// Once the upload is over, nobody else watches the caller.
    fn poll_caller(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if self.uploading { Ok(()) } else { self.caller.poll_gone(cx, self.buffers) }
    }

    /// Sends the request and reads the head of the answer into `up.buf`; returns its length.
    pub(super) async fn head(&mut self) -> Result<usize, Broken> {
        if self.up.buf.size() == 0 {
            self.up.buf = self.buffers.small();
        }
        let mut scanned = 0;
        poll_fn(|cx| self.poll_head(cx, &mut scanned)).await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, scanned: &mut usize) -> Poll<Result<usize, Broken>> {
        self.poll_upload(cx)?;
        loop {
            if let Some(length) = head_end(self.up.buf.filled(), *scanned) {
                return Poll::Ready(Ok(length));
            }
            *scanned = self.up.buf.len();
            if self.up.buf.space().is_empty() {
                if self.up.buf.size() >= MAX_RESPONSE_HEAD {
                    return Poll::Ready(Err(
                        self.unusable("sent a response head larger than the 64 KiB that are taken here")
                    ));
                }
                self.up.buf.grow(MAX_RESPONSE_HEAD);
            }
            match self.up.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.no_answer(None))),
                // A head that drips in does not earn more time.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(self.no_answer(Some(&e)))),
                Poll::Pending => break,
            }
        }
        self.poll_caller(cx)?;
        let spec = &self.route.spec;
        let limit = if self.uploading { spec.body_idle_timeout } else { spec.response_timeout };
        self.caller.timer.set(self.moved + limit);
        if self.caller.timer.poll(cx).is_ready() {
            let is_callers_fault = self.uploading && !self.upload.is_held_up(&self.caller.side.buf);
            if let Link::H2(stream) = &self.up.io
                && !is_callers_fault
            {
                stream.distrust();
            }
            return Poll::Ready(Err(self.silent(limit).into()));
        }
        Poll::Pending
    }

    fn silent(&self, limit: Duration) -> ProxyError {
        let host = &self.route.spec.upstream.authority;
        if self.uploading && self.upload.is_held_up(&self.caller.side.buf) {
            let text =
                format!("{host} did not take the request's body for {limit:?} (body_idle_timeout); {MAY_HAVE_ACTED}");
            return ProxyError::new(Code::UpstreamTimeout, text);
        }
        if self.uploading {
            let text = format!(
                "the request's body did not move for {limit:?} (body_idle_timeout); {host} has what came before, and may \
                 have acted on that"
            );
            return ProxyError::new(Code::RequestTimeout, text);
        }
        let text = format!("{host} sent no response head within {limit:?} (response_timeout); {MAY_HAVE_ACTED}");
        ProxyError::new(Code::UpstreamTimeout, text)
    }

    /// An interim response is a sign of life: the final one has its whole time again.
    pub(super) fn wait_again(&mut self) {
        self.moved = clock::now();
    }

    /// Its answer breaks a rule of HTTP.
    pub(super) fn protocol(&self, what: &str) -> Broken {
        self.unusable(&format!("broke the protocol: {what}"))
    }

    /// `what` it did says that there is no answer to pass on.
    pub(super) fn unusable(&self, what: &str) -> Broken {
        let host = &self.route.spec.upstream.authority;
        ProxyError::new(Code::UpstreamProtocol, format!("{host} {what}; {MAY_HAVE_ACTED}")).into()
    }

    fn no_answer(&self, error: Option<&io::Error>) -> Broken {
        let RouteSpec { upstream, token, .. } = &self.route.spec;
        let presents = token.credential.presents_certificate();
        if let Some(alert) = error.and_then(|error| certificate_alert(error, presents)) {
            let why = certificate_refused(&upstream.host, upstream.port, presents, alert);
            // The server's handshake was not over: what came behind it was not read.
            return ProxyError::new(Code::UpstreamTls, format!("{why}; it did not read the request")).into();
        }
        let unsent = match &self.up.io {
            // A write of many records may fail when some of them have left.
            Link::H1(_) => self.upload.progress == self.began_at && self.up.io.has_left() == self.had_left,
            Link::H2(stream) => stream.was_refused(),
        };
        if self.up.buf.is_empty() && unsent {
            return Broken::Stale;
        }
        let why = match (error, &self.refused) {
            (Some(e), _) | (None, Some(e)) => e.to_string(),
            (None, None) => "connection closed".to_owned(),
        };
        if self.up.buf.is_empty() {
            self.unusable(&format!("gave no answer ({why})"))
        } else {
            self.unusable(&format!("ended its response head too early ({why})"))
        }
    }

    /// Parses the head in `up.buf`.
    pub(super) fn parse(&self, length: usize) -> Result<ResponseHead, Broken> {
        let bytes = &self.up.buf.filled()[..length];
        // Room for what most heads have: one allocation instead of three.
        ResponseHead::parse(bytes, Vec::with_capacity(16)).map_err(|error| match error {
            HeadError::TooManyFields | HeadError::TooManyOptions => {
                self.unusable(&format!("sent a response head that is not taken here: {error}"))
            }
            error => self.protocol(&error.to_string()),
        })
    }

    /// Sends bytes to the caller that are not the final answer.
    pub(super) async fn interim(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let limit = self.route.spec.body_idle_timeout;
        let write = self.caller.side.io.interim(bytes);
        match tokio::time::timeout(limit, write).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Broken::Abort("the caller took no interim response")),
        }
    }

    /// Sends the answer: `head`, with this status, then the body. The rest of an unfinished upload goes on beside it.
    pub(super) async fn respond(
        &mut self,
        status: u16,
        head: Vec<u8>,
        from: Framing,
        to: Framing,
    ) -> Result<(), Broken> {
        self.moved = clock::now();
        self.tally.answers(status, self.moved);
        let Ok(head) = self.caller.side.io.begin(head, from.is_empty()) else {
            return Err(Broken::Abort("the caller went away before the answer"));
        };
        // A body that ends by itself, whatever it is framed by, is held to what the caller was told of it.
        let told = match (from, to) {
            (Framing::UntilClose, Framing::Length(n)) => Some(n),
            _ => None,
        };
        let mut download = Pump::new(head, from, to, told);
        let mut seen = 0;
        let limit = self.route.spec.body_idle_timeout;
        poll_fn(|cx| {
            // A body that breaks off now cannot be answered any more.
            if self.poll_upload(cx).is_err() {
                return Poll::Ready(Err(Broken::Abort("the request's body broke off during the answer")));
            }
            let way = Way { replay: None, trailers: &|section, out| headers::write_response_trailers(out, section) };
            let polled = download.poll(cx, self.up, &mut self.caller.side.io, way);
            self.tally.response_bytes.set(download.taken);
            match polled {
                Poll::Ready(Ok(())) if told.is_none_or(|n| n == download.taken) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.tally.truncated.set(true);
                    return Poll::Ready(Err(Broken::Abort(cut(&PumpError::Truncated))));
                }
                Poll::Ready(Err(e)) => {
                    self.tally.truncated.set(!matches!(e, PumpError::Write(_)));
                    return Poll::Ready(Err(Broken::Abort(cut(&e))));
                }
                Poll::Pending => {}
            }
            if download.progress != seen {
                seen = download.progress;
                self.moved = clock::now();
            }
            self.poll_caller(cx)?;
            self.caller.timer.set(self.moved + limit);
            if self.caller.timer.poll(cx).is_ready() {
                return Poll::Ready(Err(Broken::Abort("the answer did not move for body_idle_timeout")));
            }
            Poll::Pending
        })
        .await
    }

    /// Reads an answer's body to its end and throws it away; whether that succeeded.
    pub(super) async fn discard(&mut self, from: Framing) -> bool {
        if from == Framing::UntilClose {
            return false;
        }
        let mut pump = Pump::new(Vec::new(), from, Framing::None, Some(DISCARD));
        let mut nowhere = sink();
        let read = poll_fn(|cx| pump.poll(cx, self.up, &mut nowhere, Way::plain()));
        matches!(tokio::time::timeout(DISCARD_TIME, read).await, Ok(Ok(())))
    }
}

fn cut(error: &PumpError) -> &'static str {
    match error {
        PumpError::Write(_) => "the caller went away during the answer",
        PumpError::Truncated | PumpError::Read => "the upstream's answer ended too early",
        PumpError::Grammar(_) => "the upstream's chunked body is malformed",
        PumpError::Trailers(_) => "the upstream's trailers are malformed",
        PumpError::TooLarge => "the answer is too large",
    }
}

fn bad_body(error: impl fmt::Display) -> ProxyError {
    ProxyError::new(Code::BadRequest, format!("the request's body is malformed: {error}"))
}

pub(super) fn too_large(route: &Route) -> ProxyError {
    let limit = route.spec.max_body.unwrap_or_default();
    ProxyError::new(Code::BodyTooLarge, format!("the route takes bodies of up to {limit} bytes (max_body)"))
}
