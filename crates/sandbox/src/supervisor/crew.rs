//! The threads that help to answer.
//!
//! Most steps have one process that works, and one thread answers it quickest: the kernel wakes it
//! on the processor that the process waits on, with all that it needs in the caches there. Further
//! threads begin when a call is found waiting behind another, and sleep when none is.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// How many there are at most, beside the first.
const MOST: usize = 3;

/// Who helps.
pub(super) struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that there are, and those of them that wait.
    threads: usize,
    waiting: usize,
    /// How many of those are called.
    called: usize,
    is_over: bool,
}

impl Crew {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new() }
    }

    /// Wakes one, or has one more begin.
    pub(super) fn call<'s>(&self, scope: &'s Scope<'s, '_>, help: impl FnOnce() + Send + 's) {
        let mut state = self.state();
        if state.waiting > state.called {
            state.called += 1;
            self.changed.notify_one();
        } else if state.waiting == 0 && state.threads < MOST {
            // Without it, the others do its work.
            let started = std::thread::Builder::new().spawn_scoped(scope, help);
            state.threads += usize::from(started.is_ok());
        }
    }

    /// Waits for a call; `false` when there is nothing more to do.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state();
        state.waiting += 1;
        while state.called == 0 && !state.is_over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.called = state.called.saturating_sub(1);
        !state.is_over
    }

    /// Tells all that it is over.
    pub(super) fn dismiss(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
