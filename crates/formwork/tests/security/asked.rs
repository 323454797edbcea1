//! Processes that lie to the supervisor of a single id, ask it nonsense, or ask in ways that it could
//! forget: none may gain anything, and whoever asks afterwards gets the truth.
//!
//! The program is executed within a step by [`crate::calls`]; it never does anything outside of it.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_long};

use crate::calls::{SHELL_FUNCTION, address, call};
use crate::escapes::arm;
use crate::support::{Rung, Site};
use crate::target::{SECRET, Target};

const HERE: c_long = libc::AT_FDCWD as c_long;
/// A file whose owner is told truly as long as all is well.
const TRUTH: &str = "/tmp/truth";

/// Runs an attempt in a step with a single id; it has to succeed, and nothing outside to change.
fn ask(attempt: &str) {
    ask_on(Rung::SingleId, attempt);
}

/// The same on another rung; the script has the word by which it begins with a supervisor of devices,
/// if it would begin without one.
fn ask_on(rung: Rung, attempt: &str) {
    let Some(site) = Site::on(rung).filter(Site::make_busybox) else { return };
    arm(&site);
    let target = Target::new(&site);
    let script = format!(
        "FROM armed\nENV LIE=@HOST@/file\nRUN <<'end'\n{SHELL_FUNCTION}\necho > {TRUTH} && chown 7:8 {TRUTH}
mkdir -m 777 /tmp/l && echo > /tmp/l/own && ln -s @HOST@/file /tmp/l/link && chmod 666 /tmp/l/own
attempt {attempt} # mknod\nend\n"
    );
    site.build(&[], &target.aim(&script));
    target.assert_untouched();
}

/// Where the kernel knows owners, and a supervisor devices alone.
const KEEP_DEVICES: [Rung; 3] = [Rung::Root, Rung::RootAlone, Rung::SubordinateIds];

#[test]
fn who_changes_what_a_supervisor_looks_at_gains_nothing() {
    ask("lie 1000");
    KEEP_DEVICES.into_iter().for_each(|rung| ask_on(rung, "lie 300"));
}

#[test]
fn nonsense_leaves_a_supervisor_unharmed() {
    ask("nonsense");
    KEEP_DEVICES.into_iter().for_each(|rung| ask_on(rung, "nonsense"));
}

#[test]
fn who_exchanges_a_device_for_another_file_gains_nothing() {
    let others = [Rung::Chroot, Rung::Pod];
    KEEP_DEVICES.into_iter().chain(others).for_each(|rung| ask_on(rung, "exchange"));
}

