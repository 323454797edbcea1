//! The system calls that rustix does not have, or has only as `unsafe` functions.
//!
//! All `unsafe` of the crate, and of the workspace, is here. Nothing here decides anything.

#![expect(unsafe_code, reason = "system calls without a safe wrapper elsewhere")]

pub(crate) mod notify;
pub(crate) mod trace;

use std::ffi::{CStr, CString, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the number and the descriptor of the new one.
    Parent(Pid, OwnedFd),
}

/// Makes a new process, in new namespaces (`CLONE_NEW…`), that goes on from here.
///
/// Only for processes with one thread: in the child of a threaded one, locks that other threads
/// held stay locked.
pub(crate) fn fork(namespaces: c_int) -> Result<Fork> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PIDFD | libc::SIGCHLD | namespaces;
    let flags = c_long::from(flags) & c_long::from(u32::MAX);
    // Not `clone3`, which docker's default profile hides.
    // SAFETY: without CLONE_VM the child has its own copy of the memory and goes on with its own
    // copy of this stack (null: the same address). The third argument takes the descriptor; the
    // last two, whose order depends on the architecture, are not looked at with these flags.
    let pid = unsafe {
        let null = ptr::null_mut::<c_void>();
        libc::syscall(libc::SYS_clone, flags, null, &raw mut pidfd, null, null)
    };
    match check(pid)? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            Ok(Fork::Parent(pid, pidfd))
        }
    }
}

/// Has this process get a signal when its parent ends; fails where that has ended already. Only for
/// processes that see their parent: one in a new PID namespace does not.
pub(crate) fn end_with(parent: Pid, signal: Signal) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}

/// Calls a function in a new process that shares this one's memory, while this one stands still
/// until the new one has executed a program or ended (as `vfork`, so without copying anything).
///
/// The function runs on a stack of its own and returns the code to exit with. What it writes to
/// memory, the caller sees. Only for processes with one thread.
pub(crate) fn vfork<F: FnMut() -> c_int>(mut function: F) -> Result<Pid> {
    extern "C" fn call<F: FnMut() -> c_int>(function: *mut c_void) -> c_int {
        // SAFETY: it is the pointer given to `clone` below, and the caller, who owns the function,
        // stands still.
        let function = unsafe { &mut *function.cast::<F>() };
        // A panic must not unwind into the frames of the C library.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(function)).unwrap_or(127)
    }
    const STACK: usize = 256 << 10;
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    // SAFETY: `clone` gets the end of an allocation that outlives the child's use of it, aligned
    // to 16 bytes as all ABIs want, and a function of the right type. With CLONE_VFORK this
    // thread does not go on while the child uses the shared memory, and there are no others.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(call::<F>, top, flags, (&raw mut function).cast())
    };
    if pid < 0 {
        return Err(last_error());
    }
    Pid::from_raw(pid).ok_or(Errno::SRCH)
}

