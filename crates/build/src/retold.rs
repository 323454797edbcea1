//! What happens when a graph is carried out several times, told as if it were once.
//!
//! Where a layer turns out to be of no use, steps that were found in the cache are found there
//! again, the step that needed the layer has not failed, and what was stopped for it goes on.
//! Nothing here decides what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_worker::UNUSABLE_LAYER;

/// A sink that leaves out what only comes of doing things again.
pub(crate) struct Retold {
    sink: Arc<dyn EventSink>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    added: BTreeMap<StepId, Arc<str>>,
    finished: BTreeSet<StepId>,
    explained: BTreeSet<StepId>,
    /// Whether what goes on is given up, to be done again.
    is_void: bool,
}

impl Retold {
    pub(crate) fn new(sink: &Arc<dyn EventSink>) -> Self {
        Self { sink: Arc::clone(sink), state: Mutex::default() }
    }

    /// Everything begins anew.
    pub(crate) fn begin(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_void = false;
    }
}

impl State {
    /// Whether somebody is to be told.
    fn is_news(&mut self, event: &Event) -> bool {
        match event {
            Event::StepAdded { step, name } => self.added.insert(*step, Arc::clone(name)).is_none(),
            Event::StepReason { step, .. } => self.explained.insert(*step),
            Event::StepFinished { step, outcome, .. } => match outcome {
                Outcome::Failed(reason) if reason.starts_with(UNUSABLE_LAYER) => {
                    self.is_void = true;
                    false
                }
                Outcome::Canceled => !self.is_void,
                Outcome::Cached => self.finished.insert(*step),
                Outcome::Done | Outcome::Unchanged | Outcome::Failed(_) => {
                    self.finished.insert(*step);
                    true
                }
            },
            _ => true,
        }
    }

    /// The name of a step that begins although it has ended already: what it had was of no use.
    fn revived(&mut self, event: &Event) -> Option<(StepId, Arc<str>)> {
        match event {
            Event::StepStarted { step } if self.finished.remove(step) => {
                Some((*step, self.added.get(step).cloned()?))
            }
            _ => None,
        }
    }
}

impl EventSink for Retold {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = state.is_news(&event);
        let revived = state.revived(&event);
        drop(state);
        if let Some((step, name)) = revived {
            self.sink.emit(Event::StepAdded { step, name });
        }
        if is_news {
            self.sink.emit(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl EventSink for Heard {
        fn emit(&self, event: Event) {
            let told = match event {
                Event::StepAdded { step, .. } => format!("added {}", step.0),
                Event::StepReason { step, reasons } => format!("{} because {reasons:?}", step.0),
                Event::StepFinished { step, outcome, .. } => format!("{} {outcome:?}", step.0),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(told);
        }
    }

    #[test]
    fn doing_it_again_is_told_once() {
        let heard = Arc::new(Heard::default());
        let sink: Arc<dyn EventSink> = Arc::clone(&heard) as Arc<dyn EventSink>;
        let retold = Retold::new(&sink);
        let finish = |step, outcome| {
            retold.emit(Event::StepFinished { step, outcome, duration: Duration::ZERO });
        };
        let because = |step, reason: &str| {
            retold.emit(Event::StepReason { step, reasons: [reason.to_owned()].into() });
        };
        let [one, two, three, lost] = [1, 2, 3, 4].map(StepId);
        for attempt in 0..2 {
            retold.begin();
            for step in [one, two, three, lost] {
                retold.emit(Event::StepAdded { step, name: "RUN".into() });
            }
            finish(one, Outcome::Cached);
            if attempt > 0 {
                retold.emit(Event::StepStarted { step: lost });
            }
            finish(lost, if attempt == 0 { Outcome::Cached } else { Outcome::Done });
            because(two, if attempt == 0 { "a file changed" } else { "something changed" });
            if attempt == 0 {
                finish(two, Outcome::Failed(format!("{UNUSABLE_LAYER}: it is gone")));
                finish(three, Outcome::Canceled);
            } else {
                finish(two, Outcome::Done);
                finish(three, Outcome::Failed("exit code 1".to_owned()));
            }
        }
        let heard = heard.0.lock().unwrap();
        assert_eq!(
            *heard,
            [
                "added 1",
                "added 2",
                "added 3",
                "added 4",
                "1 Cached",
                "4 Cached",
                "2 because [\"a file changed\"]",
                "added 4",
                "StepStarted { step: StepId(4) }",
                "4 Done",
                "2 Done",
                "3 Failed(\"exit code 1\")"
            ]
        );
    }
}