#[test]
fn records_are_out_of_reach_of_every_call() {
    ask("forge");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn programs_of_32_bits_are_told_the_same() {
    ask("ask-by-32-bits");
}

#[test]
fn devices_are_listed_as_such() {
    for (rung, _) in Rung::ALL {
        ask_on(rung, "look");
    }
}

#[test]
fn the_record_of_a_device_is_seen_and_changed_by_nobody() {
    KEEP_DEVICES.into_iter().chain([Rung::SingleId]).for_each(|rung| ask_on(rung, "hide"));
}

/// A process has one listener, and this one goes without saying.
#[test]
fn a_step_that_answers_calls_itself_is_begun_again_without_devices() {
    for site in KEEP_DEVICES.into_iter().filter_map(Site::on).filter(Site::make_busybox) {
        arm(&site);
        let script = format!(
            "FROM armed\nRUN <<'end'\n{SHELL_FUNCTION}\n\
             attempt listen || exit 1\nmk''nod /x c 1 3 2> /dev/null || echo refused\nend\n"
        );
        let built = site.build(&[], &script);
        let is_told = |line: &&str| line.starts_with("formwork: ") || *line == "refused";
        let told: Vec<&str> = built.log().into_iter().filter(is_told).collect();
        let again = "formwork: a program of this step answers the calls of others itself, and the \
                     step is begun again, without device nodes";
        assert_eq!(told, [again, "refused"], "{:?}", site.rung());
    }
}

#[test]
fn lists_of_access_are_kept_and_set_the_mode() {
    ask("list");
}

#[test]
fn sockets_tell_who_is_there() {
    ask("meet");
}

#[test]
fn paths_can_be_held_in_a_traced_step() {
    ask_on(Rung::Traced, "hold-paths");
}

/// Opens a directory, a file and a link as paths alone (`O_PATH`), as the C library does to set modes.
pub(crate) fn holds_paths() -> bool {
    let open = |base: c_long, path: &str, flags: c_int| {
        let (path, flags) = (text(path), libc::O_NOFOLLOW | flags);
        call(libc::SYS_openat, &[base, address(path.as_ptr()), flags.into()])
    };
    let directory = open(HERE, "/tmp/l", libc::O_PATH);
    directory.is_ok_and(|directory| open(directory, "own", libc::O_RDONLY).is_ok())
        && open(HERE, "/tmp/l/own", libc::O_PATH).is_ok()
        && open(HERE, "/tmp/l/own", libc::O_PATH | libc::O_DIRECTORY) == Err(libc::ENOTDIR)
        && open(HERE, "/tmp/l/link", libc::O_PATH) == Err(libc::EOPNOTSUPP)
}

#[test]
fn what_a_traced_step_shares_by_keys_goes_with_it() {
    // By its sizes it is known among what others share.
    let mark = c_long::from(std::process::id());
    ask_on(Rung::Traced, &format!("leave-shared {mark}"));
    for (what, sizes) in [
        ("shm", vec![memory_size(mark), memory_size(mark) + 1]),
        ("sem", vec![set_size(mark)]),
        ("msg", vec![message_size(mark)]),
    ] {
        let text = fs_err::read_to_string(format!("/proc/sysvipc/{what}")).unwrap();
        let size = |line: &str| line.split_whitespace().nth(3)?.parse().ok();
        assert!(!text.lines().filter_map(size).any(|size| sizes.contains(&size)), "{text}");
    }
}

fn memory_size(mark: c_long) -> c_long {
    100_000 + 2 * mark
}

fn set_size(mark: c_long) -> c_long {
    100 + mark % 20_000
}

fn message_size(mark: c_long) -> c_long {
    100 + mark % 7_000
}

/// Makes what outlives its maker, with a key and without.
pub(crate) fn leaves_shared(mark: c_long) -> bool {
    const KEY: c_long = 0x4641_0001;
    let create = c_long::from(libc::IPC_CREAT) | 0o600;
    let message = vec![1_u8; 8192];
    call(libc::SYS_shmget, &[0, memory_size(mark), create]).is_ok()
        && call(libc::SYS_shmget, &[KEY, memory_size(mark) + 1, create]).is_ok()
        && call(libc::SYS_semget, &[KEY, set_size(mark), create]).is_ok()
        && call(libc::SYS_msgget, &[KEY, create]).is_ok_and(|queue| {
            let message = address(message.as_ptr());
            call(libc::SYS_msgsnd, &[queue, message, message_size(mark), 0]).is_ok()
        })
}

/// Whether a file's owner is still told as it was given.
fn is_true() -> bool {
    owner(TRUTH) == Some((7, 8))
}

fn owner(path: &str) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let known = fs_err::symlink_metadata(path).ok()?;
    Some((known.uid(), known.gid()))
}

/// Says what was found, to whoever reads the log of a test that has failed.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn text(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap()
}

/// Asks about paths that change all the time, as root and as a user, in so many rounds.
pub(crate) fn lies(rounds: c_long) -> bool {
    let host = std::env::var("LIE").unwrap();
    let paths = [
        "/tmp/l/own".to_owned(),
        host.clone(),
        format!("/proc/1/root{host}"),
        format!("/proc/self/root/../..{host}"),
        "/tmp/l/link".to_owned(),
        "/tmp/l/none/x".to_owned(),
        "/".to_owned(),
        String::new(),
    ];
    let paths = paths.map(text);
    let gained = while_changing(&paths, |place| {
        let gained = (0..rounds).any(|_| gains(place));
        // SAFETY: no pointers.
        unsafe { libc::setresuid(1000, 1000, 1000) };
        gained || (0..rounds).any(|_| gains(place))
    });
    !gained && is_true()
}

