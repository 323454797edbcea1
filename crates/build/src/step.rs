//! Steps that no graph has: exports, pulls, pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_oci::Descriptor;
use formwork_solver::Cancel;

use crate::BuildError;

/// Their numbers are behind those of a graph's steps and of the blobs that are fetched.
static NEXT: AtomicU32 = AtomicU32::new(3 << 30);

/// Does something as a step that the user sees.
pub(crate) fn step<T>(
    name: impl Into<Arc<str>>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
    work: impl FnOnce(StepId) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let step = StepId(NEXT.fetch_add(1, Ordering::Relaxed));
    events.emit(Event::StepAdded { step, name: name.into() });
    events.emit(Event::StepStarted { step });
    let start = Instant::now();
    let result = work(step);
    let outcome = match &result {
        Ok(_) => Outcome::Done,
        Err(_) if cancel.is_canceled() => Outcome::Canceled,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    events.emit(Event::StepFinished { step, outcome, duration: start.elapsed() });
    result.map_err(|error| if cancel.is_canceled() { BuildError::canceled() } else { error })
}

/// Tells how much of a blob has been sent.
pub(crate) fn sending(step: StepId, events: &dyn EventSink) -> impl Fn(&Descriptor, u64) + Sync {
    move |descriptor, current| {
        events.emit(Event::StepProgress {
            step,
            label: descriptor.digest.short().into(),
            current,
            total: Some(descriptor.size),
        });
    }
}
