//! Keeping limits while a build writes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_fs::{AtomicFile, DiskUsage, FsError, free_space};

use super::{Limits, prune, usage};
use crate::{BuildError, Host};

/// The file with the number of bytes that the store took when it was last measured.
const MEASURED: &str = "measured";
/// Where nothing more could go, this much more has to be written before it is tried again.
const PATIENCE: u64 = 64 << 20;

/// Keeps limits before a build begins and before each of its steps: removes what no image and no
/// running process needs and was not used for longest.
///
/// Sees steps begin on their way to a sink. Costs nothing without limits; with them, before each
/// step, a look at the disk's free space and at what has come into the store since the last one.
pub(crate) struct Keeper {
    host: Host,
    limits: Limits,
    sink: Arc<dyn EventSink>,
    /// Directories of temporary files that grow, too.
    beside: Vec<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the store takes: as it was measured, and what has come since.
    used: u64,
    /// The layers and blobs that count already.
    counted: BTreeSet<PathBuf>,
    /// When something last came into their directories.
    changed: Vec<SystemTime>,
    /// With more free than this nothing is tried, since nothing more could go.
    patient_until: Option<u64>,
    is_told: bool,
}

impl Keeper {
    /// Makes room where a limit does not hold now, and goes on to do so.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read or written.
    pub(crate) fn begin(
        host: &Host,
        limits: Limits,
        sink: &Arc<dyn EventSink>,
    ) -> Result<Arc<dyn EventSink>, BuildError> {
        Self::begin_beside(host, limits, sink, Vec::new())
    }

    /// The same for somebody who also fills directories among the temporary files of the store,
    /// which need not be there yet.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read or written.
    pub(crate) fn begin_beside(
        host: &Host,
        limits: Limits,
        sink: &Arc<dyn EventSink>,
        beside: Vec<PathBuf>,
    ) -> Result<Arc<dyn EventSink>, BuildError> {
        if (limits.max_used, limits.min_free) == (None, None) {
            return Ok(Arc::clone(sink));
        }
        let (host, sink) = (host.clone(), Arc::clone(sink));
        let keeper = Self { host, limits, sink, beside, state: Mutex::default() };
        let mut state = State::default();
        keeper.measure(&mut state)?;
        keeper.keep(&mut state)?;
        Ok(Arc::new(Self { state: Mutex::new(state), ..keeper }))
    }

    /// The directories of a store that layers and blobs come into.
    pub(crate) fn growing(host: &Host) -> [PathBuf; 2] {
        let [snapshots, blobs, _] = directories(host);
        [snapshots, blobs]
    }

    fn free(&self) -> Result<u64, BuildError> {
        free_space(self.host.layout.root()).map_err(BuildError::store)
    }

    fn measure(&self, state: &mut State) -> Result<(), BuildError> {
        if self.limits.max_used.is_some() {
            state.counted = self.things()?.collect();
            // What is beside the store is in no measurement of others.
            state.used = match self.beside.is_empty() {
                true => used(&self.host)?,
                false => usage(&self.host)?.total(),
            };
        }
        Ok(())
    }

    /// Adds what has come since the last time.
    fn count_new(&self, state: &mut State) -> Result<(), BuildError> {
        let beside = self.beside.iter().filter_map(|path| modified(path));
        let changed: Vec<SystemTime> = watched(&self.host).chain(beside).collect();
        if self.limits.max_used.is_none() || state.changed == changed {
            return Ok(());
        }
        state.changed = changed;
        let threads = self.host.layers.threads();
        for path in self.things()? {
            if !state.counted.contains(&path) {
                // What is gone again takes nothing.
                state.used += DiskUsage::default().add(&path, threads).unwrap_or_default();
                state.counted.insert(path);
            }
        }
        Ok(())
    }

    /// All layers and blobs, and what is beside them.
    fn things(&self) -> Result<impl Iterator<Item = PathBuf> + use<>, BuildError> {
        let mut found = Vec::new();
        for path in Self::growing(&self.host).iter().chain(&self.beside) {
            match fs_err::read_dir(path) {
                Ok(entries) => {
                    found.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
                }
                Err(error) if error.kind() == ErrorKind::NotFound && self.beside.contains(path) => {
                }
                Err(error) => {
                    let error = FsError::new("list the directory", path, error);
                    return Err(BuildError::store(error));
                }
            }
        }
        // What holds others is not counted for them.
        let is_whole = |path: &PathBuf| !self.beside.iter().any(|inner| inner.starts_with(path));
        found.retain(is_whole);
        Ok(found.into_iter())
    }

    /// How many bytes there are too many.
    fn excess(&self, state: &State, free: u64) -> u64 {
        let lacking = self.limits.min_free.map_or(0, |min| min.saturating_sub(free));
        self.limits.max_used.map_or(0, |max| state.used.saturating_sub(max)).max(lacking)
    }

    fn keep(&self, state: &mut State) -> Result<(), BuildError> {
        let free = self.free()?;
        self.count_new(state)?;
        let is_patient = state.patient_until.is_some_and(|until| free >= until);
        if is_patient || self.excess(state, free) == 0 {
            return Ok(());
        }
        prune(&self.host, &|_| true, false, self.limits, false)?;
        self.measure(state)?;
        let free = self.free()?;
        let excess = self.excess(state, free);
        state.patient_until = (excess > 0).then(|| free.saturating_sub(PATIENCE));
        let is_too_large = self.limits.max_used.is_some_and(|max| state.used > max);
        if is_too_large && !std::mem::replace(&mut state.is_told, true) {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        let message = "the store is larger than it should be, and nothing more of it may go";
        let warning = Diagnostic::warning("store-too-large", message)
            .with_note("the rest is needed by images, or used by builds at this moment")
            .with_help("`formwork du` shows what takes the space; `formwork rm` removes images")
            .with_help("allow more with `--max-used-space`");
        self.sink.emit(Event::Message(Box::new(warning)));
    }
}

impl EventSink for Keeper {
    fn emit(&self, event: Event) {
        if matches!(event, Event::StepStarted { .. }) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A store that cannot be used fails the step itself.
            let _ = self.keep(&mut state);
        }
        self.sink.emit(event);
    }
}

/// The number of bytes that the store takes, as it was last measured if nothing was added since.
fn used(host: &Host) -> Result<u64, BuildError> {
    let path = host.layout.locks().join(MEASURED);
    let known = modified(&path).filter(|at| watched(host).all(|changed| changed < *at));
    if known.is_some()
        && let Ok(text) = fs_err::read_to_string(&path)
        && let Ok(bytes) = text.parse()
    {
        return Ok(bytes);
    }
    let bytes = usage(host)?.total();
    AtomicFile::write(&path, bytes.to_string().as_bytes()).map_err(BuildError::store)?;
    Ok(bytes)
}

/// When something was last added to the directories that grow.
fn watched(host: &Host) -> impl Iterator<Item = SystemTime> {
    directories(host).into_iter().filter_map(|path| modified(&path))
}

/// The directories that grow: layers, blobs, and the runs of steps, which are noted whatever a step
/// changes, such as a cache mount.
fn directories(host: &Host) -> [PathBuf; 3] {
    let layout = &host.layout;
    [layout.snapshots(), layout.content().join("blobs/sha256"), layout.runs()]
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs_err::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
