//! The first process of a sandbox: makes the world, starts the process, waits.
//!
//! It is a fork of the helper and executes nothing, so no binary of the host is ever within reach
//! of the sandbox: `/proc/1/exe` is this program, and the kernel shows it, like this process's
//! memory and descriptors, to nobody without power over the namespace outside, because the helper
//! made itself undumpable there (CVE-2019-5736 is about a runtime that did not). The process
//! proper is never this program, either: it is between `vfork` and `execve` in one address space
//! with this one, and the first thing of its own is the image's program.

mod emulator;
mod mounts;
mod network;
mod notices;
pub(crate) mod process;
mod program;
mod root;
mod system;
mod target;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use formwork_fs::RelPath;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use crate::rungs::forbidden;
use crate::seccomp::CAPABILITIES;
use crate::supervisor::{Kept, Questions};
use crate::sys::{self, Waited};
use crate::wire::{self, Answer};
use crate::world::World;
pub(crate) use program::is_static_program;
pub(crate) use root::clone_mount;

pub(crate) use notices::Notices;
use notices::{Event, Watch};

use crate::{Devices, ExitReport, ExitStatus, Halt, NetworkMode, ProcessSpec, SandboxError, Stage};

/// The longest word of the helper: why the network is not there.
const LONGEST_WORD: u64 = 4096;

/// What the helper was asked to run.
#[derive(Debug)]
pub(crate) struct Job {
    /// To the builder's thread that waits.
    pub(crate) channel: OwnedFd,
    /// The specification.
    pub(crate) document: OwnedFd,
    pub(crate) stdio: [OwnedFd; 3],
}

impl Job {
    /// The descriptors of a request; `None` unless they are as many as they should be.
    pub(crate) fn new(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [channel, document, stdin, stdout, stderr] = descriptors.try_into().ok()?;
        Some(Self { channel, document, stdio: [stdin, stdout, stderr] })
    }

    /// Closes all that the helper has open for itself and for other sandboxes.
    pub(crate) fn keep_only(&self, others: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let mut kept = vec![self.channel.as_fd(), self.document.as_fd()];
        kept.extend(self.stdio.iter().map(AsFd::as_fd));
        kept.extend_from_slice(others);
        sys::close_all_but(&kept).map_err(messages)
    }

    /// Does what is to be done for it, and tells the builder how that ended.
    pub(crate) fn carry_out(&self, run: impl FnOnce() -> Result<ExitReport, SandboxError>) -> ! {
        // A panic must not go on in the helper's frames: there is one helper already.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(run));
        let outcome = outcome.unwrap_or_else(|_| {
            Err(SandboxError::Helper("this is a bug; its message is above".to_owned()))
        });
        if let Err(errno) = wire::send(self.channel.as_fd(), &Answer::Outcome(outcome)) {
            // As many targets were made as do not fit into a message.
            let _ = wire::send(self.channel.as_fd(), &Answer::Outcome(Err(messages(errno))));
        }
        sys::exit(0)
    }
}

/// Runs the job and tells the builder; `go` is where the helper says that the ids are mapped.
pub(crate) fn main(world: &World, job: &Job, go: OwnedFd, supervised: Option<OwnedFd>) -> ! {
    job.carry_out(|| run(world, job, go, supervised))
}

fn run(
    world: &World,
    job: &Job,
    go: OwnedFd,
    supervised: Option<OwnedFd>,
) -> Result<ExitReport, SandboxError> {
    await_word(go)?;
    if world.cgroup2 {
        sys::unshare(UnshareFlags::NEWCGROUP)
            .map_err(|errno| SandboxError::setup(Stage::Namespaces, "/sys/fs/cgroup", errno))?;
    }
    let kept: Vec<_> = world.scope.iter().chain(&supervised).map(AsFd::as_fd).collect();
    job.keep_only(&kept)?;
    let spec: ProcessSpec = wire::read_document(job.document.as_fd()).map_err(messages)?;
    let maker = forbidden::maker(world);
    let kept = match world.ids.is_single() {
        true => Kept::All,
        false => Kept::Devices(maker),
    };
    let questions = supervised.as_ref().map(|channel| Questions::of(&spec, kept, channel.as_fd()));
    let questions = questions.transpose().map_err(messages)?;
    let notices = (spec.devices == Devices::Noticed && questions.is_none())
        .then(|| Notices::of(&spec, &world.filter_that_notices))
        .transpose()
        .map_err(messages)?;
    world.ids.check(&spec.user)?;
    forbidden::check(world, &spec)?;
    // Where the kernel has none for a sandbox, the machine's own may do; whatever does not run then
    // tells so.
    let emulator = spec.emulator.as_ref().map(|emulator| match world.has_user_namespaces() {
        true => emulator::register(emulator),
        // It would be for the whole machine.
        false => Err(rustix::io::Errno::PERM),
    });
    let created = make_world(world, &spec)?;
    let started = Instant::now();
    let mut confinement = confinement(world, &spec, questions.as_ref());
    confinement.notices = notices.as_ref();
    let result = process::start(&confinement, &spec, &job.stdio);
    let process = result.map_err(|error| match &emulator {
        Some(Err(errno)) => program::without_emulator(error, *errno),
        _ => error,
    })?;
    let watch = notices.and_then(|notices| notices.watch(maker.capability));
    let (status, usage, halted) = wait_for(process, watch);
    Ok(ExitReport {
        status,
        timed_out: false,
        halted,
        out_of_memory: None,
        wall_time: started.elapsed(),
        user_time: usage.user,
        system_time: usage.system,
        peak_memory: usage.peak_memory,
        created,
    })
}

