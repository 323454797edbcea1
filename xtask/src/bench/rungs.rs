//! What a RUN costs on each rung, side by side.
//!
//! A row is a base with so many files and, for each rung, the median time of one `RUN true` as
//! formwork tells it: from the step's start to its layer, without the first one, which makes the
//! sandbox ready (and, without namespaces, writes all files of the base). What the same process
//! takes by itself is taken off.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::formwork::Formwork;
use crate::setup;

/// Numbers of files in a base, with the milliseconds that a step should need at most on each rung.
const ROWS: [(usize, [f64; 4]); 2] =
    [(0, [8.0, 12.0, 16.0, 20.0]), (30_000, [8.0, 12.0, 16.0, 150.0])];

/// What the rungs are called, with what `--isolation` calls them.
const RUNGS: [(&str, &str); 4] = [
    ("root", "root"),
    ("subordinate ids", "subordinate-ids"),
    ("single id", "single-id"),
    ("chroot", "chroot"),
];

/// How many steps each rung runs.
const STEPS: usize = 15;

/// Measures all rungs that there are, and prints the table.
pub(super) fn run(formwork: &Formwork, work: &Path) -> Result<()> {
    let bare = bare_process()?;
    println!(
        "\nrungs: one RUN true over its process, which takes {:.1} ms by itself, in milliseconds \
         (budget)",
        bare * 1000.0
    );
    for (files, budgets) in ROWS {
        let place = work.join(format!("rungs-{files}"));
        make_context(&place, files)?;
        let mut line = format!("  base of {files:>6} files");
        for ((name, isolation), budget) in RUNGS.iter().zip(budgets) {
            match step(formwork, &place, isolation) {
                Ok(time) => {
                    line += &format!("   {name} {:.1} ({budget})", (time - bare) * 1000.0);
                }
                Err(error) => println!("  {name} is skipped: {error:#}"),
            }
        }
        println!("{line}");
    }
    Ok(())
}

/// The median time of the process that a step is, in seconds.
fn bare_process() -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        Command::new("/bin/busybox").args(["sh", "-c", ":"]).status()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().context("nothing was measured")
}

fn make_context(place: &Path, files: usize) -> Result<()> {
    let context = place.join("context");
    if context.exists() {
        return Ok(());
    }
    fs_err::create_dir_all(context.join("bin"))?;
    fs_err::copy("/bin/busybox", context.join("bin/sh"))?;
    for file in 0..files {
        let directory = context.join(format!("d{}/e{}", file % 20, file % 1000));
        fs_err::create_dir_all(&directory)?;
        fs_err::write(directory.join(format!("f{file}")), file.to_string())?;
    }
    let steps: String = (0..STEPS).map(|step| format!("RUN : {step}\n")).collect();
    fs_err::write(place.join("Dockerfile"), format!("FROM scratch\nCOPY . /\n{steps}"))?;
    Ok(())
}

/// The median time of a step in seconds.
fn step(formwork: &Formwork, place: &Path, isolation: &str) -> Result<f64> {
    let store = place.join(format!("store-{isolation}"));
    let mut command = match isolation {
        "subordinate-ids" | "single-id" => as_user(formwork, &store)?,
        _ => Command::new(formwork.program()),
    };
    command.arg("--root").arg(store.join("root")).args(["--isolation", isolation, "build"]);
    command.args(["--no-cache", "--progress=json", "-f"]).arg(place.join("Dockerfile"));
    let output = command.arg(place.join("context")).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut times: Vec<f64> = steps(&text).skip(1).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().context("formwork told of no steps")
}

/// The times of the RUN steps, in order.
fn steps(events: &str) -> impl Iterator<Item = f64> {
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // The first step is the copy.
    events
        .filter(|event| event["event"] == "step-finished" && event["step"].as_u64() > Some(1))
        .filter_map(|event| event["seconds"].as_f64())
        .take(STEPS)
}

/// formwork as the ordinary user of the tests, with a place for a store.
fn as_user(formwork: &Formwork, store: &Path) -> Result<Command> {
    let user = setup::TEST_USER;
    if !setup::is_root() {
        return Ok(Command::new(formwork.program()));
    }
    fs_err::create_dir_all(store)?;
    let status = Command::new("chown").arg(user).arg(store).status()?;
    if !status.success() {
        bail!("there is no user {user}; `cargo xtask test` makes one");
    }
    // Where everybody may execute it.
    let program = std::env::temp_dir().join("formwork-bench");
    fs_err::copy(formwork.program(), &program)?;
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
    Ok(command)
}