/// Does work while a string at an address becomes one and then another.
fn while_changing<T>(texts: &[CString], work: impl FnOnce(c_long) -> T) -> T {
    let mut memory = vec![0_u8; 4096];
    let place = memory.as_mut_ptr() as usize;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for (at, byte) in
                    texts.iter().flat_map(|text| text.as_bytes_with_nul().iter().enumerate())
                {
                    // SAFETY: within the memory, which outlives the thread. To read and write it at
                    // the same time is what this is about; the kernel alone reads.
                    unsafe { std::ptr::write_volatile((place as *mut u8).add(at), *byte) };
                }
            }
        });
        let result = work(place as c_long);
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

/// Makes every call about a path; whether one gives what the host has.
fn gains(path: c_long) -> bool {
    let (name, value) = (text("user.x"), text("v"));
    let (name, value) = (address(name.as_ptr()), address(value.as_ptr()));
    let mut space = [0_u8; 4096];
    let room = space.as_mut_ptr() as c_long;
    let how = [libc::O_RDWR as u64 | libc::O_CREAT as u64, 0o600, 0];
    let device = i64::from(libc::S_IFCHR | 0o666);
    let calls: [(c_long, &[c_long]); 19] = [
        (libc::SYS_openat, &[HERE, path, libc::O_RDWR.into()]),
        (libc::SYS_openat, &[HERE, path, (libc::O_RDWR | libc::O_CREAT).into(), 0o600]),
        (libc::SYS_openat2, &[HERE, path, address(how.as_ptr()), 24]),
        (libc::SYS_fchownat, &[HERE, path, 3, 4, 0]),
        (libc::SYS_fchmodat, &[HERE, path, 0o777]),
        (libc::SYS_mknodat, &[HERE, path, device, 0x103]),
        (libc::SYS_mkdirat, &[HERE, path, 0o777]),
        (libc::SYS_symlinkat, &[path, HERE, path]),
        (libc::SYS_setxattr, &[path, name, value, 1, 0]),
        (libc::SYS_getxattr, &[path, name, room, 4096]),
        (libc::SYS_listxattr, &[path, room, 4096]),
        (libc::SYS_removexattr, &[path, name]),
        (libc::SYS_newfstatat, &[HERE, path, room, 0]),
        (libc::SYS_statx, &[HERE, path, 0, 0xfff, room]),
        (libc::SYS_utimensat, &[HERE, path, 0, 0]),
        (libc::SYS_faccessat, &[HERE, path, 6]),
        (libc::SYS_truncate, &[path, 0]),
        (libc::SYS_linkat, &[HERE, path, HERE, path, 0]),
        (libc::SYS_unlinkat, &[HERE, path, 0]),
    ];
    let opens = |number| number == libc::SYS_openat || number == libc::SYS_openat2;
    calls.iter().any(|(number, arguments)| match call(*number, arguments) {
        Ok(descriptor) if opens(*number) => tells_secret(c_int::try_from(descriptor).unwrap()),
        _ => false,
    })
}

fn tells_secret(descriptor: c_int) -> bool {
    use std::io::Read;
    use std::os::fd::FromRawFd;
    // SAFETY: it was just opened here.
    let mut file = unsafe { std::fs::File::from_raw_fd(descriptor) };
    let mut bytes = [0; 64];
    let length = file.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).contains(SECRET)
}

/// Calls that a supervisor is asked about, by what both instruction sets have; the last ones are
/// newer than the C library.
const ASKED: [c_long; 40] = [
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fchownat,
    libc::SYS_fchown,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_fsetxattr,
    libc::SYS_listxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chroot,
    libc::SYS_getresuid,
    libc::SYS_getgroups,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_prlimit64,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_faccessat2,
    libc::SYS_truncate,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_fchdir,
    452,
    463,
    464,
    465,
];

/// Makes calls with addresses where nothing is, and with numbers that nobody means.
pub(crate) fn asks_nonsense() -> bool {
    let path = text("/tmp/l/own");
    let path = address(path.as_ptr());
    let border = border();
    let values =
        [0, 1, 0xfff, border, border - 8, i64::MIN, -4096, 0x7fff_ffff_f000, -1, i64::MAX, path];
    let shapes = values.iter().flat_map(|value| {
        let value = *value;
        [[value; 6], [path, value, value, value, value, value], {
            [HERE, path, value, value, value, value]
        }]
    });
    for arguments in shapes {
        in_a_child(|| {
            for number in ASKED {
                let _ = call(number, &arguments);
            }
        });
    }
    is_true()
}

