//! The connections of one core, known one by one, so that idle ones can be asked to leave when the core drains.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use super::balance::Ticket;
use crate::telemetry::metrics::Held;

/// How an idle connection is asked to leave. It leaves by itself, and only if nothing has arrived: whoever
/// ended it from outside could not know that a request is already there.
#[derive(Default)]
pub(super) struct Idle {
    leave: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Idle {
    /// Whether it is asked to leave; else its task is woken when it is.
    pub(super) fn poll_leave(&self, cx: &Context<'_>) -> bool {
        if !self.leave.get() {
            let mut waker = self.waker.borrow_mut();
            match &mut *waker {
                Some(known) => known.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        self.leave.get()
    }

    fn ask(&self) {
        self.leave.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The connections of one core.
#[derive(Default)]
pub(super) struct Seats {
    free: Vec<usize>,
    places: Vec<Option<Rc<Idle>>>,
}

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Asks all connections to leave as soon as they are idle.
    pub(super) fn ask_to_leave(&self) {
        self.places.iter().flatten().for_each(|idle| idle.ask());
    }
}

/// One connection's place, free again when it is dropped.
pub(super) struct Seat {
    seats: Rc<RefCell<Seats>>,
    at: usize,
    idle: Rc<Idle>,
    _counted: Ticket,
    _open: Held,
}

impl Seat {
    /// A seat in `seats` for a connection that is counted, over all and for its listener.
    pub(super) fn take(seats: &Rc<RefCell<Seats>>, counted: Ticket, open: Held) -> Self {
        let idle = Rc::new(Idle::default());
        let mut inner = seats.borrow_mut();
        let at = inner.free.pop().unwrap_or(inner.places.len());
        if at == inner.places.len() {
            inner.places.push(None);
        }
        inner.places[at] = Some(Rc::clone(&idle));
        drop(inner);
        Self { seats: Rc::clone(seats), at, idle, _counted: counted, _open: open }
    }

    /// How this connection is asked to leave.
    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.borrow_mut();
        seats.places[self.at] = None;
        seats.free.push(self.at);
    }
}
