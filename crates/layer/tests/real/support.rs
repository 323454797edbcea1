//! What several of these tests need.

use std::os::fd::AsFd;
use std::path::Path;

use formwork_fs::RelPath;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// Whether the tests run as root; says what is left out if not.
pub(crate) fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: {what} (needs root)");
    }
    is_root
}

/// Whether a program is there; says what is left out if not.
pub(crate) fn has_program(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let file = fs_err::File::open(path).unwrap();
    formwork_fs::write_xattr_of(file.file().as_fd(), name.as_bytes(), value).unwrap();
}