/// The end of memory, before which there is a string without an end.
fn border() -> c_long {
    const PAGE: usize = 65536;
    // SAFETY: new memory, half of which is given back; nothing else uses it.
    unsafe {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(std::ptr::null_mut(), 2 * PAGE, rights, kind, -1, 0);
        libc::memset(memory, 97, PAGE);
        libc::munmap(memory.add(PAGE), PAGE);
        memory.add(PAGE) as c_long
    }
}

/// What the child becomes and does is its own; it has to come to its end.
fn in_a_child(work: impl FnOnce()) {
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: always sound.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to the number.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "{status}");
        }
    }
}

/// Tries to set, read and remove records by every call for attributes, and to have a file without
/// one by ways to make files that are new. A call that the kernel does not know fails, too.
pub(crate) fn forges() -> bool {
    let (path, link) = (text("/tmp/l/owned"), text("/tmp/l/link"));
    fs_err::write("/tmp/l/owned", "").unwrap();
    std::os::unix::fs::chown("/tmp/l/owned", Some(7), Some(8)).unwrap();
    std::os::unix::fs::lchown("/tmp/l/link", Some(7), Some(8)).unwrap();
    let (path, link) = (address(path.as_ptr()), address(link.as_ptr()));
    let name = text("user.formwork");
    let capability = text("security.capability");
    let (name, capability) = (address(name.as_ptr()), address(capability.as_ptr()));
    let mut value = [0_u8; 64];
    let value = value.as_mut_ptr() as c_long;
    let mut record = [0_u8; 20];
    record[3] = 2;
    record[12..].copy_from_slice(b"formwork");
    let record = address(record.as_ptr());
    let new = [value as u64, 8];
    let new = address(new.as_ptr());
    let flags = c_long::from(libc::AT_SYMLINK_NOFOLLOW);
    let calls: [(c_long, &[c_long]); 13] = [
        (libc::SYS_setxattr, &[path, name, value, 8, 0]),
        (libc::SYS_lsetxattr, &[path, name, value, 8, 0]),
        (libc::SYS_lsetxattr, &[link, capability, record, 20, 0]),
        (463, &[HERE, path, 0, name, new, 16]),
        (463, &[HERE, link, flags, capability, new, 16]),
        (libc::SYS_getxattr, &[path, name, value, 64]),
        (libc::SYS_lgetxattr, &[link, capability, value, 64]),
        (464, &[HERE, path, 0, name, new, 16]),
        (libc::SYS_removexattr, &[path, name]),
        (libc::SYS_lremovexattr, &[link, capability]),
        (466, &[HERE, path, 0, name]),
        (466, &[HERE, link, flags, capability]),
        // `file_setattr`, which is newer than the filter.
        (469, &[HERE, path, value, 24, 0]),
    ];
    let done: Vec<c_long> =
        calls.iter().filter(|it| call(it.0, it.1).is_ok()).map(|it| it.0).collect();
    let listed = call(libc::SYS_listxattr, &[path, value, 64]);
    let names = [text("user.formwork"), text("user.formworx")];
    while_changing(&names, |name| {
        for _ in 0..500 {
            let _ = call(libc::SYS_setxattr, &[path, name, value, 8, 0]);
            let _ = call(libc::SYS_removexattr, &[path, name]);
        }
    });
    let owners = [owner("/tmp/l/owned"), owner("/tmp/l/link")];
    tell(&format!("done: {done:?}, listed: {listed:?}, owners: {owners:?}"));
    done.is_empty()
        && listed == Ok(0)
        && owners == [Some((7, 8)); 2]
        && makes_files_of_its_own()
        && is_true()
}

