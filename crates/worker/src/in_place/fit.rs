//! What stands in for mounts: files and directories that are put in their places for one process.
//!
//! Everything that is in such a place is put aside before and comes back after, so neither shows in
//! the layer. A cache directory moves in and out as it is. Paths are resolved as a process in there
//! would, by the lists of files; nothing here follows a link on the disk.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_fs::{FileKind, Follow, FsError, Record, RelPath, RootDir, Timestamp, remove_tree};
use formwork_layer::tree::{Last, Node, Tree};
use formwork_layer::{Census, MaterializeOptions, Stack, materialize};
use formwork_sandbox::{MountKind, MountPoint, ProcessSpec, SandboxError, Stub, USUAL_DEVICES};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::Place;
use super::place::KERNELS;
use crate::WorkerError;
use crate::lent::Lent;
use crate::mounts::Mounts;

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A place that is fitted for one process; dropped, it gives back what is not its own.
pub(super) struct Fitting<'a> {
    place: &'a mut Place,
    stack: &'a Stack<'a>,
    threads: usize,
    /// Whether a supervisor shows the process what is not there.
    has_supervisor: bool,
    /// What it is to show.
    shown: Vec<MountPoint>,
    /// Whether something that was put in has devices.
    has_devices: bool,
    /// What was done, in order.
    done: Vec<Step>,
    /// What was known of what has been put aside.
    hidden: Vec<Census>,
}

/// Something that was done, with what undoes it.
enum Step {
    /// A directory was made on the way to a target.
    Way(RelPath),
    /// Something was put here; what was here lies aside under a number.
    Stand { target: RelPath, aside: Option<usize> },
    /// A directory was moved here from elsewhere.
    Moved { target: RelPath, lent: Lent, aside: Option<usize> },
}

impl<'a> Fitting<'a> {
    pub(super) fn new(
        place: &'a mut Place,
        stack: &'a Stack<'a>,
        threads: usize,
        has_supervisor: bool,
    ) -> Self {
        let (shown, done, hidden) = (Vec::new(), Vec::new(), Vec::new());
        let has_devices = false;
        Self { place, stack, threads, has_supervisor, shown, has_devices, done, hidden }
    }

    /// Has a process shown what could not be put in.
    pub(super) fn show(&self, spec: &mut ProcessSpec, layers: &[Arc<Tree>]) {
        if self.has_supervisor {
            spec.mounts = self.shown.clone();
            spec.shown = Some(links_to(&spec.mounts, layers));
            spec.linked = self.place.census.linked();
            spec.has_devices = self.has_devices || layers.iter().any(|layer| layer.has_devices());
        }
    }

    pub(super) fn root_path(&self) -> &Path {
        &self.place.root
    }

    pub(super) fn root(&self) -> Result<RootDir, WorkerError> {
        Ok(RootDir::open(&self.place.root)?)
    }

    /// What was there before the process.
    pub(super) fn before(&self) -> &Census {
        &self.place.census
    }

    /// Puts everything in its place.
    pub(super) fn put_in(&mut self, mounts: &Mounts) -> Result<(), WorkerError> {
        self.make_kernels()?;
        let mut copies = mounts.copies.iter().peekable();
        for (number, point) in mounts.points.iter().enumerate() {
            while let Some((_, target, tree, stub)) = copies.next_if(|copy| copy.0 <= number) {
                self.copy(target, tree, *stub)?;
            }
            match self.has_supervisor && mounts.secrets.contains(&number) {
                true => self.put_stub(point)?,
                false => self.put(&point.target, &point.kind)?,
            }
        }
        for (_, target, tree, stub) in copies {
            self.copy(target, tree, *stub)?;
        }
        await_tick();
        Ok(())
    }

    /// What is there after the process, but for what was put in.
    pub(super) fn look(&self) -> Result<Census, WorkerError> {
        let ignored: Vec<RelPath> = self.targets().cloned().collect();
        self.place.look(&ignored, self.threads)
    }

