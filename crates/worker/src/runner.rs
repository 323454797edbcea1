//! The worker as the solver sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_cache::{CacheRecord, Identity};
use formwork_diagnostics::{Diagnostic, Event, EventSink, Outcome, SourceFile, Span};
use formwork_graph::{
    CopySource, FileAction, Graph, MountKind, Op, OpId, Place, Source as GraphSource, Step,
};
use formwork_image::{BlobSource, ImageView};
use formwork_layer::Tree;
use formwork_oci::{ChainId, Descriptor, DiffId, Digest};
use formwork_remote::{Downloads, GitConfig};
use formwork_sandbox::{Launcher, MAX_LAYERS, SandboxError};
use formwork_snapshot::SnapshotKey;
use formwork_solver::{Cancel, Done, Examined, OpRunner, Task, step_id};

use crate::compare::differences;
use crate::context::{Context, ContextConfig};
use crate::files::PlannedFiles;
use crate::imported::unusable;
use crate::in_place::Places;
use crate::layer::{Layer, Source, stored_layer};
use crate::loading::Audience;
use crate::mounts::{StubLayers, input};
use crate::root::{Output, Root};
use crate::store::LayerStore;
use crate::trust::Bundles;
use crate::{HostTrust, ImportedLayers, Secrets, StepWorld, WorkerError, name};

/// What a worker is told about one build.
#[derive(Debug, Default)]
pub struct WorkerConfig {
    /// The contexts by their names.
    pub contexts: BTreeMap<String, ContextConfig>,
    /// The images by their manifests' digests.
    pub images: BTreeMap<Digest, BaseImage>,
    /// Secrets for RUN.
    pub secrets: Secrets,
    /// The sockets of SSH agents for RUN, by their names.
    pub agents: BTreeMap<String, PathBuf>,
    /// What of the host reaches RUN.
    pub trust: HostTrust,
    /// What git needs of the machine.
    pub git: GitConfig,
    /// Fetches files of web servers, if the build has any.
    pub downloads: Option<Downloads>,
    /// The directories in which emulators for other machines' programs are looked for.
    pub emulators: Vec<PathBuf>,
    /// The content of `/etc/resolv.conf` for RUN.
    pub resolv_conf: Vec<u8>,
    /// The layers that caches elsewhere have.
    pub imported: Arc<ImportedLayers>,
    /// What the user asks of the world of RUN.
    pub world: StepWorld,
    /// The number of bytes that are to stay free on the disk: with less, no op begins.
    pub min_free: Option<u64>,
    /// The text that the places of steps are in.
    pub text: Option<SourceFile>,
}

/// An image that a build is based on, or takes files from.
#[derive(Clone, Debug)]
pub enum BaseImage {
    /// One whose layers are blobs somewhere.
    View(Box<ImageView>),
    /// One that was built here, by its layers, and where the packed ones are.
    Local(Vec<LocalLayer>, Arc<dyn BlobSource>),
}

/// A layer of an image that was built here.
#[derive(Clone, Debug)]
pub struct LocalLayer {
    /// What it is called in the store.
    pub key: SnapshotKey,
    /// The digest of its archive.
    pub diff_id: DiffId,
    /// The blob of one that came with the base of that image, which need not be unpacked yet.
    pub packed: Option<Descriptor>,
}

impl BaseImage {
    /// The layers, lowest first; `unpack` says whether somebody will need their directories.
    pub(crate) fn layers(
        &self,
        store: &Arc<LayerStore>,
        unpack: bool,
    ) -> Result<Vec<Arc<Layer>>, WorkerError> {
        let (parts, blobs) = self.parts()?;
        let mut layers: Vec<Arc<Layer>> = Vec::new();
        for LocalLayer { key, diff_id, packed } in parts {
            let source = match packed {
                None => Source::Store,
                Some(descriptor) => {
                    let (blobs, below) = (Arc::clone(blobs), layers.clone());
                    let descriptor = Box::new(descriptor);
                    Source::Image { blobs, diff_id, descriptor, below, unpack }
                }
            };
            layers.push(Layer::new(key, store, source));
        }
        Ok(layers)
    }