/// Looks at what directories list, which programs believe without another question.
pub(crate) fn looks() -> bool {
    use std::os::unix::fs::FileTypeExt;
    let device = i64::from(libc::S_IFCHR | 0o600);
    for name in ["/tmp/l/a", "/tmp/l/b"] {
        let path = text(name);
        let arguments = [HERE, address(path.as_ptr()), device, 0x103];
        if let Err(errno) = call(libc::SYS_mknodat, &arguments) {
            tell(&format!("{name}: {errno}"));
            return false;
        }
    }
    for number in 0..2000 {
        fs_err::write(format!("/tmp/l/{number}"), "").unwrap();
    }
    let _listener = std::os::unix::net::UnixListener::bind("/tmp/l/socket").unwrap();
    let kinds =
        fs_err::read_dir("/tmp/l").unwrap().map(|entry| entry.unwrap().file_type().unwrap());
    let kinds: Vec<std::fs::FileType> = kinds.collect();
    let count = |is: fn(&std::fs::FileType) -> bool| kinds.iter().filter(|kind| is(kind)).count();
    let counts = [
        count(FileTypeExt::is_char_device),
        count(FileTypeExt::is_socket),
        count(|kind| kind.is_symlink()),
        count(|kind| kind.is_file()),
    ];
    tell(&format!("{counts:?}"));
    counts == [2, 1, 1, 2001]
}

/// Makes a device, and looks for what is kept of it.
pub(crate) fn hides() -> bool {
    let (path, name) = (text("/tmp/l/device"), text("security.capability"));
    let (path, name) = (address(path.as_ptr()), address(name.as_ptr()));
    let mode = i64::from(libc::S_IFBLK | 0o600);
    call(libc::SYS_mknodat, &[HERE, path, mode, 0x801]).unwrap();
    let mut space = [0_u8; 64];
    let space = space.as_mut_ptr() as c_long;
    let found = [
        call(libc::SYS_lgetxattr, &[path, name, space, 64]),
        call(libc::SYS_llistxattr, &[path, space, 64]),
        call(libc::SYS_lsetxattr, &[path, name, space, 20, 0]),
        call(libc::SYS_lremovexattr, &[path, name]),
    ];
    tell(&format!("{found:?}"));
    found == [Err(libc::ENODATA), Ok(0), Err(libc::EPERM), Err(libc::EPERM)] && is_true()
}

/// Whether a process can have the calls of others answered.
pub(crate) fn listens() -> bool {
    const NEW_LISTENER: c_long = 8;
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut allow = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let operation = libc::SECCOMP_SET_MODE_FILTER.into();
    let program = (&raw const program) as c_long;
    call(libc::SYS_seccomp, &[operation, NEW_LISTENER, program]).is_ok()
}

