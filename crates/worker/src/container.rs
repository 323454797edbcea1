//! `formwork run`: a process in an image, of which nothing is kept.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use formwork_fs::{FsError, RelPath, RootDir, Timestamp};
use formwork_layer::compose::{Composer, Owner};
use formwork_layer::{MaterializeOptions, Stack, materialize};
use formwork_sandbox::{
    Cancel, Devices, Emulator, ExitReport, Launcher, MountKind, MountPoint, ProcessSpec, RootFs,
    SandboxError, Stdio, Stub, User,
};
use formwork_snapshot::Snapshotter;

use crate::accounts::ProcessUser;
use crate::exec::{accounts, devices_by_words, root_metadata, set_metadata};
use crate::in_place::{Place, fit_once};
use crate::mounts::{Mounts, StubLayers};
use crate::root::Root;
use crate::{BaseImage, LayerStore, StepWorld, WorkerError};

/// A process in an image.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The image.
    pub image: BaseImage,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The variables.
    pub env: Vec<(String, String)>,
    /// The working directory; made if it is not there.
    pub cwd: String,
    /// `user[:group]` by name or number; empty for root.
    pub user: String,
    /// The host name; empty for the machine's.
    pub hostname: String,
    /// What of the host the process sees, besides.
    pub volumes: Vec<Volume>,
    /// Whether standard input is a terminal for the process alone.
    pub terminal: bool,
    /// What runs the image's programs, where the machine does not by itself.
    pub emulator: Option<Emulator>,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// What the user asks of the world of the process.
    pub world: StepWorld,
    /// How long the process has to end after it was asked to.
    pub grace: Duration,
}

/// A file or a directory of the host that a process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where the host has it: an absolute path of something that exists.
    pub source: PathBuf,
    /// Where the process sees it.
    pub target: String,
    /// Whether the process may change nothing through it.
    pub read_only: bool,
}

impl Volume {
    fn mount(&self) -> Result<MountPoint, WorkerError> {
        let failed = |error| FsError::new("mount", &self.source, error);
        let metadata = fs_err::metadata(&self.source).map_err(failed)?;
        let target =
            RelPath::clean(&self.target).map_err(|error| failed(std::io::Error::other(error)))?;
        let kind = MountKind::Bind {
            source: self.source.clone(),
            subpath: RelPath::root(),
            read_only: self.read_only,
            stub: if metadata.is_dir() { Stub::Dir } else { Stub::File },
        };
        Ok(MountPoint { target, kind })
    }
}

/// Runs a process in an image with the given standard streams.
///
/// # Errors
///
/// Fails where the process could not be started; a process that fails gives a report.
pub fn run_container(
    store: &Arc<LayerStore>,
    spec: &ContainerSpec,
    stdio: Stdio,
    cancel: &Cancel,
) -> Result<ExitReport, WorkerError> {
    let root = Root::of_image(store, &spec.image, true)?;
    let user = accounts(&root)?.process_user(&spec.user)?;
    let mounts = Mounts::of_host(&spec.hostname, &spec.world, &spec.resolv_conf);
    if !store.rung().can_run() {
        return Err(store.cannot_run());
    }
    if !store.rung().can_mount() {
        return run_in_place(store, spec, &root, (user, &mounts), stdio, cancel);
    }
    let active = store.snapshots.prepare()?;
    set_metadata(&active, &root_metadata(&root)?)?;
    let cwd = RelPath::clean(&spec.cwd).unwrap_or_default();
    make_missing(&root, &cwd, &active.upper())?;
    let rootfs = RootFs::writable(root.directories()?, active.upper(), active.work());
    let mut process = process(spec, rootfs, user);
    process.mounts = mounts.points;
    process.devices = devices(&root, &spec.args)?;
    for volume in &spec.volumes {
        process.mounts.push(volume.mount()?);
    }
    process.emulator.clone_from(&spec.emulator);
    let stubs = StubLayers::default().layer(&store.layout, &process)?;
    process.root.layers.insert(0, stubs);
    Ok(Launcher::new().run(&process, stdio, cancel)?)
}

