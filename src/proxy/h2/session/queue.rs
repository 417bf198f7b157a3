//! What is to be sent on a connection.

use std::task::Waker;

/// Bytes that wait to be sent; beyond them, bodies wait.
pub(super) const FULL: usize = 256 * 1024;
/// A head more, and what the peer made us say: beyond that, it makes us say more than it reads.
const MOST: usize = 2 * FULL;
/// A queue that has grown beyond this is not kept once it is empty.
const KEPT: usize = 64 * 1024;

/// What is to be sent, and who sends it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// How many of them were sent.
    start: usize,
    /// How many bytes were sent before those.
    sent: u64,
    driver: Option<Waker>,
}

impl Queue {
    /// Appends what `write` writes.
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.stir();
    }

    /// Wakes whoever sends.
    pub(super) fn stir(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Who is woken when there is something to be done.
    pub(super) fn driven_by(&mut self, driver: &Waker) {
        self.driver = Some(driver.clone());
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether the peer makes us say more than it reads.
    pub(super) fn overflows(&self) -> bool {
        self.unsent().len() > MOST
    }

    /// For how much more of bodies there is room.
    pub(super) fn room(&self) -> usize {
        FULL.saturating_sub(self.unsent().len())
    }

    /// Where the next byte will stand in all that is ever sent.
    pub(super) fn end(&self) -> u64 {
        self.sent + self.bytes.len() as u64
    }

    /// How many bytes have been sent in all.
    pub(super) fn gone(&self) -> u64 {
        self.sent + self.start as u64
    }

    /// So many bytes were sent.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.bytes.len() || self.start > KEPT {
            self.sent += self.start as u64;
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }
}
