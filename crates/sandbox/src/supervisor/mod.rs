//! Answers the questions of a process that runs with a single id; or, of one whose owners the kernel
//! knows, those about devices alone ([`devices`]).
//!
//! ```text
//! process ──chown, stat, setuid…──▶ kernel ──notification──▶ supervisor (outside, some threads)
//!    ▲                                │                          │  looks the file up inside,
//!    └──── result, or the kernel's ◀──┴──── answer, or "go on" ◀─┘  reads and writes its record
//! ```
//!
//! Owners and devices are records on the files themselves ([`formwork_fs::Record`]), so nothing is
//! lost by renames, links and copies, and the layer has them; who a process is, it carries itself
//! ([`credentials`]). So there is no state here that could be forgotten or become wrong.
//!
//! The supervisor is one process for each sandbox, with the builder's power over it and outside of
//! its namespaces, except that it shares its files: its root directory is the sandbox's, so that
//! nothing that a process says can make it touch anything else. It answers what only it knows; all
//! else goes on in the kernel, with the kernel's checks. Where it is of two minds, the kernel
//! decides: an answer of its own is never a right that the process does not have anyway, since to
//! the kernel the process owns all files that it can reach.

mod attributes;
mod calls;
mod credentials;
mod crew;
mod devices;
mod directories;
mod files;
mod identity;
pub(crate) mod kernel;
mod lists;
mod parting;
mod permissions;
mod place;
mod process;
mod quick;
mod sockets;
mod status;
mod traced;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use serde::{Deserialize, Serialize};

use crate::sys::notify::{self, Notification};
use crate::sys::{self, Fork};
use crate::{ProcessSpec, User, wire};
use calls::{Call, Calls};
use credentials::{Credentials, Sets};
use crew::Crew;
pub(crate) use devices::Makers;
use permissions::{EXECUTE, WRITE};
use process::Caller;
pub(crate) use status::{Status, string_of};
pub(crate) use traced::{Traced, be_traceable, is_possible, starter};

/// The word that the supervisor is ready.
const READY: u8 = b'r';

/// After how many answers the first thread looks whether others wait that another could help.
const LOOK_BEHIND: u32 = 4;

/// The supervisor of a sandbox. It ends, at the latest, with this.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pid: Pid,
    process: OwnedFd,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let _ = sys::wait(Some(self.pid), true);
    }
}

/// Starts the supervisor of a sandbox whose first process is `first`; the process that is to be
/// supervised sends its listener through the other end of `channel`.
///
/// Only for the helper, which has one thread.
pub(crate) fn start(first: Pid, channel: OwnedFd) -> Result<Supervisor> {
    match sys::fork(0)? {
        Fork::Parent(pid, process) => Ok(Supervisor { pid, process }),
        Fork::Child => {
            let outcome = std::panic::catch_unwind(|| serve(first, &channel));
            sys::exit(i32::from(!matches!(outcome, Ok(Ok(())))))
        }
    }
}

/// What is data, and therefore a supervisor's business.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// Owners, devices, and who a process is.
    All,
    /// Devices alone.
    Devices(Makers),
}

/// What a process needs to be supervised.
pub(crate) struct Questions<'a> {
    filter: Vec<libc::sock_filter>,
    channel: BorrowedFd<'a>,
    /// Whether who a process is, is the supervisor's business.
    pub(crate) are_about_users: bool,
}

impl<'a> Questions<'a> {
    /// Prepares a process, and tells its supervisor what it begins as.
    pub(crate) fn of(spec: &ProcessSpec, kept: Kept, channel: BorrowedFd<'a>) -> Result<Self> {
        let (user, privileged) = (spec.user.clone(), spec.privileged);
        wire::send(channel, &Begin { user, privileged, kept })?;
        Ok(match kept {
            Kept::All => Self { filter: calls::filter(), channel, are_about_users: true },
            Kept::Devices(_) => {
                Self { filter: calls::filter_for_devices(), channel, are_about_users: false }
            }
        })
    }