    fn parts(&self) -> Result<(Vec<LocalLayer>, &Arc<dyn BlobSource>), WorkerError> {
        let view = match self {
            Self::Local(layers, blobs) => return Ok((layers.clone(), blobs)),
            Self::View(view) => view,
        };
        // Nobody could run anything on more; what comes of it would only cost time.
        let count = view.layers().len();
        if count > MAX_LAYERS {
            return Err(SandboxError::TooManyLayers { count, limit: MAX_LAYERS }.into());
        }
        let mut chain = None;
        let mut parts = Vec::new();
        for layer in view.layers() {
            let id = ChainId::above(chain.as_ref(), layer.diff_id);
            let key = name::of_chain_id(&id).ok_or_else(|| {
                WorkerError::Internal(format!("the diff ID {} is odd", layer.diff_id))
            })?;
            let (diff_id, packed) = (layer.diff_id.clone(), Some(layer.descriptor.clone()));
            parts.push(LocalLayer { key, diff_id, packed });
            chain = Some(id);
        }
        Ok((parts, view.blobs()))
    }
}

/// Carries ops out.
pub struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) store: Arc<LayerStore>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) launcher: Launcher,
    /// Stops processes; thrown by the solver's switch.
    pub(crate) stop: formwork_sandbox::Cancel,
    pub(crate) stubs: StubLayers,
    /// Where processes run if nothing can be mounted.
    pub(crate) places: Places,
    pub(crate) bundles: Bundles,
    /// Copies that were planned in this build, by their ops.
    pub(crate) plans: Mutex<BTreeMap<OpId, Arc<PlannedFiles>>>,
    /// What has been told of steps.
    told: Mutex<Vec<Diagnostic>>,
    pub(crate) cancel: Cancel,
    contexts: BTreeMap<String, Arc<Context>>,
    /// Images of which somebody will need the files, not only their list.
    unpacked: BTreeSet<OpId>,
}

impl Worker {
    /// A worker for one build.
    ///
    /// # Errors
    ///
    /// Fails where a context cannot be opened.
    pub fn new(
        graph: &Graph,
        config: WorkerConfig,
        store: Arc<LayerStore>,
        events: Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Self, WorkerError> {
        let mut contexts = BTreeMap::new();
        let used = used_contexts(graph);
        let is_only = used.len() == 1;
        for (name, UsedContext { op, patterns }) in used {
            let Some(context) = config.contexts.get(name) else {
                return Err(WorkerError::Internal(format!("the context `{name}` is unknown")));
            };
            let title = match is_only {
                true => "load build context".to_owned(),
                false => format!("load build context `{name}`"),
            };
            let audience = Audience { events: Arc::clone(&events), step: step_id(op), title };
            let context = Context::open(name, context.clone(), &patterns, store.threads, audience)?;
            contexts.insert(name.to_owned(), Arc::new(context));
        }
        let stop = formwork_sandbox::Cancel::new()?;
        let switch = stop.clone();
        cancel.when_canceled(move || switch.cancel());
        Ok(Self {
            config,
            store,
            events,
            launcher: Launcher::new(),
            stop,
            stubs: StubLayers::default(),
            places: Places::default(),
            bundles: Bundles::default(),
            plans: Mutex::default(),
            told: Mutex::default(),
            cancel: cancel.clone(),
            contexts,
            unpacked: unpacked_images(graph),
        })
    }

    /// What is not where a step looks for it and could be seen without doing anything, so that all
    /// of it can be told before the first step runs.
    pub fn missing_sources(&self, graph: &Graph) -> Vec<(OpId, WorkerError)> {
        let mut found = Vec::new();
        for (id, step) in graph.steps() {
            for (op, source) in looked_up(&step.op) {
                let Op::Source(GraphSource::Context { name }) = &graph.step(op).op else {
                    continue;
                };
                let context = self.contexts.get(name);
                if let Some(context) = context.filter(|context| context.certainly_lacks(source)) {
                    found.push((id, WorkerError::Missing(context.missing(source))));
                }
            }
        }
        found
    }

    /// Tells something about a step, at a part of it if that is known.
    pub(crate) fn warn(&self, step: &Step, part: Option<Place>, warning: Diagnostic) {
        let warning = match (&self.config.text, part.or(step.location)) {
            (Some(text), Some((start, end))) => {
                warning.at(text, Span::new(start as usize, end as usize), "")
            }
            _ => warning.with_note(format!("in `{}`", step.name)),
        };
        // An instruction is a step for each platform.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&warning) {
            told.push(warning.clone());
            self.events.emit(Event::Message(Box::new(warning)));
        }
    }

