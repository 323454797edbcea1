//! Credential helpers: programs `docker-credential-NAME` that keep credentials elsewhere.
//!
//! The protocol is that of `docker/docker-credential-helpers`: `get` with the server on standard
//! input answers with a JSON object, or fails with a message on standard output.

use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::auth_file::identity;
use super::{Credential, Secret};
use crate::text;

/// The most that a helper may write.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// How often a helper that has closed its output is looked after.
const EXIT_POLL: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper for the credential of a server; `None` where it has none.
///
/// An error is a clause that follows the helper's name.
pub(super) fn ask(
    name: &str,
    server: &str,
    timeout: Duration,
) -> Result<Option<Credential>, String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(is_safe) {
        return Err("is not asked: its name may have letters, digits, `-`, `_` and `.`".to_owned());
    }
    let (status, output) = run(&format!("docker-credential-{name}"), server, timeout)?;
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

fn parse(output: &[u8]) -> Result<Credential, String> {
    let answer: Answer = serde_json::from_slice(output)
        .map_err(|_| "did not answer with `Username` and `Secret` in JSON".to_owned())?;
    Ok(match answer.username.as_str() {
        "<token>" => identity(None, answer.secret),
        _ => Credential::Login { username: answer.username, password: Secret::new(answer.secret) },
    })
}

/// Runs a program, and gives up when its time is over.
fn run(program: &str, input: &str, timeout: Duration) -> Result<(ExitStatus, Vec<u8>), String> {
    let deadline = Instant::now() + timeout;
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "is not installed".to_owned(),
            _ => format!("cannot be started: {error}"),
        })?;
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
        std::thread::spawn(move || {
            let mut output = Vec::new();
            let result = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output);
            // Nobody is waiting any more if the time is over.
            let _ = sender.send(result.map(|_| output));
        });
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
