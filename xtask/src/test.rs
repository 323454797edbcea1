//! `cargo xtask test`: sets up what is missing and runs every check and every test.
//!
//! Tests that cannot run on a machine say so in a file whose name they find in
//! `FORMWORK_TEST_SKIPS`; they are listed at the end, with their reasons.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{setup, tidy};

/// Where proptest takes the seed of its cases from. Without one of the caller's choice, all runs
/// see the same cases: what one machine has tested is what another tests.
const SEED: &str = "PROPTEST_RNG_SEED";
/// How many tests run at the same time, if the caller does not say it.
const THREADS: &str = "RUST_TEST_THREADS";

/// Runs everything, or only the tests whose names contain one of the filters.
pub(crate) fn run(root: &Path, filters: &[String]) -> Result<()> {
    setup::packages(&setup::TEST_PACKAGES)?;
    setup::test_user()?;
    let object_store = setup::object_store(root);
    if filters.is_empty() {
        cargo(root, &["fmt", "--all", "--check"])?;
        cargo(root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
        tidy::run(root)?;
    }
    let skips = root.join("target/test-skips");
    fs_err::create_dir_all(root.join("target"))?;
    fs_err::write(&skips, "")?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--workspace", "--no-fail-fast"]).args(filters).current_dir(root);
    if std::env::var_os(SEED).is_none() {
        test.env(SEED, "1");
    }
    if std::env::var_os(THREADS).is_none() {
        // Most tests of whole builds wait for processes more than they compute.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        test.env(THREADS, (2 * processors).to_string());
    }
    if let Some(programs) = object_store {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::env::split_paths(&path).chain([programs]);
        test.env("PATH", std::env::join_paths(all)?);
    }
    let status =
        test.env("FORMWORK_TEST_SKIPS", &skips).status().context("cannot run cargo test")?;
    list_skipped(&fs_err::read_to_string(&skips)?);
    if status.success() { Ok(()) } else { bail!("tests failed") }
}

fn list_skipped(text: &str) {
    let mut skipped: Vec<&str> = text.lines().collect();
    skipped.sort_unstable();
    skipped.dedup();
    println!("skipped tests: {}", skipped.len());
    for line in skipped {
        println!("  {line}");
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    println!("cargo {}", arguments.join(" "));
    let status = Command::new(env!("CARGO")).args(arguments).current_dir(root).status()?;
    if status.success() { Ok(()) } else { bail!("`cargo {}` failed", arguments.join(" ")) }
}
