//! Nothing but diagnostics and, of a step that fails, what it wrote last.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use formwork_diagnostics::{Event, EventSink, Outcome, StepId};

use super::View;
use super::step::StepState;
use crate::render;

/// Shows what is wrong.
#[derive(Default)]
pub(super) struct Quiet {
    steps: Mutex<BTreeMap<StepId, StepState>>,
}

impl EventSink for Quiet {
    fn emit(&self, event: Event) {
        if let Event::Message(diagnostic) = event {
            render::diagnostic(&diagnostic);
            return;
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let text = take(&mut steps, event);
        // A closed pipe must not fail the build.
        let _ = anstream::stderr().write_all(text.as_bytes());
    }
}

impl View for Quiet {
    fn close(&self) {}
}

/// What to write about an event.
fn take(steps: &mut BTreeMap<StepId, StepState>, event: Event) -> String {
    let mut text = String::new();
    match event {
        Event::StepAdded { step, name } => drop(steps.insert(step, StepState::new(name))),
        Event::StepLog { step, stream, data } => {
            if let Some(state) = steps.get_mut(&step) {
                let lines = state.lines.push(stream, &data);
                state.keep(&lines);
            }
        }
        Event::StepFinished { step, outcome: Outcome::Failed(_), .. } => {
            if let Some(mut state) = steps.remove(&step) {
                let rest = state.lines.finish();
                state.keep(&rest);
                // Writing into a string cannot fail.
                let _ = writeln!(text, "{}", state.name);
                for line in &state.last_lines {
                    let _ = writeln!(text, " | {line}");
                }
            }
        }
        Event::StepFinished { step, .. } => drop(steps.remove(&step)),
        Event::StepStarted { .. }
        | Event::StepReason { .. }
        | Event::StepProgress { .. }
        | Event::StepUsage { .. }
        | Event::StepWaiting { .. }
        | Event::Message(_) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use formwork_diagnostics::LogStream;

    use super::*;

    #[test]
    fn only_what_fails_is_shown() {
        let play = |outcome: Outcome| {
            let mut steps = BTreeMap::new();
            let step = StepId(1);
            let data = b"one\ntwo".to_vec();
            let finished = Event::StepFinished { step, outcome, duration: Duration::ZERO };
            [
                Event::StepAdded { step, name: "RUN x".into() },
                Event::StepLog { step, stream: LogStream::Stdout, data },
                finished,
            ]
            .map(|event| take(&mut steps, event))
            .concat()
        };
        assert_eq!(play(Outcome::Done), "");
        assert_eq!(play(Outcome::Failed("it".to_owned())), "RUN x\n | one\n | two\n");
    }
}
