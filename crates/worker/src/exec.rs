//! RUN.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use formwork_diagnostics::{Event, LogStream, Outcome, StepId};
use formwork_fs::{Follow, FsError, RelPath, RootDir};
use formwork_graph::{Exec, MountKind, Network, Security};
use formwork_layer::tree::{Entry, Found, Last, Metadata, Node, Origin};
use formwork_layer::{Stack, Tree, scan_upper};
use formwork_oci::Platform;
use formwork_sandbox::{
    Devices, Emulation, Emulator, ExitReport, Halt, NetworkMode, ProcessSpec, RootFs, Stdio, User,
};
use formwork_snapshot::{Active, Snapshotter};
use formwork_solver::{Cancel, Done, Task, step_id};
use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;

use crate::accounts::{Accounts, ProcessUser};
use crate::layer::{Layer, Source};
use crate::mask::Mask;
use crate::mounts::{Mounts, input, path};
use crate::root::{Output, Root};
use crate::runner::Worker;
use crate::{ExitReason, WorkerError};

/// The largest `/etc/passwd` or `/etc/group` that is read.
const ACCOUNTS_LIMIT: u64 = 4 << 20;
/// How an overlay marks directories that hide what is below.
const OPAQUE: &str = "user.overlay.opaque";
/// How long it is before a step that failed is tried again for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long it is at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a step that is stopped has between the request and the end.
const GRACE: Duration = Duration::from_secs(1);

/// What runs a platform's programs, where neither the processor nor the machine does by itself.
///
/// Where there is nothing, the process is started all the same: the program may be one of this
/// machine in spite of the platform, as when a stage only copies.
pub fn emulator(platform: &Platform, directories: &[PathBuf]) -> Option<Emulator> {
    match Emulation::find(&platform.architecture, directories) {
        Emulation::Installed(emulator) => Some(emulator),
        Emulation::Native | Emulation::Registered | Emulation::Missing => None,
    }
}

/// The end of a process, and what it printed on the way.
pub(crate) struct Ended {
    pub(crate) report: ExitReport,
    /// Whether its words are about files that the kernel shows where it can be mounted.
    pub(crate) names_the_kernels: bool,
}

/// What came of running a process once.
enum Attempt {
    Done(Done<Output>),
    /// It needs another world.
    Halted(Halt),
}

impl Worker {
    /// Runs a process and keeps what it changes; where the user asks for it, several times until
    /// it succeeds, from the beginning each time.
    pub(crate) fn exec(
        &self,
        task: &Task<'_, Output>,
        exec: &Exec,
    ) -> Result<Done<Output>, WorkerError> {
        self.demand_files(input(task, exec.rootfs)?.root()?)?;
        // Without a network it fails the same way again.
        let retries = if exec.network == Network::None { 0 } else { self.config.world.retries };
        let mut devices = devices_by_words(&exec.args);
        for attempt in 0..retries {
            match self.attempt(task, exec, &mut devices) {
                Err(error @ WorkerError::Exit { .. }) if !task.cancel.is_canceled() => {
                    self.announce_retry(task, &error, retries - attempt);
                    pause(attempt, task.cancel);
                }
                result => return result,
            }
        }
        self.attempt(task, exec, &mut devices)
    }

    fn announce_retry(&self, task: &Task<'_, Output>, error: &WorkerError, left: u32) {
        let attempts =
            if left == 1 { "one attempt".to_owned() } else { format!("{left} attempts") };
        self.announce(task, &format!("{error}; trying again, {attempts} left"));
    }

    fn announce(&self, task: &Task<'_, Output>, text: &str) {
        let data = format!("formwork: {text}\n").into_bytes();
        if let Some(claim) = &task.claim {
            claim.log(true, &data);
        }
        self.events.emit(Event::StepLog { step: step(task), stream: LogStream::Stderr, data });
    }

    /// Runs a process once; or, if it turns out to need another world, once more from its beginning,
    /// with its whole time. `devices` is what has turned out.
    fn attempt(
        &self,
        task: &Task<'_, Output>,
        exec: &Exec,
        devices: &mut Devices,
    ) -> Result<Done<Output>, WorkerError> {
        match self.store.rung() {
            rung if rung.can_mount() => loop {
                match self.exec_on_layers(task, exec, *devices)? {
                    Attempt::Done(done) => return Ok(done),
                    Attempt::Halted(halt) => *devices = self.announce_again(task, halt),
                }
            },
            rung if rung.can_run() => self.exec_in_place(task, exec),
            _ => Err(self.store.cannot_run()),
        }
    }

