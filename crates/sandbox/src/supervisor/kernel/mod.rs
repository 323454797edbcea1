//! Shows a process in a chroot what nobody could mount for it: `/proc`, secrets in memory, terminals,
//! devices that could not be made; and tells it the name of the host that it shall find, and of the
//! devices that are data.
//!
//! ```text
//! process ──open, stat, readlink…──▶ kernel ──notification──▶ some threads of the first process
//!    ▲                                 │                          │  follow the path by its words,
//!    └── descriptor, or the kernel's ◀─┴── answer, or "go on" ◀──┘  open what may be shown
//! ```
//!
//! All else goes on in the kernel, which finds nothing but the tree: so nothing depends on what
//! becomes of a path after it was read, and whoever is not answered loses only what is shown. What
//! a process is given never leads further than itself: files of its own step's processes, copies of
//! those of the machine, and directories of its own tree ([`stubs`]).
//!
//! The threads are those of the first process, since a kernel may let only a process's ancestors
//! look at it (Yama). They are in the chroot, too; the machine's `/proc` is their working directory
//! and nobody's else.

mod asker;
mod calls;
mod devices;
mod files;
mod names;
mod proc;
mod processes;
mod serve;
mod stubs;
mod terminals;
pub(crate) mod trial;
mod walk;

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use formwork_fs::{Follow, RelPath, RootDir};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::thread::CapabilitySet;

use super::parting::Linked;
use super::{Outcome, answer_all, receive_listener, send_listener};
use crate::sys::notify;
use crate::{NetworkMode, ProcessSpec, wire};
use asker::Asker;
use calls::Call;
use files::{Rights, Shown};
use terminals::Terminals;

/// How many threads answer. Most steps have one process that works.
const THREADS: usize = 4;
/// The words by which `/proc` and terminals are reached, and the links that `/dev` has.
const WORDS: [&str; 7] = ["proc", "fd", "stdin", "stdout", "stderr", "ptmx", "pts"];
/// Programs that make a user root, which take what a supervised user has to give up.
const LENDERS: [&str; 6] = [
    "usr/bin/sudo",
    "bin/sudo",
    "usr/local/bin/sudo",
    "usr/bin/doas",
    "bin/doas",
    "usr/local/bin/doas",
];

/// Whether a user can be shown anything in a tree: not where that would take `sudo` from them.
pub(crate) fn suits(root: &Path, uid: u32) -> bool {
    uid == 0 || may_filter() || !has_lender(root)
}

/// Whether this process may load filters without giving up what programs lend.
pub(crate) fn may_filter() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn has_lender(root: &Path) -> bool {
    let Ok(root) = RootDir::open(root) else { return false };
    LENDERS.iter().filter_map(|path| RelPath::new(path).ok()).any(|path| {
        let stat = root.stat(&path, Follow::InRoot).ok().flatten();
        stat.is_some_and(|stat| stat.mode & 0o4000 != 0 && stat.uid == 0)
    })
}

