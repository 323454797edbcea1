//! Exit codes, and how failures are told.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | it worked |
//! | 1 | the Dockerfile, the context or the image is wrong, or a process that a step ran failed |
//! | 2 | the command line is wrong |
//! | 3 | a registry or another server, or the way to it |
//! | 4 | the machine: the store, the disk, the kernel |
//! | 125–127 | `formwork run` could not start the process, as with `docker run` |
//! | 130, 143 | somebody stopped it (Ctrl-C, SIGTERM) |
//!
//! `formwork run` has the exit code of the process that it ran.

use std::process::ExitCode;

use formwork_build::{BuildError, ErrorKind};
use formwork_diagnostics::Diagnostic;

use crate::{progress, render};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// A mistake on the command line that clap cannot know of.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, Diagnostic::error("usage", message))
    }

    /// Something about the machine.
    pub(crate) fn machine(error: impl std::fmt::Display) -> Self {
        Self::new(4, Diagnostic::error("machine", error.to_string()))
    }

    /// The machine has no threads left.
    pub(crate) fn without_threads(error: std::io::Error) -> Self {
        Self::machine(format!("no thread can be started: {error}"))
            .with_help("let formwork have more threads, such as by `ulimit -u 4096`")
    }

    /// Something that the user named and that is not there, or is not what it should be.
    pub(crate) fn input(error: impl std::fmt::Display) -> Self {
        Self::new(1, Diagnostic::error("input", error.to_string()))
    }

    /// A value on the command line that is not what it should be.
    pub(crate) fn usage_error(error: impl std::fmt::Display) -> Self {
        Self::usage(error.to_string())
    }

    fn new(code: u8, diagnostic: Diagnostic) -> Self {
        Self { code, diagnostics: vec![diagnostic] }
    }

    /// Adds a way out to the last message.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.help.push(help.into());
        }
        self
    }

    /// The same failure with the code of a program that a signal has ended.
    pub(crate) fn stopped(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The same failure with the code that `docker run` has for it.
    pub(crate) fn of_run(self) -> Self {
        let code = if matches!(self.code, 126 | 127) { self.code } else { 125 };
        Self { code, ..self }
    }

    /// The same failure, told as `--progress=json` tells everything.
    pub(crate) fn told_to_programs(self) -> Self {
        progress::tell_failure(&self.diagnostics);
        Self { diagnostics: Vec::new(), ..self }
    }

    /// A failure that has been told on standard output.
    pub(crate) fn told() -> Self {
        Self { code: 1, diagnostics: Vec::new() }
    }

    /// Tells what is wrong; returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        for diagnostic in &self.diagnostics {
            render::diagnostic(diagnostic);
        }
        ExitCode::from(self.code)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let code = match error.kind {
            ErrorKind::Input => 1,
            ErrorKind::Registry => 3,
            ErrorKind::Machine => 4,
            ErrorKind::Canceled => 130,
            ErrorKind::ProgramMissing => 127,
            ErrorKind::ProgramUnusable => 126,
        };
        Self { code, diagnostics: error.diagnostics }
    }
}