    /// As [`Questions::of`], for a process whose supervisor is [`Traced`].
    pub(crate) fn of_traced(channel: BorrowedFd<'a>) -> Self {
        Self { filter: traced::filter(), channel, are_about_users: true }
    }

    /// Has this process, and all that it becomes or makes, ask the supervisor. Does not allocate.
    pub(crate) fn ask(&self) -> Result<()> {
        if self.are_about_users {
            notify::carry_limit(0, [0, notify::carried_limit(0)?[1]])?;
        }
        let listener = match notify::set_asking_filter(&self.filter) {
            // Somebody outside of the builder answers all calls here: the kernel makes no devices.
            Err(Errno::BUSY) if !self.are_about_users => return Ok(()),
            listener => listener?,
        };
        send_listener(self.channel, &listener)?;
        let mut word = [0];
        match rustix::io::read(self.channel, &mut word)? {
            1 => Ok(()),
            _ => Err(Errno::PIPE),
        }
    }
}

/// What a process begins as.
#[derive(Serialize, Deserialize)]
struct Begin {
    user: User,
    /// Whether it may change mounts and roots as it likes.
    privileged: bool,
    kept: Kept,
}

/// What all threads share.
struct Session {
    listener: OwnedFd,
    kept: Kept,
    sets: Sets,
    calls: Calls,
    /// Whether a process may have another root directory than the sandbox's.
    roots_differ: AtomicBool,
    crew: Crew,
    /// Where the process has its root, if no kernel does what it asks for.
    inside: Option<traced::Inside>,
}

impl Session {
    fn roots_differ(&self) {
        self.roots_differ.store(true, Ordering::Release);
    }
}

/// What becomes of a call.
enum Outcome {
    /// The kernel carries it out.
    Continue,
    /// It succeeds.
    Value(i64),
    /// It fails.
    Error(Errno),
    /// The process gets a descriptor, which ends with the next program or does not.
    Descriptor(OwnedFd, bool),
    /// The same with what a file that is open as a path is when it can be opened with these flags.
    Later(OwnedFd, OFlags, bool),
}

/// Has this process end with the helper, at the latest.
fn end_with_helper() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

fn serve(first: Pid, channel: &OwnedFd) -> Result<()> {
    end_with_helper()?;
    sys::close_all_but(&[channel.as_fd()])?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    let Some(Begin { user, privileged, kept }) = wire::receive(channel.as_fd())? else {
        return Err(Errno::PIPE);
    };
    let listener = receive_listener(channel)?;
    // Its first process has made the root what it shall be.
    match kept {
        Kept::All => {
            let first = rustix::process::pidfd_open(first, PidfdFlags::empty())?;
            let mounts = Some(LinkNameSpaceType::Mount);
            rustix::thread::move_into_link_name_space(first.as_fd(), mounts)?;
        }
        Kept::Devices(makers) => makers.enter(first).and_then(|()| end_with_helper())?,
    }
    rustix::process::fchdir(&proc)?;
    rustix::process::umask(Mode::empty());
    notify::wake_synchronously(listener.as_fd());
    let session = Session {
        listener,
        kept,
        sets: Sets::new(Credentials::of(&user)),
        calls: Calls::new(),
        roots_differ: AtomicBool::new(privileged),
        crew: Crew::new(),
        inside: None,
    };
    rustix::io::write(channel, &[READY])?;
    std::thread::scope(|scope| attend(scope, &session, &proc));
    Ok(())
}

