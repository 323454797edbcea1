//! System calls as a process in a sandbox makes them. The program itself is the process: it runs
//! with the host's root, read-only, as its own.

#![expect(unsafe_code, reason = "raw system calls")]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use formwork_sandbox::{NetworkMode, ProcessSpec, RootFs};

use crate::arena::Arena;
use crate::payload::{self, PAYLOAD};
use crate::rungs::{has_user_namespaces, on_each_rung};

/// This program as a process in a sandbox.
fn payload(arena: &Arena, name: &str) -> ProcessSpec {
    let program = arena.program();
    let args = [program.to_str().unwrap(), "--exact", "payload::run", "--nocapture"];
    let mut spec = ProcessSpec::new(RootFs::read_only(["/"]), args);
    spec.env = vec![(PAYLOAD.into(), name.into())];
    spec
}

#[test]
fn the_filter_is_dockers() {
    on_each_rung(|arena| {
        let text = arena.run_as_is(payload(arena, "syscalls")).success();
        let expected = [
            ("keyctl", libc::EPERM),
            ("add_key", libc::EPERM),
            ("io_uring_setup", libc::EPERM),
            ("userfaultfd", libc::EPERM),
            ("unshare user", libc::EPERM),
            ("clone user", libc::EPERM),
            ("clone3", libc::ENOSYS),
            ("call 5000", libc::ENOSYS),
            ("socket vsock", libc::EPERM),
            ("socket alg", libc::EPERM),
            ("socket alg, upper half set", libc::EPERM),
            ("socket unix", 0),
            ("personality ask", 0),
            ("personality addr_no_randomize", libc::EPERM),
            ("ptrace traceme", 0),
            ("mount", libc::EPERM),
            ("open_by_handle_at", libc::EPERM),
            ("name_to_handle_at", libc::EFAULT),
        ];
        for (call, errno) in expected {
            assert!(text.contains(&format!("\n{call}: {errno}\n")), "{call} {errno}:\n{text}");
        }
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_filter_also_holds_for_the_32_bit_calls() {
    on_each_rung(|arena| {
        let text = arena.run_as_is(payload(arena, "syscalls")).success();
        if text.contains("\ni386 getpid: -38\n") || text.contains("i386: none") {
            return eprintln!("skipped: this kernel runs no 32-bit programs");
        }
        // 32-bit calls return the negative error; the process's number is 2 or a thread's.
        assert!(text.contains("\ni386 getpid: 2\n"), "{text}");
        assert!(text.contains(&format!("\ni386 unshare user: -{}\n", libc::EPERM)), "{text}");
        assert!(text.contains(&format!("\ni386 keyctl: -{}\n", libc::EPERM)), "{text}");
        assert!(text.contains(&format!("\ni386 clone3: -{}\n", libc::ENOSYS)), "{text}");
    });
}

#[test]
fn privileged_processes_have_no_filter_and_all_capabilities_of_their_namespace() {
    on_each_rung(|arena| {
        let mut spec = payload(arena, "syscalls");
        spec.privileged = has_user_namespaces();
        if !spec.privileged {
            return;
        }
        let text = arena.run_as_is(spec).success();
        for call in ["unshare user", "mount", "socket unix"] {
            assert!(text.contains(&format!("\n{call}: 0\n")), "{call}:\n{text}");
        }
    });
}

#[test]
fn the_keys_of_the_users_session_are_out_of_reach() {
    on_each_rung(|arena| {
        let mut spec = payload(arena, "syscalls");
        spec.privileged = has_user_namespaces();
        let text = arena.run_as_is(spec).success();
        let inside = text.lines().find(|line| line.starts_with("session keyring: ")).unwrap();
        assert_ne!(inside, session_keyring());
    });
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let probe = formwork_sandbox::probe().unwrap();
    if !probe.features.iter().any(|f| f.name == "Landlock scopes" && f.available) {
        return eprintln!("skipped: this kernel has no Landlock scopes");
    }
    on_each_rung(|arena| {
        let name = payload::marker();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let mut spec = payload(arena, "connect");
        spec.env.push(("NAME".into(), name.into()));
        for (network, expected) in
            [(NetworkMode::Host, "PermissionDenied"), (NetworkMode::None, "ConnectionRefused")]
        {
            spec.network = network;
            let text = arena.run_as_is(spec.clone()).success();
            assert!(text.contains(&format!("outside: {expected}\n")), "{text}");
            assert!(text.contains("inside: ok\n"), "{text}");
        }
    });
}

/// The payload: connects to a socket of the host, and to one of its own.
pub(crate) fn connect() {
    let connect = |name: &str| {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        match UnixStream::connect_addr(&address) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    };
    let own = SocketAddr::from_abstract_name("own").unwrap();
    let _listener = UnixListener::bind_addr(&own).unwrap();
    println!("outside: {}", connect(&std::env::var("NAME").unwrap()));
    println!("inside: {}", connect("own"));
}

fn session_keyring() -> String {
    // SAFETY: no pointers.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, -3, 0) };
    format!("session keyring: {id}")
}

/// The payload: makes the calls and prints the error numbers.
pub(crate) fn report() {
    println!();
    println!("{}", session_keyring());
    let calls: &[(&str, &dyn Fn() -> libc::c_long)] = &[
        ("keyctl", &|| call(libc::SYS_keyctl, [0, -1, 0, 0, 0])),
        ("add_key", &|| call(libc::SYS_add_key, [0; 5])),
        ("io_uring_setup", &|| call(libc::SYS_io_uring_setup, [0; 5])),
        ("userfaultfd", &|| call(libc::SYS_userfaultfd, [1; 5])),
        ("clone3", &|| call(libc::SYS_clone3, [0; 5])),
        ("call 5000", &|| call(5000, [0; 5])),
        ("socket vsock", &|| call(libc::SYS_socket, [40, 1, 0, 0, 0])),
        ("socket alg", &|| call(libc::SYS_socket, [38, 5, 0, 0, 0])),
        ("socket alg, upper half set", &|| call(libc::SYS_socket, [38 | 1 << 32, 5, 0, 0, 0])),
        ("socket unix", &|| call(libc::SYS_socket, [1, 1, 0, 0, 0])),
        ("personality ask", &|| call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0])),
        ("personality addr_no_randomize", &|| {
            call(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0])
        }),
        ("open_by_handle_at", &|| call(libc::SYS_open_by_handle_at, [-100, 0, 0, 0, 0])),
        ("name_to_handle_at", &|| call(libc::SYS_name_to_handle_at, [-100, 1, 1, 1, 0])),
        ("clone user", &clone_user),
        ("mount", &mount),
        ("ptrace traceme", &|| in_child(|| call(libc::SYS_ptrace, [0; 5]))),
        ("unshare user", &unshare_user),
    ];
    for (name, make) in calls {
        println!("{name}: {}", make());
    }
    #[cfg(target_arch = "x86_64")]
    report_32_bit();
}

