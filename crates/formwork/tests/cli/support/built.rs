//! What a call of the program left behind.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// The end of a program.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs a program to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Stops the test unless the program succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Stops the test unless the program failed with a code and a message.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(message), "`{message}` is not in:\n{}", self.stderr);
        self
    }
}

/// A build that succeeded, seen through `--progress=json`.
pub(crate) struct Built {
    /// What was printed: the image's id.
    pub(crate) id: String,
    /// The steps that came to an end, in the order of their ends.
    pub(crate) steps: Vec<Step>,
}

/// A step of a build.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// `cached`, `done`, `unchanged`.
    pub(crate) outcome: String,
    pub(crate) log: Vec<String>,
    /// Whether it waited for something other than its turn.
    pub(crate) waited: bool,
    /// Why it did not come from the cache.
    pub(crate) reasons: Vec<String>,
    /// When it began and ended, in milliseconds since the build's start.
    pub(crate) started: u64,
    pub(crate) finished: u64,
}

impl Built {
    /// Runs a build to its end; it has to succeed.
    #[track_caller]
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from_ran(&Ran::of(command).succeeded())
    }

    /// Reads what a build told.
    pub(crate) fn from_ran(ran: &Ran) -> Self {
        let mut under_way: BTreeMap<u64, Step> = BTreeMap::new();
        let mut steps = Vec::new();
        for line in ran.stderr.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            if event["event"] == "diagnostic" {
                continue;
            }
            let id = event["step"].as_u64().unwrap();
            let step = under_way.entry(id).or_default();
            let time = event["time"].as_u64().unwrap();
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            match event["event"].as_str().unwrap() {
                "step-added" => step.name = text("name"),
                "step-started" => step.started = time,
                "step-log" => step.log.push(text("line")),
                "step-waiting" => step.waited = true,
                "step-reason" => {
                    let reasons = event["reasons"].as_array().unwrap();
                    step.reasons =
                        reasons.iter().map(|reason| reason.as_str().unwrap().to_owned()).collect();
                }
                "step-finished" => {
                    step.outcome = text("outcome");
                    step.finished = time;
                    steps.extend(under_way.remove(&id));
                }
                _ => {}
            }
        }
        Self { id: ran.stdout.trim().to_owned(), steps }
    }

    /// The one step whose name holds a text.
    #[track_caller]
    pub(crate) fn step(&self, text: &str) -> &Step {
        let found: Vec<&Step> = self.steps.iter().filter(|step| step.name.contains(text)).collect();
        match found.as_slice() {
            [step] => step,
            _ => panic!("{} steps with `{text}` in {:#?}", found.len(), self.steps),
        }
    }

    /// The names of the steps that did not come from the cache, except for sources and exports.
    pub(crate) fn executed(&self) -> Vec<&str> {
        let instructions = ["RUN", "COPY", "ADD", "WORKDIR"];
        let name = |step: &'_ Step| {
            let bare = step.name.split_once("] ").map_or(step.name.as_str(), |(_, bare)| bare);
            let is_op = instructions.iter().any(|word| bare.starts_with(word));
            is_op && step.outcome != "cached"
        };
        let executed = self.steps.iter().filter(|step| name(step));
        executed
            .map(|step| step.name.split_once("] ").map_or(step.name.as_str(), |(_, bare)| bare))
            .collect()
    }

    /// What the steps printed, one after the other.
    pub(crate) fn log(&self) -> Vec<&str> {
        self.steps.iter().flat_map(|step| &step.log).map(String::as_str).collect()
    }
}
