//! A terminal of its own for a process that runs in a container (`formwork run -t`): what the user
//! types goes there byte by byte, what the process shows comes here, and the sizes stay the same.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use crate::exit::Failure;

/// How much is passed on at a time.
const BUFFER: usize = 16 << 10;
/// What ends the input at a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// The user's end of the terminal of a process. Gives the user's own terminal back when it is
/// dropped.
pub(crate) struct Terminal {
    /// What shows the process's output, until the process has ended.
    output: Option<JoinHandle<()>>,
    before: Option<Termios>,
}

impl Terminal {
    /// Makes a terminal; also gives the process's end of it. `with_input` says whether the process
    /// gets what the user types.
    pub(crate) fn open(with_input: bool) -> Result<(Self, OwnedFd), Failure> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let open = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
            let ours = openpt(flags)?;
            grantpt(&ours)?;
            unlockpt(&ours)?;
            let theirs = ioctl_tiocgptpeer(&ours, flags)?;
            Ok((ours, theirs))
        };
        let failed = |error| Failure::machine(format!("cannot make a terminal: {error}"));
        let (ours, theirs) = open().map_err(|errno| failed(errno.into()))?;
        let ours = Arc::new(std::fs::File::from(ours));
        follow_size(&ours).map_err(failed)?;
        let before = if with_input { take_over_input()? } else { None };
        let mut terminal = Self { output: None, before };
        if with_input {
            let ours = Arc::clone(&ours);
            // It waits for the user until the program ends.
            let work = move || pass_input(&ours);
            std::thread::Builder::new().spawn(work).map_err(Failure::without_threads)?;
        }
        let output = move || pass(&*ours, std::io::stdout());
        let output = std::thread::Builder::new().spawn(output).map_err(Failure::without_threads)?;
        terminal.output = Some(output);
        Ok((terminal, theirs))
    }
}

impl Drop for Terminal {
    /// Waits for the last output. The process's end must be closed by now.
    fn drop(&mut self) {
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        if let Some(before) = &self.before {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Makes the user's terminal pass on every key, Ctrl-C too; returns how it was. Other input than a
/// terminal stays as it is.
fn take_over_input() -> Result<Option<Termios>, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&stdin).map_err(Failure::machine)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Drain, &raw).map_err(Failure::machine)?;
    Ok(Some(before))
}

/// Gives the terminal the size of the user's, now and whenever that changes.
fn follow_size(ours: &Arc<std::fs::File>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGWINCH])?;
    copy_size(ours);
    // The thread must not keep the terminal open.
    let ours = Arc::downgrade(ours);
    let follow = move || {
        for _ in &mut signals {
            match ours.upgrade() {
                Some(ours) => copy_size(&ours),
                None => return,
            }
        }
    };
    std::thread::Builder::new().spawn(follow).map(drop)
}

fn copy_size(ours: &std::fs::File) {
    if let Ok(size) = tcgetwinsize(std::io::stdout()) {
        // The process does with a wrong size what it can.
        let _ = tcsetwinsize(ours, size);
    }
}

fn pass_input(ours: &std::fs::File) {
    pass(std::io::stdin(), ours);
    let mut ours = ours;
    // Whoever has ended does not mind.
    let _ = ours.write_all(&[END_OF_INPUT]);
}

/// Passes bytes on until either side is closed.
fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // A terminal whose other end is closed cannot be read.
            Err(_) => return,
        }
    }
}
