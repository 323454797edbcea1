//! What this program does when a test executes it once more, and the processes that come of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use formwork_sandbox::{Cancel, ExitStatus, MountKind, MountPoint, SandboxError};

use crate::arena::{self, Arena};
use crate::{devices, doctor, isolation, root, rungs, syscalls};

/// Names what to do; in the environment of the executed program.
pub(crate) const PAYLOAD: &str = "FORMWORK_TEST_PAYLOAD";

/// Not a test of its own: the entrance for the other tests' processes.
#[test]
fn run() {
    match std::env::var(PAYLOAD).as_deref() {
        Err(_) => {}
        Ok("sleeper") => drop(sleep(&Arena::new(), "1000")),
        Ok("deaf") => assert_eq!(sleep(&Arena::new(), "1"), Ok(ExitStatus::Exited(0))),
        Ok("nothing") => {}
        Ok("probe") => doctor::report(),
        Ok("unmounted") => root::report_mounts(),
        Ok("umask") => run_with_a_strict_umask(),
        Ok("orphans") => lose_the_helper(),
        Ok("syscalls") => syscalls::report(),
        Ok("cgroups") => isolation::report_cgroups(),
        Ok("listen") => devices::listen(),
        Ok("connect") => syscalls::connect(),
        Ok(other) => panic!("what is {other}?"),
    }
}

/// Executes this program with a payload: in a process group of its own, deaf to the terminal's
/// signals, and making files for itself only.
pub(crate) fn spawn(payload: &str, arena: &Arena) -> Child {
    let program = std::env::current_exe().unwrap();
    let script =
        "trap '' INT HUP TERM QUIT; umask 077; exec \"$0\" --exact payload::run --nocapture";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program).env(PAYLOAD, payload);
    // It is user 0 already where this process is, and leaves its files where this one cleans up.
    command.env_remove(rungs::ENTERED).env_remove(rungs::SINGLE).env("TMPDIR", arena.path(""));
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().unwrap()
}

fn sleep(arena: &Arena, seconds: &str) -> Result<ExitStatus, SandboxError> {
    let spec = arena.with_stubs(arena.spec(&["sleep", seconds]));
    arena::run(&arena.launcher, &spec, &Cancel::new().unwrap()).map(|ended| ended.report.status)
}

/// What the sandbox makes must be for everybody all the same.
fn run_with_a_strict_umask() {
    let arena = Arena::new();
    let mut spec = arena.script("umask; stat -c %a /dev /proc /sys /dev/pts /a /a/b");
    spec.root.layers.insert(0, arena.tree("stubs", &[("dev/", ""), ("proc/", ""), ("sys/", "")]));
    let kind = MountKind::Tmpfs { size: None, mode: 0o750 };
    spec.mounts.push(MountPoint { target: arena::rel("a/b"), kind });
    let ended = arena::run(&arena.launcher, &spec, &Cancel::new().unwrap()).unwrap();
    assert_eq!(ended.success(), "0022\n755\n555\n555\n755\n755\n750\n");
}

/// Kills the helper while a sandbox runs, and runs another.
fn lose_the_helper() {
    let arena = Arena::new();
    let (launcher, spec) = (&arena.launcher, arena.with_stubs(arena.spec(&["sleep", "1000"])));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| arena::run(launcher, &spec, &Cancel::new().unwrap()));
        let helper = || descendants(std::process::id()).first().copied();
        // The helper, the first process, the process itself, and perhaps its supervisor.
        until(|| descendants(std::process::id()).len() >= 3);
        let all = descendants(std::process::id());
        rustix::process::kill_process(pid(helper().unwrap()), rustix::process::Signal::KILL)
            .unwrap();
        let error = run.join().unwrap().err();
        assert!(matches!(error, Some(SandboxError::Helper(_))), "{error:?}");
        // The helper itself stays a zombie until the launcher waits for it.
        until(|| !all.iter().any(|pid| is_running(*pid)));
    });
    assert_eq!(arena.sh("echo again"), "again\n");
}

fn pid(number: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// A value that no other process has in its environment.
pub(crate) fn marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("marker-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The number of processes that have the value in their environment.
pub(crate) fn processes_with(marker: &str) -> usize {
    numbers_with(marker).len()
}

/// The process that has started those with the value, and does not have it itself.
pub(crate) fn starter_of(marker: &str) -> rustix::process::Pid {
    let numbers = numbers_with(marker);
    let mut parents = numbers.iter().filter_map(|number| Some(stat(*number)?.1));
    pid(parents.find(|parent| !numbers.contains(parent)).unwrap())
}

fn numbers_with(marker: &str) -> Vec<u32> {
    let has_it = |directory: &PathBuf| {
        let environ = fs_err::read(directory.join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable.ends_with(marker.as_bytes()))
    };
    numbered().into_iter().filter(|(_, directory)| has_it(directory)).map(|it| it.0).collect()
}

/// All descendants of a process that have not ended, children before grandchildren.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let parents: BTreeMap<u32, u32> =
        numbered().keys().filter_map(|pid| Some((*pid, stat(*pid)?.1))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| **p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).filter(|pid| is_running(*pid)).collect()
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The state and the parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The directories of `/proc` that are processes.
fn numbered() -> BTreeMap<u32, PathBuf> {
    let entries = fs_err::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    entries.filter_map(|path| Some((number(&path)?, path))).collect()
}

/// Waits for something that must happen soon.
#[track_caller]
pub(crate) fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
