//! Attempts on a `/proc` that somebody shows who looks at paths before the kernel does: going on
//! from directories that were given, and changing a path while it is looked at.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a race is tried.
const RACE: Duration = Duration::from_millis(300);

/// Whether any directory of `/proc` leads on to a process, however it is gone on from there.
pub(crate) fn goes_on_to(pid: libc::c_long) -> bool {
    let own = std::process::id();
    let directories = [
        "/proc".to_owned(),
        "/proc/self".to_owned(),
        "/proc/thread-self".to_owned(),
        "/proc/self/task".to_owned(),
        "/proc/self/fd".to_owned(),
        "/proc/self/net".to_owned(),
        "/proc/self/ns".to_owned(),
        "/proc/self/root/proc".to_owned(),
        "/proc/sys/kernel".to_owned(),
        format!("/proc/{own}/task/{own}/fdinfo"),
    ];
    let ways = [
        format!("{pid}/status"),
        format!("../{pid}/status"),
        format!("../../{pid}/status"),
        format!("../../../../{pid}/status"),
        format!("self/../{pid}/status"),
        format!("self/root/../proc/{pid}/status"),
        format!("root/proc/{pid}/status"),
        format!("self/task/{pid}/status"),
    ];
    directories.iter().any(|directory| {
        [libc::O_RDONLY, libc::O_PATH].iter().any(|flags| {
            let directory = open_at(libc::AT_FDCWD, directory, flags | libc::O_DIRECTORY);
            let found = ways.iter().any(|way| leads(directory, way, pid));
            // SAFETY: nobody else has it.
            unsafe { libc::close(directory) };
            found
        })
    })
}

fn leads(directory: RawFd, way: &str, pid: libc::c_long) -> bool {
    // SAFETY: no pointers.
    let inside = directory >= 0 && unsafe { libc::fchdir(directory) } == 0;
    let opened = [
        open_at(directory, way, libc::O_RDONLY),
        open_at2(directory, way, 0),
        open_at2(directory, way, libc::RESOLVE_NO_SYMLINKS),
        open_at2(directory, way, libc::RESOLVE_BENEATH),
        if inside { open_at(libc::AT_FDCWD, way, libc::O_RDONLY) } else { -1 },
    ];
    opened.map(|fd| is_about(fd, pid)).contains(&true)
}

/// Whether a process is reached by a path that is another one when it is looked at.
pub(crate) fn races_to(pid: libc::c_long) -> bool {
    let (own, other) = (*b"/proc/self/status\0\0\0\0\0\0\0\0", format!("/proc/{pid}/status\0"));
    let mut path = [0_u8; 32];
    path[..own.len()].copy_from_slice(&own);
    let place = path.as_mut_ptr() as usize;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for text in [&own[..], other.as_bytes()] {
                    for (at, byte) in text.iter().enumerate() {
                        // SAFETY: within the array, which outlives the thread; to read and write it at
                        // the same time is what this is about, and both are volatile or the kernel's.
                        unsafe { std::ptr::write_volatile((place as *mut u8).add(at), *byte) };
                    }
                }
            }
        });
        let start = Instant::now();
        let mut found = false;
        while start.elapsed() < RACE && !found {
            // SAFETY: the array always has a zero at its end.
            let fd = unsafe { libc::open(place as *const libc::c_char, libc::O_RDONLY) };
            found = is_about(fd, pid);
        }
        is_over.store(true, Ordering::Relaxed);
        found
    })
}

fn open_at(directory: RawFd, path: &str, flags: i32) -> RawFd {
    let path = CString::new(path).unwrap();
    // SAFETY: the pointer is to a string that lives as long as the call.
    unsafe { libc::openat(directory, path.as_ptr(), flags) }
}

fn open_at2(directory: RawFd, path: &str, resolve: u64) -> RawFd {
    let path = CString::new(path).unwrap();
    let how = [0_u64, 0, resolve];
    // SAFETY: the pointers are to a string and a structure of the given size.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), how.as_ptr(), size_of_val(&how))
    };
    RawFd::try_from(fd).unwrap_or(-1)
}

/// Whether a file tells about a process, as `status` does.
fn is_about(fd: RawFd, pid: libc::c_long) -> bool {
    if fd < 0 {
        return false;
    }
    // SAFETY: it was just opened here.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text.contains(&format!("Pid:\t{pid}\n"))
}