    fn source(&self, task: &Task<'_, Output>, source: &GraphSource) -> Result<Output, WorkerError> {
        match source {
            GraphSource::Scratch => Ok(Output::Root(Root::scratch())),
            GraphSource::Context { name } => {
                let unknown = || WorkerError::Internal(format!("the context `{name}` is unknown"));
                self.contexts.get(name).cloned().map(Output::Context).ok_or_else(unknown)
            }
            GraphSource::Remote(remote) => self.fetch(task, remote),
            GraphSource::Image { name, manifest, layers, .. } => {
                let unknown = || WorkerError::Internal(format!("the image `{name}` is unknown"));
                let image = self.config.images.get(manifest).ok_or_else(unknown)?;
                let unpack = self.unpacked.contains(&task.id);
                let handles = image.layers(&self.store, unpack)?;
                Ok(Output::Root(Root::image(Identity::image(layers), handles)))
            }
        }
    }

    /// What an op with a recorded layer yields.
    fn restored(
        &self,
        task: &Task<'_, Output>,
        base: OpId,
        record: &CacheRecord,
        source: Source,
        whole: bool,
    ) -> Result<Option<Output>, WorkerError> {
        let base = input(task, base)?.root()?;
        if record.layer.is_empty() {
            return Ok(Some(Output::Root(base.clone())));
        }
        let Ok(key) = record.layer.parse::<SnapshotKey>() else { return Ok(None) };
        if name::tree_digest(&key).is_none() {
            return Ok(None);
        }
        let layer = Layer::new(key, &self.store, source);
        let layer = match layer.is_complete()? {
            true => layer,
            false => match self.imported(task, layer.name())? {
                Some(layer) => layer,
                None if whole || self.config.imported.is_lost(layer.name()) => return Ok(None),
                None => {
                    let source = Source::Gone(Arc::clone(&self.config.imported));
                    Layer::new(layer.name().clone(), &self.store, source)
                }
            },
        };
        base.with(layer).map(|root| Some(Output::Root(root)))
    }

    /// Makes sure that a process can run in a root file system, as far as that is known at once:
    /// all layers whose files are nowhere are given up together.
    pub(crate) fn demand_files(&self, root: &Root) -> Result<(), WorkerError> {
        let missing = root.layers().iter().filter(|layer| layer.has_no_files());
        let missing: Vec<&Arc<Layer>> = missing.collect();
        missing.iter().for_each(|layer| layer.lose(&self.config.imported));
        match missing.first() {
            Some(layer) => Err(unusable(layer.name(), &"nobody has its files any more")),
            None => Ok(()),
        }
    }

    /// The list of files of a layer that is in the store or in a cache elsewhere.
    fn earlier_files(&self, name: &str) -> Option<Arc<Tree>> {
        if let Some(layer) = stored_layer(&self.store, name).ok()? {
            return layer.tree().ok();
        }
        let name = name.parse().ok()?;
        self.config.imported.get(&name)?.tree(&name).ok()?.map(Arc::new)
    }

    /// A layer of a cache elsewhere. That of a copy needs no files from there: they are where the
    /// copy takes them from.
    fn imported(
        &self,
        task: &Task<'_, Output>,
        name: &SnapshotKey,
    ) -> Result<Option<Arc<Layer>>, WorkerError> {
        let Some(imported) = self.config.imported.get(name) else { return Ok(None) };
        match (&task.step.op, &imported.blob) {
            (Op::File(file), None) => {
                let Some(tree) = imported.tree(name)? else { return Ok(None) };
                let source = self.planned_source(task, file);
                Layer::keep_made(&self.store, tree, None, source, imported.created).map(Some)
            }
            _ => {
                let source = Source::Imported(Box::new(imported));
                Ok(Some(Layer::new(name.clone(), &self.store, source)))
            }
        }
    }
}

impl OpRunner for Worker {
    type Output = Output;
    type Error = WorkerError;

    fn identity(&self, output: &Output) -> Option<Identity> {
        match output {
            Output::Root(root) => Some(root.identity()),
            Output::Context(_) | Output::Fetched(..) => None,
        }
    }

    fn examine(&self, task: &Task<'_, Output>) -> Result<Examined, WorkerError> {
        match &task.step.op {
            Op::Source(_) => Ok(Examined::default()),
            Op::Exec(exec) => {
                let mut examined = Examined::default();
                for (position, mount) in exec.mounts.iter().enumerate() {
                    if let MountKind::Bind { from, source, .. } = &mount.kind {
                        let identity = self.identity_of_part(input(task, *from)?, source)?;
                        examined.mounted.insert(position, identity);
                    }
                }
                Ok(examined)
            }
            Op::File(file) => self.examine_files(task, file),
        }
    }

