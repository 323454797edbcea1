//! Lines as they come, for logs and pipes.
//!
//! The form is that of BuildKit's plain progress: `#5 [build 2/4] RUN make` when a step begins,
//! `#5 0.123 …` for its output with the seconds since its start, `#5 DONE 1.2s` at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use formwork_diagnostics::{Event, EventSink, LogStream, Outcome, StepId};

use super::View;
use super::step::StepState;
use crate::render;

/// Writes lines as they come.
#[derive(Default)]
pub(super) struct Plain {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<StepId, Shown>,
    /// How many steps have a number.
    numbered: usize,
    /// The step of the last line, so that a change of step can be set off by a blank line.
    last: Option<StepId>,
}

struct Shown {
    step: StepState,
    number: Option<usize>,
    /// When it was told last how far the step is.
    counted: Option<Instant>,
}

/// After which time it is told how far a step is, and how often after that.
const FIRST: Duration = Duration::from_secs(1);
const OFTEN: Duration = Duration::from_secs(5);

impl Shown {
    /// Whether it is time to tell how far the step is.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = match (self.counted, self.step.started) {
            (Some(last), _) => last + OFTEN,
            (None, Some(started)) => started + FIRST,
            (None, None) => return false,
        };
        let is_due = now >= due;
        if is_due {
            self.counted = Some(now);
        }
        is_due
    }
}

impl EventSink for Plain {
    fn emit(&self, event: Event) {
        if let Event::Message(diagnostic) = event {
            render::diagnostic(&diagnostic);
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = state.take(event, Instant::now());
        // A closed pipe must not fail the build.
        let _ = anstream::stderr().write_all(text.as_bytes());
    }
}

impl View for Plain {
    fn close(&self) {}
}

impl State {
    /// What to write about an event that came at a time.
    fn take(&mut self, event: Event, now: Instant) -> String {
        let mut text = String::new();
        match event {
            Event::StepAdded { step, name } => {
                self.steps.insert(
                    step,
                    Shown { step: StepState::new(name), number: None, counted: None },
                );
            }
            Event::StepStarted { step } => {
                if let Some(shown) = self.steps.get_mut(&step) {
                    shown.step.started = Some(now);
                }
                self.lines(&mut text, step, &[]);
            }
            Event::StepWaiting { step, why } => {
                self.lines(&mut text, step, &[format!("waiting: {why}")]);
            }
            Event::StepReason { step, reasons } => {
                if let Some(shown) = self.steps.get_mut(&step) {
                    shown.step.explain(&reasons);
                }
            }
            Event::StepLog { step, stream, data } => self.log(&mut text, step, stream, &data, now),
            Event::StepUsage { step, peak_memory, .. } => {
                if let Some(shown) = self.steps.get_mut(&step) {
                    shown.step.used(peak_memory);
                }
            }
            Event::StepFinished { step, outcome, duration } => {
                self.finish(&mut text, step, &outcome, duration, now);
            }
            Event::StepProgress { step, label, current, total } => {
                self.progress(&mut text, step, (label, current, total), now);
            }
            Event::Message(_) => {}
        }
        text
    }

    fn log(&mut self, text: &mut String, id: StepId, stream: LogStream, data: &[u8], now: Instant) {
        let Some(shown) = self.steps.get_mut(&id) else { return };
        let lines = shown.step.lines.push(stream, data);
        let lines = timed(&mut shown.step, lines, now);
        if !lines.is_empty() {
            self.lines(text, id, &lines);
        }
    }

    fn finish(
        &mut self,
        text: &mut String,
        id: StepId,
        outcome: &Outcome,
        duration: Duration,
        now: Instant,
    ) {
        let Some(shown) = self.steps.get_mut(&id) else { return };
        let rest = shown.step.lines.finish();
        let mut lines = timed(&mut shown.step, rest, now);
        let seconds = duration.as_secs_f64();
        let reason = shown.step.reason.as_deref().map(|reason| format!(" ({reason})"));
        let peak = shown.step.peak().map(|peak| format!(", {peak}")).unwrap_or_default();
        let reason = format!("{peak}{}", reason.unwrap_or_default());
        match outcome {
            Outcome::Cached => lines.push("CACHED".to_owned()),
            Outcome::Done => lines.push(format!("DONE {seconds:.1}s{reason}")),
            Outcome::Unchanged => {
                lines.push(format!("DONE {seconds:.1}s (result unchanged){reason}"));
            }
            Outcome::Failed(reason) => {
                lines.push(format!("ERROR: {reason}"));
                // What it wrote last stands further up, among the lines of other steps.
                if self.last != Some(id) {
                    lines.extend(shown.step.last_lines.iter().map(|line| format!(" | {line}")));
                }
            }
            Outcome::Canceled if shown.number.is_none() => return,
            Outcome::Canceled => lines.push("CANCELED".to_owned()),
        }
        self.lines(text, id, &lines);
    }

    /// Counted things are told when they are complete, and now and then before.
    fn progress(
        &mut self,
        text: &mut String,
        id: StepId,
        (label, current, total): (Arc<str>, u64, Option<u64>),
        now: Instant,
    ) {
        let Some(shown) = self.steps.get_mut(&id) else { return };
        let before = shown.step.transfers.iter().find(|(known, ..)| *known == label);
        let was_complete = before.is_some_and(|(_, current, total)| *total == Some(*current));
        shown.step.count(Arc::clone(&label), current, total);
        if total == Some(current) && !was_complete {
            self.lines(text, id, &[format!("{label} {}", render::bytes(current))]);
        } else if total != Some(current) && shown.is_due(now) {
            let counted = shown.step.counted();
            self.lines(text, id, counted.as_slice());
        }
    }

