//! What happens during a build, told as it happens.
//!
//! Events carry no time of day: the sink reads its clock on arrival, so that nothing below the CLI
//! needs one.

use std::sync::Arc;
use std::time::Duration;

use crate::Diagnostic;

/// The number of a step within one build, in the order in which steps were announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step is known and will be looked at; sent before anything else about it.
    StepAdded {
        /// The step.
        step: StepId,
        /// What the user sees, such as `[build 3/7] RUN make`.
        name: Arc<str>,
    },
    /// A step began to work.
    StepStarted {
        /// The step.
        step: StepId,
    },
    /// A step waits for something other than its turn. What it waits for may write meanwhile.
    StepWaiting {
        /// The step.
        step: StepId,
        /// What it waits for, such as `another build runs the same step`.
        why: Arc<str>,
    },
    /// Why a step has to work: what changed since an earlier run. Sent after its start.
    StepReason {
        /// The step.
        step: StepId,
        /// The reasons, the most telling first; at least one.
        reasons: Arc<[String]>,
    },
    /// A step's process wrote something.
    StepLog {
        /// The step.
        step: StepId,
        /// Where the process wrote it.
        stream: LogStream,
        /// The bytes, unchanged; they may end in the middle of a line or a character.
        data: Vec<u8>,
    },
    /// A step moved forward in something that can be counted.
    StepProgress {
        /// The step.
        step: StepId,
        /// What is counted, such as a shortened digest.
        label: Arc<str>,
        /// How many bytes are done.
        current: u64,
        /// How many bytes there are; `None` where that is unknown.
        total: Option<u64>,
    },
    /// What a step's process took, after its end.
    StepUsage {
        /// The step.
        step: StepId,
        /// The most memory at one time, in bytes: of all its processes where they had a limit, else
        /// of any one of them.
        peak_memory: u64,
        /// The time of processors that all of them took.
        processor_time: Duration,
    },
    /// A step ended; nothing more comes about it.
    StepFinished {
        /// The step.
        step: StepId,
        /// How it ended.
        outcome: Outcome,
        /// How long the step itself took, without waiting for its turn.
        duration: Duration,
    },
    /// Something to say about an input.
    Message(Box<Diagnostic>),
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its result was taken from the cache.
    Cached,
    /// It ran, and its result is new.
    Done,
    /// It ran, and its result is the one that was known before.
    Unchanged,
    /// It failed, for this reason.
    Failed(String),
    /// It was stopped because something else failed or the user asked for it.
    Canceled,
}

/// Where a process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whoever wants to know what happens.
///
/// Events of one step arrive in order; events of different steps come from different threads.
pub trait EventSink: Send + Sync {
    /// Takes one event. Must not block for long: the build waits for it.
    fn emit(&self, event: Event);
}

/// A sink for callers who do not want to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _event: Event) {}
}
