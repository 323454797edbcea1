//! `cargo xtask tidy`: checks that neither the compiler nor clippy makes.
//!
//! - `borders`: which crate may use which, as ARCHITECTURE.md says;
//! - `dependencies`: every dependency has its reason in ARCHITECTURE.md, and each manifest names just
//!   those that its sources use;
//! - `docs`: paths in the documentation lead somewhere;
//! - `sources`: module docs, lengths, `unsafe`, names that say nothing.
//!
//! Prints every finding as `file:line: what`, and fails if there is one.

mod borders;
mod docs;
mod sources;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Runs all checks.
pub(crate) fn run(root: &Path) -> Result<()> {
    let architecture = fs_err::read_to_string(root.join("ARCHITECTURE.md"))?;
    let metadata = metadata(root)?;
    let mut findings = borders::check(&architecture, &metadata);
    findings.extend(borders::check_dependencies(&architecture, &metadata));
    findings.extend(borders::check_use(&metadata)?);
    findings.extend(docs::check(root)?);
    findings.extend(sources::check(root)?);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: nothing found");
            Ok(())
        }
        count => bail!("tidy: {count} findings"),
    }
}

fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
