//! The connections of one core: counted over all cores, and known one by one, so that idle ones can be
//! closed when the core drains. It costs nothing per request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Whether a connection is idle, and the task that serves it.
type Place = (Rc<Cell<bool>>, Option<AbortHandle>);

/// The connections of one core.
#[derive(Default)]
pub(super) struct Seats {
    free: Vec<usize>,
    places: Vec<Option<Place>>,
}

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    pub(super) fn close_idle(&self) {
        for (idle, task) in self.places.iter().flatten() {
            if let (true, Some(task)) = (idle.get(), task) {
                task.abort();
            }
        }
    }
}

/// One connection's place; free again once all its clones are gone.
#[derive(Clone)]
pub(super) struct Seat(Rc<Taken>);

struct Taken {
    seats: Rc<RefCell<Seats>>,
    all: Arc<AtomicUsize>,
    at: usize,
    idle: Rc<Cell<bool>>,
}

impl Seat {
    /// A seat in `seats`, counted in `all`, unless `limit` are taken there.
    pub(super) fn take(seats: &Rc<RefCell<Seats>>, all: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        if all.fetch_add(1, Ordering::Relaxed) >= limit {
            all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let idle = Rc::new(Cell::new(true));
        let mut inner = seats.borrow_mut();
        let entry = Some((Rc::clone(&idle), None));
        let at = if let Some(at) = inner.free.pop() {
            inner.places[at] = entry;
            at
        } else {
            inner.places.push(entry);
            inner.places.len() - 1
        };
        drop(inner);
        Some(Self(Rc::new(Taken { seats: Rc::clone(seats), all: Arc::clone(all), at, idle })))
    }

    /// Whether the connection could be closed without losing anything; the connection keeps it true.
    pub(super) fn idle(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.0.idle)
    }

    /// Says which task has the seat, so that it can be closed while idle.
    pub(super) fn occupy(self, task: AbortHandle) {
        if let Some((_, slot)) = &mut self.0.seats.borrow_mut().places[self.0.at] {
            *slot = Some(task);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut seats = self.seats.borrow_mut();
        seats.places[self.at] = None;
        seats.free.push(self.at);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
