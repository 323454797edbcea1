//! Starts the process itself, as its user and confined.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, Gid, Uid};

use super::Notices;
use super::target::is_dir;
use super::{program, root, target};
use crate::supervisor::Questions;
use crate::supervisor::kernel::{self, Asking};
use crate::sys::{self, Strings};
use crate::{ProcessSpec, ResourceLimit, SandboxError, Stage};

/// Where programs are looked for if the environment has no `PATH`, as Docker sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process is confined by, beside its namespaces and its root.
pub(crate) struct Confinement<'a> {
    /// The capabilities that it and all that it executes may ever have.
    pub(crate) capabilities: u64,
    /// Landlock rules.
    pub(crate) rules: Option<BorrowedFd<'a>>,
    /// The system call filter.
    pub(crate) filter: &'a [libc::sock_filter],
    /// One more, which has to be loaded.
    pub(crate) further_filter: Option<&'a [libc::sock_filter]>,
    /// What is asked of a supervisor, where there is a single id, or devices are kept.
    pub(crate) questions: Option<&'a Questions<'a>>,
    /// What is noticed, by a filter in the place of the other one.
    pub(crate) notices: Option<&'a Notices<'a>>,
    /// What a process without mounts asks about what is shown to it.
    pub(crate) asking: Option<&'a Asking>,
    /// The first process, where the builder is in a container that confines it in the same ways:
    /// what it may not do itself then counts as done, and no PID namespace ends one process with the
    /// other.
    pub(crate) contained_by: Option<Pid>,
}

/// What went wrong between `vfork` and `execve`.
#[derive(Clone, Copy)]
enum Failure {
    Step(Stage, Errno),
    /// None of the candidates could be executed.
    Exec(Errno),
}

/// Starts the process; returns when it has executed its program.
pub(crate) fn start(
    confinement: &Confinement<'_>,
    spec: &ProcessSpec,
    stdio: &[OwnedFd; 3],
) -> Result<Pid, SandboxError> {
    let cwd = open_cwd(spec)?;
    let stdio = &own_devices(stdio)?;
    let (candidates, args, env) = words(spec)?;
    let mut failure = None;
    let pid = sys::vfork(|| {
        let result = become_process(confinement, spec, stdio, &cwd);
        failure = Some(match result {
            Err((stage, errno)) => Failure::Step(stage, errno),
            Ok(()) => Failure::Exec(execute(&candidates, &args, &env)),
        });
        127
    })
    .map_err(|errno| SandboxError::setup(Stage::Fork, "the process", errno))?;
    let Some(failure) = failure else { return Ok(pid) };
    let _ = sys::wait(Some(pid), true);
    Err(match failure {
        Failure::Step(stage, errno) => self::failure(stage, spec, errno),
        Failure::Exec(errno) => match formwork_fs::RootDir::open("/") {
            Ok(root) => program::explain(spec, &candidates, errno, root),
            Err(_) => self::failure(Stage::Confine, spec, errno),
        },
    })
}

/// The standard streams, with the sandbox's own `/dev/null` in the place of the machine's: root could
/// change the rights of that one for all.
fn own_devices(stdio: &[OwnedFd; 3]) -> Result<[OwnedFd; 3], SandboxError> {
    let is_null = |file: &OwnedFd| {
        let stat = rustix::fs::fstat(file);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(1, 3)
        })
    };
    let own = |file: &OwnedFd| {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = is_null(file).then(|| rustix::fs::open("/dev/null", flags, Mode::empty()));
        match own {
            Some(Ok(own)) if is_null(&own) => Ok(own),
            // Where none could be made, it has to be the container's.
            _ => file.try_clone(),
        }
    };
    let [stdin, stdout, stderr] = stdio.each_ref().map(own);
    let failed = |error| SandboxError::setup(Stage::Stdio, "standard input and output", error);
    let all = stdin.and_then(|stdin| Ok([stdin, stdout?, stderr?]));
    all.map_err(|error: std::io::Error| failed(crate::OsError::from(error)))
}

/// The working directory, found inside the new root and without the magic links of `/proc`, so
/// neither `..` nor `/proc/self/fd/7` leads out (CVE-2024-21626).
fn open_cwd(spec: &ProcessSpec) -> Result<OwnedFd, SandboxError> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        look_up_cwd(root.as_fd(), spec)
    };
    open().map_err(|errno| {
        SandboxError::setup(Stage::WorkingDirectory, target::show(&spec.cwd), errno)
    })
}

/// The working directory beneath a root.
pub(crate) fn look_up_cwd(root: BorrowedFd<'_>, spec: &ProcessSpec) -> Result<OwnedFd, Errno> {
    let path = spec.cwd.as_path().as_os_str().as_bytes();
    let cwd = root::look_up(root, if path.is_empty() { b"." } else { path })?;
    if is_dir(&cwd)? { Ok(cwd) } else { Err(Errno::NOTDIR) }
}

