//! Tells whoever waits that a context is being read.
//!
//! A context is no step of the Dockerfile, so nothing is told of one that is read at once, or that
//! has little to read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_layer::Reading;

/// After which time somebody wonders.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is worth being told of: directories, files, bytes.
const MANY_DIRECTORIES: usize = 1000;
const MANY_FILES: usize = 1000;
const MANY_BYTES: u64 = 64 << 20;

/// Somebody who may want to know.
#[derive(Clone)]
pub(crate) struct Audience {
    pub(crate) events: Arc<dyn EventSink>,
    /// As what step the context is told of, and how it is called.
    pub(crate) step: StepId,
    pub(crate) title: String,
}

/// A context that is being read.
pub(crate) struct Loading<'a> {
    audience: &'a Audience,
    started: Instant,
    directories: AtomicUsize,
    is_begun: Mutex<bool>,
}

impl<'a> Loading<'a> {
    pub(crate) fn new(audience: &'a Audience) -> Self {
        let (directories, is_begun) = (AtomicUsize::new(0), Mutex::default());
        Self { audience, started: Instant::now(), directories, is_begun }
    }

    /// A directory has been come across.
    pub(crate) fn comes_across(&self) {
        let count = self.directories.fetch_add(1, Ordering::Relaxed);
        if count >= MANY_DIRECTORIES && self.started.elapsed() >= PATIENCE {
            self.begin(&self.audience.title, true);
        }
    }

    /// Files are being read.
    pub(crate) fn reads(&self, reading: Reading) {
        let Reading { files, done, total } = reading;
        let name = match files {
            1 => format!("{}: 1 file", self.audience.title),
            files => format!("{}: {files} files", self.audience.title),
        };
        if self.begin(&name, files >= MANY_FILES || total >= MANY_BYTES) {
            let (step, label) = (self.audience.step, "read".into());
            let (current, total) = (done, Some(total));
            self.audience.events.emit(Event::StepProgress { step, label, current, total });
        }
    }

    /// Says that it goes on, if that is worth it, and nobody has said so; whether somebody has now.
    fn begin(&self, name: &str, is_worth_it: bool) -> bool {
        let mut is_begun = self.is_begun.lock().unwrap_or_else(PoisonError::into_inner);
        if is_worth_it && !std::mem::replace(&mut *is_begun, true) {
            let step = self.audience.step;
            self.audience.events.emit(Event::StepAdded { step, name: name.into() });
            self.audience.events.emit(Event::StepStarted { step });
        }
        *is_begun
    }

    /// It has been read, or could not be, for a reason that the step that needs it tells.
    pub(crate) fn end(self, is_read: bool) {
        if self.is_begun.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let outcome = if is_read { Outcome::Done } else { Outcome::Canceled };
            let (step, duration) = (self.audience.step, self.started.elapsed());
            self.audience.events.emit(Event::StepFinished { step, outcome, duration });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl EventSink for Heard {
        fn emit(&self, event: Event) {
            let told = match event {
                Event::StepAdded { name, .. } => name.to_string(),
                Event::StepProgress { current, total, .. } => format!("{current} of {total:?}"),
                Event::StepFinished { outcome, .. } => format!("{outcome:?}"),
                _ => return,
            };
            self.0.lock().unwrap().push(told);
        }
    }

    /// What is told of a context that begins to be read some time ago.
    fn told(ago: Duration, work: impl FnOnce(&Loading<'_>)) -> Vec<String> {
        let heard = Arc::new(Heard::default());
        let events = Arc::clone(&heard) as Arc<dyn EventSink>;
        let audience = Audience { events, step: StepId(1), title: "load".to_owned() };
        let mut loading = Loading::new(&audience);
        loading.started -= ago;
        work(&loading);
        loading.end(true);
        std::mem::take(&mut *heard.0.lock().unwrap())
    }

    #[test]
    fn only_a_context_with_much_to_read_is_told_of() {
        let long = Duration::from_secs(2);
        let reading = |files, total| Reading { files, done: 1, total };
        assert!(told(long, |loading| loading.reads(reading(3, 100))).is_empty());
        assert_eq!(
            told(long, |loading| {
                loading.reads(reading(1, 1 << 40));
                loading.reads(reading(1, 1 << 40));
            }),
            ["load: 1 file", "1 of Some(1099511627776)", "1 of Some(1099511627776)", "Done"]
        );
        assert_eq!(told(long, |loading| loading.reads(reading(5000, 9)))[0], "load: 5000 files");
    }

    #[test]
    fn a_context_of_many_directories_is_told_of_before_it_is_read() {
        let come_across =
            |count| move |loading: &Loading<'_>| (0..count).for_each(|_| loading.comes_across());
        let many = MANY_DIRECTORIES + 1;
        assert_eq!(told(Duration::from_secs(2), come_across(many)), ["load", "Done"]);
        assert!(told(Duration::from_secs(2), come_across(10)).is_empty());
        assert!(told(Duration::ZERO, come_across(many)).is_empty());
    }
}
