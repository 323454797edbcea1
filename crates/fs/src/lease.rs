//! What running processes use, so that nobody removes it.
//!
//! Each process writes the names of what it uses into a file of its own, `lease-<random>`, which it
//! keeps locked as long as it lives. Whoever wants to remove things closes the *gate* for a moment:
//! while it is closed nobody takes hold of anything, the leases can be read, and what nobody holds
//! can be taken away. So to hold a name and then find the thing there means that it stays.
//!
//! What a name stands for is the callers' affair.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{FileLock, FsError};

/// The lock that everybody shares who takes hold of something.
const GATE: &str = "gate";
/// How the names of leases begin. They go with their holders.
const PREFIX: &str = "lease-";

/// The names that this process holds, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Made when something is held for the first time.
    file: Option<FileLock>,
    held: BTreeSet<String>,
    is_given_up: bool,
}

/// The closed gate: nobody takes hold of anything as long as this exists.
#[derive(Debug)]
pub struct ClosedGate {
    directory: PathBuf,
    _lock: FileLock,
}

impl Lease {
    /// A lease that holds nothing yet, among the locks in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), state: Mutex::default() }
    }

    /// Holds something by its name, which has no line break.
    ///
    /// # Errors
    ///
    /// Fails where the lease cannot be written; then nothing may be used by that name.
    pub fn hold(&self, name: &str) -> Result<(), FsError> {
        self.hold_all([name])
    }

    /// Holds several things at once.
    ///
    /// # Errors
    ///
    /// Fails where the lease cannot be written.
    pub fn hold_all<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), FsError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let new = names.into_iter().filter(|name| !state.held.contains(*name));
        let new: BTreeSet<String> = new.map(str::to_owned).collect();
        if new.is_empty() {
            return Ok(());
        }
        if state.is_given_up {
            let ended = std::io::Error::other("this process holds nothing any more");
            return Err(FsError::new("hold something in", &self.directory, ended));
        }
        let _open = keep_gate_open(&self.directory)?;
        if state.file.is_none() {
            state.file = Some(new_file(&self.directory)?);
        }
        let lines: String = new.iter().flat_map(|name| [name, "\n"]).collect();
        if let Some(lock) = &state.file {
            lock.file()
                .write_all(lines.as_bytes())
                .map_err(|error| FsError::new("write", lock.path(), error))?;
        }
        state.held.extend(new);
        Ok(())
    }

    /// Holds nothing from now on, although threads that still have the lease may ask for it: for
    /// a process that ends without waiting for them.
    pub fn give_up(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { is_given_up: true, ..State::default() };
    }
}

/// Lets nobody close the gate as long as the result exists: for a few steps that must see all
/// things as they are.
///
/// # Errors
///
/// Fails where the lock cannot be used.
pub fn keep_gate_open(directory: &Path) -> Result<FileLock, FsError> {
    FileLock::shared(directory.join(GATE))
}

/// What running processes hold at this moment; they may go on to hold more.
///
/// # Errors
///
/// Fails where the leases cannot be read.
pub fn held_by_anybody(directory: &Path) -> Result<BTreeSet<String>, FsError> {
    let mut held = BTreeSet::new();
    for entry in fs_err::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // A lease that can be locked is nobody's any more, and goes.
        if name.starts_with(PREFIX.as_bytes()) && FileLock::try_transient(&path)?.is_none() {
            let mut text = Vec::new();
            let file = fs_err::File::open(&path);
            match file.and_then(|mut file| file.read_to_end(&mut text)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FsError::new("read", path, error));
                }
                _ => held.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned)),
            }
        }
    }
    Ok(held)
}

impl ClosedGate {
    /// Closes the gate, after waiting for those who are going through it.
    ///
    /// # Errors
    ///
    /// Fails where the lock cannot be used.
    pub fn close(directory: impl Into<PathBuf>) -> Result<Self, FsError> {
        let directory = directory.into();
        let lock = FileLock::exclusive(directory.join(GATE))?;
        Ok(Self { directory, _lock: lock })
    }

    /// What running processes hold; no more comes to it while the gate is closed.
    ///
    /// # Errors
    ///
    /// Fails where the leases cannot be read.
    pub fn held(&self) -> Result<BTreeSet<String>, FsError> {
        held_by_anybody(&self.directory)
    }
}

fn new_file(directory: &Path) -> Result<FileLock, FsError> {
    loop {
        let random = RandomState::new().hash_one(std::process::id());
        let path = directory.join(format!("{PREFIX}{random:016x}"));
        if let Some(lock) = FileLock::try_transient(path)? {
            return Ok(lock);
        }
    }
}

fn unreadable(directory: &Path, error: std::io::Error) -> FsError {
    FsError::new("list the directory", directory, error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn held(directory: &Path) -> Vec<String> {
        ClosedGate::close(directory).unwrap().held().unwrap().into_iter().collect()
    }

    #[test]
    fn what_is_given_up_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Lease::new(dir.path());
        lease.hold("a").unwrap();
        lease.give_up();
        lease.hold("a").unwrap_err();
        assert!(held(dir.path()).is_empty());
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_held_is_seen_until_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Lease::new(dir.path()), Lease::new(dir.path()));
        assert!(held(dir.path()).is_empty());
        one.hold("a").unwrap();
        one.hold_all(["a", "b"]).unwrap();
        two.hold("c").unwrap();
        assert_eq!(held(dir.path()), ["a", "b", "c"]);
        drop(one);
        assert_eq!(held(dir.path()), ["c"]);
        drop(two);
        assert!(held(dir.path()).is_empty());
        // Only the gate is left.
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_has_left_is_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("lease-0"), "a\n").unwrap();
        assert!(held(dir.path()).is_empty());
        assert!(!dir.path().join("lease-0").exists());
    }

    #[test]
    fn what_is_held_and_then_found_stays() {
        let dir = tempfile::tempdir().unwrap();
        let thing = dir.path().join("thing");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let gate = ClosedGate::close(dir.path()).unwrap();
                    if !gate.held().unwrap().contains("thing") {
                        let _ = fs_err::remove_file(&thing);
                    }
                }
            });
            for _ in 0..200 {
                let lease = Lease::new(dir.path());
                lease.hold("thing").unwrap();
                if !thing.exists() {
                    fs_err::write(&thing, "").unwrap();
                }
                std::thread::yield_now();
                assert!(thing.exists());
            }
            done.store(true, Ordering::SeqCst);
        });
    }
}
