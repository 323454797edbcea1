//! What a RUN costs on each rung, side by side.
//!
//! A row is a Dockerfile and, for each rung, the median time of its step as formwork tells it: from
//! the step's start to its layer, without the first one, which makes the sandbox ready (and, without
//! namespaces, writes all files of the base).

mod dpkg;
mod empty;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::peers::Tool;
use crate::formwork::Formwork;
use crate::setup;

/// The rungs: what `--isolation` calls them, and their columns' heads.
const RUNGS: [(&str, &str); 5] = [
    ("root", "(a) root"),
    ("subordinate-ids", "(b) subordinate ids"),
    ("single-id", "(c) single id"),
    ("chroot", "(d) chroot"),
    ("traced", "(e) traced"),
];

/// Measures all rungs that there are, and prints the table, with the peers where they can be told.
pub(super) fn run(root: &Path, formwork: &Formwork, tools: &[Tool], work: &Path) -> Result<()> {
    println!("\n{}", line("the rungs side by side (budget)", &RUNGS.map(|(_, head)| head.into())));
    let builders = builders(formwork, work)?;
    empty::run(&builders, work)?;
    dpkg::run(root, &builders, tools, work)
}

/// One line of the table.
fn line(row: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!(" {cell:>20}")).collect();
    format!("{row:46}{cells}")
}

/// formwork on one rung, with a store of its own.
struct Builder {
    isolation: &'static str,
    program: PathBuf,
    /// The user as whom it runs, if not the bench's own.
    user: Option<&'static str>,
    store: PathBuf,
}

/// One for each rung.
fn builders(formwork: &Formwork, work: &Path) -> Result<Vec<Builder>> {
    // Where everybody may execute it.
    let everybodys = std::env::temp_dir().join("formwork-bench");
    fs_err::copy(formwork.program(), &everybodys)?;
    fs_err::set_permissions(&everybodys, PermissionsExt::from_mode(0o755))?;
    RUNGS
        .iter()
        .map(|(isolation, _)| {
            let is_users = matches!(*isolation, "subordinate-ids" | "single-id" | "traced");
            let user = (is_users && setup::is_root()).then_some(setup::TEST_USER);
            let store = work.join(format!("rungs/store-{isolation}"));
            fs_err::create_dir_all(&store)?;
            if let Some(user) = user {
                let status = Command::new("chown").arg(user).arg(&store).status()?;
                if !status.success() {
                    bail!("there is no user {user}; `cargo xtask test` makes one");
                }
            }
            Ok(Builder { isolation, program: everybodys.clone(), user, store })
        })
        .collect()
}

impl Builder {
    /// A call of `formwork build`.
    fn build(&self) -> Command {
        let mut command =
            Command::new(self.user.map_or(self.program.as_os_str(), |_| "setpriv".as_ref()));
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(&self.program);
        }
        command.arg("--root").arg(self.store.join("root"));
        command.args(["--isolation", self.isolation, "build", "--progress=json"]);
        command
    }

    /// The seconds that each step of a Dockerfile beside a context takes, in order, without the cache.
    fn steps(&self, place: &Path) -> Result<Vec<f64>> {
        let mut command = self.build();
        command.arg("--no-cache").arg("-f").arg(place.join("Dockerfile"));
        Ok(times(&told(command.arg(place.join("context")))?))
    }
}

/// The events that a build tells.
fn told(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{}", text.lines().last().unwrap_or_default());
    }
    Ok(text)
}

/// The times of the steps, in order, sources and exports aside.
fn times(events: &str) -> Vec<f64> {
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps = events.filter(|event| {
        // Exports have numbers far beyond those of steps.
        event["event"] == "step-finished" && event["step"].as_u64().is_some_and(|step| step < 1000)
    });
    steps.filter_map(|event| event["seconds"].as_f64()).collect()
}

/// The one in the middle.
fn median(mut times: Vec<f64>) -> Result<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().context("nothing was measured")
}
