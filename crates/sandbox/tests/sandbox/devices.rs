//! Devices that processes make: noticed, or kept as data.

#![expect(unsafe_code, reason = "raw system calls")]

use std::path::PathBuf;

use formwork_sandbox::{Devices, ExitStatus, Halt, NetworkMode, ProcessSpec, RootFs, Rung, User};

use crate::arena::Arena;
use crate::payload::PAYLOAD;
use crate::rungs::{self, on_each_rung};

/// A script, and what becomes of its devices.
fn script(arena: &Arena, devices: Devices, script: &str) -> ProcessSpec {
    ProcessSpec { devices, ..arena.script(script) }
}

fn user(id: u32) -> User {
    User { uid: id, gid: id, groups: vec![id] }
}

#[test]
fn the_first_device_ends_a_process_that_is_to_be_noticed() {
    on_each_rung(|arena| {
        for (command, is_noticed) in [
            ("mknod /x c 1 3", true),
            ("cd /tmp; mknod x b 8 0", true),
            ("mknod /dev/own c 1 3", true),
            ("(mknod /x c 1 3; true) & wait", true),
            ("mkdir /r; cp -a /bin /r; chroot /r mknod /x c 1 3", true),
            ("mkdir /r; cp -a /bin /r; mkdir /r/y; chroot /r mknod /y c 1 3", false),
            ("mknod /x p", false),
            ("mknod /x c 0 0", false),
            ("mknod /tmp c 1 3", false),
            ("mknod /dev/null c 1 3", false),
            ("ln -s /none /x; mknod /x c 1 3", false),
        ] {
            let text = format!("echo before; {command} 2> /dev/null; echo after");
            let ended = arena.run(script(arena, Devices::Noticed, &text)).unwrap();
            // Where owners are data, so are devices.
            let is_noticed = is_noticed && rungs::rung() != Rung::SingleId;
            assert_eq!(ended.report.halted, is_noticed.then_some(Halt::Device), "{command}");
            let (told, status) = match is_noticed {
                true => ("before\n", ExitStatus::Signaled(9)),
                false => ("before\nafter\n", ExitStatus::Exited(0)),
            };
            assert_eq!((&*ended.stdout, ended.report.status), (told, status), "{command}");
        }
    });
}

#[test]
fn who_may_make_no_device_is_not_noticed() {
    on_each_rung(|arena| {
        for devices in [Devices::Refused, Devices::Noticed, Devices::Kept] {
            let mut spec = script(arena, devices, "mknod /tmp/x c 1 3; mknod /closed/x c 1 3");
            spec.root.layers.push(arena.tree("closed", &[("tmp/", ""), ("closed/", "")]));
            open_to_all(arena, "closed/tmp");
            spec.user = user(1000);
            let ended = arena.run(spec).unwrap();
            assert_eq!((ended.report.halted, ended.report.status), (None, ExitStatus::Exited(1)));
            let told = "mknod: /tmp/x: Operation not permitted\n\
                        mknod: /closed/x: Permission denied\n";
            assert_eq!(ended.stderr, told, "{devices:?}");
        }
    });
}

fn open_to_all(arena: &Arena, path: &str) {
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs_err::set_permissions(arena.path(path), all).unwrap();
}

/// What is there in the tree that [`MAKE`] has left, as files are told to root.
const MAKE: &str =
    "mkdir /d /e && cd /d && umask 027 && mknod c c 1 3 && mknod -m 600 b b 254 1048575 &&
mknod p p && mkdir -m 2755 /g && chown 0:7 /g && mknod /g/c c 5 1 && ln c h && cp -a c n && : > f";
const LOOK: &str = "cd /d && stat -c '%n %F %t:%T %u:%g %a %h' c b p h n f && stat -c '%g %a' /g/c
[ -c c ] && [ -b b ] && [ ! -S c ] && [ ! -f c ] && echo kinds
find . -type c | sort && find . -type s && find . -type b && ls -l c | cut -c 1-10
tar c c b | tar tv | cut -c 1-10
for f in c b; do
    cat $f 2> /dev/null && echo read $f; (: > $f) 2> /dev/null && echo wrote $f
    dd if=/dev/null of=$f seek=9 2> /dev/null && echo truncated $f
done
mknod c c 1 3 2> /dev/null || mknod /none/n c 1 3 2> /dev/null || echo refused";
const FOUND: &str = "c character special file 1:3 0:0 640 2
b block special file fe:fffff 0:0 600 1
p fifo 0:0 0:0 640 1
h character special file 1:3 0:0 640 2
n character special file 1:3 0:0 640 1
f regular empty file 0:0 0:0 640 1
7 640
kinds
./c
./h
./n
./b
crw-r-----
crw-r-----
brw-------
refused
";

#[test]
fn devices_that_are_kept_are_told_as_such_and_are_of_no_use() {
    on_each_rung(|arena| {
        let text = format!("{MAKE}\n{LOOK}");
        let ended = arena.run(script(arena, Devices::Kept, &text)).unwrap();
        assert_eq!(ended.success(), FOUND);
    });
}

