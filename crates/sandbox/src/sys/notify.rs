//! Seccomp's user notifications, and the memory of the processes that they are about.

#![expect(unsafe_code, reason = "system calls without a safe wrapper elsewhere")]

use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, Result};

use super::check;

/// A system call that waits for an answer: `struct seccomp_notif` with `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notification {
    /// Names it in the answer.
    pub(crate) id: u64,
    /// The thread that makes it, as a number of the receiver's.
    pub(crate) thread: u32,
    flags: u32,
    /// The number of the call.
    pub(crate) number: u32,
    /// `AUDIT_ARCH_…`.
    pub(crate) audit: u32,
    instruction_pointer: u64,
    /// The arguments.
    pub(crate) args: [u64; 6],
}

impl Notification {
    /// The same of a thread that stands still for its tracer, and waits for no answer.
    pub(crate) fn of_stopped(thread: u32, number: u32, audit: u32, args: [u64; 6]) -> Self {
        Self { thread, number, audit, args, ..Self::default() }
    }
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddDescriptor {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
const ADD_DESCRIPTOR: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;

const RESPONSE_CONTINUE: u32 = 1;
const ADD_DESCRIPTOR_IN_PLACE: u32 = 1;
const ADD_DESCRIPTOR_AND_SEND: u32 = 2;
const SYNCHRONOUS_WAKE_UP: u64 = 1;
/// Once a notification is received, only what kills the process ends its waiting (Linux 5.19).
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// Loads a filter that may ask, for this process and all that it becomes or makes; returns where
/// its questions arrive.
pub(crate) fn set_asking_filter(program: &[libc::sock_filter]) -> Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let load = |flags: libc::c_ulong| {
        // SAFETY: the kernel only reads the instructions, whose number is right.
        check(unsafe {
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
        })
    };
    let fd = match load(flags | WAIT_KILLABLE) {
        Err(Errno::INVAL) => load(flags)?,
        result => result?,
    };
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets asker and answerer wake each other on one processor (Linux 6.6). Without it all is the
/// same, and slower.
pub(crate) fn wake_synchronously(listener: BorrowedFd<'_>) {
    // SAFETY: no pointers.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNCHRONOUS_WAKE_UP);
    }
}

/// Waits for a call.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    // The kernel wants nothing but zeros.
    let mut notification = Notification::default();
    // SAFETY: the structure is the one that this ioctl fills.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut notification) };
    check(c_long::from(result)).map(|_| notification)
}

/// Whether there is a call that nobody has received yet.
pub(crate) fn is_pending(listener: BorrowedFd<'_>) -> bool {
    state(listener).contains(PollFlags::IN)
}

/// Whether all are gone who could ask.
pub(crate) fn is_over(listener: BorrowedFd<'_>) -> bool {
    state(listener).contains(PollFlags::HUP)
}

fn state(listener: BorrowedFd<'_>) -> PollFlags {
    let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = rustix::event::poll(&mut polled, Some(&now));
    polled[0].revents()
}

/// Whether the thread still waits for the answer; else its number may be another's by now.
pub(crate) fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the pointer is to the number that this ioctl reads.
    unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) == 0 }
}

/// Lets the kernel carry a call out as if nobody had been asked.
pub(crate) fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    respond(listener, &Response { id, value: 0, error: 0, flags: RESPONSE_CONTINUE })
}

/// Answers a call.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, result: Result<i64>) -> Result<()> {
    let (value, error) = match result {
        Ok(value) => (value, 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    respond(listener, &Response { id, value, error, flags: 0 })
}

fn respond(listener: BorrowedFd<'_>, response: &Response) -> Result<()> {
    // SAFETY: the structure is the one that this ioctl reads.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, std::ptr::from_ref(response)) };
    check(c_long::from(result)).map(drop)
}

/// Answers a call with a descriptor, which the process gets (Linux 5.14).
pub(crate) fn answer_with_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<()> {
    let target_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    let (flags, source) = (ADD_DESCRIPTOR_AND_SEND, descriptor.as_raw_fd() as u32);
    add_descriptor(listener, &AddDescriptor { id, flags, source, target: 0, target_flags })
}

/// Gives a process that waits a descriptor in the place of its own with a number, which ends with
/// the next program or does not.
pub(crate) fn replace_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    (target, close_on_exec): (u32, bool),
) -> Result<()> {
    let target_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    let (flags, source) = (ADD_DESCRIPTOR_IN_PLACE, descriptor.as_raw_fd() as u32);
    add_descriptor(listener, &AddDescriptor { id, flags, source, target, target_flags })
}

fn add_descriptor(listener: BorrowedFd<'_>, add: &AddDescriptor) -> Result<()> {
    // SAFETY: the structure is the one that this ioctl reads.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), ADD_DESCRIPTOR as _, std::ptr::from_ref(add)) };
    check(c_long::from(result)).map(drop)
}

