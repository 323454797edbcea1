//! A process without namespaces and without power: for builders that are somebody else than root, in
//! a container that gives nothing more.
//!
//! Its supervisor ([`crate::supervisor::Traced`]) is the first process itself: it finds all paths of
//! the process beneath a directory, and keeps its owners as data. What keeps the process from the
//! container besides are docker's filter of system calls, `no_new_privs`, and Landlock rules by
//! which it reaches not a single file by a path of its own.
//!
//! There is no PID namespace, so the first process, which traces all others, ends them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use formwork_fs::RootDir;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::chroot::{END, refuse};
use crate::init::process::{self, Confinement};
use crate::init::{Job, exit_status};
use crate::seccomp::{self, CAPABILITIES};
use crate::supervisor::{Questions, Traced, be_traceable, starter};
use crate::sys::{self, Fork};
use crate::wire;
use crate::{ExitReport, ExitStatus, NetworkMode, ProcessSpec, SandboxError, Stage};

/// Why the process did not become its program.
#[derive(Serialize, Deserialize)]
struct Failure {
    /// What was being done, unless it was executing the program.
    stage: Option<Stage>,
    errno: i32,
}

/// Runs the process of a job, in the first process of its sandbox.
pub(crate) fn run(job: &Job, parent: Pid) -> Result<ExitReport, SandboxError> {
    let failed = |errno| SandboxError::setup(Stage::Messages, "the process", errno);
    sys::end_with(parent, END).map_err(failed)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed)?;
    job.keep_only(&[])?;
    let spec: ProcessSpec = wire::read_document(job.document.as_fd()).map_err(failed)?;
    refuse(&spec)?;
    formwork_fs::keep_owners_as_data_alone();
    let path = spec.root.topmost().to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| SandboxError::setup(Stage::PivotRoot, &path, errno))?;
    let started = Instant::now();
    let starter = Starter::make(&path)?;
    let (ours, theirs) = wire::channel().map_err(failed)?;
    let (told, tell) = wire::channel().map_err(failed)?;
    let first = rustix::process::getpid();
    let fork =
        sys::fork(0).map_err(|errno| SandboxError::setup(Stage::Fork, "the process", errno))?;
    let pid = match fork {
        Fork::Parent(pid, _) => pid,
        Fork::Child => {
            drop((ours, told));
            let failure = become_program(job, &spec, &root, &starter, (&theirs, first));
            let _ = wire::send(tell.as_fd(), &failure);
            sys::exit(127)
        }
    };
    drop((theirs, tell));
    let name = starter.name()?;
    let status = Traced::follow(pid, &spec, (root, name), ours)
        .map(|mut traced| wait_for(&mut traced, pid))?;
    drop(starter);
    if let Ok(Some(failure)) = wire::receive::<Failure>(told.as_fd()) {
        return Err(failure.explain(&spec, &path));
    }
    let usage = sys::usage_of_children();
    Ok(ExitReport {
        status,
        wall_time: started.elapsed(),
        user_time: usage.0,
        system_time: usage.1,
        peak_memory: usage.2,
        created: Vec::new(),
        timed_out: false,
        halted: None,
        out_of_memory: None,
    })
}

/// The new process: waits until it is followed, and becomes what it shall be.
fn become_program(
    job: &Job,
    spec: &ProcessSpec,
    root: &OwnedFd,
    starter: &Starter,
    (channel, first): (&OwnedFd, Pid),
) -> Failure {
    let at = |(stage, errno): (Stage, Errno)| Failure {
        stage: Some(stage),
        errno: errno.raw_os_error(),
    };
    if !be_traceable(channel) {
        return at((Stage::Confine, Errno::PIPE));
    }
    let cwd = match process::look_up_cwd(root.as_fd(), spec) {
        Ok(cwd) => cwd,
        Err(errno) => return at((Stage::WorkingDirectory, errno)),
    };
    let (filter, no_network) = (seccomp::program_among_others(), seccomp::without_network());
    let rules = sys::landlock_one_program(starter.file.as_fd()).ok();
    let questions = Questions::of_traced(channel.as_fd());
    let confinement = Confinement {
        capabilities: CAPABILITIES,
        rules: rules.as_ref().map(AsFd::as_fd),
        filter: &filter,
        further_filter: (spec.network == NetworkMode::None).then_some(&*no_network),
        questions: Some(&questions),
        notices: None,
        asking: None,
        contained_by: Some(first),
    };
    let Ok((candidates, args, env)) = process::words(spec) else {
        return at((Stage::Confine, Errno::INVAL));
    };
    let _ = rustix::thread::set_no_new_privs(true);
    match process::become_process(&confinement, spec, &job.stdio, &cwd) {
        Err(failure) => at(failure),
        Ok(()) => {
            let errno = process::execute(&candidates, &args, &env);
            Failure { stage: None, errno: errno.raw_os_error() }
        }
    }
}

impl Failure {
    fn explain(&self, spec: &ProcessSpec, root: &Path) -> SandboxError {
        let errno = Errno::from_raw_os_error(self.errno);
        match (self.stage, RootDir::open(root)) {
            (None, Ok(root)) => process::explain(spec, root, errno),
            (stage, _) => process::failure(stage.unwrap_or(Stage::Confine), spec, errno),
        }
    }
}

/// The program that processes become first, beside the root directory, as long as they run.
struct Starter {
    path: PathBuf,
    file: OwnedFd,
}

impl Starter {
    fn make(root: &Path) -> Result<Self, SandboxError> {
        let path = root.with_file_name("starter");
        let failed = |error: std::io::Error| SandboxError::setup(Stage::WriteFile, &path, error);
        let _ = fs_err::remove_file(&path);
        fs_err::write(&path, starter()).map_err(failed)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o555))
            .map_err(|errno| failed(errno.into()))?;
        let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self { path, file })
    }

    /// Its whole name, as the kernel finds it from anywhere.
    fn name(&self) -> Result<CString, SandboxError> {
        let place = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let name = rustix::fs::readlink(place, Vec::new())
            .map_err(|errno| SandboxError::setup(Stage::WriteFile, &self.path, errno))?;
        Ok(name)
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.path);
    }
}

/// Attends to all processes until the first has ended or the helper says so; then ends all that is
/// left.
fn wait_for(traced: &mut Traced, process: Pid) -> ExitStatus {
    let mut ending = false;
    let status = loop {
        match sys::wait_signal(&[libc::SIGCHLD, libc::SIGTERM, END.as_raw()]) {
            libc::SIGTERM => drop(rustix::process::kill_process(process, Signal::TERM)),
            libc::SIGCHLD => {}
            _ => ending = true,
        }
        if ending {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        let mut ended = None;
        while let Ok(Some(waited)) = sys::wait(None, false) {
            traced.attend(waited.pid, waited.status);
            if waited.pid == process && !libc::WIFSTOPPED(waited.status) {
                ended = Some(exit_status(waited.status));
            }
        }
        if let Some(status) = ended {
            break status;
        }
    };
    traced.kill_all();
    while let Ok(Some(waited)) = sys::wait(None, true) {
        traced.attend(waited.pid, waited.status);
        traced.kill_all();
    }
    traced.remove_shared();
    status
}