/// Sends the listener of this process. Does not allocate.
pub(crate) fn send_listener(channel: BorrowedFd<'_>, listener: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::INVAL);
    }
    let slices = [std::io::IoSlice::new(&[READY])];
    rustix::net::sendmsg(channel, &slices, &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Receives the listener of the process.
pub(crate) fn receive_listener(channel: &OwnedFd) -> Result<OwnedFd> {
    let mut word = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    wire::retry(|| {
        let mut slices = [std::io::IoSliceMut::new(&mut word)];
        rustix::net::recvmsg(channel, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let listener = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut received) => received.next(),
        _ => None,
    });
    listener.ok_or(Errno::PIPE)
}

/// Answers one call after the other, until the sandbox is gone.
fn attend<'s>(scope: &'s Scope<'s, '_>, session: &'s Session, proc: &'s OwnedFd) {
    let listener = session.listener.as_fd();
    let mut answered = 0_u32;
    while let Some(notification) = next(listener) {
        let Some(meaning) = session.calls.get(notification.audit, notification.number) else {
            let _ = notify::let_go_on(listener, notification.id);
            continue;
        };
        let caller = Caller { session, notification, meaning };
        if caller.may_do_all() {
            let _ = notify::let_go_on(listener, notification.id);
            continue;
        }
        // Who waits longer than a few answers take is found all the same.
        answered = answered.wrapping_add(1);
        if answered.is_multiple_of(LOOK_BEHIND) && notify::is_pending(listener) {
            session.crew.call(scope, || help(scope, session, proc));
        }
        caller.attend(proc);
    }
    session.crew.dismiss();
}

/// Helps the first thread as long as there is something to do, and then waits until it is called.
fn help<'s>(scope: &'s Scope<'s, '_>, session: &'s Session, proc: &'s OwnedFd) {
    // Each thread has directories of its own, since it may have to go into another root.
    if sys::unshare(UnshareFlags::FS).is_err() || rustix::process::fchdir(proc).is_err() {
        return;
    }
    rustix::process::umask(Mode::empty());
    let listener = session.listener.as_fd();
    loop {
        while notify::is_pending(listener) {
            let Some(notification) = next(listener) else { return };
            if notify::is_pending(listener) {
                session.crew.call(scope, || help(scope, session, proc));
            }
            match session.calls.get(notification.audit, notification.number) {
                Some(meaning) => Caller { session, notification, meaning }.attend(proc),
                None => drop(notify::let_go_on(listener, notification.id)),
            }
        }
        if !session.crew.wait() {
            return;
        }
    }
}

/// The next call; `None` when there will be no more.
fn next(listener: BorrowedFd<'_>) -> Option<Notification> {
    loop {
        match notify::receive(listener) {
            Ok(notification) => return Some(notification),
            // The process has gone on in the meantime, or has ended.
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) if !notify::is_over(listener) => {}
            Err(_) => return None,
        }
    }
}

/// Answers one call after the other, until nobody can ask any more.
fn answer_all(listener: BorrowedFd<'_>, outcome: impl Fn(Notification) -> Outcome) {
    while let Some(notification) = next(listener) {
        answer(listener, notification.id, || outcome(notification));
    }
}

fn answer(listener: BorrowedFd<'_>, id: u64, outcome: impl FnOnce() -> Outcome) {
    // A bug must not let all wait for ever.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(outcome));
    // Who is gone needs no answer.
    let _ = match outcome.unwrap_or(Outcome::Continue) {
        Outcome::Continue | Outcome::Later(..) => notify::let_go_on(listener, id),
        Outcome::Value(value) => notify::answer(listener, id, Ok(value)),
        Outcome::Error(errno) => notify::answer(listener, id, Err(errno)),
        Outcome::Descriptor(file, closes) => {
            notify::answer_with_descriptor(listener, id, file.as_fd(), closes)
                // An old kernel cannot: the file is there, and can be opened.
                .or_else(|_| notify::let_go_on(listener, id))
        }
    };
}

