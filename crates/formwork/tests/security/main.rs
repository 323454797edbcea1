//! Attacks on the real program: every known escape of container builders and runtimes, by its CVE;
//! every way out of a RUN that comes to mind; and archives made by enemies.
//!
//! `docs/security.md` says what is promised, and names these tests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may stop, also in their functions")]

mod asked;
mod calls;
mod classes;
mod cves;
mod documented;
mod escapes;
mod hostile;
mod secrets;
mod shown;
#[expect(dead_code, unused_imports, reason = "the tests of the command line need more of it")]
#[path = "../cli/support/mod.rs"]
mod support;
mod target;
