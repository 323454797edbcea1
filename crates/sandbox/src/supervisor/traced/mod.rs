//! Supervises a process that has neither namespaces nor a root directory of its own.
//!
//! ```text
//! process ──open, stat, rename…──▶ kernel ──notification──▶ supervisor's threads: carry it out
//!    │                                                        in the process's root, and answer
//!    └──────execve, chdir────────▶ kernel ──ptrace────────▶ its first thread: changes the call
//! ```
//!
//! Nobody but root may change a root directory. So the kernel never sees a path of such a process,
//! except those that are written for it here: what a call is about is found beneath the descriptor of
//! the process's root, and the supervisor makes the call itself, with its own copy of everything. Who
//! a process is, and whose its files are, is data, as with a single id. A file that a step could not
//! open for its mode has that mode as data, too.
//!
//! [`deeds`] says which calls there are; calls that it does not name have no paths, or are refused by
//! docker's filter. What this forgets, Landlock keeps from the container's files.

mod attributes;
mod carry;
mod deeds;
mod image;
mod kernels;
mod listing;
mod names;
mod open;
mod paths;
mod processes;
mod program;
mod rewritten;
mod shared;
mod shown;
mod sockets;
mod tracer;

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::Pid;

use super::calls::{Call, Calls, Meaning};
use super::credentials::{Credentials, Sets};
use super::parting::Linked;
use super::process::Caller;
use super::{Kept, Outcome, READY, Session, receive_listener};
use crate::seccomp::{self, ARCHITECTURES};
use crate::sys::notify::{self, Notification};
use crate::sys::{self, trace};
use crate::{ProcessSpec, SandboxError, Stage};
pub(super) use deeds::filter;
use deeds::{DEEDS, Deed};
pub(crate) use image::starter;
use shown::Shown;
use tracer::Tracer;

/// How many threads answer.
const THREADS: usize = 4;

/// Whether processes can be supervised so on this kind of machine, and may be.
pub(crate) fn is_possible() -> Result<()> {
    if trace::starter().is_empty() {
        return Err(Errno::NOSYS);
    }
    sys::probe_seccomp(libc::SECCOMP_RET_USER_NOTIF)?;
    sys::probe_seccomp(libc::SECCOMP_RET_TRACE)?;
    may_trace()
}

/// Tries to trace a process.
fn may_trace() -> Result<()> {
    let (ours, theirs) = crate::wire::channel()?;
    match sys::fork(0)? {
        sys::Fork::Child => {
            drop(ours);
            be_traceable(&theirs);
            sys::exit(0)
        }
        sys::Fork::Parent(child, process) => {
            drop(theirs);
            let result = rustix::io::read(&ours, &mut [0])
                .and_then(|_| trace::seize(child.as_raw_nonzero().get()));
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
            let _ = sys::wait(Some(child), true);
            result
        }
    }
}

/// Tells whoever traces this process that it can, and waits for the word that it does; `false` if
/// there is none.
pub(crate) fn be_traceable(channel: &OwnedFd) -> bool {
    // Nobody traces a process that shows nothing. What it may see of others, it is told.
    let shows = rustix::process::DumpableBehavior::Dumpable;
    let _ = rustix::process::set_dumpable_behavior(shows);
    matches!(rustix::io::write(channel, &[READY]), Ok(1))
        && matches!(rustix::io::read(channel, &mut [0]), Ok(1))
}

/// The program that a process has become.
#[derive(Clone)]
pub(super) struct Program {
    /// Its path from the root.
    path: Vec<u8>,
    /// Its device and number.
    identity: [u64; 2],
}

/// Where processes have their root, and what is known of them besides.
pub(super) struct Inside {
    root: OwnedFd,
    /// The number of its file system.
    device: u64,
    /// Its path on the machine.
    path: Vec<u8>,
    /// Whether programs lend their owners.
    lends: bool,
    /// The name of the host; empty for the machine's own.
    hostname: String,
    /// What is in memory.
    shown: Vec<Shown>,
    /// Whether there may be something in the tree that stands for a device.
    has_devices: AtomicBool,
    linked: Linked,
    /// What stands for the devices of the container, and their paths there.
    devices: Vec<([u64; 2], String)>,
    /// Which directory stands for `/proc`.
    listing: Option<[u64; 2]>,
    /// The program that becomes others.
    starter: CString,
    /// The programs of all processes, from the root.
    programs: Mutex<HashMap<u32, Program>>,
    /// What threads that are about to begin with a program may open.
    beginning: Mutex<HashMap<u32, [Option<OwnedFd>; 2]>>,
    sockets: Mutex<sockets::Sockets>,
    shared: Mutex<shared::Shared>,
}

