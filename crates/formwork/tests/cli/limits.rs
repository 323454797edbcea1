//! Limits of all processes of a step together. Root has them with control groups of either version,
//! ordinary users with delegated ones of version 2.

use std::path::PathBuf;

use formwork_testing::skipped;

use crate::support::{Ran, Site, on_each_rung};

/// A place where limits can be had; `None` after noting that the running test is skipped.
fn limited() -> Option<Site> {
    let site = Site::as_root()?.with_busybox();
    let ran = Ran::of(&mut site.formwork(&["run", "--memory=64m", "busybox", "true"]));
    if ran.code == Some(125) && ran.stderr.contains("cannot limit memory") {
        skipped("this machine's control groups cannot be written");
        return None;
    }
    ran.succeeded();
    Some(site)
}

#[test]
fn a_step_that_runs_out_of_its_memory_is_told_so() {
    let Some(site) = limited() else { return };
    let allocate = "dd if=/dev/zero of=/dev/null bs=300M count=1";
    // Also where the process that is killed is not the step's first.
    for step in [format!("exec {allocate}"), format!("{allocate}; exit 3")] {
        let dockerfile = format!("FROM busybox\nRUN {step}\n");
        let ran = Ran::of(&mut site.build_command(&["--memory=50m"], &dockerfile));
        let ran = ran.failed(1, "it ran out of memory: it had ");
        assert!(ran.stderr.contains("MiB, and `--memory` gives 50 MiB"), "{}", ran.stderr);
    }
    site.build(&["--memory=1g"], &format!("FROM busybox\nRUN {allocate}\n"));
}

#[test]
fn processes_and_processors_are_limited() {
    let Some(site) = limited() else { return };
    let run = |flag: &str, script: &str| {
        Ran::of(&mut site.formwork(&["run", flag, "busybox", "sh", "-c", script]))
    };
    let ran = run("--pids-limit=5", "for i in $(seq 9); do sleep 0.3 & done; wait; echo never");
    assert!(ran.stderr.contains("can't fork") && !ran.stdout.contains("never"), "{}", ran.stderr);
    // The quota of version 1, or that of version 2, in a tenth of a second. There a process sees its
    // own group as the topmost one, as runtimes need that take their number of threads from it.
    let script = "g=$(grep ':cpu[:,]' /proc/self/cgroup | cut -d : -f 3); \
                  cat /sys/fs/cgroup/cpu$g/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max";
    let quota = run("--cpus=1.25", script).stdout;
    assert_eq!(quota.split_whitespace().next(), Some("125000"));
}

/// The groups that the helper of a program has made: their names have its number.
fn groups_of(program: u32) -> Vec<PathBuf> {
    let children = fs_err::read_to_string(format!("/proc/{program}/task/{program}/children"));
    let children = children.unwrap_or_default();
    let names = children.split_whitespace().map(|id| format!("formwork-{id}-"));
    let names: Vec<String> = names.collect();
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.extend(names.iter().any(|own| name.starts_with(own)).then(|| entry.path()));
                directories.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_of_a_group() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(site) = limited() else { return };
    for signal in [None, Some(Signal::KILL), Some(Signal::TERM)] {
        let limits = ["--memory=64m", "--pids-limit=50", "--cpus=2"];
        let script = ["busybox", "sh", "-c", "echo up; sleep 60 & sleep 1"];
        let mut command = site.formwork(&[&["run"][..], &limits, &script].concat());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
        let made = groups_of(child.id());
        assert!(!made.is_empty());
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        child.wait().unwrap();
        // Who ends by themselves leaves nothing for others to clear away, as other tests would here.
        let patience = if signal.is_none() { 0 } else { 20 };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(patience);
        while made.iter().any(|path| path.exists()) {
            assert!(std::time::Instant::now() < end, "{made:?} are left");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn what_nobody_could_remove_the_next_step_with_limits_does() {
    let Some(site) = limited() else { return };
    let script = ["busybox", "sh", "-c", "echo up; sleep 5"];
    let mut command = site.formwork(&[&["run", "--memory=64m"][..], &script].concat());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let made = groups_of(child.id()).remove(0);
    child.kill().unwrap();
    child.wait().unwrap();
    // No process has such a number.
    let stale = made.with_file_name("formwork-4194399-1");
    fs_err::create_dir(&stale).unwrap();
    site.run(&["run", "--memory=64m", "busybox", "true"]);
    assert!(!stale.exists());
}

#[test]
fn limits_that_cannot_be_had_are_refused() {
    on_each_rung(|site| {
        if site.user().is_none() || !site.make_busybox() {
            return;
        }
        let ran = Ran::of(&mut site.formwork(&["run", "--memory=64m", "busybox", "echo", "ran"]));
        match ran.code {
            _ if !site.has_namespaces() => drop(ran.failed(125, "needs namespaces")),
            // The user's control groups are delegated.
            Some(0) => assert_eq!(ran.stdout, "ran\n"),
            _ => drop(ran.failed(125, "cannot limit memory")),
        }
    });
}
