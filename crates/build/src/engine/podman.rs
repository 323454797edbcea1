//! Podman without a service: a process that does what it is told, line by line.
//!
//! It is started before the program enters a user namespace of its own, in which podman would take
//! itself for root's, and waits until there is something to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use formwork_oci::{Digest, Reference};

/// Reads commands; after `load`, the rest of its input is an archive. `later` are the lists that are
/// made when that has been read.
const SCRIPT: &str = r#"
list() {
    if podman manifest exists "$2"; then podman manifest rm "$2"; else podman untag "$2" "$2"; fi
    podman manifest create "$2" || return
    for id in $(echo "$1" | tr , ' '); do
        podman manifest add "$2" "containers-storage:$id" || return
    done
}
lists() {
    for one in $later; do
        list "${one%%=*}" "${one#*=}" || return
    done
}
later=
while read -r verb id name; do
    case $verb in
    knows) podman image exists "$id" && echo yes || echo no ;;
    tag) podman tag "$id" "$name" 2>&1; echo "status $?" ;;
    list) list "$id" "$name" 2>&1; echo "status $?" ;;
    later) later="$later $id=$name" ;;
    load) { podman load -q && lists; } 2>&1; echo "status $?"; exit ;;
    esac
done
"#;

/// A waiting process.
#[derive(Debug)]
pub struct PodmanProcess {
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl PodmanProcess {
    /// Starts the process, with the environment and the rights of the caller.
    ///
    /// # Errors
    ///
    /// Fails where there is no shell, or no process can be started.
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { parts: Mutex::new(Parts { child, stdin: Some(stdin), stdout }) })
    }

    /// Whether podman has an image.
    pub(super) fn knows(&self, id: &Digest) -> io::Result<bool> {
        let mut parts = self.lock();
        parts.say(&format!("knows {} -\n", id.hex()))?;
        Ok(parts.line()?.trim() == "yes")
    }

    /// Gives an image that podman has one more name.
    pub(super) fn tag(&self, id: &Digest, name: &Reference) -> io::Result<()> {
        let mut parts = self.lock();
        parts.say(&format!("tag {} {name}\n", id.hex()))?;
        parts.status()
    }

    /// Makes a list of images that podman has, in place of what has its name.
    pub(super) fn list(&self, name: &Reference, ids: &[Digest]) -> io::Result<()> {
        let mut parts = self.lock();
        parts.say(&format!("list {} {name}\n", joined(ids)))?;
        parts.status()
    }

    /// Makes a list as soon as podman has been given its images.
    pub(super) fn list_later(&self, name: &Reference, ids: &[Digest]) -> io::Result<()> {
        self.lock().say(&format!("later {} {name}\n", joined(ids)))
    }

    /// Gives podman an archive; the process ends with that.
    pub(super) fn load(&self, archive: &mut dyn Read) -> io::Result<()> {
        let mut parts = self.lock();
        parts.say("load - -\n")?;
        let copied = match parts.stdin.take() {
            Some(mut stdin) => io::copy(archive, &mut stdin).map(drop),
            None => Err(io::Error::other("podman has been given an image already")),
        };
        // What podman says is worth more than that it did not read on.
        parts.status().and(copied)
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn joined(ids: &[Digest]) -> String {
    ids.iter().map(Digest::hex).collect::<Vec<_>>().join(",")
}

impl Drop for PodmanProcess {
    fn drop(&mut self) {
        let mut parts = self.lock();
        drop(parts.stdin.take());
        // It ends with its input; nobody else waits for it.
        let _ = parts.child.wait();
    }
}

impl Parts {
    fn say(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut();
        let stdin = stdin.ok_or_else(|| io::Error::other("podman is not there any more"))?;
        stdin.write_all(line.as_bytes())?;
        stdin.flush()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match (&mut self.stdout).take(64 << 10).read_line(&mut line)? {
            0 => Err(io::Error::other("podman has ended")),
            _ => Ok(line),
        }
    }

    /// Reads up to the status; fails with what was said if it is none of success.
    fn status(&mut self) -> io::Result<()> {
        let mut said = String::new();
        loop {
            let line = self.line()?;
            match line.trim().strip_prefix("status ") {
                Some("0") => return Ok(()),
                Some(_) => return Err(io::Error::other(said.trim().to_owned())),
                None => said.push_str(&line),
            }
        }
    }
}
