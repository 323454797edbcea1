//! Notices when a process makes its first device, or wants to answer calls of others.
//!
//! The kernel asks about these few calls alone, so that a process that makes none pays nothing, and
//! it asks the first process of the sandbox, which waits anyway. What would fail in any case, the
//! kernel refuses; else nothing is answered, and the sandbox ends. Nothing is made here.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use crate::Halt;
use crate::seccomp;
use crate::supervisor::{self, Status};
use crate::sys::notify::{self, Notification};
use crate::{ProcessSpec, sys, wire};

/// Where the path and the base of a call that makes a file are.
const MAKERS: [(&str, Option<usize>, usize); 2] = [("mknod", None, 0), ("mknodat", Some(0), 1)];

/// What a process needs to be noticed.
pub(crate) struct Notices<'a> {
    filter: Cow<'a, [libc::sock_filter]>,
    ours: OwnedFd,
    theirs: OwnedFd,
    signals: OwnedFd,
}

impl<'a> Notices<'a> {
    /// Prepares a process that gets a filter, which is to be one that asks; one that is privileged
    /// has no other.
    pub(super) fn of(spec: &ProcessSpec, filter: &'a [libc::sock_filter]) -> Result<Self> {
        let filter = match spec.privileged {
            true => seccomp::noticing().into(),
            false => filter.into(),
        };
        let (ours, theirs) = wire::channel()?;
        let signals = sys::signal_descriptor(&super::SIGNALS)?;
        Ok(Self { filter, ours, theirs, signals })
    }

    /// Has this process, and all that it becomes or makes, ask. Does not allocate.
    pub(crate) fn ask(&self) -> Result<()> {
        let listener = notify::set_asking_filter(&self.filter)?;
        supervisor::send_listener(self.theirs.as_fd(), &listener)
    }

    /// Waits for what a process asks that has been started; `None` where it cannot ask.
    pub(super) fn watch(self, maker: u64) -> Option<Watch> {
        let Self { ours, theirs, signals, .. } = self;
        drop(theirs);
        let listener = supervisor::receive_listener(&ours).ok()?;
        Some(Watch { listener, is_over: false, signals, maker })
    }
}

/// What is waited for, beside signals.
pub(super) struct Watch {
    listener: OwnedFd,
    is_over: bool,
    signals: OwnedFd,
    /// The capability of those who may make devices.
    maker: u64,
}

/// What has come.
pub(super) enum Event {
    Signal(i32),
    Halt(Halt),
}

impl Watch {
    /// Waits for a signal, or a call that is to be the process's last one.
    pub(super) fn wait(&mut self) -> Event {
        loop {
            let listener = if self.is_over { &self.signals } else { &self.listener };
            let ready = wire::wait_readable([self.signals.as_fd(), listener.as_fd()], None);
            match ready {
                Ok([false, true]) => {
                    if let Some(halt) = self.attend() {
                        return Event::Halt(halt);
                    }
                }
                _ => return Event::Signal(sys::next_signal(self.signals.as_fd())),
            }
        }
    }

    /// Receives a call; lets the kernel answer where it needs nobody else.
    fn attend(&mut self) -> Option<Halt> {
        let listener = self.listener.as_fd();
        // Where nobody is left who could ask, kernels before 6.11 would wait for ever.
        if !notify::is_pending(listener) {
            self.is_over = notify::is_over(listener);
            return None;
        }
        // Whoever asked may be gone by now.
        let notification = notify::receive(listener).ok()?;
        let halt = self.meaning(&notification);
        if halt.is_none() {
            let _ = notify::let_go_on(listener, notification.id);
        }
        halt
    }

    fn meaning(&self, notification: &Notification) -> Option<Halt> {
        let Some((base, path)) = maker(notification) else { return Some(Halt::Listener) };
        let status = Status::of(CWD, &format!("/proc/{}", notification.thread)).ok()?;
        let is_there = exists(notification, base, path);
        let is_waiting = notify::is_valid(self.listener.as_fd(), notification.id);
        let may = status.capabilities & self.maker != 0;
        (may && is_waiting && !is_there).then_some(Halt::Device)
    }
}

/// The base and the path that a call is about which makes a file; `None` for other calls.
fn maker(notification: &Notification) -> Option<(i32, u64)> {
    let (_, column) = seccomp::column(notification.audit)?;
    MAKERS.iter().find_map(|(name, base, path)| {
        let number = seccomp::number(name, column)?;
        let base = base.map_or(libc::AT_FDCWD, |base| notification.args[base] as i32);
        (number == notification.number).then_some((base, notification.args[*path]))
    })
}

/// Whether there is something already where a call is to make a file, so that it fails. Who changes
/// that meanwhile is refused a device.
fn exists(notification: &Notification, base: i32, path: u64) -> bool {
    let of_process = |what: &str| {
        let place = format!("/proc/{}/{what}", notification.thread);
        rustix::fs::openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    };
    let look_up = || {
        let path = supervisor::string_of(notification, path)?;
        let from = match path.to_bytes().first() {
            Some(b'/') => of_process("root")?,
            _ if base == libc::AT_FDCWD => of_process("cwd")?,
            _ => of_process(&format!("fd/{base}"))?,
        };
        let mut resolve = ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::IN_ROOT, path.to_bytes().starts_with(b"/"));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(from, path, flags, Mode::empty(), resolve)
    };
    !matches!(look_up(), Err(Errno::NOENT | Errno::AGAIN))
}
