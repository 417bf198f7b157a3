//! What is held of a request's body in case it has to be sent again.

use std::{cell::Cell, rc::Rc};

/// The first bytes of a request's body, held in case it has to be sent again: up to the route's limit, and
/// within a budget that all requests of the core share.
#[derive(Debug)]
pub(in crate::proxy) struct Replay {
    pub(super) held: Vec<u8>,
    limit: usize,
    budget: Rc<Cell<usize>>,
    overflowed: bool,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Replay {
    pub(in crate::proxy) fn new(limit: usize, budget: &Rc<Cell<usize>>) -> Self {
        Self { held: Vec::new(), limit, budget: Rc::clone(budget), overflowed: false }
    }

    pub(super) fn hold(&mut self, data: &[u8]) {
        if data.is_empty() || self.overflowed {
            return;
        }
        let left = self.budget.get().checked_sub(data.len());
        if let Some(left) = left.filter(|_| self.held.len() + data.len() <= self.limit) {
            self.budget.set(left);
            self.held.extend_from_slice(data);
        } else {
            self.overflowed = true;
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.budget.set(self.budget.get() + self.held.len());
        self.held = Vec::new();
    }

    /// Whether everything that was taken from the caller so far can be sent again.
    pub(in crate::proxy) fn is_possible(&self) -> bool {
        !self.overflowed
    }
}
