//! RUN where nothing can be mounted: in a directory that holds the whole root file system.
//!
//! The directory is made once for a chain of steps and carried on from each to the next ([`Place`]).
//! What a step has changed is found by looking at all metadata once afterwards. What other machines
//! mount is put in its place before the step, and taken away again after it ([`fit`]).

mod fit;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use formwork_diagnostics::Outcome;
use formwork_graph::{CacheSharing, Exec, MountKind};
use formwork_layer::tree::Origin;
use formwork_layer::{MaterializeOptions, Stack, materialize, scan_changes};
use formwork_sandbox::{ProcessSpec, SandboxError};
use formwork_snapshot::Snapshotter;
use formwork_solver::{Done, Task};

use crate::exec::{Ended, accounts, root_metadata, without_unchanged};
use crate::layer::{Layer, Source};
use crate::mounts::{Mounts, input};
use crate::root::{Output, Root};
use crate::runner::Worker;
use crate::{ExitReason, WorkerError};
use fit::Fitting;
pub(crate) use place::Place;

/// How many directories are kept for further steps; each holds a whole root file system.
const IDLE: usize = 4;

/// The directories that no step works in at the moment, the last used last.
#[derive(Debug, Default)]
pub(crate) struct Places {
    idle: Mutex<Vec<Place>>,
    /// Held by the step that takes more than one cache directory.
    turn: Mutex<()>,
    /// By user: held alone by steps with secrets, and together by others.
    neighbours: Mutex<BTreeMap<u32, Arc<RwLock<()>>>>,
}

impl Places {
    /// A directory that holds a root file system: one that was left by a step before it, or a new
    /// one.
    pub(crate) fn take(&self, worker: &Worker, root: &Root) -> Result<Place, WorkerError> {
        let best = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let best = (0..idle.len()).filter(|at| idle[*at].is_below(root));
            let best = best.max_by_key(|at| idle[*at].depth());
            best.map(|at| idle.remove(at))
        };
        match best {
            Some(mut place) => place.rise_to(root, worker.store.threads).map(|()| place),
            None => Place::make(&worker.store, root),
        }
    }

    /// The lock of those steps that run as a user. Processes of one user may look into each other's
    /// memory where nothing but their numbers parts them.
    fn neighbours(&self, uid: u32) -> Arc<RwLock<()>> {
        let mut all = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(uid).or_default())
    }

    /// Keeps a directory for the next step.
    pub(crate) fn put(&self, place: Place) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(place);
        if idle.len() > IDLE {
            drop(idle.remove(0));
        }
    }
}

impl Worker {
    /// Runs a process and keeps what it changes.
    pub(crate) fn exec_in_place(
        &self,
        task: &Task<'_, Output>,
        exec: &Exec,
    ) -> Result<Done<Output>, WorkerError> {
        let root = input(task, exec.rootfs)?.root()?;
        let canceled = || WorkerError::Sandbox(formwork_sandbox::SandboxError::Cancelled);
        let user = accounts(root)?.process_user(&exec.user)?;
        let several = has_several_caches(exec)?;
        // Two steps that each wait for what the other has would wait for ever.
        let turn = several.then(|| self.places.turn.lock().unwrap_or_else(PoisonError::into_inner));
        let mounts = self.mounts(task, exec, root)?.ok_or_else(canceled)?;
        drop(turn);
        let mut place = self.places.take(self, root)?;
        let trees = root.trees()?;
        let stack = Stack::new(trees.iter().map(|tree| &**tree));
        let is_shown = self.store.is_shown(&self.launcher, &place.root, user.uid);
        let mut fitting = Fitting::new(&mut place, &stack, self.store.threads, is_shown);
        fitting.put_in(&mounts)?;
        let rootfs = self.store.root_in_place(fitting.root_path());
        let mut spec = self.spec_of(exec, &user, &mounts, rootfs)?;
        fitting.show(&mut spec, &trees);
        // Last, since who waits here has whatever others may wait for.
        let neighbours = self.places.neighbours(user.uid);
        let is_alone = has_secrets(exec);
        let alone = is_alone.then(|| neighbours.write().unwrap_or_else(PoisonError::into_inner));
        let beside = (!is_alone).then(|| neighbours.read().unwrap_or_else(PoisonError::into_inner));
        let ended = self.run_logged(task, &spec);
        drop((alone, beside));
        let Ended { report, names_the_kernels } = ended?;
        if !report.status.is_success() || report.timed_out {
            let reason = self.reason(&report, fitting.root_path());
            let reason = reason
                .or((names_the_kernels && !is_shown).then_some(ExitReason::NothingOfTheKernel));
            return Err(WorkerError::Exit { status: report.status, reason });
        }
        let after = fitting.look()?;
        let origin = Origin::layer(fitting.root()?);
        let below = root_metadata(root)?;
        let tree = scan_changes(&origin, &below, fitting.before(), &after, self.store.threads)?;
        let (tree, _) = without_unchanged(tree, &stack)?;
        let layer = match tree.is_empty() {
            true => None,
            false => {
                let active = self.store.snapshots.prepare()?;
                let threads = self.store.threads;
                let options = MaterializeOptions { threads, ..MaterializeOptions::default() };
                let upper = formwork_fs::RootDir::open(active.upper())?;
                crate::exec::set_metadata(&active, &below)?;
                materialize(&tree, &upper, &options)?;
                Some(Layer::keep(&self.store, tree, Some(active), Source::Store)?)
            }
        };
        fitting.take_out(after)?;
        let (output, record) = match layer {
            None => (root.clone(), (String::new(), crate::store::now())),
            Some(layer) => {
                let record = (layer.name().to_string(), layer.created()?.unwrap_or_default());
                (root.with(layer)?, record)
            }
        };
        place.is_now(&output);
        self.places.put(place);
        let output = Output::Root(output);
        Ok(Done { output, layer: Some(record), outcome: Outcome::Done })
    }
}

/// Whether a step uses more than one cache directory. None can be at two places.
fn has_several_caches(exec: &Exec) -> Result<bool, WorkerError> {
    let mut ids = BTreeSet::new();
    for mount in &exec.mounts {
        let MountKind::Cache { id, sharing, .. } = &mount.kind else { continue };
        // One of its own is another directory each time.
        if !ids.insert(id) && *sharing != CacheSharing::Private {
            return Err(WorkerError::Sandbox(SandboxError::Unavailable(format!(
                "without mounts, a cache directory can be at one place only, and `{id}` is wanted \
                 at two: `formwork doctor` tells what this machine lacks"
            ))));
        }
    }
    Ok(ids.len() > 1)
}

/// Whether a step gets something that is for no other one.
fn has_secrets(exec: &Exec) -> bool {
    exec.mounts.iter().any(|mount| {
        matches!(
            mount.kind,
            MountKind::Secret { .. } | MountKind::SecretEnv { .. } | MountKind::Ssh { .. }
        )
    })
}

/// Does something with a place that is fitted for one process, of which nothing is kept.
pub(crate) fn fit_once<T>(
    place: &mut Place,
    root: &Root,
    mounts: &Mounts,
    (threads, is_shown): (usize, bool),
    run: impl FnOnce(&std::path::Path, &dyn Fn(&mut ProcessSpec)) -> Result<T, WorkerError>,
) -> Result<T, WorkerError> {
    let trees = root.trees()?;
    let stack = Stack::new(trees.iter().map(|tree| &**tree));
    let mut fitting = Fitting::new(place, &stack, threads, is_shown);
    fitting.put_in(mounts)?;
    run(fitting.root_path(), &|spec| fitting.show(spec, &trees))
}
