//! How a process ended, and what it took.

use std::time::Duration;

use formwork_fs::RelPath;
use serde::{Deserialize, Serialize};

use crate::encoding;

/// How a process ended, and what it took.
///
/// When the caller has this, nothing of the sandbox is left: no process and no mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How the process ended.
    pub status: ExitStatus,
    /// Whether it was stopped because its time was over ([`ProcessSpec::time_limit`]).
    ///
    /// [`ProcessSpec::time_limit`]: crate::ProcessSpec::time_limit
    pub timed_out: bool,
    /// Why it was ended though it might have gone on: for another run, in which it has what it lacks.
    pub halted: Option<Halt>,
    /// Whether the kernel killed any of its processes because there was no more memory.
    pub out_of_memory: Option<OutOfMemory>,
    /// From the start of the process to its end, without making and removing the sandbox.
    pub wall_time: Duration,
    /// Processor time in user mode: of the process, its children, and whatever it left running.
    pub user_time: Duration,
    /// Processor time in the kernel, likewise.
    pub system_time: Duration,
    /// The most memory at one time, in bytes: of all these processes where they have a control
    /// group, else the largest resident set of any one of them.
    pub peak_memory: u64,
    /// Mount targets that were missing in the root file system and had to be made in it, those on
    /// the way included, deepest last. They lie in the upper directory, and are no work of the
    /// process.
    #[serde(with = "encoding::list")]
    pub created: Vec<RelPath>,
}

/// Why a process was ended that was to be noticed ([`Devices::Noticed`](crate::Devices::Noticed)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// It makes a device: that takes [`Devices::Kept`](crate::Devices::Kept).
    Device,
    /// It has calls of its own processes answered, and nobody can do that for processes whose calls
    /// somebody else answers: that takes [`Devices::Refused`](crate::Devices::Refused).
    Listener,
}

/// How much memory processes had when there was no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// The most that they had together at one time, in bytes; without a limit of their own, the
    /// most that any one of them had.
    pub peak: u64,
    /// Their limit; without one, the machine or the container had no more.
    pub limit: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code, from 0 to 255.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl ExitStatus {
    /// Whether the process says that it did what it should.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The code as a shell tells it: 128 is added to a signal's number.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}
