//! The commands, one module each.

pub(crate) mod build;
mod call;
pub(crate) mod doctor;
pub(crate) mod history;
pub(crate) mod ignore;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod tag;

use std::io::Write;

use formwork_sandbox::RungChoice;

use crate::exit::Failure;

/// Becomes root in a user namespace where the user is not root. Must come before any thread.
pub(crate) fn enter() -> Result<(), Failure> {
    formwork_sandbox::enter(RungChoice::Auto).map(drop).map_err(Failure::machine)
}

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result
            .map_err(|error| Failure::machine(format!("cannot write to standard output: {error}"))),
    }
}
