//! The builder's side: asks the helper to run processes, and waits for them.
//!
//! A threaded process must not fork (a lock that another thread holds stays locked for ever in the
//! child), so the builder never does: it executes itself once more as the helper, which has one
//! thread and forks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as CommandStdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::supervisor::kernel;
use crate::wire::{self, Answer, Gone, Outside, Request, Stop};
use crate::{
    Cancel, Devices, ExitReport, ExitStatus, HELPER_NAME, NetworkMode, OsError, OutOfMemory,
    ProcessSpec, SandboxError, Stage,
};

/// The exit code of a process that was killed, as a shell tells it.
const KILLED: i32 = 137;

/// Runs processes, any number at once, through one helper process.
///
/// The helper is started for the first run, and ends with the launcher or with this program,
/// however it ends, taking all sandboxes with it.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    helper: Mutex<Option<Arc<Helper>>>,
    /// Whether processes without mounts can be shown anything, once it was tried.
    shows: OnceLock<bool>,
}

/// The standard input, output and error of a process. They are closed here as soon as the process
/// has them, so whoever reads the other end of a pipe sees its end with the end of the sandbox.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input; `None` for one that is empty.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Default for Launcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher {
    /// A launcher whose helper is this program itself, which must call
    /// [`init_if_child`](crate::init_if_child) first in `main`.
    pub fn new() -> Self {
        Self::with_program("/proc/self/exe")
    }

    /// A launcher whose helper is another program that calls
    /// [`init_if_child`](crate::init_if_child) first in `main`.
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), helper: Mutex::new(None), shows: OnceLock::new() }
    }

    /// Runs a process and waits until nothing of its sandbox is left.
    ///
    /// Throwing `cancel` stops it; the report then tells what the process made of it.
    ///
    /// # Errors
    ///
    /// Fails where the process could not be started or was killed together with its sandbox; a
    /// process that ran and failed gives a report.
    pub fn run(
        &self,
        spec: &ProcessSpec,
        stdio: Stdio,
        cancel: &Cancel,
    ) -> Result<ExitReport, SandboxError> {
        spec.check()?;
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        // Held until the end: dropping the last one ends the helper and all that it runs.
        let helper = self.helper()?;
        let result = helper.start(spec, stdio).and_then(|channel| {
            let started = Instant::now();
            let deadline = spec.time_limit.and_then(|limit| started.checked_add(limit));
            let (grace, limit) = (spec.stop_grace, spec.limits.memory);
            let kills = machine_kills();
            Run { channel, started, deadline, grace, limit, kills }.wait(cancel)
        });
        if let Err(SandboxError::Helper(_)) = &result {
            self.forget(&helper);
        }
        result
    }

    /// Whether a process of a user can be shown in a tree what cannot be mounted there
    /// ([`ProcessSpec::shown`](crate::ProcessSpec::shown)): where the kernel and whatever confines
    /// this program allow it, and unless it would take `sudo` or `doas`, which the tree has, from a
    /// user.
    pub fn shows(&self, root: &Path, uid: u32) -> bool {
        let shows = *self.shows.get_or_init(|| matches!(self.try_to_show(), Ok(Ok(()))));
        shows && kernel::suits(root, uid)
    }

    fn try_to_show(&self) -> Result<Result<(), OsError>, SandboxError> {
        let channel = self.helper()?.request(&Request::Show, &[])?;
        match wire::receive(channel.as_fd()).map_err(messages)? {
            Some(Answer::Show(tried)) => Ok(tried),
            _ => Err(gone()),
        }
    }

    /// The running helper, started where there is none yet.
    fn helper(&self) -> Result<Arc<Helper>, SandboxError> {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*helper {
            return Ok(Arc::clone(running));
        }
        if crate::is_child() {
            // Going on would start helpers of helpers without end.
            let text = "this is the helper, and did not serve: `main` must call `init_if_child`";
            return Err(SandboxError::Helper(text.to_owned()));
        }
        let started = Helper::start_program(&self.program).map_err(|error| {
            SandboxError::Helper(format!("cannot start `{}`: {error}", self.program.display()))
        })?;
        Ok(Arc::clone(helper.insert(Arc::new(started))))
    }

    /// Lets the next run start another helper than this one.
    fn forget(&self, lost: &Arc<Helper>) {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        helper.take_if(|current| Arc::ptr_eq(current, lost));
    }
}

/// The helper process; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Helper {
    /// `None` only while being dropped.
    control: Option<OwnedFd>,
    process: Child,
}

impl Helper {
    pub(crate) fn start_program(program: &std::path::Path) -> std::io::Result<Self> {
        let (ours, theirs) = wire::channel()?;
        // The helper needs nothing of the environment. Its standard error stays, for the message
        // of a panic, which would be a bug.
        let process = Command::new(program)
            .arg0(HELPER_NAME)
            .env_clear()
            .stdin(theirs)
            .stdout(CommandStdio::null())
            .spawn()?;
        Ok(Self { control: Some(ours), process })
    }