    /// Tells why a process is begun again, and returns what then becomes of devices.
    fn announce_again(&self, task: &Task<'_, Output>, halt: Halt) -> Devices {
        let (text, devices) = match halt {
            Halt::Device => (
                "this step makes device nodes, and is begun again, with them kept as data",
                Devices::Kept,
            ),
            Halt::Listener => (
                "a program of this step answers the calls of others itself, and the step is begun \
                 again, without device nodes",
                Devices::Refused,
            ),
        };
        self.announce(task, text);
        devices
    }

    /// Runs a process on an overlay; what it has written is thrown away if it was halted.
    fn exec_on_layers(
        &self,
        task: &Task<'_, Output>,
        exec: &Exec,
        devices: Devices,
    ) -> Result<Attempt, WorkerError> {
        let root = input(task, exec.rootfs)?.root()?;
        let canceled = || WorkerError::Sandbox(formwork_sandbox::SandboxError::Cancelled);
        let user = accounts(root)?.process_user(&exec.user)?;
        let mounts = self.mounts(task, exec, root)?.ok_or_else(canceled)?;
        let active = self.store.snapshots.prepare()?;
        let below = root_metadata(root)?;
        set_metadata(&active, &below)?;
        let mut spec = self.spec(exec, root, &user, &mounts, &active)?;
        let finds_devices = devices == Devices::Noticed && finds_devices(task, exec)?;
        spec.devices = if finds_devices { Devices::Kept } else { devices };
        let Ended { report, .. } = self.run_logged(task, &spec)?;
        if let Some(halt) = report.halted {
            return Ok(Attempt::Halted(halt));
        }
        if !report.status.is_success() || report.timed_out {
            // As long as what it has written is there.
            let reason = self.reason(&report, &active.upper());
            return Err(WorkerError::Exit { status: report.status, reason });
        }
        let layer = self.commit(root, active, &below, &report)?;
        let Some(layer) = layer else {
            let output = Output::Root(root.clone());
            return Ok(Attempt::Done(Done {
                output,
                layer: Some((String::new(), crate::store::now())),
                outcome: Outcome::Done,
            }));
        };
        let created = layer.created()?.unwrap_or_default();
        let record = (layer.name().to_string(), created);
        let output = Output::Root(root.with(layer)?);
        Ok(Attempt::Done(Done { output, layer: Some(record), outcome: Outcome::Done }))
    }

    /// Why a process failed, as far as it is known from outside.
    pub(crate) fn reason(&self, report: &ExitReport, written: &Path) -> Option<ExitReason> {
        match self.config.world.time_limit {
            Some(limit) if report.timed_out => Some(ExitReason::TimedOut(limit)),
            _ if report.out_of_memory.is_some() => {
                report.out_of_memory.map(ExitReason::OutOfMemory)
            }
            _ => is_full(written).then_some(ExitReason::DiskFull),
        }
    }

    fn spec(
        &self,
        exec: &Exec,
        root: &Root,
        user: &ProcessUser,
        mounts: &Mounts,
        active: &Active,
    ) -> Result<ProcessSpec, WorkerError> {
        let layers = root.directories()?;
        let rootfs = RootFs::writable(layers, active.upper(), active.work());
        let mut spec = self.spec_of(exec, user, mounts, rootfs)?;
        spec.mounts.clone_from(&mounts.points);
        let stubs = self.stubs.layer(&self.store.layout, &spec)?;
        spec.root.layers.insert(0, stubs);
        Ok(spec)
    }

