//! Tries whether a process can be shown anything, with one that is thrown away.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Pid, Signal};

use super::files::in_memory;
use super::{Asking, receive_listener};
use crate::sys::{self, Fork, notify};
use crate::wire;

const PATH: &str = "/proc/formwork";
const TEXT: &[u8] = b"shown";
/// How long it may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has a process ask for a file that there is not, and shows it one.
///
/// Only for the helper, which has one thread.
pub(crate) fn run() -> Result<()> {
    let Asking { filter, ours, theirs } = Asking::new(false, false)?;
    let parent = rustix::process::getpid();
    match sys::fork(0)? {
        Fork::Child => {
            let asking = Asking { filter, ours, theirs };
            sys::exit(i32::from(ask(&asking, parent) != Ok(true)))
        }
        Fork::Parent(pid, process) => {
            drop(theirs);
            let answered = answer(pid, &ours);
            if answered.is_err() {
                let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            }
            let ended = sys::wait(Some(pid), true)?;
            answered?;
            match ended {
                Some(waited) if waited.status == 0 => Ok(()),
                _ => Err(Errno::OPNOTSUPP),
            }
        }
    }
}

fn ask(asking: &Asking, parent: Pid) -> Result<bool> {
    // Nobody else could answer.
    sys::end_with(parent, Signal::KILL)?;
    // As a program is that was executed.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    asking.ask()?;
    let file = rustix::fs::open(PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; TEXT.len()];
    Ok(rustix::io::read(file, &mut text)? == TEXT.len() && text == *TEXT)
}

fn answer(pid: Pid, channel: &OwnedFd) -> Result<()> {
    let deadline = Instant::now().checked_add(PATIENCE);
    let wait = |fd: &OwnedFd| match wire::wait_readable([fd.as_fd()], deadline)? {
        [true] => Ok(()),
        [false] => Err(Errno::TIMEDOUT),
    };
    wait(channel)?;
    let listener = receive_listener(channel)?;
    wait(&listener)?;
    let notification = notify::receive(listener.as_fd())?;
    let mut path = [0; PATH.len()];
    // Its path is the first or the second argument, as the machine opens files.
    let is_path = |address: u64, path: &mut [u8]| {
        notify::read_memory(notification.thread, address, path) == Ok(PATH.len())
            && path == PATH.as_bytes()
    };
    if notification.thread != pid.as_raw_nonzero().get().unsigned_abs()
        || !notification.args[..2].iter().any(|address| is_path(*address, &mut path))
    {
        return Err(Errno::PERM);
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let file = in_memory(TEXT, 0o400, own)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map(drop)?;
    notify::answer_with_descriptor(listener.as_fd(), notification.id, file.as_fd(), true)
}
