//! `formwork completion`: what a shell reads to complete command lines.

use clap_complete::generate;

use crate::args::{self, CompletionArgs};
use crate::exit::Failure;

/// Writes a script for a shell to standard output.
pub(crate) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut args::command(), "formwork", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