    /// Takes everything out again; `after` is what the process has left.
    pub(super) fn take_out(mut self, mut after: Census) -> Result<(), WorkerError> {
        let restored: Vec<RelPath> = self.targets().cloned().collect();
        // The last first: what was put aside with a directory lies in it.
        while let Some(part) = self.hidden.pop() {
            after.paste(part);
        }
        let touched = self.undo()?;
        let root = self.root()?;
        for path in touched.iter().chain(&restored) {
            match self.open(path) {
                Ok(_) => after.note(&root, path)?,
                // The directory around it was made for it, or the process has put a link there.
                Err(_) => drop(after.cut(path)),
            }
        }
        self.place.census = after;
        Ok(())
    }

    fn targets(&self) -> impl Iterator<Item = &RelPath> {
        self.done.iter().filter_map(|step| match step {
            Step::Way(_) => None,
            Step::Stand { target, .. } | Step::Moved { target, .. } => Some(target),
        })
    }

    /// `/dev` with the harmless devices, and the directories of what cannot be there.
    fn make_kernels(&self) -> Result<(), WorkerError> {
        let root = self.root()?;
        for name in KERNELS {
            remove_tree(&root, name.as_bytes())?;
            make_directory(&root, name.as_bytes(), 0o755)?;
        }
        let dev = root.open_dir(&RelPath::new("dev").unwrap_or_default(), Follow::Never)?;
        let made = match formwork_fs::owners_are_data() {
            true => make_records(&dev),
            false => make_devices(&dev),
        };
        match made {
            Err((_, Errno::PERM | Errno::ACCESS)) if self.has_supervisor => make_stand_ins(&dev),
            made => made,
        }
        .map_err(|(name, errno)| no_device(name)(errno))?;
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, &dev, name).map_err(no_device(name))?;
        }
        make_directory(&dev, b"pts", 0o755)?;
        make_directory(&dev, b"shm", 0o1777)
    }

    fn put(&mut self, target: &RelPath, kind: &MountKind) -> Result<(), WorkerError> {
        match kind {
            MountKind::File { data, mode, uid, gid, .. } => {
                let target = self.clear(target)?;
                let (parent, name) = self.open(&target)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let own = Mode::RUSR | Mode::WUSR;
                let write = || -> std::io::Result<()> {
                    let file = rustix::fs::openat(&parent, &name[..], flags, own)?;
                    let mut file = std::fs::File::from(file);
                    std::io::Write::write_all(&mut file, &data.0)?;
                    formwork_fs::give(file.as_fd(), b"", *uid, *gid)?;
                    Ok(formwork_fs::give_mode(file.as_fd(), FileKind::Regular, mode & 0o7777)?)
                };
                write().map_err(|error| FsError::new("write", parent.path(), error))?;
                self.settle(&target)
            }
            MountKind::Tmpfs { mode, .. } => {
                let target = self.clear(target)?;
                let (parent, name) = self.open(&target)?;
                make_directory(&parent, &name, *mode)?;
                self.settle(&target)
            }
            MountKind::Bind { source, subpath, stub: Stub::Dir, .. } => {
                self.move_in(target, source, subpath)
            }
            MountKind::Bind { source, stub: Stub::File, .. } => {
                let target = self.clear(target)?;
                let (parent, name) = self.open(&target)?;
                // A socket: a further name of it is as good.
                rustix::fs::linkat(CWD, source, &parent, &name[..], AtFlags::empty())
                    .map_err(|errno| FsError::new("link", source, errno))?;
                self.settle(&target)
            }
            MountKind::Overlay { .. } => {
                Err(WorkerError::Internal("layers are mounted where nothing can be".to_owned()))
            }
        }
    }

    /// What a supervisor shows has an empty file in its place, which nobody else can read.
    fn put_stub(&mut self, point: &MountPoint) -> Result<(), WorkerError> {
        let target = self.clear(&point.target)?;
        let (parent, name) = self.open(&target)?;
        let make = || {
            let own = formwork_fs::mode_on_disk(FileKind::Regular, 0);
            let own = Mode::from_raw_mode(own);
            rustix::fs::mknodat(&parent, &name[..], FileType::RegularFile, own, 0)?;
            if let (true, MountKind::File { mode, uid, gid, .. }) =
                (formwork_fs::owners_are_data(), &point.kind)
            {
                // Who may open it, is looked at here.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, &name[..], flags, Mode::empty())?;
                formwork_fs::give(made.as_fd(), b"", *uid, *gid)?;
                formwork_fs::give_mode(made.as_fd(), FileKind::Regular, mode & 0o7777)?;
            }
            Ok(())
        };
        make().map_err(|errno: Errno| FsError::new("write", parent.path(), errno))?;
        self.shown.push(MountPoint { target: target.clone(), kind: point.kind.clone() });
        self.settle(&target)
    }

    fn copy(&mut self, target: &RelPath, tree: &Tree, stub: Stub) -> Result<(), WorkerError> {
        let target = self.clear(target)?;
        let (parent, name) = self.open(&target)?;
        self.has_devices |= tree.entries().iter().any(|entry| entry.node.device().is_some());
        let threads = self.threads;
        let options = MaterializeOptions { threads, ..MaterializeOptions::default() };
        match stub {
            Stub::Dir => {
                make_directory(&parent, &name, 0o755)?;
                let name = RelPath::new(&name).unwrap_or_default();
                materialize(tree, &parent.open_dir(&name, Follow::Never)?, &options)?;
            }
            Stub::File => {
                // The tree has the one file, under its own name.
                let mut entries = tree.clone().into_entries();
                for entry in &mut entries {
                    entry.path = RelPath::new(&name).unwrap_or_default();
                }
                materialize(&Tree::new(entries)?, &parent, &options)?;
            }
        }
        self.settle(&target)
    }

    fn move_in(
        &mut self,
        target: &RelPath,
        cache: &Path,
        part: &RelPath,
    ) -> Result<(), WorkerError> {
        let target = self.clear(target)?;
        let (parent, name) = self.open(&target)?;
        let (place, path) = self.place.way_to(&target);
        let lent = Lent::move_in(cache, part, (place, &path), (&parent, &name))?;
        if let Some(Step::Stand { target, aside }) = self.done.pop() {
            self.done.push(Step::Moved { target, lent, aside });
        }
        self.settle(&target)
    }

    /// Makes place for something: the way to it, and what is there aside. Returns the path without
    /// links.
    fn clear(&mut self, target: &RelPath) -> Result<RelPath, WorkerError> {
        let target = self.stack.resolve(target, Last::Follow)?.path;
        let root = self.root()?;
        for ancestor in target.ancestors().filter(|path| !path.is_root()) {
            if root.stat(&ancestor, Follow::Never)?.is_none() {
                let (parent, name) = self.open(&ancestor)?;
                make_directory(&parent, &name, 0o755)?;
                self.done.push(Step::Way(ancestor.clone()));
                self.settle(&ancestor)?;
            }
        }
        let (parent, name) = self.open(&target)?;
        let number = self.done.len();
        let aside = match rustix::fs::renameat(&parent, &name[..], CWD, self.aside(number)) {
            Ok(()) => Some(number),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(FsError::new("put aside", parent.path(), errno).into()),
        };
        self.hidden.push(self.place.census.cut(&target));
        self.done.push(Step::Stand { target: target.clone(), aside });
        Ok(target)
    }

    fn aside(&self, number: usize) -> PathBuf {
        self.place.directory.join(format!("aside-{number}"))
    }

    /// The directory that a path is in, and its name there.
    fn open(&self, path: &RelPath) -> Result<(RootDir, Vec<u8>), WorkerError> {
        let parent = path.parent().unwrap_or_default();
        Ok((self.root()?.open_dir(&parent, Follow::Never)?, path.name().to_vec()))
    }

    /// Makes the directory around a path look as if nothing had been put in it.
    fn settle(&mut self, path: &RelPath) -> Result<(), WorkerError> {
        let parent = path.parent().unwrap_or_default();
        let root = self.root()?;
        if let Some(stat) = self.place.census.get(&parent) {
            set_mtime(&root, &parent, stat.mtime)?;
        }
        if self.targets().any(|target| parent.starts_with(target)) {
            return Ok(());
        }
        if !parent.is_root() {
            self.place.census.note(&root, &parent)?;
        }
        if matches!(self.done.last(), Some(Step::Way(way)) if way == path) {
            self.place.census.note(&root, path)?;
        }
        Ok(())
    }

    /// Undoes everything, the last first; returns the directories in which something was undone. A
    /// failure keeps nothing else from being undone: caches have to come home.
    fn undo(&mut self) -> Result<Vec<RelPath>, WorkerError> {
        let mut touched = Vec::new();
        let mut first_error = None;
        while let Some(step) = self.done.pop() {
            let path = match &step {
                Step::Way(path) => path,
                Step::Stand { target, .. } | Step::Moved { target, .. } => target,
            };
            // The process may have removed the directory around it. A cache that was in there is made
            // anew when it is wanted again.
            let Ok((parent, name)) = self.open(path) else { continue };
            if let Err(error) = self.undo_step(&step, &parent, &name) {
                first_error = first_error.or(Some(error));
            }
            touched.push(path.clone());
            touched.extend(path.parent().filter(|parent| !parent.is_root()));
        }
        first_error.map_or(Ok(touched), Err)
    }

    fn undo_step(&self, step: &Step, parent: &RootDir, name: &[u8]) -> Result<(), WorkerError> {
        let mtime = FileTimes::of(parent)?;
        match step {
            Step::Way(_) => {
                let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
            }
            Step::Stand { aside, .. } => {
                remove_tree(parent, name)?;
                self.put_back(*aside, parent, name)?;
            }
            Step::Moved { lent, aside, .. } => {
                lent.move_back(parent, name)?;
                // What the process has put in its place.
                remove_tree(parent, name)?;
                self.put_back(*aside, parent, name)?;
            }
        }
        mtime.set(parent)
    }

    fn put_back(
        &self,
        aside: Option<usize>,
        parent: &RootDir,
        name: &[u8],
    ) -> Result<(), WorkerError> {
        let Some(number) = aside else { return Ok(()) };
        rustix::fs::renameat(CWD, self.aside(number), parent, name)
            .map_err(|errno| FsError::new("put back", parent.path(), errno).into())
    }
}

