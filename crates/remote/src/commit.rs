//! The commit that a directory of the user's is at.
//!
//! The repository is the user's, or came to them from anybody: git reads one object of it, with no
//! configuration but the repository's own, no protocol to fetch what is missing, and nothing that
//! a configuration could make it run for that.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{GitConfig, RemoteError};

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
}

/// The commit that is checked out in the repository that a directory is part of; `None` where it
/// is in none, or nothing was committed yet.
///
/// # Errors
///
/// Fails where git is not there.
pub fn commit_of(config: &GitConfig, directory: &Path) -> Result<Option<Commit>, RemoteError> {
    let problem =
        |problem: String| RemoteError::Git { url: directory.display().to_string(), problem };
    let mut places = std::env::split_paths(&config.path);
    let program = places.find_map(|place| {
        let program = place.join("git");
        (program.is_absolute() && program.is_file()).then_some(program)
    });
    let program = program.ok_or_else(|| {
        problem("the program `git` is not there; install the package `git`".to_owned())
    })?;
    let git = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null());
        command.env("PATH", &config.path).env("HOME", "/nonexistent").env("LC_ALL", "C");
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_ALLOW_PROTOCOL", ""),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            // Nothing is run, so it does not matter whose the repository is.
            ("GIT_CONFIG_COUNT", "2"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
            ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
            ("GIT_CONFIG_VALUE_1", "false"),
        ] {
            command.env(name, value);
        }
        let output = command.output();
        output.map_err(|error| problem(format!("git cannot be run: {error}")))
    };
    let id = git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
    let object = git(&["cat-file", "commit", "HEAD"])?;
    if !id.status.success() || !object.status.success() {
        return Ok(None);
    }
    let id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
    match time_of(&String::from_utf8_lossy(&object.stdout)) {
        Some(time) => Ok(Some(Commit { id, time })),
        None => Err(problem("its commit has no time".to_owned())),
    }
}

/// `committer NAME <ADDRESS> SECONDS ZONE`, before the empty line.
fn time_of(object: &str) -> Option<i64> {
    let head = object.lines().take_while(|line| !line.is_empty());
    let committer = head.filter_map(|line| line.strip_prefix("committer ")).next()?;
    committer.rsplit(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_committers() {
        let object =
            "tree 1\nauthor A <a@b> 5 +0000\ncommitter B <b c@d> 17 +0200\n\ncommitter x 1 y";
        assert_eq!(time_of(object), Some(17));
        assert_eq!(time_of("tree 1\n\ncommitter B <b> 17 +0000\n"), None);
    }
}