/// The files that a process may execute, its arguments and its variables.
pub(crate) fn words(spec: &ProcessSpec) -> Result<(Vec<CString>, Strings, Strings), SandboxError> {
    let args = Strings::new(c_strings(spec.args.iter().map(|arg| arg.as_bytes().to_vec()))?);
    let variables = spec.env.iter();
    let variables =
        variables.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    Ok((candidates(spec)?, args, Strings::new(c_strings(variables)?)))
}

/// Why a process did not become its program, whose root is this.
pub(crate) fn explain(
    spec: &ProcessSpec,
    root: formwork_fs::RootDir,
    errno: Errno,
) -> SandboxError {
    match candidates(spec) {
        Ok(candidates) => program::explain(spec, &candidates, errno, root),
        Err(error) => error,
    }
}

/// Why it was not made.
pub(crate) fn failure(stage: Stage, spec: &ProcessSpec, errno: Errno) -> SandboxError {
    SandboxError::setup(stage, subject(stage, spec), errno)
}

/// Turns the new process, which still has all power over the namespaces, into what was specified.
///
/// It shares its memory with the first process, which stands still; nothing here allocates.
pub(crate) fn become_process(
    confinement: &Confinement<'_>,
    spec: &ProcessSpec,
    [stdin, stdout, stderr]: &[OwnedFd; 3],
    cwd: &OwnedFd,
) -> Result<(), (Stage, Errno)> {
    let at = |stage| move |errno| (stage, errno);
    confinement.end_with_first().map_err(at(Stage::Confine))?;
    rustix::stdio::dup2_stdin(stdin).map_err(at(Stage::Stdio))?;
    rustix::stdio::dup2_stdout(stdout).map_err(at(Stage::Stdio))?;
    rustix::stdio::dup2_stderr(stderr).map_err(at(Stage::Stdio))?;
    rustix::process::fchdir(cwd).map_err(at(Stage::WorkingDirectory))?;
    // A session of its own, so that it can use terminals as programs do that are logged in.
    rustix::process::setsid().map_err(at(Stage::Confine))?;
    if spec.terminal {
        rustix::process::ioctl_tiocsctty(stdin).map_err(at(Stage::Stdio))?;
    }
    // Keys are counted against the user's quota, so this may fail; then the helper's own session
    // keyring remains, which is as empty.
    let _ = sys::new_session_keyring();
    for limit in &spec.resource_limits {
        limit.set().map_err(at(Stage::Limit))?;
    }
    // Before anybody is asked about files, who may not answer yet.
    if spec.user.uid != 0 {
        [stdin, stdout, stderr].into_iter().for_each(|file| give_pipe(file, spec.user.uid));
    }
    let mut is_limited = true;
    if !spec.privileged {
        let dropped = drop_capabilities(confinement.capabilities);
        is_limited = dropped.is_ok();
        confinement.accept(dropped).map_err(at(Stage::Confine))?;
        if confinement.contained_by.is_some() {
            give_up(confinement.capabilities).map_err(at(Stage::Confine))?;
        }
    }
    if spec.no_new_privileges || !is_limited || confinement.needs_no_new_privileges(spec) {
        rustix::thread::set_no_new_privs(true).map_err(at(Stage::Confine))?;
    }
    if !spec.privileged {
        if let Some(rules) = confinement.rules {
            confinement.accept(sys::restrict(rules)).map_err(at(Stage::Confine))?;
        }
        // Before the user changes: without `no_new_privs` it takes a capability. The filter lets
        // through what follows.
        confinement.accept(confinement.set_filter()).map_err(at(Stage::Confine))?;
    } else if let Some(notices) = confinement.notices {
        // Without it, the kernel refuses devices.
        let _ = notices.ask();
    }
    if let Some(filter) = confinement.further_filter {
        sys::set_seccomp_filter(filter).map_err(at(Stage::Confine))?;
    }
    if let Some(asking) = confinement.asking {
        asking.ask().map_err(at(Stage::Confine))?;
    }
    if let Some(questions) = confinement.questions {
        questions.ask().map_err(at(Stage::Confine))?;
    }
    // Else the supervisor knows who it is.
    if !confinement.questions.is_some_and(|questions| questions.are_about_users) {
        become_user(spec).map_err(at(Stage::User))?;
    }
    // Once more, since whoever becomes another user is let go.
    confinement.end_with_first().map_err(at(Stage::Confine))?;
    sys::close_all_on_exec().map_err(at(Stage::Confine))?;
    sys::release_signals();
    Ok(())
}

