//! Stopping what runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{OsError, SandboxError, Stage};

/// A switch that stops every run it was given to: once thrown, it stays thrown.
///
/// Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<OwnedFd>);

impl Cancel {
    /// A switch that is not thrown.
    ///
    /// # Errors
    ///
    /// Fails where the process has no descriptor left.
    pub fn new() -> Result<Self, SandboxError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = rustix::event::eventfd(0, flags).map_err(|errno| SandboxError::Setup {
            stage: Stage::Messages,
            path: "cancelling".into(),
            source: OsError::from(errno),
        })?;
        Ok(Self(Arc::new(fd)))
    }

    /// Stops the runs: `SIGTERM` to their main process, and after the grace time of each
    /// (`ProcessSpec::stop_grace`) `SIGKILL` to all that is left of it. Returns at once; the runs
    /// return when they have ended.
    pub fn cancel(&self) {
        // The counter cannot overflow in any life time, and nothing else can fail.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Whether the switch is thrown.
    pub fn is_cancelled(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Cancel {
    /// Readable for ever once the switch is thrown; never to be read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;

    #[test]
    fn a_switch_stays_thrown_for_all_its_clones() {
        let cancel = Cancel::new().unwrap();
        let clone = cancel.clone();
        assert!(!clone.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(clone.is_cancelled() && clone.is_cancelled());
    }
}
