//! What a RUN sees beside its root file system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use formwork_content::StoreLayout;
use formwork_diagnostics::Event;
use formwork_fs::{RelPath, RootDir};
use formwork_graph::{CacheSharing, Exec, MountKind, MountSpec, OpId, Security};
use formwork_layer::tree::{Last, Node};
use formwork_layer::{MaterializeOptions, Stack, Tree, materialize};
use formwork_remote::{AgentSocket, SocketOwner};
use formwork_sandbox as sandbox;
use formwork_sandbox::{FileData, MountPoint, ProcessSpec, RootFs, Stub};
use formwork_snapshot::{Active, Snapshotter};
use formwork_solver::Task;

use crate::cache_mount::{CacheMount, NewDirectory, Wish};
use crate::exec::step;
use crate::missing::missing;
use crate::root::{Output, Root};
use crate::runner::Worker;
use crate::ssh::forward;
use crate::trust::{BUNDLE_PATH, IMAGE_BUNDLES};
use crate::{StepWorld, WorkerError, files};

/// The largest bundle of certificates that is read from an image.
const BUNDLE_LIMIT: u64 = 8 << 20;

/// The mounts of one RUN, and what has to stay as long as it runs.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) points: Vec<MountPoint>,
    pub(crate) env: Vec<(String, String)>,
    /// Where nothing can be mounted: parts of trees to be copied, each with the number of the point
    /// that it comes before.
    pub(crate) copies: Vec<(usize, RelPath, Tree, Stub)>,
    /// Which points are secrets.
    pub(crate) secrets: BTreeSet<usize>,
    /// Locks of cache directories, directories for what is thrown away, sockets.
    _kept: (Vec<CacheMount>, Vec<Active>, Vec<AgentSocket>),
}

/// Directories with the stubs that mounts need, by what is in them. They lie below all layers, so
/// stubs show only where no layer has anything, and never get into one.
#[derive(Debug, Default)]
pub(crate) struct StubLayers(Mutex<BTreeMap<Vec<(RelPath, bool)>, PathBuf>>);

impl Worker {
    /// The mounts of a RUN; `None` if the work is no longer wanted.
    pub(crate) fn mounts(
        &self,
        task: &Task<'_, Output>,
        exec: &Exec,
        root: &Root,
    ) -> Result<Option<Mounts>, WorkerError> {
        let mut mounts =
            Mounts::of_host(&exec.hostname, &self.config.world, &self.config.resolv_conf);
        self.certificates(exec, root, &mut mounts)?;
        for spec in &exec.mounts {
            if !self.mount(task, spec, &mut mounts)? {
                return Ok(None);
            }
        }
        Ok(Some(mounts))
    }