/// Reads the memory of another process; returns how many bytes there were.
pub(crate) fn read_memory(thread: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = remote(address, buffer.len())?;
    let thread = libc::pid_t::try_from(thread).map_err(|_| Errno::SRCH)?;
    // SAFETY: the kernel writes to the buffer, which is as long as is said; the other address is
    // of another process.
    let count = check(unsafe {
        libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) as c_long
    })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Writes to the memory of another process, all or nothing that could be told.
pub(crate) fn write_memory(thread: u32, address: u64, bytes: &[u8]) -> Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = remote(address, bytes.len())?;
    let thread = libc::pid_t::try_from(thread).map_err(|_| Errno::SRCH)?;
    // SAFETY: the kernel reads from the bytes, which are as many as is said; the other address is
    // of another process.
    let count = check(unsafe {
        libc::process_vm_writev(thread, &raw const local, 1, &raw const remote, 1, 0) as c_long
    })?;
    if usize::try_from(count) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::FAULT) }
}

fn remote(address: u64, length: usize) -> Result<libc::iovec> {
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    Ok(libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: length })
}

/// Lets this thread act on files as another user (`setfsuid`), as far as it may.
pub(crate) fn act_on_files_as(uid: u32, gid: u32) {
    // SAFETY: no pointers. The calls tell nothing about whether they have succeeded; without, what
    // follows is refused or allowed as to oneself.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// What `stat` of this machine's kernel says of a path, as its bytes; the path is relative to the
/// working directory, or empty for what is open there.
pub(crate) fn raw_stat(path: &std::ffi::CStr, flags: i32) -> Result<[u8; 144]> {
    let mut bytes = [0; 144];
    // SAFETY: the structure has at most 144 bytes on all machines with 64 bits.
    check(unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            libc::AT_FDCWD,
            path.as_ptr(),
            bytes.as_mut_ptr(),
            flags,
        )
    })?;
    Ok(bytes)
}

/// The same of an open file, which may be open as a path alone.
pub(crate) fn raw_stat_of(file: BorrowedFd<'_>) -> Result<[u8; 144]> {
    let mut bytes = [0; 144];
    // SAFETY: as above; the path is empty.
    check(unsafe {
        let (file, place) = (file.as_raw_fd(), bytes.as_mut_ptr());
        libc::syscall(libc::SYS_newfstatat, file, c"".as_ptr(), place, libc::AT_EMPTY_PATH)
    })?;
    Ok(bytes)
}

/// What `fstatfs` says of a file system, as its bytes.
pub(crate) fn raw_statfs(file: BorrowedFd<'_>) -> Result<[u8; 120]> {
    let mut bytes = [0; 120];
    // SAFETY: the structure has 120 bytes on all machines with 64 bits.
    check(unsafe { libc::syscall(libc::SYS_fstatfs, file.as_raw_fd(), bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// What `statx` says of a path, as its bytes.
pub(crate) fn raw_statx(path: &std::ffi::CStr, flags: i32, mask: u32) -> Result<[u8; 256]> {
    let mut bytes = [0; 256];
    // SAFETY: the structure has 256 bytes.
    check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            mask,
            bytes.as_mut_ptr(),
        )
    })?;
    Ok(bytes)
}

/// Gives a socket an address, as the bytes of its structure.
pub(crate) fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    let length = u32::try_from(address.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel only reads the bytes, as many as is said.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    check(c_long::from(result)).map(drop)
}

/// The next entries of a directory; returns how many bytes there are.
pub(crate) fn list_directory(directory: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes to the buffer, which is as long as is said.
    let count = check(unsafe {
        let (place, length) = (list.as_mut_ptr(), list.len());
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), place, length)
    })?;
    usize::try_from(count).map_err(|_| Errno::IO)
}

/// The process at the other end of a socket.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<u32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the structure is as long as is said, and the length is written back.
    let result = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let place = (&raw mut who).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, place, &raw mut length)
    };
    check(c_long::from(result))?;
    u32::try_from(who.pid).ok().filter(|pid| *pid != 0).ok_or(Errno::SRCH)
}

/// The limit in which a process carries the number of its credentials (`RLIMIT_RSS`): what
/// applies, and the most that it may be.
pub(crate) fn carried_limit(thread: u32) -> Result<[u64; 2]> {
    let mut limit = [0_u64; 2];
    // SAFETY: the structure of this call is two numbers of 64 bits on all machines.
    check(unsafe {
        let none = std::ptr::null::<u64>();
        libc::syscall(libc::SYS_prlimit64, thread, libc::RLIMIT_RSS, none, limit.as_mut_ptr())
    })?;
    Ok(limit)
}

/// Sets that limit.
pub(crate) fn carry_limit(thread: u32, limit: [u64; 2]) -> Result<()> {
    // SAFETY: as above, and the kernel only reads.
    check(unsafe {
        let none = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_prlimit64, thread, libc::RLIMIT_RSS, limit.as_ptr(), none)
    })
    .map(drop)
}