impl Drop for Fitting<'_> {
    fn drop(&mut self) {
        // After a failure the place goes, and what was only lent to it has to come home before.
        let _ = self.undo();
    }
}

/// Makes the devices, and sees that they work: a file system may have devices without effect.
fn make_devices(dev: &RootDir) -> Result<(), (&'static str, Errno)> {
    for (name, major, minor) in USUAL_DEVICES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, mode, device)
            .and_then(|()| rustix::fs::chmodat(dev, name, mode, AtFlags::empty()))
            .map_err(|errno| (name, errno))?;
    }
    rustix::fs::openat(dev, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| ("null", errno))?;
    Ok(())
}

/// Makes what stands for the devices where they are data.
fn make_records(dev: &RootDir) -> Result<(), (&'static str, Errno)> {
    for (name, major, minor) in USUAL_DEVICES {
        let make = || {
            let kind = formwork_fs::device_stand_in();
            rustix::fs::mknodat(dev, name, kind, Mode::from_raw_mode(0o666), 0)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(dev, name, flags, Mode::empty())?;
            let device = Some((false, major, minor));
            let kind = FileKind::from(kind);
            let record = Record { device, ..Record::default() };
            formwork_fs::write_record(file.as_fd(), kind, &record)?;
            formwork_fs::give_mode(file.as_fd(), kind, 0o666)
        };
        make().map_err(|errno| (name, errno))?;
    }
    Ok(())
}

