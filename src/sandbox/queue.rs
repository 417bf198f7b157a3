//! Mythic Beasts' queue of provisioning tasks: pending for a while, then done.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Tasks that are remembered.
const MAX_TASKS: usize = 1_000;

/// The tasks of one sandbox.
pub(super) struct Queue {
    polls: u32,
    tasks: Mutex<(u64, BTreeMap<u64, Task>)>,
}

struct Task {
    /// Path of what it makes.
    makes: String,
    polls_left: u32,
}

/// Where a task stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not yet.
    Pending,
    /// Done: this was made.
    Done(String),
    /// There is no such task.
    Unknown,
}

impl Queue {
    /// Tasks are done after `polls` polls.
    pub(super) fn new(polls: u32) -> Self {
        Self { polls, tasks: Mutex::new((1000, BTreeMap::new())) }
    }

    /// A new task; its number.
    pub(super) fn add(&self, makes: String) -> u64 {
        let mut guard = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, tasks) = &mut *guard;
        *last += 1;
        tasks.insert(*last, Task { makes, polls_left: self.polls });
        if tasks.len() > MAX_TASKS {
            tasks.pop_first();
        }
        *last
    }

    /// One look at a task, which brings it nearer to its end.
    pub(super) fn poll(&self, number: u64) -> Progress {
        let mut guard = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.1.get_mut(&number) {
            None => Progress::Unknown,
            Some(task) if task.polls_left == 0 => Progress::Done(task.makes.clone()),
            Some(task) => {
                task.polls_left -= 1;
                Progress::Pending
            }
        }
    }
}