    /// Adds one mount; `false` if the work is no longer wanted.
    fn mount(
        &self,
        task: &Task<'_, Output>,
        spec: &MountSpec,
        mounts: &mut Mounts,
    ) -> Result<bool, WorkerError> {
        let target = path(&spec.target)?;
        let kind = match &spec.kind {
            MountKind::Bind { from, source, .. } if !self.store.rung().can_mount() => {
                let (tree, stub) = Self::copied_part(input(task, *from)?, source)?;
                mounts.copies.push((mounts.points.len(), target, tree, stub));
                return Ok(true);
            }
            MountKind::Bind { from, source, writable } => {
                self.bind(task, *from, source, *writable, mounts)?
            }
            MountKind::Cache { .. } => match self.cache(task, &spec.kind, mounts)? {
                Some(kind) => kind,
                None => return Ok(false),
            },
            MountKind::Tmpfs { size } => sandbox::MountKind::Tmpfs { size: *size, mode: 0o1777 },
            MountKind::Secret { id, required, mode, uid, gid } => {
                let Some(value) = self.secret(id, *required)? else { return Ok(true) };
                let data = FileData(value.to_vec());
                let (mode, uid, gid) = (*mode, *uid, *gid);
                mounts.secrets.insert(mounts.points.len());
                sandbox::MountKind::File { data, mode, uid, gid, read_only: true }
            }
            MountKind::SecretEnv { id, required } => {
                // A secret that may be missing is an empty variable then, as in BuildKit.
                let value = self.secret(id, *required)?.unwrap_or_default();
                let value = String::from_utf8_lossy(value).into_owned();
                mounts.env.push((spec.target.clone(), value));
                return Ok(true);
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let owner = SocketOwner { mode: *mode, owner: Some((*uid, *gid)) };
                let Some(socket) = self.agent(id, *required, owner)? else { return Ok(true) };
                let source = socket.path();
                mounts._kept.2.push(socket);
                let (subpath, stub) = (RelPath::root(), Stub::File);
                sandbox::MountKind::Bind { source, subpath, read_only: false, stub }
            }
            MountKind::File { data, mode } => file_kind(data.clone(), *mode, true),
        };
        mounts.points.push(MountPoint { target, kind });
        Ok(true)
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<&[u8]>, WorkerError> {
        match self.config.secrets.get(id) {
            None if required => Err(WorkerError::NotGiven {
                kind: "secret",
                id: id.to_owned(),
                option: format!("--secret id={id},src=FILE"),
            }),
            value => Ok(value),
        }
    }

    /// A socket that leads to an SSH agent, if there is one of that name.
    fn agent(
        &self,
        id: &str,
        required: bool,
        owner: SocketOwner,
    ) -> Result<Option<AgentSocket>, WorkerError> {
        match self.config.agents.get(id) {
            None if required => Err(WorkerError::NotGiven {
                kind: "SSH agent",
                id: id.to_owned(),
                option: format!("--ssh {id}"),
            }),
            None => Ok(None),
            Some(agent) => Ok(Some(forward(self.store.layout.scratch()?, agent, owner)?)),
        }
    }

    /// A part of another root file system, or of a context.
    fn bind(
        &self,
        task: &Task<'_, Output>,
        from: OpId,
        source: &str,
        writable: bool,
        mounts: &mut Mounts,
    ) -> Result<sandbox::MountKind, WorkerError> {
        let (layers, subpath, stub) = match input(task, from)? {
            Output::Root(root) => {
                let trees = root.trees()?;
                let stack = Stack::new(trees.iter().map(|tree| &**tree));
                let resolved = stack.resolve(&path(source)?, Last::Follow)?;
                let stub = match (&resolved.found, resolved.is_directory()) {
                    (_, true) => Stub::Dir,
                    (Some(_), false) => Stub::File,
                    (None, false) => return Err(missing(input(task, from)?, &stack, source)),
                };
                (root.directories()?, resolved.path, stub)
            }
            Output::Context(context) => {
                let part = files::context_part(context, source)?;
                let stub = if part.is_directory { Stub::Dir } else { Stub::File };
                let layer = self.planned(part.tree)?;
                (vec![layer.directory()?], part.path, stub)
            }
            Output::Fetched(..) => {
                return Err(WorkerError::Internal("what was fetched is mounted".to_owned()));
            }
        };
        let tree = match writable {
            true => {
                let active = self.store.snapshots.prepare()?;
                let tree = RootFs::writable(layers, active.upper(), active.work());
                mounts._kept.1.push(active);
                tree
            }
            // An image without layers still is a directory.
            false if layers.is_empty() => RootFs::read_only([self.empty_directory()?]),
            false => RootFs::read_only(layers),
        };
        Ok(sandbox::MountKind::Overlay { tree, subpath, stub })
    }

    /// A part of another root file system, or of a context, as a tree of its own; a file is the only
    /// entry of one.
    fn copied_part(from: &Output, source: &str) -> Result<(Tree, Stub), WorkerError> {
        let trees = match from {
            Output::Root(root) => root.trees_with_bytes()?,
            Output::Context(context) => vec![context.tree()?],
            Output::Fetched(tree, _) => vec![Arc::clone(tree)],
        };
        let stack = Stack::new(trees.iter().map(|tree| &**tree));
        let resolved = stack.resolve(&path(source)?, Last::Follow)?;
        let stub = match (&resolved.found, resolved.is_directory()) {
            (_, true) => Stub::Dir,
            (Some(_), false) => Stub::File,
            (None, false) => return Err(missing(from, &stack, source)),
        };
        // A file's own path is left of it, or the root.
        let top = match stub {
            Stub::Dir => resolved.path.clone(),
            Stub::File => resolved.path.parent().unwrap_or_default(),
        };
        let mut entries = stack.merge_at(&resolved.path);
        for entry in &mut entries {
            let below = |path: &RelPath| path.strip_prefix(&top).unwrap_or_default();
            entry.path = below(&entry.path);
            if let Node::HardLink { target } = &mut entry.node {
                *target = below(target);
            }
        }
        Ok((Tree::new(entries)?, stub))
    }

    /// A directory that outlives the build; `None` if the work is no longer wanted.
    fn cache(
        &self,
        task: &Task<'_, Output>,
        kind: &MountKind,
        mounts: &mut Mounts,
    ) -> Result<Option<sandbox::MountKind>, WorkerError> {
        let MountKind::Cache { id, sharing, from, subpath, read_only, mode, uid, gid } = kind
        else {
            return Ok(None);
        };
        let new = NewDirectory { mode: *mode, uid: *uid, gid: *gid };
        // Where it is moved instead of mounted, only one can have it.
        let sharing = match sharing {
            CacheSharing::Shared if !self.store.rung().can_mount() => CacheSharing::Locked,
            sharing => *sharing,
        };
        let fill = |directory: &Path| match from {
            Some((from, source)) => {
                let tree = self.part_of(input(task, *from)?, source)?;
                let threads = self.store.threads;
                let options = MaterializeOptions { threads, ..MaterializeOptions::default() };
                materialize(&tree, &RootDir::open(directory)?, &options)?;
                Ok(())
            }
            None => Ok(()),
        };
        let waits = || {
            let why = format!("another step is using the cache mount `{id}`").into();
            self.events.emit(Event::StepWaiting { step: step(task), why });
        };
        let wish = Wish { id, sharing, new, fill: &fill, waits: &waits };
        let layout = &self.store.layout;
        let (mounts_of_store, tmp) = (layout.cache_mounts(), layout.tmp());
        let places = (&*mounts_of_store, &*tmp);
        let taken = CacheMount::take(places, layout.lease(), &wish, task.cancel)?;
        let Some(cache) = taken else { return Ok(None) };
        let kind = sandbox::MountKind::Bind {
            source: cache.directory.clone(),
            subpath: path(subpath)?,
            read_only: *read_only,
            stub: Stub::Dir,
        };
        mounts._kept.0.push(cache);
        Ok(Some(kind))
    }

    /// Shows the host's certificates with those of the image.
    fn certificates(
        &self,
        exec: &Exec,
        root: &Root,
        mounts: &mut Mounts,
    ) -> Result<(), WorkerError> {
        let trust = &self.config.trust;
        if trust.certificates.is_empty() {
            return Ok(());
        }
        let image = image_bundle(root)?;
        // What may mount could write to the file that other steps see.
        if exec.security == Security::Insecure {
            mounts.file(BUNDLE_PATH, trust.bundle(&image).unwrap_or_default(), true);
        } else if let Some(source) =
            self.bundles.file(self.store.layout.scratch()?, trust, &image)?
        {
            let (subpath, stub) = (RelPath::root(), Stub::File);
            let kind = sandbox::MountKind::Bind { source, subpath, read_only: true, stub };
            let target = RelPath::clean(BUNDLE_PATH).unwrap_or_default();
            mounts.points.push(MountPoint { target, kind });
        }
        Ok(())
    }

    fn empty_directory(&self) -> Result<PathBuf, WorkerError> {
        let path = self.store.layout.scratch()?.join("empty");
        make_directory(&path)?;
        Ok(path)
    }
}

impl StubLayers {
    /// The lowest layer of a process: the stubs that its mounts need.
    pub(crate) fn layer(
        &self,
        layout: &StoreLayout,
        spec: &ProcessSpec,
    ) -> Result<PathBuf, WorkerError> {
        let entries: Vec<(RelPath, bool)> = sandbox::stub_entries(spec)
            .into_iter()
            .map(|(path, stub)| (path, stub == Stub::Dir))
            .collect();
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get(&entries) {
            return Ok(layer.clone());
        }
        let layer = layout.scratch()?.join(format!("stubs-{}", layers.len()));
        make_stubs(&layer, &entries)?;
        layers.insert(entries, layer.clone());
        Ok(layer)
    }
}

impl Mounts {
    /// The files of `/etc` that belong to the machine and not to the image.
    pub(crate) fn of_host(hostname: &str, world: &StepWorld, resolv_conf: &[u8]) -> Self {
        let mut mounts = Self::default();
        mounts.file("etc/hosts", world.hosts(hostname), false);
        mounts.file("etc/resolv.conf", world.dns.resolv_conf(resolv_conf), false);
        mounts
    }