/// The same in a directory with all files of the image.
fn run_in_place(
    store: &Arc<LayerStore>,
    spec: &ContainerSpec,
    root: &Root,
    (user, mounts): (ProcessUser, &Mounts),
    stdio: Stdio,
    cancel: &Cancel,
) -> Result<ExitReport, WorkerError> {
    if !spec.volumes.is_empty() {
        let text = "files of the host cannot be shown where nothing can be mounted: see \
                    `formwork doctor`, or copy what is needed into an image";
        return Err(SandboxError::Unavailable(text.to_owned()).into());
    }
    let mut place = Place::make(store, root)?;
    let launcher = Launcher::new();
    let is_shown = store.is_shown(&launcher, place.root(), user.uid);
    fit_once(&mut place, root, mounts, (store.threads(), is_shown), |directory, show| {
        let cwd = RelPath::clean(&spec.cwd).unwrap_or_default();
        make_missing(root, &cwd, directory)?;
        let mut process = process(spec, store.root_in_place(directory), user);
        show(&mut process);
        Ok(launcher.run(&process, stdio, cancel)?)
    })
}

/// The process, without what is mounted.
fn process(spec: &ContainerSpec, rootfs: RootFs, user: ProcessUser) -> ProcessSpec {
    let mut process = ProcessSpec::new(rootfs, spec.args.iter());
    process.env =
        environment(spec, &user.home).into_iter().map(|(n, v)| (n.into(), v.into())).collect();
    process.cwd = RelPath::clean(&spec.cwd).unwrap_or_default();
    process.user = User { uid: user.uid, gid: user.gid, groups: user.groups };
    process.hostname.clone_from(&spec.hostname);
    process.terminal = spec.terminal;
    process.stop_grace = spec.grace;
    spec.world.apply(&mut process);
    process
}

/// What becomes of the devices that a process makes. It is never begun again, since it may have
/// spoken with somebody; so they are kept only where it is plain that there are some.
fn devices(root: &Root, args: &[String]) -> Result<Devices, WorkerError> {
    match devices_by_words(args) {
        Devices::Noticed if !root.has_devices()? => Ok(Devices::Refused),
        _ => Ok(Devices::Kept),
    }
}

/// Makes a directory that no layer has, as docker does with a working directory, in the directory
/// that takes the changes and is empty so far.
fn make_missing(root: &Root, path: &RelPath, upper: &Path) -> Result<(), WorkerError> {
    let trees = root.trees()?;
    let mut composer = Composer::new(Stack::new(trees.iter().map(|tree| &**tree)));
    composer.make_directory(path, Owner::default(), Timestamp::default())?;
    let made = composer.finish()?;
    if !made.is_empty() {
        let options = MaterializeOptions { over: true, ..MaterializeOptions::default() };
        materialize(&made, &RootDir::open(upper)?, &options)?;
    }
    Ok(())
}

/// The variables, with the home directory and the kind of terminal unless they are set, as docker
/// has them.
fn environment(spec: &ContainerSpec, home: &str) -> Vec<(String, String)> {
    let mut env = spec.env.clone();
    if spec.terminal && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), home.to_owned()));
    }
    env
}

/// A terminal as all standard streams.
///
/// # Errors
///
/// Fails where the process may open no more files.
pub fn terminal_stdio(terminal: &OwnedFd) -> std::io::Result<Stdio> {
    Ok(Stdio {
        stdin: Some(terminal.try_clone()?),
        stdout: terminal.try_clone()?,
        stderr: terminal.try_clone()?,
    })
}

/// The caller's own standard streams; standard input only if the process shall have it.
pub fn inherited_stdio(with_input: bool) -> std::io::Result<Stdio> {
    use std::os::fd::AsFd;
    let clone =
        |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(Stdio {
        stdin: with_input.then(|| clone(std::io::stdin().as_fd())).transpose()?,
        stdout: clone(std::io::stdout().as_fd())?,
        stderr: clone(std::io::stderr().as_fd())?,
    })
}
