//! `formwork logout`.

use formwork_build::log_out;

use crate::args::{LogoutArgs, bare_registry};
use crate::commands;
use crate::exit::Failure;
use crate::settings::Settings;

/// Forgets how to log in to a registry.
pub(crate) fn run(args: &LogoutArgs, settings: &Settings) -> Result<(), Failure> {
    let registry = bare_registry(&args.registry);
    let forgotten = log_out(&settings.registries(), registry)?;
    commands::print(&match forgotten.is_empty() {
        true => format!("Not logged in to {registry}\n"),
        false => format!("Removing login credentials for {registry}\n"),
    })
}
