//! Read buffers, kept per core and lent only while there is something to read: an idle connection holds none.

use std::cell::RefCell;

/// Size of a buffer for heads and small bodies.
pub(super) const SMALL: usize = 16 * 1024;
/// What a buffer grows to when a body fills the small one.
pub(super) const LARGE: usize = 64 * 1024;
/// How many idle buffers a core keeps.
const KEPT: usize = 256;

/// Bytes that have arrived and are not dealt with yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn with_size(size: usize) -> Self {
        Self { bytes: vec![0; size], start: 0, end: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Where the next bytes go; empty only when all of the buffer is filled.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Makes room for at least `size` bytes in all, for a head larger than [`SMALL`].
    pub(super) fn grow(&mut self, size: usize) {
        if self.bytes.len() < size {
            self.bytes.resize(size, 0);
        }
    }

    /// Appends bytes, growing where needed.
    pub(super) fn push(&mut self, more: &[u8]) {
        let _ = self.space();
        if self.start > 0 && self.end + more.len() > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.grow(self.end + more.len());
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
    }
}

/// One core's buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    small: RefCell<Vec<Buffer>>,
}

impl Buffers {
    pub(super) fn small(&self) -> Buffer {
        self.small.borrow_mut().pop().unwrap_or_else(|| Buffer::with_size(SMALL))
    }

    /// Takes a buffer back; one that has grown is dropped, so that memory follows the load down.
    pub(super) fn give(&self, mut buffer: Buffer) {
        let mut kept = self.small.borrow_mut();
        if buffer.size() == SMALL && kept.len() < KEPT {
            (buffer.start, buffer.end) = (0, 0);
            kept.push(buffer);
        }
    }
}
