//! `formwork explain`, and what `formwork build --explain` adds.

use std::fmt::Write as _;

use clap::Parser as _;
use formwork_build::{ExplainedStep, Explanation, Forecast};
use serde_json::json;

use crate::args::{ExplainArgs, ForeseenArgs, Format, ProgressMode};
use crate::commands;
use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// Tells what each step of the last build did, and why.
pub(crate) fn run(args: &ExplainArgs, settings: &Settings) -> Result<(), Failure> {
    if !args.dry_run.is_empty() {
        return foresee(args, settings);
    }
    settings.enter()?;
    let host = settings.host()?;
    let Some(mut explanation) = Explanation::load(&host)? else {
        return Err(Failure::input("no build in this store has run a step yet"));
    };
    if let Some(wanted) = &args.step {
        explanation.steps.retain(|step| step.name.contains(wanted));
        if explanation.steps.is_empty() {
            let message = format!("the last build has no step with `{wanted}` in it");
            return Err(Failure::input(message).with_help("`formwork explain` shows all steps"));
        }
    }
    let text = match args.format {
        Format::Table => {
            let age = jiff::Timestamp::now().as_second() - explanation.time;
            let age = std::time::Duration::from_secs(u64::try_from(age).unwrap_or_default());
            format!("{}, {}\n{}", explanation.title, render::ago(age), told(&explanation))
        }
        Format::Json => explanation.steps.iter().map(line).collect(),
    };
    commands::print(&text)
}

/// Tells what each step of a build would do, and why.
fn foresee(args: &ExplainArgs, settings: &Settings) -> Result<(), Failure> {
    let mut build = ForeseenArgs::parse_from(&args.dry_run).build;
    build.dry_run = true;
    build.foreseen = args.step.clone();
    if matches!(args.format, Format::Json) {
        build.progress = ProgressMode::Json;
    }
    commands::build::run(&build, settings)
}

/// The steps with what they did, and below each why.
pub(crate) fn told(explanation: &Explanation) -> String {
    let mut text = String::new();
    for step in &explanation.steps {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{}\n    {}", shown_name(&step.name), outcome(step));
        for reason in &step.reasons {
            let _ = writeln!(text, "    - {}", safe(reason));
        }
    }
    text
}

/// What a build would do, and how long it would take; of its steps, those with a text in their
/// names.
pub(crate) fn foretold(forecast: &Forecast, wanted: &str, is_json: bool) -> String {
    let shown = forecast.steps.iter().filter(|step| step.name.contains(wanted));
    if is_json {
        return shown.map(line).collect();
    }
    let mut steps: Vec<ExplainedStep> = shown.cloned().collect();
    for step in steps.iter_mut().filter(|step| step.outcome == "cached") {
        step.outcome = "would be cached".to_owned();
    }
    let mut text = told(&Explanation { steps, ..Explanation::default() });
    let running = forecast.steps.iter().filter(|step| step.outcome != "cached").count();
    let estimate = forecast.estimate.as_secs_f64();
    // Writing into a string cannot fail.
    let steps = if running == 1 { "step" } else { "steps" };
    let _ = match (running, forecast.unknown) {
        (0, _) => writeln!(text, "everything comes from the cache"),
        (_, 0) => writeln!(text, "{running} {steps} would run, for about {estimate:.1}s"),
        (1, _) => writeln!(text, "1 step would run, for how long is not known: it is new"),
        (_, 1) => writeln!(text, "{running} steps would run, for {estimate:.1}s or more: 1 is new"),
        (_, unknown) => {
            writeln!(
                text,
                "{running} steps would run, for {estimate:.1}s or more: {unknown} are new"
            )
        }
    };
    text
}

fn outcome(step: &ExplainedStep) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let seconds = step.milliseconds as f64 / 1000.0;
    match step.outcome.as_str() {
        "would run" if step.reasons.is_empty() => "would run: it is new".to_owned(),
        "would run" => format!("would run, for {seconds:.1}s as the last time, because:"),
        "would follow" => {
            format!(
                "would run, for {seconds:.1}s as the last time, unless nothing changes below it:"
            )
        }
        "would be cached" => "comes from the cache".to_owned(),
        "cached" => "came from the cache".to_owned(),
        "canceled" => "was stopped".to_owned(),
        "failed" => "failed".to_owned(),
        "unchanged" => format!("ran for {seconds:.1}s, with the same result as before"),
        _ if step.reasons.is_empty() => format!("ran for {seconds:.1}s: it is new"),
        _ => format!("ran for {seconds:.1}s, because:"),
    }
}

/// A name on one line, in which nothing moves the cursor.
fn shown_name(name: &str) -> String {
    safe(&name.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn safe(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn line(step: &ExplainedStep) -> String {
    let object = json!({
        "Name": step.name,
        "Outcome": step.outcome,
        "Milliseconds": step.milliseconds,
        "Reasons": step.reasons,
    });
    format!("{object}\n")
}