/// Ends this process at once: no destructors, nothing flushed.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// Replaces the program. The lists end with a null pointer and their strings live as long as they
/// do; see [`Strings`].
pub(crate) fn execve(program: &CStr, args: &Strings, env: &Strings) -> Errno {
    // SAFETY: the three pointers are to NUL-terminated strings and null-terminated lists of such.
    unsafe { libc::execve(program.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_error()
}

/// Strings as `execve` takes them.
pub(crate) struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What the pointers point to.
    _strings: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Leaves namespaces behind for new ones.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: only `CLONE_FILES` can invalidate what other threads rely on.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Which child ended, how, and what it took.
pub(crate) struct Waited {
    pub(crate) pid: Pid,
    /// As `waitpid` gives it.
    pub(crate) status: c_int,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Largest resident set, in bytes.
    pub(crate) peak_memory: u64,
}

/// Waits for a child, or for any; `None` if none has ended yet and `block` is false.
pub(crate) fn wait(pid: Option<Pid>, block: bool) -> Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    let options = if block { 0 } else { libc::WNOHANG } | libc::__WALL;
    let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    let pid = loop {
        // SAFETY: both pointers are to live variables of the right types.
        let pid = unsafe { libc::wait4(which, &raw mut status, options, &raw mut usage) };
        match check(pid.into()) {
            Ok(_) => break pid,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    Ok(Pid::from_raw(pid).map(|pid| Waited {
        pid,
        status,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
    }))
}

/// What all children that have ended took: time of their own, time in the kernel, and the most
/// memory of one in bytes.
pub(crate) fn usage_of_children() -> (Duration, Duration, u64) {
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the pointer is to a live variable of the right type.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024;
    (duration(usage.ru_utime), duration(usage.ru_stime), peak)
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or_default();
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default())
        + Duration::from_micros(micros)
}

/// Kills all processes that this one may signal; for the first of a PID namespace, all others.
pub(crate) fn kill_all_others() {
    // SAFETY: always sound; fails where there are none.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Gives every signal its default effect and holds all of them back.
pub(crate) fn hold_signals() {
    // `struct sigaction` of the kernel: default handler, no flags, nothing masked. The C library's
    // functions leave out the signals that it uses itself, which may be ignored here, too.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is as large as the kernel's on all architectures; the calls fail
        // for the two signals that cannot be handled.
        unsafe {
            let old = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8);
        }
    }
    set_mask(true);
}

/// Lets all signals through again.
pub(crate) fn release_signals() {
    set_mask(false);
}

fn set_mask(full: bool) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills the set, which the second then reads.
    unsafe {
        if full {
            libc::sigfillset(set.as_mut_ptr());
        } else {
            libc::sigemptyset(set.as_mut_ptr());
        }
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Waits for one of the signals, which must be held back.
pub(crate) fn wait_signal(signals: &[c_int]) -> c_int {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised before it is read; the kernel may be told not to report
    // anything but the number.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::sigwaitinfo(set.as_ptr(), ptr::null_mut())
    }
}

/// A descriptor that can be read when one of the signals has come, which must be held back.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised before it is read.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC)
    };
    check(fd.into())?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for the next signal of such a descriptor; 0 for none.
pub(crate) fn next_signal(descriptor: BorrowedFd<'_>) -> c_int {
    // `struct signalfd_siginfo`, which begins with the number.
    let mut bytes = [0; 128];
    let _ = rustix::io::retry_on_intr(|| rustix::io::read(descriptor, &mut bytes));
    let [a, b, c, d, ..] = bytes;
    c_int::from_ne_bytes([a, b, c, d])
}

/// Closes every descriptor but standard input, output, error and these.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Makes every descriptor but standard input, output and error end with the next `execve`.
pub(crate) fn close_all_on_exec() -> Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: the callers own all these descriptors, and the objects that hold them are never
    // used or dropped afterwards (they diverge), or the descriptors stay open until `execve`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_…`) of a mount, and of those below it where `recursive`.
///
/// `path` is relative to the directory `at`; empty for the mount that `at` itself is.
pub(crate) fn mount_setattr(
    at: BorrowedFd<'_>,
    path: &CStr,
    attributes: u64,
    recursive: bool,
) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the pointers are to a NUL-terminated string and a structure of the given size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Sets the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer is to as many numbers as the first argument says.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Takes a capability out of the bounding set; `EINVAL` for numbers the kernel does not know.
pub(crate) fn drop_bounding(capability: u32) -> Result<()> {
    // SAFETY: no pointers.
    check(c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }))
        .map(drop)
}

/// Replaces the session keyring by a new, empty one.
pub(crate) fn new_session_keyring() -> Result<()> {
    // SAFETY: a null name makes an anonymous keyring.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            c_long::from(libc::KEYCTL_JOIN_SESSION_KEYRING),
            ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// Loads a system call filter, for this process and all that it becomes or makes.
pub(crate) fn set_seccomp_filter(program: &[libc::sock_filter]) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // Without this flag, kernels before 5.16 slow every filtered process down against Spectre 4.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the kernel only reads the instructions, whose number is right.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
    .map(drop)
}

/// The version of the kernel's Landlock; `EOPNOTSUPP` where it is switched off.
pub(crate) fn landlock_version() -> Result<i64> {
    const CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the kernel takes no structure.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, CREATE_RULESET_VERSION)
    };
    check(version)
}

