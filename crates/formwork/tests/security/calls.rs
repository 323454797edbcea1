//! The attempts that take system calls, which no shell makes. This program is executed in a step
//! for each.
//!
//! None does harm where it succeeds: signals are number 0, what is set is what was set before,
//! what is loaded is nothing, and answers that come after the kernel's question whether one may
//! count as success.

#![expect(unsafe_code, reason = "raw system calls")]
#![expect(clippy::exit, reason = "a shell asks for the result")]

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::ptr;

use libc::{c_int, c_long};

/// Names what to do, with its arguments; in the environment of the executed program.
pub(crate) const ATTEMPT: &str = "ATTEMPT";

/// How a shell makes an attempt with this program, which lies in the root directory.
pub(crate) const SHELL_FUNCTION: &str =
    "attempt() { ATTEMPT=\"$*\" /attempt --exact calls::run --nocapture; }";

/// Not a test of its own: the entrance for attempts.
#[test]
fn run() {
    let Ok(words) = std::env::var(ATTEMPT) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
    if words[0] == "hold" {
        hold();
    }
    let is_open = attempt(words[0], number(1), words.get(1).copied().unwrap_or_default());
    std::process::exit(if is_open { 0 } else { 3 })
}

fn attempt(name: &str, number: c_long, word: &str) -> bool {
    match name {
        "trace" => trace(number),
        "memory" => reaches_memory(number),
        "neighbours" => reaches_neighbours(),
        "descriptors" => takes_descriptor(number),
        "signal" => signals(number),
        "limit" => limits(number),
        "slow-down" => slows(number),
        "mount" => mounts(),
        "climb" => climbs(word),
        "handle" => opens_by_handle(),
        "module" => loads_module(),
        "bpf" => makes_map(),
        "kexec" => is_let(libc::SYS_kexec_load, &[0, 0, 0, 0xff00]),
        "perf" => opens_counter(),
        "userfaultfd" => is_let(libc::SYS_userfaultfd, &[0]),
        "io_uring" => is_let(libc::SYS_io_uring_setup, &[0, 0]),
        "keys" => reads_keys(),
        "reboot" => is_let(libc::SYS_reboot, &[1, 1, 0, 0]),
        "swap" => {
            let path = CString::new("/nowhere/at/all").unwrap();
            is_let(libc::SYS_swapoff, &[address(path.as_ptr())])
        }
        "accounting" => {
            let path = CString::new("/nowhere/at/all").unwrap();
            is_let(libc::SYS_acct, &[address(path.as_ptr())])
        }
        "clock" => sets_clock(),
        "host-name" => sets_host_name(),
        "terminal" => types(),
        "shared-memory" => attaches(number),
        "abstract" => connects_abstract(word),
        "sockets-with-paths" => reaches_sockets(word),
        "hold-paths" => crate::asked::holds_paths(),
        "leave-shared" => crate::asked::leaves_shared(number),
        "port" => TcpStream::connect((Ipv4Addr::LOCALHOST, port(number))).is_ok(),
        "raw-socket" => {
            socket(libc::AF_PACKET, libc::SOCK_RAW) || socket(libc::AF_INET, libc::SOCK_RAW)
        }
        "low-port" => (600..610).any(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()),
        "strange-socket" => [libc::AF_VSOCK, libc::AF_ALG, 43]
            .iter()
            .any(|family| socket(*family, libc::SOCK_STREAM)),
        "watch" => watches(),
        "device-rights" => sets_device_rights(),
        "ports-of-the-machine" => reaches_ports(),
        "go-on-in-proc" => crate::shown::goes_on_to(number),
        "lie" => crate::asked::lies(number),
        "nonsense" => crate::asked::asks_nonsense(),
        "meet" => crate::asked::meets(),
        "look" => crate::asked::looks(),
        "listen" => crate::asked::listens(),
        "hide" => crate::asked::hides(),
        "exchange" => crate::asked::exchanges(),
        "list" => crate::asked::lists(),
        "forge" => crate::asked::forges(),
        "ask-by-32-bits" => crate::asked::asks_by_32_bits(),
        "race-in-proc" => crate::shown::races_to(number),
        other => panic!("what is {other}?"),
    }
}

/// Sets the rights, as they are, of what the standard streams are, if it is a device that is none of
/// the root's own file system.
fn sets_device_rights() -> bool {
    let state = |fd: c_int| {
        // SAFETY: the structure consists of integers, for which zero is a value, and lives on.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(fd, &raw mut stat) == 0).then_some(stat)
        }
    };
    let own = fs_err::metadata("/").map(|root| std::os::unix::fs::MetadataExt::dev(&root));
    (0..3).any(|fd| {
        state(fd).is_some_and(|stat| {
            let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
            let is_own = own.as_ref().is_ok_and(|own| *own == stat.st_dev);
            // SAFETY: no pointers.
            is_device && !is_own && unsafe { libc::fchmod(fd, stat.st_mode & 0o7777) } == 0
        })
    })
}