/// Makes plain files in the places of the devices, which a supervisor shows instead.
fn make_stand_ins(dev: &RootDir) -> Result<(), (&'static str, Errno)> {
    for (name, _, _) in USUAL_DEVICES {
        let make = || {
            match rustix::fs::unlinkat(dev, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(dev, name, FileType::RegularFile, mode, 0)?;
            rustix::fs::chmodat(dev, name, mode, AtFlags::empty())
        };
        make().map_err(|errno| (name, errno))?;
    }
    Ok(())
}

/// The last words of all links that may lead to what a supervisor shows, by way of other links or
/// not: those whose texts have the last word of such a file, or of such a link.
fn links_to(shown: &[MountPoint], layers: &[Arc<Tree>]) -> Vec<Vec<u8>> {
    let devices = USUAL_DEVICES.iter().map(|(name, ..)| name.as_bytes());
    let files = shown.iter().map(|point| point.target.name());
    let mut words: BTreeSet<Vec<u8>> =
        devices.chain([&b"proc"[..]]).chain(files).map(<[u8]>::to_vec).collect();
    let links: Vec<(&[u8], &[u8])> = layers
        .iter()
        .flat_map(|layer| layer.entries())
        .filter_map(|entry| match &entry.node {
            Node::Symlink { target } => Some((entry.path.name(), &target[..])),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    loop {
        let leads = |text: &[u8]| text.split(|byte| *byte == b'/').any(|it| words.contains(it));
        let new: BTreeSet<Vec<u8>> = links
            .iter()
            .filter(|(name, text)| !words.contains(*name) && leads(text))
            .map(|(name, _)| name.to_vec())
            .collect();
        if new.is_empty() {
            return found;
        }
        found.extend(new.iter().cloned());
        words.extend(new);
    }
}

/// Waits until the clock that files get their times from has gone on, so that every change from now
/// on shows in a time.
fn await_tick() {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        (time.tv_sec, time.tv_nsec)
    };
    let before = now();
    while now() == before {
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}

/// When a directory changed last.
struct FileTimes(Timespec);

impl FileTimes {
    fn of(directory: &RootDir) -> Result<Self, WorkerError> {
        let stat = rustix::fs::fstat(directory)
            .map_err(|errno| FsError::new("examine", directory.path(), errno))?;
        let mtime = formwork_fs::FileStat::from(stat).mtime;
        Ok(Self(Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() }))
    }

    fn set(&self, directory: &RootDir) -> Result<(), WorkerError> {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification: self.0 };
        rustix::fs::futimens(directory, &times)
            .map_err(|errno| FsError::new("set the time of", directory.path(), errno).into())
    }
}

fn set_mtime(root: &RootDir, path: &RelPath, mtime: Timestamp) -> Result<(), WorkerError> {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    FileTimes(time).set(&root.open_dir(path, Follow::Never)?)
}

fn make_directory(parent: &RootDir, name: &[u8], mode: u32) -> Result<(), WorkerError> {
    let failed = |errno| {
        let path = parent.path().join(std::ffi::OsStr::from_bytes(name));
        FsError::new("create the directory", path, errno)
    };
    rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
    formwork_fs::give_mode(made.as_fd(), FileKind::Directory, mode & 0o7777).map_err(failed)?;
    Ok(())
}

fn no_device(name: &str) -> impl Fn(Errno) -> WorkerError {
    move |errno| {
        let way_out = match errno {
            Errno::NOSPC => "free some space where the store (`--root`) is",
            _ => {
                "that takes the capability MKNOD, and a store (`--root`) on a file system that is \
                 not mounted with `nodev`"
            }
        };
        WorkerError::Sandbox(SandboxError::Unavailable(format!(
            "the device /dev/{name} cannot be made for a step ({errno}): {way_out}"
        )))
    }
}