/// Gives devices of a user's own to that user again, by a descriptor behind which there is a file of
/// root's in turns; whether that never becomes the user's. (Where the kernel gives the device away, it
/// stops being one, so there are many.)
pub(crate) fn exchanges() -> bool {
    const SHARED: c_int = 100;
    let open = |name: &CString| {
        // SAFETY: the path is a string that ends with a zero.
        unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW) }
    };
    let devices: Vec<CString> = (0..200).map(|number| text(format!("/tmp/l/{number}"))).collect();
    for device in &devices {
        let mode = i64::from(libc::S_IFCHR | 0o600);
        call(libc::SYS_mknodat, &[HERE, address(device.as_ptr()), mode, 0x103]).unwrap();
        std::os::unix::fs::chown(device.to_str().unwrap(), Some(1000), Some(1000)).unwrap();
    }
    fs_err::write("/tmp/l/roots", "").unwrap();
    let roots = open(&text("/tmp/l/roots"));
    let own = std::sync::atomic::AtomicI32::new(roots);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // SAFETY: the descriptor is used for nothing else.
                [own.load(Ordering::Relaxed), roots].iter().for_each(|descriptor| unsafe {
                    libc::dup2(*descriptor, SHARED);
                });
            }
        });
        // SAFETY: no pointers. This thread alone becomes a user.
        unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) };
        let nameless = text("");
        for device in &devices {
            own.store(open(device), Ordering::Relaxed);
            for _ in 0..8 {
                let (nameless, flag) = (address(nameless.as_ptr()), libc::AT_EMPTY_PATH.into());
                let _ = call(libc::SYS_fchownat, &[SHARED.into(), nameless, 1000, 1000, flag]);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let owners = [owner("/tmp/l/0"), owner("/tmp/l/roots")];
    tell(&format!("{owners:?}"));
    owners == [Some((1000, 1000)), Some((0, 0))] && is_true()
}

/// Gives a file a list with a user who is nobody to the kernel, and takes it away.
pub(crate) fn lists() -> bool {
    use std::os::unix::fs::MetadataExt;
    // As the kernel takes it: version 2, then of each entry its kind, its rights and its number.
    let none = u32::MAX;
    let entries =
        [(1_u8, 6_u8, none), (2, 7, 1000), (4, 4, none), (0x10, 7, none), (0x20, 0, none)];
    let entries =
        entries.map(|(kind, rights, id)| [&[kind, 0, rights, 0][..], &id.to_le_bytes()].concat());
    let list = [vec![2, 0, 0, 0], entries.concat()].concat();
    let (path, name) = (text("/tmp/l/own"), text("system.posix_acl_access"));
    let (path, name) = (address(path.as_ptr()), address(name.as_ptr()));
    let mut told = [0_u8; 128];
    let room = told.as_mut_ptr() as c_long;
    let value = address(list.as_ptr());
    let length = list.len() as c_long;
    let results = [
        call(libc::SYS_setxattr, &[path, name, value, length, 0]),
        call(libc::SYS_getxattr, &[path, name, 0, 0]),
        call(libc::SYS_getxattr, &[path, name, room, 128]),
        call(libc::SYS_getxattr, &[path, name, room, 3]),
        call(libc::SYS_listxattr, &[path, room + 64, 64]),
        call(libc::SYS_setxattr, &[path, name, value, length - 1, 0]),
        call(libc::SYS_removexattr, &[path, name]),
        call(libc::SYS_getxattr, &[path, name, 0, 0]),
    ];
    let mode = fs_err::metadata("/tmp/l/own").unwrap().mode() & 0o7777;
    tell(&format!("{results:?} {mode:o} {told:?}"));
    let expected = [
        Ok(0),
        Ok(length),
        Ok(length),
        Err(libc::ERANGE),
        Ok(24),
        Err(libc::EINVAL),
        Ok(0),
        Err(libc::ENODATA),
    ];
    results == expected && mode == 0o670 && told.starts_with(&list)
}

/// Meets a user at a socket, who leaves another one.
pub(crate) fn meets() -> bool {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    let listener = UnixListener::bind("/tmp/l/socket").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs_err::set_permissions("/tmp/l/socket", mode).unwrap();
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no pointers.
        unsafe { libc::setresuid(1000, 1000, 1000) };
        let stream = UnixStream::connect("/tmp/l/socket");
        let left = UnixListener::bind("/tmp/l/left");
        let _ = stream.and_then(|mut stream| std::io::Read::read(&mut stream, &mut [0]));
        drop(left);
        // SAFETY: always sound.
        unsafe { libc::_exit(0) }
    }
    let (stream, _) = listener.accept().unwrap();
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the structure is as long as is said.
    unsafe {
        let place = (&raw mut peer).cast();
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        libc::getsockopt(stream.as_raw_fd(), level, option, place, &raw mut length)
    };
    drop(stream);
    // SAFETY: a null pointer says that the status is not wanted.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let left = owner("/tmp/l/left");
    tell(&format!("{child}: {} {} {}, {left:?}", peer.pid, peer.uid, peer.gid));
    (peer.pid, peer.uid) == (child, 1000) && left == Some((1000, 0)) && is_true()
}

/// Makes files as a user, by a structure that has grown since: its size has to make sense.
fn makes_files_of_its_own() -> bool {
    let path = text("/tmp/l/new");
    let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, 0o600, 0, 0, 0];
    let odd = [how[0], how[1], 0, 1, 0];
    // SAFETY: no pointers.
    unsafe { libc::setresuid(1000, 1000, 1000) };
    let opens = |how: &[u64; 5], size: c_long| {
        call(libc::SYS_openat2, &[HERE, address(path.as_ptr()), address(how.as_ptr()), size])
            .map(drop)
    };
    let refused = [opens(&how, 0), opens(&how, 23), opens(&odd, 32), opens(&how, 1 << 20)];
    let opened = opens(&how, 40);
    tell(&format!("refused: {refused:?}, opened: {opened:?}"));
    refused.iter().all(Result::is_err)
        && opened.is_ok()
        && owner("/tmp/l/new").is_some_and(|owner| owner.0 == 1000)
}

