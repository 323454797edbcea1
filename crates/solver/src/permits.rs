//! The right to run a process, of which there are only so many.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::Cancel;

/// The rights to run a process.
pub(crate) struct Permits {
    free: Mutex<usize>,
    changed: Condvar,
}

/// The right to run one process, until it is dropped.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), changed: Condvar::new() }
    }

    /// Waits for a permit, or until the work is no longer wanted.
    pub(crate) fn acquire(&self, cancel: &Cancel) -> Option<Permit<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 && !cancel.is_canceled() {
            // Somebody outside may cancel without waking anybody.
            let wait = self.changed.wait_timeout(free, Duration::from_millis(100));
            free = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        if *free == 0 {
            return None;
        }
        *free -= 1;
        Some(Permit(self))
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}