/// Changes take a copy of what a layer below has, by way of overlayfs.
#[test]
fn devices_of_a_layer_below_stay_devices_whatever_is_done_to_them() {
    on_each_rung(|arena| {
        let spec = script(arena, Devices::Kept, MAKE);
        let below = spec.root.upper.clone().unwrap().upper;
        arena.run(spec).unwrap().success();
        let run = |text: &str| {
            let mut spec = script(arena, Devices::Kept, text);
            spec.root.layers.push(below.clone());
            arena.run(spec).unwrap().success()
        };
        assert_eq!(run(LOOK), FOUND);
        let look = "stat -c '%n %F %t:%T %u:%g %a %h'";
        for (change, found) in [
            ("chmod 604 c", "c character special file 1:3 0:0 604 1"),
            ("chown 5:6 c", "c character special file 1:3 5:6 640 1"),
            ("chown :6 c; chown 7 c", "c character special file 1:3 7:6 640 1"),
            ("touch -d @9 b; mv b c", "c block special file fe:fffff 0:0 600 1"),
            ("ln c x; rm h n c; mv x c", "c character special file 1:3 0:0 640 1"),
            ("cp -a b x; mv x c", "c block special file fe:fffff 0:0 600 1"),
            ("tar c b | tar x -C /e; mv /e/b c", "c block special file fe:fffff 0:0 600 1"),
            ("rm c; mknod c c 4 5", "c character special file 4:5 0:0 644 1"),
        ] {
            let text = format!("cd /d; {change}; {look} c");
            assert_eq!(run(&text).trim_end(), found, "{change}");
        }
    });
}

#[test]
fn rights_to_devices_that_are_kept_are_the_kernels() {
    on_each_rung(|arena| {
        if rungs::rung() == Rung::SingleId {
            return;
        }
        let spec = script(
            arena,
            Devices::Kept,
            "mkdir -m 700 /shut && mknod /shut/c c 1 3 && mkdir -m 755 /open && mknod /open/c c 1 3 &&
             chown 1000:1000 /open/c",
        );
        let below = spec.root.upper.clone().unwrap().upper;
        arena.run(spec).unwrap().success();
        let mut spec = script(
            arena,
            Devices::Kept,
            "stat -c %F /open/c; stat /shut/c; chown 1000:1000 /open/c && echo given
             chown 0 /open/c; chown 1001 /shut/c; chmod 600 /open/c && stat -c '%a %F' /open/c; rm /open/c",
        );
        spec.root.layers.push(below);
        spec.user = user(1000);
        let ended = arena.run(spec).unwrap();
        let refusals: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(ended.stdout, "character special file\ngiven\n600 character special file\n");
        let denied = |line: &&str| line.contains("ermission denied");
        assert_eq!(refusals.len(), 4, "{refusals:?}");
        assert!(refusals[0].contains("/shut/c") && denied(&refusals[0]), "{refusals:?}");
        assert!(refusals[1].contains("not permitted"), "{refusals:?}");
        assert!(refusals[2..].iter().all(denied), "{refusals:?}");
    });
}

#[test]
fn many_make_devices_at_once_and_some_die() {
    on_each_rung(|arena| {
        let text = "mkdir /d; cd /d
for worker in 1 2 3 4 5 6; do
    (for n in 1 2 3 4 5 6 7 8; do mknod $worker.$n c $worker $n; stat $worker.$n > /dev/null; done) &
done
(while :; do mknod x c 1 3; rm -f x; done) 2> /dev/null &
sleep 0.05; kill -9 $!
wait
find . -type c -name '*.*' | wc -l; find . -type s | wc -l";
        let ended = arena.run(script(arena, Devices::Kept, text)).unwrap();
        assert_eq!(ended.success(), "48\n0\n");
        if rungs::rung() != Rung::SingleId {
            let text = text.replace("wait\n", "sleep 1000\n");
            let ended = arena.run(script(arena, Devices::Noticed, &text)).unwrap();
            assert_eq!(ended.report.halted, Some(Halt::Device));
        }
    });
}

/// This program as a process in a sandbox that has filters of its own.
fn payload(arena: &Arena, devices: Devices) -> ProcessSpec {
    let program: PathBuf = arena.program();
    let args = [program.to_str().unwrap(), "--exact", "payload::run", "--nocapture"];
    let mut spec = ProcessSpec::new(RootFs::read_only(["/"]), args);
    spec.env = vec![(PAYLOAD.into(), "listen".into())];
    spec.network = NetworkMode::None;
    spec.devices = devices;
    spec
}

/// Only one can answer the calls of a process.
#[test]
fn who_answers_calls_of_its_own_processes_is_left_alone() {
    on_each_rung(|arena| {
        let listens = |devices| {
            let cancel = formwork_sandbox::Cancel::new().unwrap();
            let spec = payload(arena, devices);
            crate::arena::run(&arena.launcher, &spec, &cancel).unwrap()
        };
        if rungs::rung() == Rung::SingleId {
            return;
        }
        assert!(listens(Devices::Refused).success().contains("listens: 0"));
        assert_eq!(listens(Devices::Noticed).report.halted, Some(Halt::Listener));
        let busy = format!("listens: {}", libc::EBUSY);
        assert!(listens(Devices::Kept).success().contains(&busy));
    });
}

/// Tries to get a listener, after asking whether there are any, as libraries do.
pub(crate) fn listen() {
    const NEW_LISTENER: libc::c_ulong = 8;
    let load = |program: *const libc::sock_fprog| {
        // SAFETY: the pointer is null, which the kernel refuses, or to a filter of one instruction.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, NEW_LISTENER, program)
        };
        if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
    };
    assert_eq!(load(std::ptr::null()), libc::EFAULT);
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut allow = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    println!("listens: {}", load(&libc::sock_fprog { len: 1, filter: &raw mut allow }));
}