/// What programs of 32 bits call, by the old entry that 64-bit ones may use as well.
#[cfg(target_arch = "x86_64")]
pub(crate) fn asks_by_32_bits() -> bool {
    const GETPID: u32 = 20;
    if call_32(GETPID, [0; 5]) < 0 {
        tell("skipped: this kernel runs no 32-bit programs");
        return true;
    }
    // SAFETY: new memory below 4 GB, which nothing else uses; it stays.
    let memory = unsafe {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 8192, rights, kind, -1, 0).cast::<u8>()
    };
    let put = |at: usize, text: &[u8]| {
        // SAFETY: within the memory, which is zero behind.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), memory.add(at), text.len()) };
        memory as u32 + at as u32
    };
    let number = |at: usize| {
        // SAFETY: within the memory, at an address that is a multiple of four.
        unsafe { memory.add(at).cast::<u32>().read_volatile() }
    };
    let (path, node) = (put(0, b"/tmp/l/own"), put(64, b"/tmp/l/node"));
    let stat = memory as u32 + 4096;
    let here = libc::AT_FDCWD as u32;
    // Mode, owner and group of `struct stat64`.
    let told = || (number(4112), number(4120), number(4124));
    let file = libc::S_IFREG | 0o666;
    let device = libc::S_IFBLK | 0o600;
    let mut wrong = Vec::new();
    let mut check = |what: &'static str, is: bool| wrong.extend((!is).then_some(what));
    check("chown32", call_32(212, [path, 70_000, 80_000, 0, 0]) == 0);
    check("stat64", call_32(195, [path, stat, 0, 0, 0]) == 0 && told() == (file, 70_000, 80_000));
    check("chown", call_32(182, [path, 5, 0xffff, 0, 0]) == 0);
    check("lstat64", call_32(196, [path, stat, 0, 0, 0]) == 0 && told() == (file, 5, 80_000));
    check("lchown32", call_32(198, [path, 9, 10, 0, 0]) == 0);
    check("fstatat64", call_32(300, [here, path, stat, 0, 0]) == 0 && told() == (file, 9, 10));
    check("fchownat", call_32(298, [here, path, 11, 12, 0]) == 0);
    let statx = call_32(383, [here, path, 0, 0x7ff, stat]);
    check("statx", statx == 0 && (number(4116), number(4120)) == (11, 12));
    check("mknod", call_32(14, [node, device, 0x801, 0, 0]) == 0);
    check("stat64 of a device", call_32(195, [node, stat, 0, 0, 0]) == 0 && told().0 == device);
    check("its number", number(4128) == 0x801);
    check("opening it", call_32(5, [node, 0, 0, 0, 0]) < 0);
    let list = put(256, &[3, 0, 4, 0]);
    check("setgroups", call_32(81, [2, list, 0, 0, 0]) == 0);
    check("getgroups32", call_32(205, [2, stat, 0, 0, 0]) == 2 && number(4100) == 4);
    check("setresgid32", call_32(210, [70_000, 70_000, 70_000, 0, 0]) == 0);
    check("getgid", call_32(47, [0; 5]) == 65534 && call_32(200, [0; 5]) == 70_000);
    check("setuid32", call_32(213, [1000, 0, 0, 0, 0]) == 0);
    check("geteuid32", call_32(201, [0; 5]) == 1000 && call_32(49, [0; 5]) == 1000);
    check("setreuid", call_32(70, [0, 0, 0, 0, 0]) == -libc::EPERM);
    check("chmod", call_32(15, [path, 0o777, 0, 0, 0]) == -libc::EPERM);
    let none = put(512, b"/root/x");
    check("open", call_32(5, [none, 0o101, 0o666, 0, 0]) == -libc::EACCES);
    tell(&format!("wrong: {wrong:?}"));
    wrong.is_empty() && is_true()
}

#[cfg(target_arch = "x86_64")]
fn call_32(number: u32, [a, b, c, d, e]: [u32; 5]) -> c_int {
    let result: c_int;
    // SAFETY: the kernel saves all registers but the result's; what it writes to is memory that the
    // caller has made for it.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {a:e}", "int 0x80", "pop rbx",
            a = in(reg) a,
            inlateout("eax") number => result,
            in("ecx") b, in("edx") c, in("esi") d, in("edi") e,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn asks_by_32_bits() -> bool {
    true
}
