//! One JSON object an event and a line, for programs.
//!
//! Every object has `event` and `time` (milliseconds since the first of them); objects about a step
//! have its number in `step`. Output of a step comes line by line, diagnostics as
//! [`formwork_diagnostics::render::json_value`] has them, and in `rendered` as people see them.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use formwork_diagnostics::{Diagnostic, Event, EventSink, LogStream, Outcome, StepId, render};
use serde_json::{Value, json};

use super::View;
use super::lines::Lines;

/// Writes one JSON object an event.
#[derive(Default)]
pub(super) struct Json {
    lines: Mutex<BTreeMap<StepId, Lines>>,
}

/// Tells why the program fails, whether there was a view or not.
pub(crate) fn tell_failure(diagnostics: &[Diagnostic]) {
    write(diagnostics.iter().map(diagnostic).collect());
}

impl EventSink for Json {
    fn emit(&self, event: Event) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        write(objects(event, &mut lines));
    }
}

/// Writes objects with the time since the first of them all.
fn write(objects: Vec<Value>) {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    let time = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for mut object in objects {
        object["time"] = time.into();
        text.push_str(&object.to_string());
        text.push('\n');
    }
    // A closed pipe must not fail the build.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

impl View for Json {
    fn close(&self) {}
}

fn objects(event: Event, lines: &mut BTreeMap<StepId, Lines>) -> Vec<Value> {
    match event {
        Event::StepAdded { step, name } => {
            vec![json!({"event": "step-added", "step": step.0, "name": &*name})]
        }
        Event::StepStarted { step } => vec![json!({"event": "step-started", "step": step.0})],
        Event::StepWaiting { step, why } => {
            vec![json!({"event": "step-waiting", "step": step.0, "why": &*why})]
        }
        Event::StepReason { step, reasons } => {
            vec![json!({"event": "step-reason", "step": step.0, "reasons": &*reasons})]
        }
        Event::StepLog { step, stream, data } => {
            let lines = lines.entry(step).or_default().push(stream, &data);
            lines.iter().map(|line| log(step, Some(stream), line)).collect()
        }
        Event::StepProgress { step, label, current, total } => vec![json!({
            "event": "step-progress", "step": step.0, "label": &*label, "current": current,
            "total": total,
        })],
        Event::StepUsage { step, peak_memory, processor_time } => vec![json!({
            "event": "step-usage", "step": step.0, "peak_memory": peak_memory,
            "processor_seconds": processor_time.as_secs_f64(),
        })],
        Event::StepFinished { step, outcome, duration } => {
            let rest = lines.remove(&step).unwrap_or_default().finish();
            let mut objects: Vec<Value> = rest.iter().map(|line| log(step, None, line)).collect();
            let (outcome, reason) = name(&outcome);
            objects.push(json!({
                "event": "step-finished", "step": step.0, "outcome": outcome, "reason": reason,
                "seconds": duration.as_secs_f64(),
            }));
            objects
        }
        Event::Message(message) => vec![diagnostic(&message)],
    }
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    let rendered = render::human(diagnostic, render::HumanStyle::default());
    json!({
        "event": "diagnostic", "diagnostic": render::json_value(diagnostic), "rendered": rendered,
    })
}

fn log(step: StepId, stream: Option<LogStream>, line: &str) -> Value {
    let stream = stream.map(|stream| match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    });
    json!({"event": "step-log", "step": step.0, "stream": stream, "line": line})
}

fn name(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Cached => ("cached", None),
        Outcome::Done => ("done", None),
        Outcome::Unchanged => ("unchanged", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Canceled => ("canceled", None),
    }
}