    /// A process in a root file system, without what is mounted there.
    pub(crate) fn spec_of(
        &self,
        exec: &Exec,
        user: &ProcessUser,
        mounts: &Mounts,
        rootfs: RootFs,
    ) -> Result<ProcessSpec, WorkerError> {
        let mut spec = ProcessSpec::new(rootfs, exec.args.iter());
        spec.env = self.env(exec, user, mounts);
        spec.cwd = path(&exec.cwd)?;
        spec.user = User { uid: user.uid, gid: user.gid, groups: user.groups.clone() };
        spec.hostname.clone_from(&exec.hostname);
        spec.privileged = exec.security == Security::Insecure;
        spec.stop_grace = GRACE;
        spec.emulator = emulator(&exec.platform, &self.config.emulators);
        self.config.world.apply(&mut spec);
        match exec.network {
            Network::Default => {}
            Network::Host => spec.network = NetworkMode::Host,
            Network::None => spec.network = NetworkMode::None,
        }
        Ok(spec)
    }

    /// The variables of the Dockerfile, those of the host's trust, the home directory, secrets.
    fn env(
        &self,
        exec: &Exec,
        user: &ProcessUser,
        mounts: &Mounts,
    ) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        let mut env = exec.env.clone();
        env.extend(self.config.trust.variables(&exec.env));
        if !exec.env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), user.home.clone()));
        }
        env.extend(mounts.env.iter().cloned());
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Runs a process and tells what it writes.
    pub(crate) fn run_logged(
        &self,
        task: &Task<'_, Output>,
        spec: &ProcessSpec,
    ) -> Result<Ended, WorkerError> {
        let (out_reader, stdout) = std::io::pipe().map_err(pipe_error)?;
        let (err_reader, stderr) = std::io::pipe().map_err(pipe_error)?;
        std::thread::scope(|scope| {
            let tell = |stream, reader| {
                let tell = move || self.tell(task, stream, reader);
                std::thread::Builder::new().spawn_scoped(scope, tell).map_err(pipe_error)
            };
            let told = [tell(LogStream::Stdout, out_reader)?, tell(LogStream::Stderr, err_reader)?];
            let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
            let stdio = Stdio { stdin: None, stdout, stderr };
            let report = self.launcher.run(spec, stdio, &self.stop);
            let told = told.map(|thread| thread.join().unwrap_or_default());
            let report = report?;
            self.events.emit(Event::StepUsage {
                step: step(task),
                peak_memory: report.peak_memory,
                processor_time: report.user_time + report.system_time,
            });
            Ok(Ended { report, names_the_kernels: told.contains(&true) })
        })
    }

    /// Tells what a process writes; returns whether it names what it may have lacked.
    fn tell(&self, task: &Task<'_, Output>, stream: LogStream, mut reader: impl Read) -> bool {
        let step = step(task);
        // Where it can be mounted, nobody misses it.
        let can_miss = !self.store.can_mount();
        let mut names_the_kernels = false;
        let mut buffer = vec![0; 32 << 10];
        let mut mask = Mask::new(&self.config.secrets);
        let show = |data: Vec<u8>| {
            if !data.is_empty() {
                if let Some(claim) = &task.claim {
                    claim.log(stream == LogStream::Stderr, &data);
                }
                self.events.emit(Event::StepLog { step, stream, data });
            }
        };
        // A pipe ends, and cannot fail otherwise.
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            let text = &buffer[..count];
            names_the_kernels |= can_miss && has_one_of(text, &KERNELS);
            show(mask.feed(buffer[..count].to_vec()));
        }
        show(mask.finish());
        names_the_kernels
    }

    /// Keeps what a process has changed; `None` if it has changed nothing.
    fn commit(
        &self,
        root: &Root,
        active: Active,
        below: &Metadata,
        report: &ExitReport,
    ) -> Result<Option<Arc<Layer>>, WorkerError> {
        remove_stubs(&active, &report.created)?;
        let origin = Origin::layer(RootDir::open(active.upper())?);
        let tree = scan_upper(&origin, below, self.store.threads)?;
        let trees = root.trees()?;
        let stack = Stack::new(trees.iter().map(|tree| &**tree));
        let (tree, unneeded) = without_unchanged(tree, &stack)?;
        remove_unneeded(&active, &unneeded)?;
        if tree.is_empty() {
            return Ok(None);
        }
        Layer::keep(&self.store, tree, Some(active), Source::Store).map(Some)
    }
}

/// What is to become of the devices of a command: one that has the word for making them is likely to
/// make some, and need not be begun twice.
pub(crate) fn devices_by_words(args: &[String]) -> Devices {
    match args.iter().any(|arg| arg.contains("mknod")) {
        true => Devices::Kept,
        false => Devices::Noticed,
    }
}

