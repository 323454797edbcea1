//! Credential helpers: programs `docker-credential-NAME` that keep credentials elsewhere.
//!
//! The protocol is that of `docker/docker-credential-helpers`: `get` with the server on standard
//! input answers with a JSON object, or fails with a message on standard output; `store` takes such
//! an object, `erase` a server.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::auth_file::identity;
use super::{Credential, Secret};
use crate::text;

/// The most that a helper may write.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// The longest that a helper may take, whatever the caller says; an hour is for ever.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// How often a helper that has closed its output is looked after.
const EXIT_POLL: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Where helpers are, and how long they may take.
#[derive(Clone, Debug, Default)]
pub(super) struct Helpers {
    pub(super) directories: Vec<PathBuf>,
    pub(super) timeout: Duration,
}

impl Helpers {
    /// Asks a helper for the credential of a server; `None` where it has none.
    ///
    /// An error is a clause that follows the helper's name.
    pub(super) fn ask(&self, name: &str, server: &str) -> Result<Option<Credential>, String> {
        let program = self.find(name)?;
        let (status, output) = run(&program, "get", server, self.timeout)?;
        if status.success() {
            return parse(&output).map(Some);
        }
        let said = text::printable(&String::from_utf8_lossy(&output));
        match said.contains("credentials not found") {
            true => Ok(None),
            // A helper that fails after it began to write its answer would give the secret away.
            false if said.contains('{') => Err(format!("failed ({status})")),
            false => Err(format!("failed ({status}): {said}")),
        }
    }

    /// Lets a helper keep a credential.
    ///
    /// An error is a clause that follows the helper's name.
    pub(super) fn keep(
        &self,
        name: &str,
        server: &str,
        username: &str,
        password: &Secret,
    ) -> Result<(), String> {
        let secret = password.expose();
        let entry =
            serde_json::json!({ "ServerURL": server, "Username": username, "Secret": secret });
        self.tell(name, "store", &entry.to_string())
    }

    /// Lets a helper forget the credential of a server.
    pub(super) fn forget(&self, name: &str, server: &str) -> Result<(), String> {
        self.tell(name, "erase", server)
    }

    fn tell(&self, name: &str, action: &str, input: &str) -> Result<(), String> {
        let (status, output) = run(&self.find(name)?, action, input, self.timeout)?;
        let said = text::printable(&String::from_utf8_lossy(&output));
        if status.success() { Ok(()) } else { Err(format!("failed ({status}): {said}")) }
    }

    fn find(&self, name: &str) -> Result<PathBuf, String> {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_safe) {
            return Err("is not asked: a name has letters, digits, `-`, `_` and `.`".to_owned());
        }
        let program = format!("docker-credential-{name}");
        let places = self.directories.iter().map(|directory| directory.join(&program));
        let mut programs = places.filter(|path| path.is_file());
        programs.next().ok_or_else(|| "is not installed".to_owned())
    }
}

fn parse(output: &[u8]) -> Result<Credential, String> {
    let answer: Answer = serde_json::from_slice(output)
        .map_err(|_| "did not answer with `Username` and `Secret` in JSON".to_owned())?;
    Ok(match answer.username.as_str() {
        "<token>" => identity(None, answer.secret),
        _ => Credential::Login { username: answer.username, password: Secret::new(answer.secret) },
    })
}

/// Runs a program, and gives up when its time is over.
fn run(
    program: &Path,
    action: &str,
    input: &str,
    timeout: Duration,
) -> Result<(ExitStatus, Vec<u8>), String> {
    let deadline = Instant::now() + timeout.min(LONGEST_TIMEOUT);
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let result = converse(&mut child, input, deadline);
    if result.is_err() {
        // It may have ended by itself in the meantime, which is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn converse(
    child: &mut Child,
    input: &str,
    deadline: Instant,
) -> Result<(ExitStatus, Vec<u8>), String> {
    // The input is a host name and fits in the pipe; a helper that does not read it is no error.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = writeln!(stdin, "{input}");
    }
    let late = || "did not answer in time".to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    if let Some(stdout) = child.stdout.take() {
        let read = move || {
            let mut output = Vec::new();
            let result = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output);
            // Nobody is waiting any more if the time is over.
            let _ = sender.send(result.map(|_| output));
        };
        let reader = std::thread::Builder::new().spawn(read);
        reader.map_err(|error| format!("cannot be read from: {error}"))?;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let output = receiver
        .recv_timeout(left)
        .map_err(|_| late())?
        .map_err(|error| format!("cannot be read from: {error}"))?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok((status, output)),
            Ok(None) if Instant::now() >= deadline => return Err(late()),
            Ok(None) => std::thread::sleep(EXIT_POLL),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// One test, so that no other thread starts a process while a helper is being written, which
    /// would keep it from being run ("text file busy").
    #[test]
    fn helpers_answer_fail_or_take_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let login = |username: &str, password: &str| {
            let password = Secret::new(password);
            Ok(Some(Credential::Login { username: username.to_owned(), password }))
        };
        let token = Credential::IdentityToken { username: None, token: Secret::new("t") };
        let asked = r#"read server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}""#;
        let cases: [(&str, Result<Option<Credential>, &str>); 10] = [
            (asked, login("get", "quay.io")),
            (r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}'"#, Ok(Some(token))),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            ("echo no session bus; exit 1", Err("failed (exit status: 1): no session bus")),
            (r#"echo '{"Secret":"hunter2"'; exit 2"#, Err("failed (exit status: 2)")),
            (r#"echo '{"Secret":"hunter2"'"#, Err("did not answer with `Username`")),
            ("echo hunter2 >&2; kill -9 $$", Err("failed (signal: 9 (SIGKILL)): ")),
            ("exec sleep 100", Err("did not answer in time")),
            ("exec >&-; exec sleep 100", Err("did not answer in time")),
            ("exec cat /dev/zero", Err("")),
        ];
        for (number, (script, expected)) in cases.into_iter().enumerate() {
            let path = dir.path().join(format!("docker-credential-h{number}"));
            fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            let directories = vec![dir.path().join("absent"), dir.path().to_owned()];
            let helpers = Helpers { directories, timeout: Duration::from_millis(500) };
            match (helpers.ask(&format!("h{number}"), "quay.io"), expected) {
                (Err(problem), Err(expected)) => {
                    assert!(problem.starts_with(expected), "{script}: {problem}");
                    assert!(!problem.contains("hunter2"), "{script}: {problem}");
                }
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{script}"),
            }
        }
        let none = Helpers { directories: vec![dir.path().to_owned()], timeout: Duration::MAX };
        assert_eq!(none.ask("absent", "quay.io"), Err("is not installed".to_owned()));
        assert!(none.ask("../h0", "quay.io").unwrap_err().contains("is not asked"));
    }
}