/// What a process is confined by, beside its namespaces.
fn confinement<'a>(
    world: &'a World,
    spec: &ProcessSpec,
    questions: Option<&'a Questions<'a>>,
) -> process::Confinement<'a> {
    let capabilities = match world.has_user_namespaces() {
        true => CAPABILITIES,
        false => forbidden::without_reach(CAPABILITIES, spec),
    };
    // Services trust whoever connects to an abstract socket with the right user number, and root in
    // the sandbox may have that of real root (CVE-2020-15257).
    let rules = world.scope.as_ref().filter(|_| spec.network == NetworkMode::Host);
    let rules = rules.map(AsFd::as_fd);
    process::Confinement {
        capabilities,
        rules,
        filter: &world.filter,
        further_filter: None,
        questions,
        notices: None,
        asking: None,
        contained_by: None,
    }
}

/// Waits until the helper has done what is to be done from outside: mapped the ids, connected the
/// network. Fails when it could not.
fn await_word(go: OwnedFd) -> Result<(), SandboxError> {
    // Should the helper be gone already, the pipe is at its end. From here on, its end is ours.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(messages)?;
    let mut word = Vec::new();
    let read = std::fs::File::from(go).take(LONGEST_WORD).read_to_end(&mut word);
    read.map_err(messages)?;
    match word.as_slice() {
        [crate::network::GO] => Ok(()),
        [] => Err(messages(rustix::io::Errno::PIPE)),
        problem => Err(SandboxError::Unavailable(String::from_utf8_lossy(problem).into_owned())),
    }
}

/// Makes all that the process will find; returns the mount targets that had to be made.
fn make_world(world: &World, spec: &ProcessSpec) -> Result<Vec<RelPath>, SandboxError> {
    // From here to the change of the root, a descriptor's number is a path to what it refers to,
    // and nothing is ever looked up twice.
    rustix::process::chdir("/proc/self/fd")
        .map_err(|errno| SandboxError::setup(Stage::Private, "/proc/self/fd", errno))?;
    network::set_up(spec)?;
    let mut targets = target::Targets::new(root::stack(&spec.root)?)?;
    let dev = system::mount(world, &mut targets, spec)?;
    for mount in &spec.mounts {
        mounts::mount(world, &mut targets, &dev, mount)?;
    }
    targets.enter()
}

/// What processes took together.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) peak_memory: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, waited: &Waited) {
        self.user += waited.user;
        self.system += waited.system;
        self.peak_memory = self.peak_memory.max(waited.peak_memory);
    }
}

/// The signals that are waited for.
const SIGNALS: [i32; 2] = [libc::SIGCHLD, libc::SIGTERM];

/// Reaps whatever ends, until the process has, or is to be ended; then kills what it left.
fn wait_for(process: Pid, mut watch: Option<Watch>) -> (ExitStatus, Usage, Option<Halt>) {
    let mut usage = Usage::default();
    let (status, halted) = loop {
        let event = match &mut watch {
            Some(watch) => watch.wait(),
            None => Event::Signal(sys::wait_signal(&SIGNALS)),
        };
        match event {
            Event::Signal(libc::SIGTERM) => {
                let _ = rustix::process::kill_process(process, Signal::TERM);
            }
            Event::Signal(_) => {}
            Event::Halt(halt) => break (ExitStatus::Signaled(libc::SIGKILL), Some(halt)),
        }
        if let Some(status) = reap(process, &mut usage) {
            break (status, None);
        }
    };
    sys::kill_all_others();
    while let Ok(Some(waited)) = sys::wait(None, true) {
        usage.add(&waited);
    }
    (status, usage, halted)
}

/// Reaps all that has ended; the status of the process, if it was among them.
pub(crate) fn reap(process: Pid, usage: &mut Usage) -> Option<ExitStatus> {
    let mut status = None;
    while let Ok(Some(waited)) = sys::wait(None, false) {
        usage.add(&waited);
        if waited.pid == process {
            status = Some(exit_status(waited.status));
        }
    }
    status
}

pub(crate) fn exit_status(status: i32) -> ExitStatus {
    if libc::WIFSIGNALED(status) {
        ExitStatus::Signaled(libc::WTERMSIG(status))
    } else {
        ExitStatus::Exited(libc::WEXITSTATUS(status))
    }
}

fn messages(error: impl Into<crate::OsError>) -> SandboxError {
    SandboxError::setup(Stage::Messages, "the process", error)
}