impl Caller<'_> {
    /// Whether this is a call that root is not asked about, and the caller root.
    fn may_do_all(&self) -> bool {
        if let Kept::Devices(_) = self.session.kept {
            return false;
        }
        let is_about_rights = match self.meaning.call {
            Call::Open(_, flags) => !files::creates(self.int(flags)),
            call => call.is_only_about_rights(),
        };
        let is_root = |who: Arc<Credentials>| who.may_ignore_modes() && who.users.real == 0;
        is_about_rights && self.credentials().is_ok_and(is_root)
    }

    /// Answers it.
    fn attend(&self, proc: &OwnedFd) {
        answer(self.session.listener.as_fd(), self.notification.id, || {
            let roots_differ = self.session.roots_differ.load(Ordering::Acquire);
            let in_root = !roots_differ || self.enter_root(proc);
            if in_root && self.is_plainly_the_kernels() {
                return Outcome::Continue;
            }
            // One who cannot be followed gets the kernel's answer.
            let outcome = match self.session.kept {
                Kept::All => self.outcome(),
                Kept::Devices(makers) => self.outcome_for_devices(makers),
            };
            outcome.ok().filter(|_| in_root).unwrap_or(Outcome::Continue)
        });
    }

    /// Goes into the root directory of the process, as far as it is another one.
    fn enter_root(&self, proc: &OwnedFd) -> bool {
        let enter = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(CWD, self.own("root"), flags, Mode::empty())?;
            rustix::process::fchdir(&root)?;
            rustix::process::chroot(".")
        };
        let entered: Result<()> = enter();
        rustix::process::fchdir(proc).is_ok() && entered.is_ok()
    }

    /// What becomes of the call. An error means that the kernel shall find out what is wrong.
    fn outcome(&self) -> Result<Outcome> {
        match self.meaning.call {
            Call::Stat(place, buffer) => self.stat(place, buffer, false),
            Call::Stat64(place, buffer) => self.stat(place, buffer, true),
            Call::Statx => self.statx(),
            Call::Chown(place, owner) => self.chown(place, owner),
            Call::GetAttribute(place, name, buffer) => self.get_attribute(place, name, buffer),
            Call::ChangeAttribute(place, name, new) => self.change_attribute(place, name, new),
            Call::ListAttributes(place, buffer) => self.list_attributes(place, buffer),
            Call::Open(place, flags) => self.open(place, flags),
            Call::Create => self.create(),
            Call::Open2 => self.open2(),
            Call::MakeDirectory(place, mode) => self.make_directory(place, mode),
            Call::MakeNode(place, mode) => self.make_node(place, mode),
            Call::MakeLink(place) => self.make_link(place),
            Call::Execute(place) => self.execute(place),
            Call::List => self.list(),
            Call::ChangeRoot => self.change_root(),
            Call::Id(kind, effective) => self.id_of(kind, effective),
            Call::Ids(kind) => self.ids_of(kind),
            Call::Groups => self.groups_of(),
            Call::SetId(kind) => self.set_id(kind),
            Call::SetTwoIds(kind) => self.set_two_ids(kind),
            Call::SetThreeIds(kind) => self.set_three_ids(kind),
            Call::SetFileId(kind) => self.set_file_id(kind),
            Call::SetGroups => self.set_groups(),
            Call::Capabilities => self.capabilities(),
            Call::SetCapabilities => self.set_capabilities(),
            Call::KeepCapabilities => self.keep_capabilities(),
            Call::Limit { set } => self.limit(set),
            Call::LimitOf => self.limit_of(),
            Call::OwnersBusiness(place) => self.owners_business(place),
            Call::SetTimes(place, times, stamps) => self.set_times(place, times, stamps),
            Call::ChangeEntry(from, to) => self.change_entry(from, to),
            Call::Name(_, to) => self.name(to),
            Call::Access(place, rights, flags) => self.access(place, rights, flags),
            Call::Connect => self.connect(),
            Call::Bind => self.bind(),
            Call::Peer => self.peer(),
            Call::ForSockets => self.for_sockets(),
            Call::Truncate(place) => self.with_rights(place, WRITE),
            Call::ChangeDirectory(place) => self.with_rights(place, EXECUTE),
        }
    }
}