    fn restore(
        &self,
        task: &Task<'_, Output>,
        record: &CacheRecord,
        whole: bool,
    ) -> Result<Option<Output>, WorkerError> {
        match &task.step.op {
            Op::Source(_) => Ok(None),
            Op::Exec(exec) => self.restored(task, exec.rootfs, record, Source::Store, whole),
            Op::File(file) => {
                let source = self.planned_source(task, file);
                self.restored(task, file.base, record, source, whole)
            }
        }
    }

    fn demand(&self, output: &Output) -> Result<(), WorkerError> {
        self.demand_files(output.root()?)
    }

    fn compare(&self, task: &Task<'_, Output>, earlier: &CacheRecord) -> Vec<String> {
        let Op::File(file) = &task.step.op else { return Vec::new() };
        match (self.earlier_files(&earlier.layer), self.plan(task, file)) {
            (Some(before), Ok(after)) => differences(&before, after.tree()),
            _ => Vec::new(),
        }
    }

    fn run(&self, task: &Task<'_, Output>) -> Result<Done<Output>, WorkerError> {
        if !matches!(task.step.op, Op::Source(_)) {
            self.store.keep_free(self.config.min_free)?;
        }
        match &task.step.op {
            Op::Source(source) => {
                let output = self.source(task, source)?;
                Ok(Done { output, layer: None, outcome: Outcome::Done })
            }
            Op::Exec(exec) => self.exec(task, exec),
            Op::File(file) => self.run_files(task, file),
        }
    }
}

/// The contexts that a graph uses, with the paths and patterns that are taken from them.
fn used_contexts(graph: &Graph) -> BTreeMap<&str, UsedContext<'_>> {
    let mut used = BTreeMap::new();
    for (op, step) in graph.steps() {
        if let Op::Source(GraphSource::Context { name }) = &step.op {
            used.insert(name.as_str(), UsedContext { op, patterns: Vec::new() });
        }
    }
    for (_, step) in graph.steps() {
        for (op, pattern) in taken(&step.op) {
            if let Op::Source(GraphSource::Context { name }) = &graph.step(op).op
                && let Some(context) = used.get_mut(name.as_str())
            {
                context.patterns.push(pattern);
            }
        }
    }
    used
}

/// A context of a graph: its op, and what others take from it.
struct UsedContext<'g> {
    op: OpId,
    patterns: Vec<&'g str>,
}

/// What an op looks for in others whenever it is asked for, even if its result is known.
fn looked_up(op: &Op) -> Vec<(OpId, &str)> {
    let Op::Exec(exec) = op else { return taken(op) };
    let binds = exec.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { from, source, .. } => Some((*from, source.as_str())),
        _ => None,
    });
    binds.collect()
}

/// What an op takes from others, other than as its root: the op, and a path or pattern.
fn taken(op: &Op) -> Vec<(OpId, &str)> {
    match op {
        Op::Source(_) => Vec::new(),
        Op::Exec(exec) => exec
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, source, .. } => Some((*from, source.as_str())),
                MountKind::Cache { from: Some((from, source)), .. } => {
                    Some((*from, source.as_str()))
                }
                _ => None,
            })
            .collect(),
        Op::File(file) => file
            .actions
            .iter()
            .flat_map(|action| match action {
                FileAction::Copy { sources, .. } => sources.as_slice(),
                FileAction::MakeDirectory { .. } => &[],
            })
            .filter_map(|source| match source {
                CopySource::Path { from, pattern } => Some((*from, pattern.as_str())),
                CopySource::Inline { .. } => None,
            })
            .collect(),
    }
}

/// The images whose files somebody needs: those below a RUN, and those that something is taken
/// from. Of the others only the list of files is needed, for copies on top of them.
fn unpacked_images(graph: &Graph) -> BTreeSet<OpId> {
    let mut needed: BTreeSet<OpId> = BTreeSet::new();
    for (_, step) in graph.steps() {
        needed.extend(taken(&step.op).into_iter().map(|(op, _)| op));
        if let Op::Exec(exec) = &step.op {
            needed.insert(exec.rootfs);
        }
    }
    for (id, step) in graph.steps().rev() {
        if needed.contains(&id) {
            match &step.op {
                Op::Exec(exec) => drop(needed.insert(exec.rootfs)),
                Op::File(file) => drop(needed.insert(file.base)),
                Op::Source(_) => {}
            }
        }
    }
    needed
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("config", &self.config).finish_non_exhaustive()
    }
}
