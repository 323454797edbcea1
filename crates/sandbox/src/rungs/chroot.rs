//! A process without namespaces: in a chroot, for builders inside a container that gives them
//! nothing more, as root of that container.
//!
//! The container is what keeps the process from the machine. What keeps it from the builder is less
//! than on the other rungs: its root directory, out of which neither `chroot` nor a device file
//! leads, for it may make neither; a filter of system calls; and, where the kernel has Landlock, rules
//! that let it touch no file beside its root and signal nobody but its own. For a process that runs
//! as root that costs `no_new_privs`, which root does not miss. One of another user goes without, so
//! that `sudo` works, and has the filter and the rules only where the builder may give them all the
//! same (with `SYS_ADMIN`); else it is held by the numbers alone.
//!
//! A process that shall have no network gets no sockets of one, not even of its own interface, and
//! `no_new_privs`, whoever it is.
//!
//! There is no PID namespace, so the first process adopts whatever the process leaves behind and
//! ends it; and if it is killed itself, the helper does.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Pid, Signal};

use crate::init::process::{self, Confinement};
use crate::init::{Job, Usage, reap};
use crate::rungs::forbidden;
use crate::seccomp::{self, CAPABILITIES};
use crate::supervisor::kernel::{Devices, Show};
use crate::sys;
use crate::wire;
use crate::{ExitReport, ExitStatus, Limits, NetworkMode, ProcessSpec, SandboxError, Stage};

/// What tells a first process to end everything: it must not be killed before that is done.
pub(crate) const END: Signal = Signal::USR1;

const CAP_SYS_CHROOT: u64 = 1 << 18;

/// Runs the process of a job, in the first process of its sandbox.
pub(crate) fn run(job: &Job, parent: Pid) -> Result<ExitReport, SandboxError> {
    let failed = |errno| SandboxError::setup(Stage::Messages, "the process", errno);
    sys::end_with(parent, END).map_err(failed)?;
    // The processes that those leave behind which end before their children.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())
        .map_err(|errno| SandboxError::setup(Stage::Private, "/proc", errno))?;
    job.keep_only(&[proc.as_fd()])?;
    let spec: ProcessSpec = wire::read_document(job.document.as_fd()).map_err(failed)?;
    refuse(&spec)?;
    let devices = Devices::of_container();
    let root = spec.root.topmost().to_owned();
    let enter = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&root, flags, Mode::empty())?;
        rustix::process::fchdir(&directory)?;
        rustix::process::chroot(".")?;
        Ok(directory)
    };
    let directory = enter()
        .map_err(|errno: rustix::io::Errno| SandboxError::setup(Stage::PivotRoot, &root, errno))?;
    let show = Show::new(&spec, devices, &job.stdio[0])
        .map_err(|errno| SandboxError::setup(Stage::Private, "/proc", errno))?;
    let started = Instant::now();
    let rules = sys::landlock_beneath(directory.as_fd()).ok();
    let (filter, no_network) = (seccomp::program_among_others(), seccomp::without_network());
    let confinement = Confinement {
        capabilities: forbidden::without_reach(CAPABILITIES, &spec) & !CAP_SYS_CHROOT,
        rules: rules.as_ref().map(AsFd::as_fd),
        filter: &filter,
        further_filter: (spec.network == NetworkMode::None).then_some(&*no_network),
        questions: None,
        notices: None,
        asking: show.as_ref().map(|show| &show.asking),
        contained_by: Some(rustix::process::getpid()),
    };
    let process = process::start(&confinement, &spec, &job.stdio)?;
    let rights = show.as_ref().map(Show::rights);
    if let Some(show) = show {
        let begin = || rustix::process::fchdir(&proc).and_then(|()| show.begin(&proc));
        begin().map_err(|errno| SandboxError::setup(Stage::Messages, "/proc", errno))?;
    }
    let (status, usage) = wait_for(process, &proc);
    if let Some(rights) = rights {
        rights.restore();
    }
    Ok(ExitReport {
        status,
        wall_time: started.elapsed(),
        user_time: usage.user,
        system_time: usage.system,
        peak_memory: usage.peak_memory,
        created: Vec::new(),
        timed_out: false,
        halted: None,
        out_of_memory: None,
    })
}

/// Refuses what takes namespaces.
pub(super) fn refuse(spec: &ProcessSpec) -> Result<(), SandboxError> {
    let what = match spec {
        ProcessSpec { privileged: true, .. } => "a privileged process",
        ProcessSpec { network: NetworkMode::Private, .. } => "a process in a network of its own",
        _ if spec.limits != Limits::default() => {
            "a limit of all processes together (`--memory`, `--cpus`, `--pids-limit`)"
        }
        _ => return Ok(()),
    };
    Err(SandboxError::Unavailable(format!(
        "{what} needs namespaces, and this build runs without: `formwork doctor` tells what this \
         machine lacks"
    )))
}

/// Reaps whatever ends, until the process has or the helper says so; then ends all that is left.
fn wait_for(process: Pid, proc: &OwnedFd) -> (ExitStatus, Usage) {
    let mut usage = Usage::default();
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
        if let Some(status) = reap(process, &mut usage) {
            break status;
        }
    };
    // Those whose parents have just ended are children of this process now.
    while let Ok(found) = sys::wait(None, false) {
        match found {
            Some(waited) => usage.add(&waited),
            None => end_children(proc),
        }
    }
    (status, usage)
}

/// Kills all children. It is called again until there are none; one that was missed because it had
/// just come is found then.
fn end_children(proc: &OwnedFd) {
    for child in children(proc) {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
}

/// Ends what first processes that were killed have left, which are children of this process then;
/// not those others that still run.
pub(crate) fn end_left(running: &[Pid]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(proc) = rustix::fs::open("/proc", flags, Mode::empty()) else { return };
    loop {
        let mut left = children(&proc);
        left.retain(|child| !running.contains(child));
        for child in &left {
            let _ = rustix::process::kill_process(*child, Signal::KILL);
            let _ = sys::wait(Some(*child), true);
        }
        if left.is_empty() {
            return;
        }
    }
}

fn children(proc: &OwnedFd) -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(directory) = Dir::read_from(proc) else { return Vec::new() };
    let processes = directory.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str().ok()?.parse().ok()?;
        (parent(proc, pid)? == own).then(|| Pid::from_raw(pid)).flatten()
    });
    processes.collect()
}

/// The parent of a process, which is the second field behind the name in parentheses.
fn parent(proc: &OwnedFd, pid: i32) -> Option<i32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, format!("{pid}/stat"), flags, Mode::empty()).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