/// A Landlock rule set that keeps a process from connecting to abstract Unix sockets of processes
/// outside; for [`restrict`].
pub(crate) fn abstract_socket_scope() -> Result<OwnedFd> {
    /// `struct landlock_ruleset_attr` as of Linux 6.12.
    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    let attr = RulesetAttr {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    // SAFETY: the pointer is to a structure of the given size; older kernels refuse the size.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size_of::<RulesetAttr>(),
            0,
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A Landlock rule set under which a process reaches files beneath one directory only, and
/// neither abstract sockets nor signals reach processes outside; for [`restrict`].
pub(crate) fn landlock_beneath(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    landlock(directory, None)
}

/// The rule set with one rule for a file or directory; with all rights there, if nothing is said.
fn landlock(place: BorrowedFd<'_>, allowed: Option<u64>) -> Result<OwnedFd> {
    /// `struct landlock_ruleset_attr` as of Linux 6.12.
    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    /// `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct PathBeneathAttr {
        allowed_access: u64,
        parent_fd: i32,
    }
    const VERSION: u32 = 1;
    // SAFETY: with this flag, there is nothing to point to.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0, VERSION)
    })?;
    // Rights by the version that brought them; before the second, no file could change directories.
    let rights: u64 = match version {
        ..2 => return Err(Errno::NOSYS),
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        5.. => (1 << 16) - 1,
    };
    let scoped = if version < 6 { 0 } else { 0b11 };
    let attr = RulesetAttr { handled_access_fs: rights, handled_access_net: 0, scoped };
    let size = match version {
        ..4 => 8,
        4 | 5 => 16,
        6.. => size_of::<RulesetAttr>(),
    };
    // SAFETY: the pointer is to a structure of at least the given size.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0)
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    let rules = unsafe { OwnedFd::from_raw_fd(fd) };
    let allowed_access = allowed.unwrap_or(rights);
    let beneath = PathBeneathAttr { allowed_access, parent_fd: place.as_raw_fd() };
    const PATH_BENEATH: c_int = 1;
    // SAFETY: the pointer is to a structure of the type that this kind of rule has.
    check(unsafe {
        let fd = rules.as_raw_fd();
        libc::syscall(libc::SYS_landlock_add_rule, fd, PATH_BENEATH, &raw const beneath, 0)
    })?;
    Ok(rules)
}

/// A Landlock rule set under which a process reaches no file by a path of its own but the one
/// program, and neither abstract sockets nor signals reach processes outside; for [`restrict`].
pub(crate) fn landlock_one_program(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    const EXECUTE_AND_READ: u64 = 0b101;
    landlock(program, Some(EXECUTE_AND_READ))
}

/// Puts this process, and all that it becomes or makes, under a Landlock rule set.
pub(crate) fn restrict(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}

/// Whether `mount_setattr` can be called.
pub(crate) fn probe_mount_setattr() -> Result<()> {
    // SAFETY: the kernel refuses the size before it reads anything.
    let result = check(unsafe {
        let null = ptr::null::<libc::c_char>();
        libc::syscall(libc::SYS_mount_setattr, -1, null, 0, null, 0)
    });
    expect_refusal(result, Errno::INVAL)
}

/// Whether system call filters can be loaded that have some action.
pub(crate) fn probe_seccomp(action: u32) -> Result<()> {
    // SAFETY: the pointer is to a number of the size that this operation reads.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    })
    .map(drop)
}

fn expect_refusal(result: Result<c_long>, refusal: Errno) -> Result<()> {
    match result {
        Err(errno) if errno != refusal => Err(errno),
        _ => Ok(()),
    }
}

/// Switches the loopback interface of this network namespace on.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is of the type that this ioctl reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    check(c_long::from(result)).map(drop)
}

/// The number of a terminal, by the end that has made it.
pub(crate) fn terminal_number(file: &OwnedFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the pointer is to the number that this ioctl writes.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) };
    check(c_long::from(result)).map(|_| number)
}

fn check(result: c_long) -> Result<c_long> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