/// Whether a process could come across what stands for a device: in its root file system, whose
/// layers have been made, or in one that is mounted there.
fn finds_devices(task: &Task<'_, Output>, exec: &Exec) -> Result<bool, WorkerError> {
    if input(task, exec.rootfs)?.root()?.has_devices()? {
        return Ok(true);
    }
    for mount in &exec.mounts {
        if let MountKind::Bind { from, .. } = &mount.kind
            && let Output::Root(root) = input(task, *from)?
            && root.has_devices()?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A step as events name it.
pub(crate) fn step(task: &Task<'_, Output>) -> StepId {
    step_id(task.id)
}

/// Waits before another attempt, twice as long as before the last one.
fn pause(attempt: u32, cancel: &Cancel) {
    let length = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
    let end = Instant::now() + length;
    while Instant::now() < end && !cancel.is_canceled() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pipe_error(error: std::io::Error) -> WorkerError {
    formwork_fs::FsError::new("make", "a pipe", error).into()
}

/// The users and groups of a root file system.
pub(crate) fn accounts(root: &Root) -> Result<Accounts, WorkerError> {
    let read = |path| Ok::<_, WorkerError>(root.read(path, ACCOUNTS_LIMIT)?.unwrap_or_default());
    Ok(Accounts::parse(&read("etc/passwd")?, &read("etc/group")?))
}

/// The mode and owner of the root directory itself.
pub(crate) fn root_metadata(root: &Root) -> Result<Metadata, WorkerError> {
    let trees = root.trees()?;
    let stack = Stack::new(trees.iter().map(|tree| &**tree));
    let found = stack.lookup(&RelPath::root()).map(|found| found.metadata().clone());
    Ok(found.unwrap_or_else(|| Metadata::root_owned(0o755)))
}

/// Gives the upper directory the mode and owner of the root below it, which it covers.
pub(crate) fn set_metadata(active: &Active, below: &Metadata) -> Result<(), WorkerError> {
    let upper = active.upper();
    let failed = |errno| formwork_fs::FsError::new("prepare", &upper, errno);
    let directory = RootDir::open(&upper)?;
    formwork_fs::give(directory.as_fd(), b"", below.uid, below.gid).map_err(failed)?;
    let mode = Mode::from_raw_mode(below.mode);
    rustix::fs::chmodat(CWD, &upper, mode, AtFlags::empty()).map_err(failed)?;
    Ok(())
}

/// How many bytes may be free on a disk that was full a moment ago, since something small has gone.
const NEXT_TO_NONE: u64 = 64 << 10;

/// Whether the file system of a layer has no more room, for bytes or for files.
fn is_full(written: &Path) -> bool {
    rustix::fs::statvfs(written).is_ok_and(|stat| {
        stat.f_bavail.saturating_mul(stat.f_frsize) < NEXT_TO_NONE
            || (stat.f_files > 0 && stat.f_favail == 0)
    })
}

/// Removes the mount targets that had to be made in the upper directory, as far as they are empty.
fn remove_stubs(active: &Active, created: &[RelPath]) -> Result<(), WorkerError> {
    if created.is_empty() {
        return Ok(());
    }
    let upper = RootDir::open(active.upper())?;
    // Deepest last, so in reverse order directories are empty when their turn comes.
    for path in created.iter().rev() {
        remove_if_empty(&upper, path)?;
    }
    Ok(())
}

fn remove_if_empty(upper: &RootDir, path: &RelPath) -> Result<(), WorkerError> {
    use rustix::io::Errno;
    let Some(parent) = path.parent() else { return Ok(()) };
    // A process may have put links or files in the way of what was made for it; then it is gone.
    let found = upper.stat(path, formwork_fs::Follow::Never);
    let is_gone = |error: &formwork_fs::FsError| {
        let errno = error.source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::LOOP | Errno::NOTDIR | Errno::NOENT))
    };
    if found.as_ref().is_err_and(is_gone) {
        return Ok(());
    }
    let stat = found?;
    let flags = match stat {
        Some(stat) if stat.is_dir() => AtFlags::REMOVEDIR,
        Some(stat) if stat.size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    let parent = upper.open_dir(&parent, formwork_fs::Follow::Never)?;
    match rustix::fs::unlinkat(&parent, path.name(), flags) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT | Errno::EXIST) => Ok(()),
        Err(errno) => Err(formwork_fs::FsError::new("remove", upper.path_of(path), errno).into()),
    }
}

