//! What steps were made of, written down beside the work.
//!
//! Notes explain later misses and lead to no result, so no step waits for them, and one that
//! cannot be written is left out. Nothing here decides anything.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use formwork_cache::{CacheIndex, CacheKey, CacheRecord};

/// Where the runs of steps go.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Option<Sender<Note>>>);

/// Lets the writer end when the work does, also by a panic.
struct End<'n>(&'n Notes);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[derive(Debug)]
struct Note {
    steps: Vec<CacheKey>,
    run: CacheRecord,
}

impl Notes {
    /// Does some work, and writes what is noted meanwhile; all is written when this returns.
    pub(crate) fn keep(&self, index: &dyn CacheIndex, work: impl FnOnce()) {
        std::thread::scope(|scope| {
            let (sender, notes) = channel::<Note>();
            let writer = move || notes.iter().for_each(|note| note.write(index));
            if std::thread::Builder::new().spawn_scoped(scope, writer).is_ok() {
                self.set(Some(sender));
            }
            let _end = End(self);
            work();
        });
    }

    fn set(&self, sender: Option<Sender<Note>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// Remembers a run under the keys of its step.
    pub(crate) fn add(&self, index: &dyn CacheIndex, steps: Vec<CacheKey>, run: CacheRecord) {
        let note = Note { steps, run };
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match sender {
            Some(sender) => drop(sender.send(note)),
            // The machine had no thread to give.
            None => note.write(index),
        }
    }
}

impl Note {
    fn write(&self, index: &dyn CacheIndex) {
        for step in &self.steps {
            let _ = index.add_run(step, &self.run);
        }
    }
}