    fn file(&mut self, target: &str, data: Vec<u8>, read_only: bool) {
        // The targets are constants without a `..`.
        let target = RelPath::clean(target).unwrap_or_default();
        self.points.push(MountPoint { target, kind: file_kind(data, 0o644, read_only) });
    }
}

fn file_kind(data: Vec<u8>, mode: u32, read_only: bool) -> sandbox::MountKind {
    sandbox::MountKind::File { data: FileData(data), mode, uid: 0, gid: 0, read_only }
}

/// The certificates that an image trusts.
fn image_bundle(root: &Root) -> Result<Vec<u8>, WorkerError> {
    for path in IMAGE_BUNDLES {
        if let Some(image) = root.read(path, BUNDLE_LIMIT)? {
            return Ok(image);
        }
    }
    Ok(Vec::new())
}

/// What an input of the task yielded.
pub(crate) fn input<'t>(task: &'t Task<'_, Output>, op: OpId) -> Result<&'t Output, WorkerError> {
    let missing = || WorkerError::Internal(format!("the input {op} is not there"));
    task.inputs.get(op).ok_or_else(missing)
}

/// A path of the graph, which is absolute, as one of a root file system.
pub(crate) fn path(text: &str) -> Result<RelPath, WorkerError> {
    RelPath::clean(text).map_err(|error| WorkerError::Internal(format!("`{text}`: {error}")))
}

/// Makes empty files and directories.
fn make_stubs(layer: &std::path::Path, entries: &[(RelPath, bool)]) -> Result<(), WorkerError> {
    make_directory(layer)?;
    for (path, is_directory) in entries {
        // Stubs come in no order; what is on the way to one is a directory.
        for ancestor in path.ancestors().filter(|ancestor| !ancestor.is_root()) {
            make_directory(&layer.join(ancestor.as_path()))?;
        }
        let path = layer.join(path.as_path());
        match is_directory {
            true => make_directory(&path)?,
            false => drop(
                fs_err::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .map_err(|error| formwork_fs::FsError::new("create", &path, error))?,
            ),
        }
    }
    Ok(())
}

pub(crate) fn make_directory(path: &std::path::Path) -> Result<(), WorkerError> {
    match fs_err::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(formwork_fs::FsError::new("create the directory", path, error).into())
        }
        _ => Ok(()),
    }
}
