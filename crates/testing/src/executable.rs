//! Copies of programs that are executed afterwards.
//!
//! Never copies anything that is only read: `fs_err::copy` does that.

use std::path::Path;
use std::process::Command;

/// Copies a program that this process is about to execute.
///
/// The copy is made by another process. Were it made by this one, a child that another test starts
/// at the same moment would hold the file open for writing for as long as it takes to become a
/// program, and the kernel executes no such file (`ETXTBSY`, execve(2)).
///
/// # Panics
///
/// If it cannot be copied.
pub fn copy_program(program: &Path, copy: &Path) {
    let mut command = Command::new("cp");
    let status = command.arg(program).arg(copy).status().expect("cp is everywhere");
    assert!(status.success(), "{command:?}");
}
