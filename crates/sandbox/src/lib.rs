//! Runs one process in namespaces, with mounts and limits.
//!
//! ```text
//! builder (threads) ──requests──▶ helper (one thread) ──fork──▶ first process ──vfork──▶ process
//!    Launcher::run                  same binary, re-executed      of the sandbox           execve
//!        ▲                          waits for all                 makes the world,
//!        └─────────── outcome, then "gone" ◀────────────────────  then waits and reaps
//! ```
//!
//! [`init_if_child`] must be the first call in `main`, [`enter()`] comes before the first thread;
//! a [`Launcher`] then runs [`ProcessSpec`]s from any thread. [`probe()`] tells what the machine
//! gives. Linux 5.12 or later.
//!
//! What a process finds: its own mount, PID, IPC and UTS namespaces, in a user namespace with the
//! same ids as the builder's (root does without where the machine gives none); Docker's default capabilities and system call filter; the layers as
//! `/`, its own `/proc` and `/dev`, a read-only `/sys`; no descriptor but the first three. What a
//! caller may rely on: when [`Launcher::run`] returns, no process and no mount is left, and the
//! upper directory holds what the process wrote and nothing else, except what
//! [`ExitReport::created`] names.
//!
//! This crate knows nothing of images, layers' contents or Dockerfiles. It holds all `unsafe` of
//! the workspace, in one module of system calls.

mod cancel;
mod cgroup;
mod emulation;
mod encoding;
mod enter;
mod error;
#[cfg(feature = "test-harness")]
mod harness;
mod helper;
mod idmap;
mod init;
mod launcher;
mod limits;
mod network;
mod probe;
mod report;
mod rungs;
mod seccomp;
mod spec;
mod stubs;
mod subid;
mod supervisor;
mod sys;
mod wire;
mod world;

pub use cancel::Cancel;
pub use emulation::{Emulation, Emulator};
pub use enter::{Entered, Rung, RungChoice, enter};
pub use error::{
    IdKind, OsError, ProgramProblem, RootlessProblem, SandboxError, Stage, TargetProblem,
};
pub use launcher::{Launcher, Stdio};
pub use limits::{Limits, Resource, ResourceLimit};
pub use network::{HOST as UPLINK_HOST, Port, Uplink};
pub use probe::{Feature, Probe, probe};
pub use report::{ExitReport, ExitStatus, Halt, OutOfMemory};
pub use spec::{
    Devices, FileData, MAX_LAYERS, MountKind, MountPoint, NetworkMode, ProcessSpec, RootFs, Stub,
    Upper, User,
};
pub use stubs::stub_entries;
pub use world::USUAL_DEVICES;

/// The name (`argv[0]`) under which the program is executed as the helper.
pub(crate) const HELPER_NAME: &str = "formwork-sandbox";

/// Serves as the helper, and never returns, if the program was executed as such.
///
/// The first call in `main`: before anything starts a thread, reads arguments or prints.
pub fn init_if_child() {
    if is_child() {
        helper::serve();
    }
}

/// Whether the program was executed as the helper.
fn is_child() -> bool {
    std::env::args_os().next().is_some_and(|name| name == HELPER_NAME)
}