/// Gives a pipe to a user, who can then open it by its name (`/dev/stdout`), as docker does.
fn give_pipe(file: &OwnedFd, uid: u32) {
    let is_pipe = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    if rustix::fs::fstat(file).is_ok_and(is_pipe) {
        // Where nobody may, the user can still write to it.
        let _ = rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

impl Confinement<'_> {
    /// Who has no power over a user namespace may confine only what never gets any; root misses
    /// nothing by that.
    fn needs_no_new_privileges(&self, spec: &ProcessSpec) -> bool {
        let is_root = spec.user.uid == 0;
        let asks = self.asking.is_some() && !kernel::may_filter();
        self.contained_by.is_some() && (is_root || asks || self.further_filter.is_some())
    }

    /// Has this process end with the first one, if no PID namespace does that.
    fn end_with_first(&self) -> Result<(), Errno> {
        self.contained_by
            .map_or(Ok(()), |first| sys::end_with(first, rustix::process::Signal::KILL))
    }

    /// Loads the filter; the one that notices, where a process may have it.
    fn set_filter(&self) -> Result<(), Errno> {
        let plain = |_| sys::set_seccomp_filter(self.filter);
        self.notices.map_or(Err(Errno::OPNOTSUPP), Notices::ask).or_else(plain)
    }

    fn accept(&self, result: Result<(), Errno>) -> Result<(), Errno> {
        match result {
            Err(Errno::PERM | Errno::ACCESS) if self.contained_by.is_some() => Ok(()),
            other => other,
        }
    }
}

/// Limits what the process, and whatever it executes, can ever get. What it has now, `execve`
/// computes anew.
fn drop_capabilities(kept: u64) -> Result<(), Errno> {
    for capability in (0..u64::BITS).filter(|bit| kept & (1 << bit) == 0) {
        match sys::drop_bounding(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives up what the process has now beyond these. With `no_new_privs` it gets none of that back,
/// even where the container does not let this process limit what it can ever get.
fn give_up(kept: u64) -> Result<(), Errno> {
    let mut sets = rustix::thread::capabilities(None)?;
    let kept = CapabilitySet::from_bits_retain(kept);
    sets.permitted &= kept;
    sets.effective &= kept;
    sets.inheritable &= kept;
    rustix::thread::set_capabilities(None, sets)
}

/// Takes on the numbers. Leaving user 0 takes all capabilities away.
fn become_user(spec: &ProcessSpec) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(spec.user.uid), Gid::from_raw(spec.user.gid));
    match sys::set_groups(&spec.user.groups) {
        // In a user namespace that somebody made without privileges, with one id, nobody may; the
        // builder's own groups stay, as in a container that lets nobody change them.
        Err(Errno::PERM) if spec.user.groups.iter().all(|group| *group == spec.user.gid) => {}
        result => result?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Executes the first candidate that can be, going on past those that are missing or forbidden, as
/// `execvp(3)` does.
pub(crate) fn execute(candidates: &[CString], args: &Strings, env: &Strings) -> Errno {
    let mut result = Errno::NOENT;
    for candidate in candidates {
        match sys::execve(candidate, args, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => result = Errno::ACCESS,
            errno => return errno,
        }
    }
    result
}

/// The files that the program may be, in the order in which they are tried.
fn candidates(spec: &ProcessSpec) -> Result<Vec<CString>, SandboxError> {
    let program = spec.args.first().map_or(&b""[..], |program| program.as_bytes());
    if program.contains(&b'/') {
        return c_strings([program.to_vec()]);
    }
    // An empty entry stands for the working directory.
    let join = |directory: &[u8]| match directory {
        b"" => program.to_vec(),
        _ => [directory, b"/", program].concat(),
    };
    c_strings(search_path(spec).as_bytes().split(|byte| *byte == b':').map(join))
}

/// The `PATH` of the environment; of several, the last, as shells take it.
pub(super) fn search_path(spec: &ProcessSpec) -> &OsStr {
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    path.map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value)
}

fn c_strings(strings: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<CString>, SandboxError> {
    strings
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| SandboxError::Spec("a string contains a NUL byte".to_owned()))
}

/// What a step of `become_process` was about, for the message.
fn subject(stage: Stage, spec: &ProcessSpec) -> PathBuf {
    match stage {
        Stage::WorkingDirectory => target::show(&spec.cwd),
        Stage::User => format!("{}:{}", spec.user.uid, spec.user.gid).into(),
        Stage::Stdio => "standard input and output".into(),
        Stage::Limit => names(&spec.resource_limits).into(),
        _ => "the process".into(),
    }
}

/// The names of limits; of those that this process could not raise so far, if there are any.
fn names(limits: &[ResourceLimit]) -> String {
    let beyond: Vec<&ResourceLimit> = limits.iter().filter(|limit| limit.is_beyond()).collect();
    let chosen = if beyond.is_empty() { limits.iter().collect() } else { beyond };
    chosen.iter().map(|limit| limit.resource.name()).collect::<Vec<_>>().join(", ")
}