/// What is attacked from within: a process outside with a service on the loopback interface, an
/// abstract socket and shared memory. Tells its number, its port, and the memory's.
fn hold() -> ! {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // SAFETY: no pointers.
    let memory = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600 | libc::IPC_CREAT) };
    // SAFETY: as above. What nobody is attached to goes with the last who was.
    unsafe {
        libc::shmat(memory, ptr::null(), 0);
        libc::shmctl(memory, libc::IPC_RMID, ptr::null_mut());
    }
    let pid = std::process::id();
    let name = SocketAddr::from_abstract_name(format!("formwork-test-{pid}")).unwrap();
    let socket = UnixListener::bind_addr(&name).unwrap();
    // Whoever reaches one of them sees the end at once.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    std::thread::spawn(move || socket.incoming().for_each(drop));
    let mut output = std::io::stdout();
    writeln!(output, "\n{pid} {port} {memory}").and_then(|()| output.flush()).unwrap();
    // Until whoever wants this is gone.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0)
}

/// The answer to a system call, or the error's number.
pub(crate) fn call(number: c_long, arguments: &[c_long]) -> Result<c_long, c_int> {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = six;
    // SAFETY: the pointers among the arguments are to memory that lives as long as the call, or
    // are refused by the kernel.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    Ok(result)
}

pub(crate) fn address<T>(pointer: *const T) -> c_long {
    pointer as c_long
}