/// Has a process ask.
pub(crate) struct Asking {
    filter: Vec<libc::sock_filter>,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Asking {
    /// Whether the tree has what stands for devices, and files with several names.
    pub(crate) fn new(has_devices: bool, has_linked: bool) -> Result<Self> {
        let (ours, theirs) = wire::channel()?;
        Ok(Self { filter: calls::filter(has_devices, has_linked), ours, theirs })
    }

    /// Has this process, and all that it becomes or makes, ask. Does not allocate.
    pub(crate) fn ask(&self) -> Result<()> {
        send_listener(self.theirs.as_fd(), &notify::set_asking_filter(&self.filter)?)
    }

    /// Where its questions arrive, once it has been started.
    fn listener(&self) -> Result<OwnedFd> {
        receive_listener(&self.ours)
    }
}

/// What is to be shown, before there is anybody who asks.
pub(crate) struct Show {
    pub(crate) asking: Asking,
    root_proc: OwnedFd,
    words: HashSet<Vec<u8>>,
    files: Vec<Shown>,
    terminals: Option<Terminals>,
    has_network: bool,
    host_name: String,
    /// Whether it begins in a directory of `/proc`.
    is_inside: bool,
    /// Whether the tree has what stands for devices.
    has_devices: bool,
    linked: Linked,
}

/// The container's own devices, looked for while they can be found.
pub(crate) struct Devices(Vec<(&'static str, OwnedFd)>, Option<Terminals>);

impl Devices {
    pub(crate) fn of_container() -> Self {
        Self(files::devices_of_container(), Terminals::of_container())
    }
}

impl Show {
    /// Prepares what a specification asks for; the root directory is that of the process already.
    pub(crate) fn new(
        spec: &ProcessSpec,
        devices: Devices,
        stdin: &OwnedFd,
    ) -> Result<Option<Self>> {
        let Some(links) = &spec.shown else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root_proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        let mut files = spec.mounts.iter().map(Shown::of).collect::<Result<Vec<_>>>()?;
        files.extend(files::missing_devices(devices.0));
        let words = WORDS.iter().map(|word| word.as_bytes().to_vec());
        let names = files.iter().map(|file| file.name().to_vec());
        let words = words.chain(names).chain(links.iter().cloned()).collect();
        let has_network = spec.network == NetworkMode::Host;
        let is_inside = spec.cwd.as_bytes().starts_with(b"proc");
        let has_devices = spec.has_devices;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        let linked = Linked::new(&spec.linked, root, Vec::new())?;
        let (asking, host_name) =
            (Asking::new(has_devices, !spec.linked.is_empty())?, spec.hostname.clone());
        let terminals = devices.1;
        if let Some(terminals) = terminals.as_ref().filter(|_| spec.terminal) {
            terminals.adopt(stdin);
        }
        Ok(Some(Self {
            asking,
            root_proc,
            words,
            files,
            terminals,
            has_network,
            host_name,
            is_inside,
            has_devices,
            linked,
        }))
    }

    /// The rights of what is the container's.
    pub(crate) fn rights(&self) -> Rights {
        let devices = self.files.iter().filter(|file| file.is_device);
        let devices = devices.filter_map(|device| device.file.try_clone().ok());
        let maker = self.terminals.as_ref().and_then(Terminals::maker);
        Rights::of(devices.chain(maker))
    }

    /// Begins to answer; `proc` is the machine's, and the working directory.
    pub(crate) fn begin(self, proc: &OwnedFd) -> Result<()> {
        let listener = self.asking.listener()?;
        notify::wake_synchronously(listener.as_fd());
        let kernel = Arc::new(Kernel {
            listener,
            proc: proc.try_clone().map_err(|_| Errno::MFILE)?,
            root_proc: self.root_proc,
            first: std::process::id(),
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            may_be_others: may_be_others(proc.as_fd()),
            words: self.words,
            files: self.files,
            terminals: self.terminals,
            texts: mounts()?,
            has_network: self.has_network,
            host_name: self.host_name,
            is_inside: AtomicBool::new(self.is_inside),
            is_cautious: AtomicBool::new(false),
            has_devices: AtomicBool::new(self.has_devices),
            linked: self.linked,
            stand_ins: Mutex::new(()),
            meanings: calls::meanings(),
        });
        for _ in 0..THREADS {
            let kernel = Arc::clone(&kernel);
            let attend = move || answer_all(kernel.listener.as_fd(), |it| kernel.outcome(it));
            std::thread::Builder::new().spawn(attend).map_err(|_| Errno::AGAIN)?;
        }
        Ok(())
    }
}

/// What all threads share.
struct Kernel {
    listener: OwnedFd,
    /// The machine's.
    proc: OwnedFd,
    /// The tree's.
    root_proc: OwnedFd,
    /// The number of this process, from which all descend that may be seen.
    first: u32,
    /// The numbers of this process's user and group.
    own: (u32, u32),
    /// Whether a thread can open files as somebody else.
    may_be_others: bool,
    /// The words of paths that may lead to something that is shown.
    words: HashSet<Vec<u8>>,
    files: Vec<Shown>,
    terminals: Option<Terminals>,
    /// `/proc/self/mounts` and `mountinfo`, of which the kernel has nothing to tell in a chroot.
    texts: [OwnedFd; 2],
    has_network: bool,
    /// The name of the host, if it is another one than the machine's.
    host_name: String,
    /// Whether somebody may have a directory of `/proc` to begin from.
    is_inside: AtomicBool,
    /// Whether somebody has made a link that may lead to what is shown.
    is_cautious: AtomicBool,
    /// Whether there may be something in the tree that stands for a device.
    has_devices: AtomicBool,
    linked: Linked,
    /// Held while directories of the tree are made or changed.
    stand_ins: Mutex<()>,
    meanings: HashMap<(u32, u32), (Call, bool)>,
}

impl Kernel {
    fn outcome(&self, notification: notify::Notification) -> Outcome {
        let meaning = self.meanings.get(&(notification.audit, notification.number));
        let Some(meaning) = meaning else { return Outcome::Continue };
        Asker::new(self, notification, *meaning).outcome().unwrap_or(Outcome::Continue)
    }

    fn somebody_is_inside(&self) -> bool {
        self.is_inside.load(Ordering::Acquire)
    }

    fn let_inside(&self) {
        self.is_inside.store(true, Ordering::Release);
    }

    fn is_cautious(&self) -> bool {
        self.is_cautious.load(Ordering::Acquire)
    }

    fn be_cautious(&self) {
        self.is_cautious.store(true, Ordering::Release);
    }

    fn has_devices(&self) -> bool {
        self.has_devices.load(Ordering::Acquire)
    }

    fn have_devices(&self) {
        self.has_devices.store(true, Ordering::Release);
    }

    /// Reads a file of the machine's `/proc`.
    fn read(&self, from: BorrowedFd<'_>, way: &str) -> Result<String> {
        let file = proc::open_beneath(from, way, OFlags::RDONLY)?;
        let mut text = Vec::new();
        let read = std::fs::File::from(file).read_to_end(&mut text);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Whether a thread of this process can open files as somebody else, and stay out of sight: who does
/// so may be looked at where the sysctl says that such processes may.
fn may_be_others(proc: BorrowedFd<'_>) -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let may = rustix::thread::capabilities(None).is_ok_and(|it| it.effective.contains(needed));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, "sys/fs/suid_dumpable", flags, Mode::empty());
    let mut value = [0];
    let is_shown =
        file.is_ok_and(|file| rustix::io::read(file, &mut value) == Ok(1)) && value == *b"1";
    may && !is_shown
}

/// What a process may know of what is mounted: its root, and what is shown to it.
fn mounts() -> Result<[OwnedFd; 2]> {
    let device = rustix::fs::stat("/")?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let proc = "rw,nosuid,nodev,noexec,relatime";
    let texts = [
        format!("overlay / overlay rw,relatime 0 0\nproc /proc proc {proc} 0 0\n"),
        format!(
            "2 1 {device} / / rw,relatime - overlay overlay rw\n3 2 0:1 / /proc {proc} - proc proc rw\n"
        ),
    ];
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let [mounts, infos] = texts.map(|text| files::in_memory(text.as_bytes(), 0o444, own));
    Ok([mounts?, infos?])
}
