//! Tests that cannot run everywhere, and say so.

use std::io::Write;
use std::path::PathBuf;

/// Notes that the running test is skipped, and why: on standard error, and in the file that
/// `cargo xtask test` lists at its end.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("skipped: {line}");
    let Some(path) = std::env::var_os("FORMWORK_TEST_SKIPS") else { return };
    let file = fs_err::OpenOptions::new().append(true).create(true).open(path);
    // The list is for people; a test must not fail because of it.
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a program is, or `None` after noting that the running test is skipped without it.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(own)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        skipped(&format!("{name} is not installed"));
    }
    found
}
