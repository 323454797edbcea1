//! One `RUN true` over its process: what formwork adds to a step, on an empty base and on one of
//! many files.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::{Builder, RUNGS, line, median};

/// Numbers of files in a base, with the milliseconds that a step should need at most on each rung
/// that has such a bound.
const ROWS: [(usize, [Option<f64>; RUNGS.len()]); 2] = [
    (0, [Some(8.0), Some(12.0), Some(16.0), Some(20.0), None]),
    (30_000, [Some(8.0), Some(12.0), Some(16.0), Some(150.0), None]),
];

/// How many steps each rung runs.
const STEPS: usize = 15;

/// Measures both bases, and prints a line of the table for each.
pub(super) fn run(builders: &[Builder], work: &Path) -> Result<()> {
    let bare = bare_process()?;
    for (files, budgets) in ROWS {
        let place = work.join(format!("rungs/empty-{files}"));
        make_context(&place, files)?;
        let cells: Vec<String> = builders
            .iter()
            .zip(budgets)
            .map(|(builder, budget)| match step(builder, &place) {
                Ok(time) => cell((time - bare) * 1000.0, budget),
                Err(error) => format!("{error:#}"),
            })
            .collect();
        println!("{}", line(&format!("RUN true over its process, {files} files"), &cells));
    }
    Ok(())
}

/// Milliseconds, with their bound if there is one.
fn cell(time: f64, budget: Option<f64>) -> String {
    let budget = budget.map(|budget| format!(" ({budget})")).unwrap_or_default();
    format!("{time:.1} ms{budget}")
}

/// The median time of a step in seconds.
fn step(builder: &Builder, place: &Path) -> Result<f64> {
    let mut times = builder.steps(place)?;
    // The first one makes the sandbox ready.
    let others = times.len().saturating_sub(STEPS - 1);
    median(times.split_off(others))
}

/// The median time of the process that a step is, in seconds.
fn bare_process() -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        Command::new("/bin/busybox").args(["sh", "-c", ":"]).status()?;
        times.push(start.elapsed().as_secs_f64());
    }
    median(times)
}

fn make_context(place: &Path, files: usize) -> Result<()> {
    let context = place.join("context");
    if !context.exists() {
        fs_err::create_dir_all(context.join("bin"))?;
        fs_err::copy("/bin/busybox", context.join("bin/sh"))?;
        for file in 0..files {
            let directory = context.join(format!("d{}/e{}", file % 20, file % 1000));
            fs_err::create_dir_all(&directory)?;
            fs_err::write(directory.join(format!("f{file}")), file.to_string())?;
        }
    }
    let steps: String = (0..STEPS).map(|step| format!("RUN : {step}\n")).collect();
    fs_err::write(place.join("Dockerfile"), format!("FROM scratch\nCOPY . /\n{steps}"))?;
    Ok(())
}