/// What the first thread of a supervisor waits for.
pub(crate) struct Traced {
    tracer: Tracer,
}

impl Traced {
    /// Follows a process, which asks through the other end of `channel` as soon as it has been told
    /// to go on there.
    pub(crate) fn follow(
        process: Pid,
        spec: &ProcessSpec,
        (root, starter): (OwnedFd, CString),
        channel: OwnedFd,
    ) -> std::result::Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup(Stage::Confine, "the process", errno);
        let number = process.as_raw_nonzero().get();
        let mut word = [0];
        rustix::io::read(&channel, &mut word).map_err(failed)?;
        trace::seize(number).map_err(failed)?;
        rustix::io::write(&channel, &[READY]).map_err(failed)?;
        let inside = Inside::new(root, starter, spec).map_err(failed)?;
        let session: &'static OnceLock<Session> = Box::leak(Box::new(OnceLock::new()));
        let user = spec.user.clone();
        let serve = move || {
            let Ok(listener) = receive_listener(&channel) else { return };
            let made = Session {
                listener,
                kept: Kept::All,
                sets: Sets::new(Credentials::of(&user)),
                calls: Calls::new(),
                roots_differ: AtomicBool::new(false),
                crew: super::Crew::new(),
                inside: Some(inside),
            };
            let session = session.get_or_init(|| made);
            notify::wake_synchronously(session.listener.as_fd());
            for _ in 1..THREADS {
                let _ = std::thread::Builder::new().spawn(|| attend(session));
            }
            let _ = rustix::io::write(&channel, &[READY]);
            attend(session);
        };
        std::thread::Builder::new()
            .spawn(serve)
            .map_err(|error| SandboxError::setup(Stage::Confine, "the process", error))?;
        Ok(Self { tracer: Tracer::new(session, number) })
    }

    /// Does what is to be done for a process that has stopped or ended.
    pub(crate) fn attend(&mut self, process: Pid, status: i32) {
        self.tracer.attend(process.as_raw_nonzero().get(), status);
    }

    /// Removes what processes have shared, which would outlive them.
    pub(crate) fn remove_shared(&self) {
        self.tracer.remove_shared();
    }

    /// Kills all that is left.
    pub(crate) fn kill_all(&self) {
        self.tracer.kill_all();
    }
}