    /// Lines of a step, below its name if it has not been told.
    fn lines(&mut self, text: &mut String, id: StepId, lines: &[String]) {
        let Some(shown) = self.steps.get_mut(&id) else { return };
        if self.last.replace(id).is_some_and(|last| last != id) {
            text.push('\n');
        }
        let number = match shown.number {
            Some(number) => number,
            None => {
                self.numbered += 1;
                shown.number = Some(self.numbered);
                // Writing into a string cannot fail.
                let _ = writeln!(text, "#{} {}", self.numbered, shown.step.name);
                self.numbered
            }
        };
        for line in lines {
            let _ = writeln!(text, "#{number} {line}");
        }
    }
}

/// Lines with the seconds since the step's start.
fn timed(step: &mut StepState, lines: Vec<String>, now: Instant) -> Vec<String> {
    step.keep(&lines);
    let since = step.started.map_or(0.0, |start| now.duration_since(start).as_secs_f64());
    lines.iter().map(|line| format!("{since:.3} {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(events: Vec<Event>) -> String {
        let mut state = State::default();
        let now = Instant::now();
        events.into_iter().map(|event| state.take(event, now)).collect()
    }

    fn added(step: u32, name: &str) -> Event {
        Event::StepAdded { step: StepId(step), name: name.into() }
    }

    fn log(step: u32, data: &str) -> Event {
        let data = data.as_bytes().to_vec();
        Event::StepLog { step: StepId(step), stream: LogStream::Stdout, data }
    }

    fn finished(step: u32, outcome: Outcome) -> Event {
        let duration = Duration::from_millis(1234);
        Event::StepFinished { step: StepId(step), outcome, duration }
    }

    #[test]
    fn a_build_reads_like_a_log() {
        let text = play(vec![
            added(3, "[build 1/2] FROM golang"),
            added(5, "[build 2/2] RUN make"),
            added(7, "RUN never"),
            finished(3, Outcome::Cached),
            Event::StepStarted { step: StepId(5) },
            log(5, "one\ntwo"),
            log(5, " more\nrest"),
            finished(5, Outcome::Done),
            finished(7, Outcome::Canceled),
        ]);
        assert_eq!(
            text,
            "#1 [build 1/2] FROM golang\n#1 CACHED\n\n\
             #2 [build 2/2] RUN make\n#2 0.000 one\n#2 0.000 two more\n#2 0.000 rest\n\
             #2 DONE 1.2s\n"
        );
    }

    #[test]
    fn much_memory_is_told_at_the_end() {
        let run = |peak_memory| {
            let processor_time = Duration::ZERO;
            let step = StepId(1);
            play(vec![
                added(1, "RUN make"),
                Event::StepUsage { step, peak_memory, processor_time },
                finished(1, Outcome::Done),
            ])
        };
        assert_eq!(run(1_234_000_000), "#1 RUN make\n#1 DONE 1.2s, peak memory 1.2 GB\n");
        assert_eq!(run(2_000_000), "#1 RUN make\n#1 DONE 1.2s\n");
    }

    #[test]
    fn steps_side_by_side_are_set_off() {
        let text = play(vec![
            added(1, "one"),
            added(2, "two"),
            log(1, "a\n"),
            log(2, "b\n"),
            log(2, "c\n"),
            finished(1, Outcome::Failed("exit code 1".to_owned())),
        ]);
        assert_eq!(
            text,
            "#1 one\n#1 0.000 a\n\n#2 two\n#2 0.000 b\n#2 0.000 c\n\n#1 ERROR: exit code 1\n\
             #1  | a\n"
        );
    }

    #[test]
    fn transfers_are_told_when_they_are_complete() {
        let count = |label: &str, current| Event::StepProgress {
            step: StepId(1),
            label: label.into(),
            current,
            total: Some(2000),
        };
        let text = play(vec![
            added(1, "pull"),
            count("a", 10),
            count("b", 2000),
            count("a", 2000),
            count("a", 2000),
        ]);
        assert_eq!(text, "#1 pull\n#1 b 2.0 kB\n#1 a 2.0 kB\n");
    }

    #[test]
    fn what_takes_long_is_told_now_and_then() {
        let mut state = State::default();
        let start = Instant::now();
        state.take(added(1, "pull"), start);
        state.take(Event::StepStarted { step: StepId(1) }, start);
        let mut told = |milliseconds, current, total| {
            let label = "a".into();
            let event = Event::StepProgress { step: StepId(1), label, current, total };
            state.take(event, start + Duration::from_millis(milliseconds))
        };
        assert_eq!(told(900, 10, Some(2000)), "");
        assert_eq!(told(1100, 20, Some(2000)), "#1 20 B / 2.0 kB\n");
        assert_eq!(told(6000, 30, Some(2000)), "");
        assert_eq!(told(6200, 1500, Some(2000)), "#1 1.5 kB / 2.0 kB\n");
        assert_eq!(told(6300, 2000, Some(2000)), "#1 a 2.0 kB\n");
        assert_eq!(told(20_000, 2001, None), "#1 2.0 kB\n");
    }
}
