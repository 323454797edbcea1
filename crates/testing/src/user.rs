//! The ordinary user as whom tests do what needs no root.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use crate::{copy_program, is_root, skipped};

/// The user that `cargo xtask test` makes for tests that run as root.
const NAME: &str = "formwork-test";

/// A user without privileges who has subordinate ids: the one who runs the tests, or, for root,
/// `formwork-test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinaryUser {
    /// The user's id.
    pub uid: u32,
    /// The id of the user's group.
    pub gid: u32,
}

impl OrdinaryUser {
    /// Finds the user; `None` after noting that (half of) the running test is skipped.
    #[must_use]
    pub fn find() -> Option<Self> {
        if !is_root() {
            let uid = rustix::process::geteuid().as_raw();
            return Some(Self { uid, gid: rustix::process::getegid().as_raw() });
        }
        let user = Self::from_passwd(&fs_err::read_to_string("/etc/passwd").unwrap_or_default());
        let has_ids = |file| {
            let text = fs_err::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.starts_with(&format!("{NAME}:")))
        };
        let usable = user.filter(|_| has_ids("/etc/subuid") && has_ids("/etc/subgid"));
        if usable.is_none() {
            skipped(&format!(
                "there is no user {NAME} with subordinate ids; `cargo xtask test` makes one"
            ));
        }
        usable
    }

    fn from_passwd(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1).map(|field| field.parse().ok());
        Some(Self { uid: fields.next()??, gid: fields.next()?? })
    }

    /// Makes a command run as this user.
    pub fn take_over(self, command: &mut Command) {
        if is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// The program where this user may run it: a copy among the machine's temporary files if a
    /// directory above it is closed to them. One copy is kept, and replaced when the program is.
    ///
    /// # Panics
    ///
    /// If there is no room for a copy.
    #[must_use]
    pub fn executable(self, program: &Path) -> PathBuf {
        static FOUND: Mutex<Option<(PathBuf, PathBuf)>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((of, usable)) if of == program => usable.clone(),
            _ => {
                let usable = self.find_executable(program);
                *found = Some((program.to_owned(), usable.clone()));
                usable
            }
        }
    }

    fn find_executable(self, program: &Path) -> PathBuf {
        if self.may_execute(program) {
            return program.to_owned();
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let version = fs_err::metadata(program).and_then(|metadata| metadata.modified());
        let version = version.expect("a program has a modification time");
        let version = version.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let directory = std::env::temp_dir().join(format!("{name}-of-tests"));
        let copy = directory.join(version.to_string());
        if !self.may_execute(&copy) {
            // Older copies are of no use to anybody.
            let _ = fs_err::remove_dir_all(&directory);
            fs_err::create_dir_all(&directory).expect("a directory for a copy of the program");
            let temporary = directory.join(format!("of-{}", std::process::id()));
            copy_program(program, &temporary);
            fs_err::rename(&temporary, &copy).expect("a rename");
        }
        copy
    }

    fn may_execute(self, program: &Path) -> bool {
        let mut test = Command::new(program);
        test.arg("--version").current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        self.take_over(&mut test);
        test.status().is_ok_and(|status| status.success())
    }
}

/// Removes a directory in which files may belong to subordinate ids and directories may be closed
/// to everybody, as in the store of an ordinary user. Only root and the user's own namespaces can.
pub fn remove_all(directory: &Path) {
    let mut command = Command::new("rm");
    if !is_root() {
        command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "rm"]);
    }
    // What is left is left among the temporary files.
    let _ = command.arg("-rf").arg(directory).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_passwd() {
        let text = "root:x:0:0::/root:/bin/sh\nformwork-test:x:1001:1002::/:/bin/sh\n";
        assert_eq!(OrdinaryUser::from_passwd(text), Some(OrdinaryUser { uid: 1001, gid: 1002 }));
        assert_eq!(OrdinaryUser::from_passwd("formwork-test2:x:1:1::/:\n"), None);
    }
}