impl Inside {
    fn new(root: OwnedFd, starter: CString, spec: &ProcessSpec) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        rustix::process::fchdir(&proc)?;
        rustix::process::umask(Mode::empty());
        use std::os::fd::AsRawFd;
        let path = paths::read_link(&format!("self/fd/{}", root.as_raw_fd()))?;
        let lends = !spec.no_new_privileges;
        let shown = spec.mounts.iter().map(|point| Shown::new(&root, point));
        let shown = shown.collect::<Result<_>>()?;
        let held = root.try_clone().map_err(|_| Errno::MFILE)?;
        let linked = Linked::new(&spec.linked, held, path.clone())?;
        let device = rustix::fs::statat(&root, "", AtFlags::EMPTY_PATH)?.st_dev;
        let listing = rustix::fs::statat(&root, "proc", AtFlags::SYMLINK_NOFOLLOW);
        Ok(Self {
            devices: shown::devices(&root),
            listing: listing.ok().map(|stat| [stat.st_dev, stat.st_ino]),
            root,
            device,
            path,
            hostname: spec.hostname.clone(),
            shown,
            has_devices: AtomicBool::new(spec.has_devices),
            linked,
            lends,
            starter,
            programs: Mutex::default(),
            beginning: Mutex::default(),
            sockets: Mutex::default(),
            shared: Mutex::default(),
        })
    }

    fn has_devices(&self) -> bool {
        self.has_devices.load(Ordering::Acquire)
    }

    fn have_devices(&self) {
        self.has_devices.store(true, Ordering::Release);
    }

    fn sockets(&self) -> MutexGuard<'_, sockets::Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, shared::Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file is a program that runs, and so cannot be written.
    fn runs(&self, identity: [u64; 2]) -> bool {
        self.programs().values().any(|program| program.identity == identity)
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<u32, Program>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beginning(&self) -> MutexGuard<'_, HashMap<u32, [Option<OwnedFd>; 2]>> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deeds by the numbers of their calls.
fn deeds() -> HashMap<u32, Deed> {
    let (_, column) = ARCHITECTURES[0];
    let numbered =
        |(name, deed, _): &(&str, Deed, _)| Some((seccomp::number(name, column)?, *deed));
    DEEDS.iter().filter_map(numbered).collect()
}

/// What a call is for those parts of the supervisor that know it by another name.
fn meaning(session: &Session, number: u32, deed: Deed) -> Meaning {
    let known = match deed {
        Deed::Same => session.calls.get(ARCHITECTURES[0].0, number),
        _ => None,
    };
    let call = Call::Limit { set: false };
    known.unwrap_or(Meaning { call, is_32_bit: false, has_short_ids: false })
}

/// Answers one call after the other.
fn attend(session: &'static Session) {
    let Some(inside) = &session.inside else { return };
    let deeds = deeds();
    let listener = session.listener.as_fd();
    loop {
        let notification = match notify::receive(listener) {
            Ok(notification) => notification,
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
            Err(_) => return,
        };
        let Some(deed) = deeds.get(&notification.number).copied() else {
            let _ = notify::answer(listener, notification.id, Err(Errno::NOSYS));
            continue;
        };
        let meaning = meaning(session, notification.number, deed);
        let carry_out = move || {
            let caller = Caller { session, notification, meaning };
            // A bug must not let all wait for ever.
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                let outcome = caller.carry_out(inside, deed);
                outcome.unwrap_or_else(|errno| caller.failure(deed, errno))
            }));
            give(session, notification, outcome.unwrap_or(Outcome::Error(Errno::IO)));
        };
        match deed {
            // Who is connected to may let others wait.
            Deed::Connect | Deed::SendTo => wait_for(session, notification, carry_out),
            _ => carry_out(),
        }
    }
}

/// Does what may take long in a thread of its own.
fn wait_for(
    session: &'static Session,
    notification: Notification,
    carry_out: impl FnOnce() + Send + 'static,
) {
    if std::thread::Builder::new().spawn(carry_out).is_err() {
        give(session, notification, Outcome::Error(Errno::NOMEM));
    }
}

/// Tells a process what has become of its call.
fn give(session: &'static Session, notification: Notification, outcome: Outcome) {
    let (listener, id) = (session.listener.as_fd(), notification.id);
    // Who is gone needs no answer.
    let _ = match outcome {
        Outcome::Continue => notify::let_go_on(listener, id),
        Outcome::Value(value) => notify::answer(listener, id, Ok(value)),
        Outcome::Error(errno) => notify::answer(listener, id, Err(errno)),
        Outcome::Descriptor(file, closes) => {
            notify::answer_with_descriptor(listener, id, file.as_fd(), closes)
                .or_else(|errno| notify::answer(listener, id, Err(errno)))
        }
        // A pipe opens when somebody opens its other end.
        Outcome::Later(file, flags, closes) => {
            let wait = move || {
                use std::os::fd::AsRawFd;
                let place = format!("/proc/self/fd/{}", file.as_raw_fd());
                let outcome = match rustix::fs::openat(CWD, place, flags, Mode::empty()) {
                    Ok(file) => Outcome::Descriptor(file, closes),
                    Err(errno) => Outcome::Error(errno),
                };
                give(session, notification, outcome);
            };
            let started = std::thread::Builder::new().spawn(wait).map(drop);
            started.or_else(|_| notify::answer(listener, id, Err(Errno::NOMEM)))
        }
    };
}

impl Caller<'_> {
    /// What a process is told where a call failed.
    fn failure(&self, deed: Deed, errno: Errno) -> Outcome {
        match (deed, self.meaning.call) {
            // About a descriptor alone: the kernel knows best.
            (
                Deed::Same,
                Call::Stat(super::calls::Place::Open(_), _) | Call::ChangeDirectory(_),
            ) => Outcome::Continue,
            _ => Outcome::Error(errno),
        }
    }
}