    /// Sends a request; returns the channel for its answers.
    pub(crate) fn request(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, SandboxError> {
        let (ours, theirs) = wire::channel().map_err(messages)?;
        let control = self.control.as_ref().ok_or_else(gone)?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(descriptors);
        match wire::send_request(control.as_fd(), request, &all) {
            Ok(()) => Ok(ours),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(gone()),
            Err(errno) => Err(messages(errno)),
        }
    }

    fn start(&self, spec: &ProcessSpec, stdio: Stdio) -> Result<OwnedFd, SandboxError> {
        let document = wire::document(spec).map_err(messages)?;
        let stdin = stdio.stdin.map_or_else(wire::null, Ok).map_err(messages)?;
        for fd in [&stdin, &stdio.stdout, &stdio.stderr] {
            refuse_directory(fd)?;
        }
        let descriptors = [&document, &stdin, &stdio.stdout, &stdio.stderr].map(AsFd::as_fd);
        let outside = Outside {
            resource_limits: spec.resource_limits.clone(),
            limits: spec.limits,
            in_place: spec.root.in_place,
            traced: spec.root.traced,
            keeps_devices: spec.devices == Devices::Kept,
            uplink: spec.uplink.clone().filter(|_| spec.network == NetworkMode::Private),
        };
        self.request(&Request::Run(outside), &descriptors)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of the control socket tells the helper to end, and it leaves nothing behind.
        self.control = None;
        let _ = self.process.wait();
    }
}

/// A directory of the host as standard input would be a way out of the root (CVE-2024-21626).
fn refuse_directory(fd: &OwnedFd) -> Result<(), SandboxError> {
    let mode = rustix::fs::fstat(fd).map_err(messages)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => {
            Err(SandboxError::Spec("standard input or output is a directory".to_owned()))
        }
        _ => Ok(()),
    }
}

/// A process that was asked for.
struct Run {
    channel: OwnedFd,
    started: Instant,
    /// When it is stopped in any case.
    deadline: Option<Instant>,
    grace: Duration,
    /// The memory that the processes may have together.
    limit: Option<u64>,
    /// How many processes the kernel had killed for lack of memory before.
    kills: u64,
}

impl Run {
    /// Waits until nothing of the sandbox is left, and passes on that it should stop.
    fn wait(&self, cancel: &Cancel) -> Result<ExitReport, SandboxError> {
        let channel = self.channel.as_fd();
        let mut outcome = None;
        let mut running = true;
        let mut timed_out = false;
        loop {
            if running {
                let [answer, stop] = wire::wait_readable([channel, cancel.as_fd()], self.deadline)
                    .map_err(messages)?;
                timed_out = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
                if stop || timed_out {
                    self.stop();
                    running = false;
                }
                if !answer {
                    continue;
                }
            }
            match wire::receive(channel) {
                Ok(Some(Answer::Outcome(result))) => outcome = Some(result),
                Ok(Some(Answer::Gone(end))) => {
                    let result = outcome.unwrap_or_else(|| self.killed(end));
                    return result.map(|report| {
                        let out_of_memory = self.out_of_memory(&report, end);
                        let of_group = end.group.map_or(0, |group| group.peak);
                        let peak_memory = report.peak_memory.max(of_group);
                        ExitReport { timed_out, out_of_memory, peak_memory, ..report }
                    });
                }
                Ok(Some(Answer::Probe(_) | Answer::Show(_)) | None) | Err(Errno::CONNRESET) => {
                    return Err(gone());
                }
                Err(errno) => return Err(messages(errno)),
            }
        }
    }

    /// Asks for the end.
    fn stop(&self) {
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        // Where the helper is gone, the end of the channel tells so next.
        let _ = wire::send(self.channel.as_fd(), &Stop { grace_ms });
    }

    /// Whether the kernel killed any process for lack of memory. Of those without a group it only
    /// tells that it killed somebody on this machine, which counts if these were killed, too.
    fn out_of_memory(&self, report: &ExitReport, end: Gone) -> Option<OutOfMemory> {
        match end.group {
            Some(group) if group.oom_kills > 0 => {
                // Before Linux 5.19 version 2 tells no peak; it was the limit.
                let told = Some(group.peak).filter(|peak| *peak > 0);
                let peak = told.or(self.limit).unwrap_or(report.peak_memory);
                Some(OutOfMemory { peak, limit: self.limit })
            }
            _ if report.status.shell_code() == KILLED && machine_kills() > self.kills => {
                Some(OutOfMemory { peak: report.peak_memory, limit: None })
            }
            _ => None,
        }
    }

    /// The report where the sandbox's first process could give none.
    fn killed(&self, end: Gone) -> Result<ExitReport, SandboxError> {
        let Some(signal) = end.signal else {
            return Err(SandboxError::Helper("a sandbox ended without a report".to_owned()));
        };
        let has_no_memory = end.group.is_some_and(|group| group.oom_kills > 0);
        if !end.by_request && !has_no_memory {
            return Err(SandboxError::Killed { signal });
        }
        Ok(ExitReport {
            status: ExitStatus::Signaled(signal),
            timed_out: false,
            halted: None,
            out_of_memory: None,
            wall_time: self.started.elapsed(),
            user_time: end.user_time,
            system_time: end.system_time,
            peak_memory: end.peak_memory,
            created: Vec::new(),
        })
    }
}

/// How many processes the kernel has killed for lack of memory since the machine started.
fn machine_kills() -> u64 {
    let text = fs_err::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

fn gone() -> SandboxError {
    SandboxError::Helper(
        "it has ended; if the machine ran out of memory, build less at once".into(),
    )
}

fn messages(error: impl Into<OsError>) -> SandboxError {
    SandboxError::setup(Stage::Messages, "the process", error)
}