/// The error number of a system call.
fn call(number: libc::c_long, args: [libc::c_long; 5]) -> libc::c_long {
    let [a, b, c, d, e] = args;
    // SAFETY: the callers pass null pointers or invalid ones, which the kernel refuses.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0) };
    if result >= 0 { 0 } else { i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

/// In a child, which changes nothing for this process.
fn in_child(work: impl Fn() -> libc::c_long) -> libc::c_long {
    // SAFETY: the child makes one system call and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(work() as i32);
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        i64::from(libc::WEXITSTATUS(status))
    }
}

fn unshare_user() -> libc::c_long {
    in_child(|| call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]))
}

fn mount() -> libc::c_long {
    in_child(|| {
        // SAFETY: all pointers are to NUL-terminated strings.
        let result = unsafe {
            let kind = c"tmpfs".as_ptr();
            libc::mount(kind, c"/dev/shm".as_ptr(), kind, 0, std::ptr::null())
        };
        if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap().into() }
    })
}

fn clone_user() -> libc::c_long {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM it is a fork; a child would end at once.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match result {
        // SAFETY: always sound.
        0 => unsafe { libc::_exit(0) },
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap().into(),
        _ => 0,
    }
}

/// The old entry for 32-bit programs, which 64-bit ones may use as well.
#[cfg(target_arch = "x86_64")]
fn report_32_bit() {
    for (name, number, argument) in [
        ("getpid", 20, 0),
        ("unshare user", 310, libc::CLONE_NEWUSER),
        ("keyctl", 288, 0),
        ("clone3", 435, 0),
    ] {
        let result: i32;
        // SAFETY: the calls take no pointers; the kernel saves all registers but the result's.
        unsafe {
            std::arch::asm!(
                "push rbx", "mov ebx, {argument:e}", "int 0x80", "pop rbx",
                argument = in(reg) argument,
                inlateout("eax") number => result,
                in("ecx") 0, in("edx") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        println!("i386 {name}: {result}");
    }
}

impl Arena {
    /// Runs something whose root is complete.
    fn run_as_is(&self, spec: ProcessSpec) -> crate::arena::Ended {
        let cancel = formwork_sandbox::Cancel::new().unwrap();
        crate::arena::run(&self.launcher, &spec, &cancel).unwrap()
    }
}
