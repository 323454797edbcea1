//! What each step of a build did, and why: collected from events, kept for `formwork explain`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_fs::{AtomicFile, FsError};
use serde::{Deserialize, Serialize};

use crate::{BuildError, Host};

/// The file of the last build that ran a step, among the runs of steps.
const LAST: &str = "last-build";

/// What the steps of a build did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was built: the Dockerfile and the context as the user named them.
    pub title: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// The steps in the order in which they ended.
    pub steps: Vec<ExplainedStep>,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// What the user sees, such as `[build 3/7] RUN make`.
    pub name: String,
    /// `cached`, `done`, `unchanged`, `failed` or `canceled`.
    pub outcome: String,
    /// How long it took.
    pub milliseconds: u64,
    /// Why it did not come from the cache, the most telling first; none for a step that did. A
    /// step that worked without any has not run before.
    pub reasons: Vec<String>,
}

/// Remembers what events say about steps. Clones share one memory.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

/// Lets a recorder see events on their way to a sink.
struct Tap {
    recorder: Recorder,
    sink: Arc<dyn EventSink>,
}

#[derive(Debug, Default)]
struct State {
    under_way: BTreeMap<StepId, ExplainedStep>,
    finished: Vec<ExplainedStep>,
    /// Where the steps are among those that have finished.
    places: BTreeMap<StepId, usize>,
}

impl Explanation {
    /// Whether a step did something.
    fn is_worth_keeping(&self) -> bool {
        self.steps.iter().any(|step| step.outcome != "cached")
    }

    /// Keeps the explanation for [`Explanation::load`], unless everything came from the cache.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn save(&self, host: &Host) -> Result<(), BuildError> {
        if !self.is_worth_keeping() {
            return Ok(());
        }
        let path = host.layout.runs().join(LAST);
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        AtomicFile::write(path, &bytes).map_err(BuildError::store)
    }

    /// The explanation of the last build in which a step did something.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn load(host: &Host) -> Result<Option<Self>, BuildError> {
        let path = host.layout.runs().join(LAST);
        match fs_err::read(&path) {
            // A damaged one explains nothing.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BuildError::store(FsError::new("read", path, error))),
        }
    }
}

impl Recorder {
    /// A sink that passes everything on after the recorder has seen it.
    pub fn before(&self, sink: &Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        Arc::new(Tap { recorder: self.clone(), sink: Arc::clone(sink) })
    }

    /// What has been recorded. Bases, exports and pulls are no steps.
    pub fn explanation(&self, title: String, time: i64) -> Explanation {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Explanation { title, time, steps: state.finished.clone() }
    }
}

impl State {
    fn take(&mut self, event: &Event) {
        match event {
            Event::StepAdded { step, name } if is_instruction(name) => {
                let (outcome, reasons) = (String::new(), Vec::new());
                let new =
                    ExplainedStep { name: name.to_string(), outcome, milliseconds: 0, reasons };
                self.under_way.insert(*step, new);
            }
            Event::StepReason { step, reasons } => {
                if let Some(known) = self.under_way.get_mut(step) {
                    known.reasons = reasons.to_vec();
                }
            }
            Event::StepFinished { step, outcome, duration } => {
                if let Some(mut known) = self.under_way.remove(step) {
                    known.outcome = name(outcome).to_owned();
                    known.milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                    // A step whose result turned out to be of no use comes again.
                    match self.places.get(step).and_then(|at| self.finished.get_mut(*at)) {
                        Some(earlier) => *earlier = known,
                        None => {
                            self.places.insert(*step, self.finished.len());
                            self.finished.push(known);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether a name is that of an instruction which makes a layer.
fn is_instruction(name: &str) -> bool {
    name.starts_with('[') && !name.contains("] FROM ")
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Cached => "cached",
        Outcome::Done => "done",
        Outcome::Unchanged => "unchanged",
        Outcome::Failed(_) => "failed",
        Outcome::Canceled => "canceled",
    }
}

impl EventSink for Tap {
    fn emit(&self, event: Event) {
        self.recorder.state.lock().unwrap_or_else(PoisonError::into_inner).take(&event);
        self.sink.emit(event);
    }
}