/// What a layer does not need of what a process has left in it.
pub(crate) enum Unneeded {
    /// An entry that says what the layers below say as well.
    Entry(RelPath),
    /// The mark of a directory that hides nothing.
    Opaque(RelPath),
}

/// Leaves out what says nothing: files that were opened or touched and left as they are,
/// directories in which something was made and removed again, marks of directories that hide
/// nothing. What is left does not depend on how changes are collected.
pub(crate) fn without_unchanged(
    tree: Tree,
    stack: &Stack<'_>,
) -> Result<(Tree, Vec<Unneeded>), WorkerError> {
    let mut unneeded = Vec::new();
    let mut kept: Vec<Entry> = Vec::with_capacity(tree.entries().len());
    let mut entries = tree.into_entries();
    let linked: BTreeSet<RelPath> = entries
        .iter()
        .filter_map(|entry| match &entry.node {
            Node::HardLink { target } => Some(target.clone()),
            _ => None,
        })
        .collect();
    // From the end, so that a directory comes after what is in it.
    while let Some(mut entry) = entries.pop() {
        let below = stack.lookup(&entry.path);
        let hides = below.as_ref().is_some_and(|found| found.node().is_directory());
        if let Node::Directory { opaque } = &mut entry.node
            && *opaque
            && !hides
        {
            *opaque = false;
            unneeded.push(Unneeded::Opaque(entry.path.clone()));
        }
        let is_used = || kept.last().is_some_and(|next| next.path.starts_with(&entry.path));
        let says_nothing = match &entry.node {
            Node::Whiteout => below.is_none(),
            Node::Directory { opaque: false } => {
                !entry.path.is_root() && !is_used() && is_same(stack, &entry)
            }
            Node::Directory { .. } | Node::HardLink { .. } => false,
            node => !linked.contains(&entry.path) && is_same_file(below.as_ref(), node, &entry),
        };
        match says_nothing {
            true => unneeded.push(Unneeded::Entry(entry.path)),
            false => kept.push(entry),
        }
    }
    kept.reverse();
    Ok((Tree::new(kept)?, unneeded))
}

fn is_same_file(below: Option<&Found<'_>>, node: &Node, entry: &Entry) -> bool {
    below.is_some_and(|found| *found.node() == *node && *found.metadata() == entry.metadata)
}

/// Removes what a layer does not need from its directory.
fn remove_unneeded(active: &Active, unneeded: &[Unneeded]) -> Result<(), WorkerError> {
    let upper = RootDir::open(active.upper())?;
    let failed = |path: &RelPath, errno| FsError::new("remove", upper.path_of(path), errno);
    for item in unneeded {
        match item {
            Unneeded::Opaque(path) => {
                let directory = upper.open_dir(path, Follow::Never)?;
                match rustix::fs::fremovexattr(&directory, OPAQUE) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(errno) => return Err(failed(path, errno).into()),
                }
            }
            Unneeded::Entry(path) => {
                let parent = upper.open_dir(&path.parent().unwrap_or_default(), Follow::Never)?;
                match rustix::fs::unlinkat(&parent, path.name(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => remove_if_empty(&upper, path)?,
                    Err(errno) => return Err(failed(path, errno).into()),
                }
            }
        }
    }
    Ok(())
}

/// Whether a directory below has the same owner, mode and attributes.
fn is_same(stack: &Stack<'_>, entry: &formwork_layer::tree::Entry) -> bool {
    let Ok(below) = stack.resolve(&entry.path, Last::Keep) else { return false };
    below.found.is_some_and(|found| {
        let (old, new) = (found.metadata(), &entry.metadata);
        found.node().is_directory()
            && (old.mode, old.uid, old.gid) == (new.mode, new.uid, new.gid)
            && old.xattrs == new.xattrs
    })
}

/// Files of `/proc`, and a library that Java finds by way of them.
const KERNELS: [&[u8]; 3] = [b"/proc/", b"/dev/fd/", b"libjli.so"];

fn has_one_of(text: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|word| text.windows(word.len()).any(|part| part == *word))
}