/// Whether the kernel lets a call through to where it finds that its arguments make no sense.
fn is_let(number: c_long, arguments: &[c_long]) -> bool {
    !matches!(call(number, arguments), Err(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

fn trace(process: c_long) -> bool {
    let request =
        |request: libc::c_uint| call(libc::SYS_ptrace, &[request.into(), process, 0, 0]).is_ok();
    // What is seized goes on, and is let go when this process ends.
    request(libc::PTRACE_SEIZE)
}

/// Whether memory could be read or written, if there were any at this address.
fn reaches_memory(process: c_long) -> bool {
    let mut byte = [0_u8];
    let mut local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: 1 };
    let (local, remote) = (address(&raw mut local), address(&raw mut remote));
    [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev].iter().any(|number| {
        let result = call(*number, &[process, local, 1, remote, 1, 0]);
        matches!(result, Ok(_) | Err(libc::EFAULT))
    }) || std::fs::File::options().write(true).open(format!("/proc/{process}/mem")).is_ok()
}

/// Whether the memory can be reached of any process that has come about the same time, in another
/// session.
fn reaches_neighbours() -> bool {
    let own = c_long::from(std::process::id());
    let session = |process: c_long| call(libc::SYS_getsid, &[process]).unwrap_or(-1);
    (own - 200..own + 50)
        .filter(|process| *process > 1 && session(*process) > 0)
        .filter(|process| session(*process) != session(0))
        .any(reaches_memory)
}

fn takes_descriptor(process: c_long) -> bool {
    let Ok(process) = call(libc::SYS_pidfd_open, &[process, 0]) else { return false };
    (0..10).any(|number| call(libc::SYS_pidfd_getfd, &[process, number, 0]).is_ok())
}

fn signals(process: c_long) -> bool {
    let by_descriptor = || {
        let process = call(libc::SYS_pidfd_open, &[process, 0])?;
        call(libc::SYS_pidfd_send_signal, &[process, 0, 0, 0])
    };
    call(libc::SYS_kill, &[process, 0]).is_ok()
        || call(libc::SYS_tkill, &[process, 0]).is_ok()
        || by_descriptor().is_ok()
}

/// Sets a limit to what it is.
fn limits(process: c_long) -> bool {
    let limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let (which, limit) = (c_long::from(libc::RLIMIT_NOFILE as i32), address(&raw const limit));
    call(libc::SYS_prlimit64, &[process, which, 0, limit]).is_ok()
        && call(libc::SYS_prlimit64, &[process, which, limit, 0]).is_ok()
}

/// Sets a priority and the set of processors to what they are.
fn slows(process: c_long) -> bool {
    let mut mask = [0_u64; 128];
    let length = c_long::try_from(size_of_val(&mask)).unwrap();
    let mask = address(mask.as_mut_ptr());
    let priority = call(libc::SYS_getpriority, &[libc::PRIO_PROCESS.into(), process]);
    let processors = call(libc::SYS_sched_getaffinity, &[process, length, mask]);
    // The kernel tells the distance from 20.
    let set = |distance: c_long| {
        call(libc::SYS_setpriority, &[libc::PRIO_PROCESS.into(), process, 20 - distance])
    };
    priority.and_then(set).is_ok()
        || processors
            .and_then(|length| call(libc::SYS_sched_setaffinity, &[process, length, mask]))
            .is_ok()
}

/// Every call by which something can be mounted, unmounted or made the root.
fn mounts() -> bool {
    let _ = fs_err::create_dir_all("/tmp/of-calls/old");
    let [place, old, tmpfs, root, nothing] =
        ["/tmp/of-calls", "/tmp/of-calls/old", "tmpfs", "/", "of no kind"]
            .map(|text| CString::new(text).unwrap());
    let [place, old, tmpfs, root, nothing] =
        [&place, &old, &tmpfs, &root, &nothing].map(|text| address(text.as_ptr()));
    let here = c_long::from(libc::AT_FDCWD);
    const OPEN_TREE_CLONE: c_long = 1;
    let attributes = [0_u64; 4];
    [
        call(libc::SYS_mount, &[nothing, place, nothing, 0, 0]),
        call(libc::SYS_umount2, &[root, libc::MNT_EXPIRE.into()]),
        call(libc::SYS_fsopen, &[tmpfs, 0]),
        call(libc::SYS_fspick, &[here, root, 0]),
        call(libc::SYS_open_tree, &[here, root, OPEN_TREE_CLONE]),
        call(libc::SYS_move_mount, &[here, root, here, place, 0]),
        call(libc::SYS_mount_setattr, &[here, root, 0, address(attributes.as_ptr()), 32]),
        call(libc::SYS_pivot_root, &[place, old]),
    ]
    .iter()
    .any(|result| !matches!(result, Err(libc::EPERM | libc::EACCES | libc::ENOSYS)))
}

/// The way out of a root that is no root of a mount namespace: a second change of the root, past
/// which a directory is held open.
fn climbs(path: &str) -> bool {
    let _ = fs_err::create_dir_all("/tmp/below");
    let [below, up, here] = ["/tmp/below", "..", "."].map(|text| CString::new(text).unwrap());
    let [below, up, here] = [&below, &up, &here].map(|text| address(text.as_ptr()));
    let root = fs_err::File::open("/").unwrap();
    let root = std::os::fd::AsRawFd::as_raw_fd(&root).into();
    let _ = call(libc::SYS_chroot, &[below]);
    let _ = call(libc::SYS_fchdir, &[root]);
    for _ in 0..64 {
        let _ = call(libc::SYS_chdir, &[up]);
    }
    let _ = call(libc::SYS_chroot, &[here]);
    // Other rules may forbid to read what has been reached all the same.
    fs_err::metadata(path).is_ok() || fs_err::metadata(path.trim_start_matches('/')).is_ok()
}

/// The root directory of whatever file system the step's root lies on, by its number.
fn opens_by_handle() -> bool {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        inode: [u32; 2],
    }
    let root = fs_err::File::open("/").unwrap();
    let mount = std::os::fd::AsRawFd::as_raw_fd(&root).into();
    let handle = Handle { bytes: 8, kind: 1, inode: [2, 0] };
    is_let(libc::SYS_open_by_handle_at, &[mount, address(&raw const handle), 0])
}

fn loads_module() -> bool {
    let nothing = CString::default();
    let text = address(nothing.as_ptr());
    let _ = fs_err::write("/tmp/nothing.ko", "");
    let file = fs_err::File::open("/tmp/nothing.ko");
    let file = file.map_or(-1, std::os::fd::IntoRawFd::into_raw_fd).into();
    is_let(libc::SYS_init_module, &[text, 0, text])
        || is_let(libc::SYS_finit_module, &[file, text, 0])
        || is_let(libc::SYS_delete_module, &[text, 0])
}

/// An array of one number, which goes with this process.
fn makes_map() -> bool {
    let mut attributes = [0_u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    call(libc::SYS_bpf, &[0, address(attributes.as_ptr()), 128]).is_ok()
}

/// A counter of what this process itself does.
fn opens_counter() -> bool {
    let mut attributes = [0_u32; 32];
    // PERF_TYPE_SOFTWARE, the size, PERF_COUNT_SW_TASK_CLOCK.
    (attributes[0], attributes[1], attributes[2]) = (1, 128, 1);
    is_let(libc::SYS_perf_event_open, &[address(attributes.as_ptr()), 0, -1, -1, 0])
}

fn reads_keys() -> bool {
    let [user, name] = ["user", "formwork"].map(|text| CString::new(text).unwrap());
    let [user, name] = [&user, &name].map(|text| address(text.as_ptr()));
    const GET_KEYRING_ID: c_long = 0;
    const USER_KEYRING: c_long = -4;
    is_let(libc::SYS_keyctl, &[GET_KEYRING_ID, USER_KEYRING, 0])
        || is_let(libc::SYS_request_key, &[user, name, 0, 0])
}

/// Moves the clock by no time at all.
fn sets_clock() -> bool {
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut nothing: libc::timex = unsafe { std::mem::zeroed() };
    // ADJ_SETOFFSET by no time.
    nothing.modes = 0x0100;
    let nothing = address(&raw const nothing);
    call(libc::SYS_clock_adjtime, &[libc::CLOCK_REALTIME.into(), nothing]).is_ok()
}

/// Sets the host name to one that is longer than any can be, which is refused after the question.
fn sets_host_name() -> bool {
    let name = [b'x'; 65];
    is_let(libc::SYS_sethostname, &[address(name.as_ptr()), 65])
}

/// Types nothing into a terminal.
fn types() -> bool {
    let controlling = std::fs::File::options().read(true).write(true).open("/dev/tty");
    controlling.is_ok()
        || (0..3).any(|stream| {
            let nothing = [0_u8];
            // SAFETY: no pointers.
            let is_terminal = unsafe { libc::isatty(stream) } == 1;
            let number = c_long::try_from(libc::TIOCSTI).unwrap();
            is_terminal
                || call(libc::SYS_ioctl, &[stream.into(), number, address(nothing.as_ptr())])
                    .is_ok()
        })
}

fn attaches(memory: c_long) -> bool {
    const SHM_RDONLY: c_long = 0o10000;
    call(libc::SYS_shmat, &[memory, 0, SHM_RDONLY]).is_ok()
}

fn connects_abstract(process: &str) -> bool {
    let name = SocketAddr::from_abstract_name(format!("formwork-test-{process}")).unwrap();
    UnixStream::connect_addr(&name).is_ok()
}

/// Connects to a socket with a path, or sends nothing to one, in every way that there is.
fn reaches_sockets(path: &str) -> bool {
    let (stream, datagrams) = (format!("{path}/stream"), format!("{path}/datagrams"));
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    let mut name = [0_u8; 110];
    name[0] = libc::AF_UNIX as u8;
    name[2..2 + datagrams.len()].copy_from_slice(datagrams.as_bytes());
    // SAFETY: the structures consist of integers and pointers, for which zero is a value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_name = name.as_mut_ptr().cast();
    message.msg_hdr.msg_namelen = 3 + u32::try_from(datagrams.len()).unwrap();
    let (file, header) = (socket.as_raw_fd().into(), (&raw const message) as usize as c_long);
    UnixStream::connect(stream).is_ok()
        || socket.send_to(b"", &datagrams).is_ok()
        || call(libc::SYS_sendmsg, &[file, header, 0]).is_ok()
        || call(libc::SYS_sendmmsg, &[file, header, 1, 0]).is_ok()
        || UnixDatagram::unbound().is_ok_and(|socket| socket.connect(&datagrams).is_ok())
}

fn port(number: c_long) -> u16 {
    u16::try_from(number).unwrap()
}

fn socket(family: c_int, kind: c_int) -> bool {
    call(libc::SYS_socket, &[family.into(), kind.into(), 0]).is_ok()
}

/// Asks to be told of whatever happens on the file system.
fn watches() -> bool {
    const FAN_MARK_ADD_FILESYSTEM: c_long = 0x101;
    const FAN_OPEN: c_long = 0x20;
    let root = CString::new("/").unwrap();
    let Ok(queue) = call(libc::SYS_fanotify_init, &[0, 0]) else { return false };
    let here = c_long::from(libc::AT_FDCWD);
    let arguments = [queue, FAN_MARK_ADD_FILESYSTEM, FAN_OPEN, here, address(root.as_ptr())];
    call(libc::SYS_fanotify_mark, &arguments).is_ok()
}

#[cfg(target_arch = "x86_64")]
fn reaches_ports() -> bool {
    is_let(libc::SYS_ioperm, &[0x80, 1, 1]) || is_let(libc::SYS_iopl, &[3])
}

#[cfg(not(target_arch = "x86_64"))]
fn reaches_ports() -> bool {
    false
}
