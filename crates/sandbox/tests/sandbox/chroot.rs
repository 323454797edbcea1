//! Processes without namespaces, in a chroot.

use std::path::PathBuf;
use std::process::Command;

use formwork_sandbox::{Cancel, ExitStatus, NetworkMode, ProcessSpec, RootFs, User};
use rustix::process::Signal;

use crate::arena::{self, Arena, Ended, rel};
use crate::payload::{marker, processes_with, starter_of, until};

/// A root with busybox and some of what images have; `None` for whoever may not change the root.
fn root(arena: &Arena) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can change its root");
        return None;
    }
    arena.tree("busybox", &[("proc/", ""), ("dev/null", ""), ("srv/", "")]);
    Some(arena.path("busybox"))
}

fn make(arena: &Arena) -> Option<PathBuf> {
    // Before the directory is there for another reason.
    arena.busybox();
    root(arena)
}

fn script(root: &PathBuf, script: &str) -> ProcessSpec {
    ProcessSpec::new(RootFs::in_place(root), ["sh", "-c", script])
}

fn run(arena: &Arena, spec: &ProcessSpec) -> Ended {
    arena::run(&arena.launcher, spec, &Cancel::new().unwrap()).unwrap()
}

#[test]
fn changes_stay_in_the_directory_and_the_status_comes_back() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let mut spec = script(&root, "pwd; id -u; id -g; echo \"$A\" > file; exit 7");
    spec.env.push(("A".into(), "b".into()));
    spec.cwd = rel("srv");
    spec.user = User { uid: 7, gid: 8, groups: vec![] };
    rustix::fs::chmod(root.join("srv"), rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
    let ended = run(&arena, &spec);
    assert_eq!(ended.report.status, ExitStatus::Exited(7), "{}", ended.stderr);
    assert_eq!(ended.stdout, "/srv\n7\n8\n");
    assert_eq!(fs_err::read_to_string(root.join("srv/file")).unwrap(), "b\n");
}

#[test]
fn what_a_process_leaves_running_ends_with_it() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    // A daemon, as it is started from a shell, and a child of its own.
    let name = marker();
    let daemon = "(sleep 1000 & sleep 1001; :) > /dev/null 2>&1 & sleep 0.1; echo started";
    let mut spec = script(&root, daemon);
    spec.env.push(("NAME".into(), name.clone().into()));
    assert_eq!(run(&arena, &spec).success(), "started\n");
    assert_eq!(processes_with(&name), 0);
}

#[test]
fn a_cancelled_process_ends_with_all_that_it_has_started() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let name = marker();
    let mut spec = script(&root, "trap '' TERM; sleep 1000 & sleep 1000");
    spec.env.push(("NAME".into(), name.clone().into()));
    spec.stop_grace = std::time::Duration::from_millis(50);
    let cancel = Cancel::new().unwrap();
    let ended = std::thread::scope(|scope| {
        let run = scope.spawn(|| arena::run(&arena.launcher, &spec, &cancel).unwrap());
        until(|| processes_with(&name) >= 2);
        cancel.cancel();
        run.join().unwrap()
    });
    assert_eq!(ended.report.status, ExitStatus::Signaled(9));
    assert_eq!(processes_with(&name), 0);
}

#[test]
fn nothing_outlives_a_first_process_that_is_killed() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let name = marker();
    let mut spec = script(&root, "(sleep 1000 & sleep 1000) & sleep 1000");
    spec.env.push(("NAME".into(), name.clone().into()));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| arena::run(&arena.launcher, &spec, &Cancel::new().unwrap()));
        until(|| processes_with(&name) >= 3);
        rustix::process::kill_process(starter_of(&name), Signal::KILL).unwrap();
        assert!(run.join().unwrap().is_err());
    });
    assert_eq!(processes_with(&name), 0);
}

#[test]
fn the_capabilities_do_not_lead_out() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let proc = root.join("proc");
    Command::new("mount").args(["--bind", "/proc"]).arg(&proc).status().unwrap();
    let ended = run(&arena, &script(&root, "grep -E 'CapBnd|NoNewPrivs' /proc/self/status"));
    Command::new("umount").arg(&proc).status().unwrap();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let Some([capabilities, _]) = lines.first_chunk() else { panic!("{}", ended.stderr) };
    // Docker's without SYS_CHROOT, MKNOD, and what reaches the machine's network.
    assert_eq!(*capabilities, "CapBnd:\t00000000a00001fb");
    let ended = run(&arena, &script(&root, "chroot / true; echo $?; mknod /disk b 8 0; echo $?"));
    assert!(!ended.stdout.contains('0'), "{} {}", ended.stdout, ended.stderr);
}

#[test]
fn processes_outside_get_no_signals() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let probe = formwork_sandbox::probe().unwrap();
    if !probe.features.iter().any(|f| f.name == "Landlock scopes" && f.available) {
        return eprintln!("skipped: this kernel has no Landlock scopes");
    }
    let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
    let kill = format!("kill -9 {}; kill -0 $PPID; echo $?", outside.id());
    let ended = run(&arena, &script(&root, &kill));
    assert_eq!(ended.stdout, "1\n", "{}", ended.stderr);
    assert!(outside.try_wait().unwrap().is_none());
    outside.kill().unwrap();
    outside.wait().unwrap();
}

#[test]
fn without_a_network_there_are_no_sockets_of_one() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    std::os::unix::fs::symlink("busybox", root.join("bin/nc")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // For as long as this program runs; whoever connects reads the end.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let connect = format!("nc -w 1 127.0.0.1 {port} < /dev/null 2>&1; echo $?");
    for uid in [0, 7] {
        let mut spec = script(&root, &connect);
        spec.user = User { uid, gid: uid, groups: vec![] };
        assert_eq!(run(&arena, &spec).stdout, "0\n");
        spec.network = NetworkMode::None;
        let ended = run(&arena, &spec);
        assert!(
            ended.stdout.ends_with("family not supported by protocol\n1\n"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn what_takes_namespaces_is_refused() {
    let arena = Arena::new();
    let Some(root) = make(&arena) else { return };
    let network = ProcessSpec { network: NetworkMode::Private, ..script(&root, "true") };
    let privileged = ProcessSpec { privileged: true, ..script(&root, "true") };
    for (spec, what) in [(network, "a network of its own"), (privileged, "a privileged process")] {
        let error = arena::run(&arena.launcher, &spec, &Cancel::new().unwrap()).err().unwrap();
        assert!(error.to_string().contains(what), "{error}");
    }
}
