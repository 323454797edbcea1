//! `cargo xtask conformance`: the cases of `conformance/`, as a table.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;

/// Runs the cases; the arguments are those of the runner in `crates/formwork/tests/conformance`.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    setup::test_user()?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "--package", "formwork", "--test", "conformance", "--"]);
    let status = test.args(arguments).current_dir(root).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("not all is as `conformance/` has it") }
}
