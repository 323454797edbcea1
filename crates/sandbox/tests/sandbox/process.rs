//! The life of a process: start, output, end, and what is left.

use std::io::{Read, Write};
use std::time::Duration;

use formwork_sandbox::{
    Cancel, ExitStatus, IdKind, ProcessSpec, Rung, SandboxError, Stdio, Upper, User,
};
use rustix::process::{Pid, Signal};

use crate::arena::{self, Arena, Ended, rel};
use crate::payload;
use crate::rungs::{on_each_rung, rung};

#[test]
fn exit_codes_and_signals_are_reported() {
    on_each_rung(|arena| {
        let status = |script: &str| arena.run(arena.script(script)).unwrap().report.status;
        assert_eq!(status("exit 0"), ExitStatus::Exited(0));
        assert_eq!(status("exit 255"), ExitStatus::Exited(255));
        assert_eq!(status("kill -KILL $$"), ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(status("kill -SEGV $$"), ExitStatus::Signaled(libc::SIGSEGV));
        assert_eq!(status("kill -TERM $$"), ExitStatus::Signaled(libc::SIGTERM));
    });
}

#[test]
fn output_and_errors_are_two_streams() {
    on_each_rung(|arena| {
        let ended = arena.run(arena.script("echo out; echo err >&2; exit 1")).unwrap();
        assert_eq!((&*ended.stdout, &*ended.stderr), ("out\n", "err\n"));
    });
}

#[test]
fn input_is_what_is_given_and_empty_by_default() {
    on_each_rung(|arena| {
        assert_eq!(arena.sh("wc -c"), "0\n");
        let (stdin, mut input) = std::io::pipe().unwrap();
        let (mut output, stdout) = std::io::pipe().unwrap();
        let stderr = stdout.try_clone().unwrap().into();
        let stdio = Stdio { stdin: Some(stdin.into()), stdout: stdout.into(), stderr };
        input.write_all(b"hello").unwrap();
        drop(input);
        let spec = arena.with_stubs(arena.spec(&["cat"]));
        arena.launcher.run(&spec, stdio, &Cancel::new().unwrap()).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    });
}

#[test]
fn directories_are_no_input_and_no_output() {
    on_each_rung(|arena| {
        let spec = arena.with_stubs(arena.script("true"));
        let null = || fs_err::File::create("/dev/null").unwrap().into_parts().0.into();
        let directory = fs_err::File::open("/").unwrap().into_parts().0.into();
        let stdio = Stdio { stdin: Some(directory), stdout: null(), stderr: null() };
        let error = arena.launcher.run(&spec, stdio, &Cancel::new().unwrap()).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");
    });
}

#[test]
fn much_output_arrives_whole() {
    on_each_rung(|arena| {
        let text = arena.sh("yes 0123456789abcde | head -c 50000000");
        assert_eq!(text.len(), 50_000_000);
        assert!(text.as_bytes().chunks(16).all(|line| line == b"0123456789abcde\n"));
    });
}

#[test]
fn the_environment_is_exactly_what_is_given() {
    on_each_rung(|arena| {
        let mut spec = arena.spec(&["env"]);
        spec.env = vec![("PATH".into(), "/none:/bin".into()), ("EMPTY".into(), "".into())];
        assert_eq!(arena.run(spec).unwrap().success(), "PATH=/none:/bin\nEMPTY=\n");
    });
}

#[test]
fn the_user_and_the_groups_are_exactly_what_is_given() {
    on_each_rung(|arena| {
        let mut spec = arena.script("id -u; id -g; id -G");
        spec.user = User { uid: 1000, gid: 100, groups: vec![100, 27] };
        assert_eq!(arena.run(spec).unwrap().success(), "1000\n100\n100 27\n");
        if rung() != Rung::SingleId {
            let mut spec = arena.script("grep Groups /proc/self/status");
            spec.user = User { uid: 1000, gid: 100, groups: vec![100, 27] };
            assert_eq!(arena.run(spec).unwrap().success(), "Groups:\t27 100 \n");
        }
        assert_eq!(arena.sh("id -u; id -G"), "0\n0\n");
    });
}

#[test]
fn ids_that_do_not_exist_are_refused_with_those_that_do() {
    on_each_rung(|arena| {
        let mut spec = arena.script("id -u");
        spec.user.uid = 3_000_000;
        match (rung(), arena.run(spec)) {
            (Rung::Root | Rung::SingleId, ended) => {
                assert_eq!(ended.unwrap().success(), "3000000\n");
            }
            (Rung::SubordinateIds, ended) => match ended.map(|ended| ended.stdout) {
                Err(SandboxError::IdNotMapped { kind: IdKind::User, id: 3_000_000, mapped }) => {
                    assert!(mapped.starts_with("0-0, 1-"), "{mapped}");
                }
                other => panic!("{other:?}"),
            },
            (other, _) => panic!("{other:?}"),
        }
        let mut spec = arena.script("true");
        spec.user.groups = vec![u32::MAX];
        let error = arena.refused(spec);
        assert!(error.contains("group 4294967295") && error.contains("/etc/subgid"), "{error}");
    });
}

#[test]
fn the_working_directory_is_found_inside() {
    on_each_rung(|arena| {
        let layer =
            arena.tree("links", &[("a/b/", ""), ("to-b", "->/a/b"), ("up", "->../../../a")]);
        let mut spec = arena.spec(&["pwd", "-P"]);
        spec.root.layers.push(layer);
        for (cwd, expected) in [("", "/"), ("a/b", "/a/b"), ("to-b", "/a/b"), ("up/b", "/a/b")] {
            spec.cwd = rel(cwd);
            let (upper, work) = arena.upper();
            spec.root.upper = Some(Upper { upper, work });
            let path = arena.run(spec.clone()).unwrap().success();
            assert_eq!(path.trim_end(), expected, "{cwd}");
        }
    });
}

#[test]
fn a_working_directory_outside_or_missing_is_refused() {
    on_each_rung(|arena| {
        let mut spec = arena.spec(&["pwd"]);
        spec.cwd = rel("missing");
        let error = arena.refused(spec.clone());
        assert!(error.contains("enter the working directory `/missing`"), "{error}");
        // CVE-2024-21626: a descriptor of the runtime as the way out.
        for fd in 0..32 {
            spec.cwd = rel(&format!("proc/self/fd/{fd}"));
            let (upper, work) = arena.upper();
            spec.root.upper = Some(Upper { upper, work });
            let error = arena.refused(spec.clone());
            assert!(error.contains("enter the working directory `/proc/self"), "{error}");
        }
    });
}

#[test]
fn what_a_process_leaves_running_ends_with_it() {
    on_each_rung(|arena| {
        // One in the background, one without a parent, one that ignores what can be ignored.
        let script = "sleep 1000 & (sleep 1000 &) ; (trap '' TERM HUP INT; sleep 1000) & exit 4";
        let (spec, marker) = marked(arena, script);
        assert_eq!(arena.run(spec).unwrap().report.status, ExitStatus::Exited(4));
        assert_eq!(payload::processes_with(&marker), 0);
    });
}

/// A script whose processes can be found.
fn marked(arena: &Arena, script: &str) -> (ProcessSpec, String) {
    let marker = payload::marker();
    let mut spec = arena.script(script);
    spec.env.push(("MARKER".into(), marker.clone().into()));
    (spec, marker)
}

#[test]
fn orphans_are_reaped_while_the_process_runs() {
    on_each_rung(|arena| {
        let script = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; sleep 0.3; \
                      cat /proc/[0-9]*/stat | cut -d ' ' -f 3 | grep -c Z";
        let ended = arena.run(arena.script(script)).unwrap();
        assert_eq!(ended.stdout, "0\n");
    });
}

#[test]
fn a_cancelled_process_may_clean_up() {
    on_each_rung(|arena| {
        let script = "trap 'echo cleaned; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut spec = arena.script(script);
        spec.stop_grace = Duration::from_secs(60);
        let ended = cancelled_when_ready(arena, spec);
        assert_eq!(ended.report.status, ExitStatus::Exited(7));
        assert_eq!(ended.stdout, "ready\ncleaned\n");
    });
}

#[test]
fn a_cancelled_process_that_does_not_end_is_killed_with_all_it_started() {
    on_each_rung(|arena| {
        let script = "trap '' TERM; sleep 1000 & echo ready; while :; do sleep 1; done";
        let (mut spec, marker) = marked(arena, script);
        spec.stop_grace = Duration::from_millis(50);
        let ended = cancelled_when_ready(arena, spec);
        assert_eq!(ended.report.status, ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(payload::processes_with(&marker), 0);
    });
}

/// Runs a script and cancels it as soon as it has said that it is ready.
fn cancelled_when_ready(arena: &Arena, spec: ProcessSpec) -> Ended {
    let cancel = Cancel::new().unwrap();
    let spec = arena.with_stubs(spec);
    let (mut stdout, out) = std::io::pipe().unwrap();
    let stderr = out.try_clone().unwrap().into();
    let stdio = Stdio { stdin: None, stdout: out.into(), stderr };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut text = vec![0; "ready\n".len()];
            stdout.read_exact(&mut text).unwrap();
            cancel.cancel();
            stdout.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        let report = arena.launcher.run(&spec, stdio, &cancel).unwrap();
        Ended { report, stdout: reader.join().unwrap(), stderr: String::new() }
    })
}

#[test]
fn what_is_cancelled_before_it_starts_does_not_start() {
    on_each_rung(|arena| {
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let result = arena.run_until(arena.script("echo no"), &cancel);
        assert_eq!(result.err(), Some(SandboxError::Cancelled));
    });
}

#[test]
fn cancelling_at_any_moment_ends_in_one_way_or_another() {
    on_each_rung(|arena| {
        for delay in (0..40).map(|step| Duration::from_micros(step * 100)) {
            let cancel = Cancel::new().unwrap();
            let mut spec = arena.with_stubs(arena.script("sleep 1000"));
            spec.stop_grace =
                Duration::from_millis(if delay.subsec_micros() % 200 == 0 { 0 } else { 500 });
            let launcher = &arena.launcher;
            let result = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(delay);
                    cancel.cancel();
                });
                arena::run(launcher, &spec, &cancel)
            });
            match result {
                Ok(ended) => assert!(matches!(ended.report.status, ExitStatus::Signaled(_))),
                Err(error) => assert_eq!(error, SandboxError::Cancelled),
            }
        }
    });
}

#[test]
fn many_sandboxes_run_at_once() {
    on_each_rung(|arena| {
        let specs: Vec<_> = (0..32)
            .map(|n| {
                arena
                    .with_stubs(arena.script(&format!("echo {n} > /tmp/n; sleep 0.05; cat /tmp/n")))
            })
            .collect();
        let launcher = &arena.launcher;
        std::thread::scope(|scope| {
            for (thread, specs) in specs.chunks(4).enumerate() {
                scope.spawn(move || {
                    for (n, spec) in specs.iter().enumerate() {
                        let cancel = Cancel::new().unwrap();
                        let text = arena::run(launcher, spec, &cancel).unwrap().success();
                        assert_eq!(text, format!("{}\n", thread * 4 + n));
                    }
                });
            }
        });
    });
}

#[test]
fn the_report_tells_time_and_memory() {
    on_each_rung(|arena| {
        // The shell holds what it reads; the loop takes processor time in a background process.
        let script = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & \
                      x=$(yes | head -c 30000000 | tr -d '\\n'); wait; exit 0";
        let report = arena.run(arena.script(script)).unwrap().report;
        assert!(report.peak_memory > 15_000_000 && report.peak_memory < 1 << 32, "{report:?}");
        assert!(report.user_time > Duration::ZERO, "{report:?}");
        assert!(report.wall_time > Duration::ZERO, "{report:?}");
    });
}

#[test]
fn the_builders_umask_is_its_own_matter() {
    on_each_rung(|arena| {
        assert!(payload::spawn("umask", arena).wait().unwrap().success());
    });
}

/// The helper, the first process, the process itself, and perhaps its supervisor.
fn processes() -> usize {
    if rung() == Rung::SingleId { 4 } else { 3 }
}

#[test]
fn a_killed_builder_leaves_nothing() {
    on_each_rung(|arena| {
        let mut builder = payload::spawn("sleeper", arena);
        payload::until(|| payload::descendants(builder.id()).len() == processes());
        let all = payload::descendants(builder.id());
        builder.kill().unwrap();
        builder.wait().unwrap();
        payload::until(|| !all.iter().any(|pid| payload::is_running(*pid)));
    });
}

#[test]
fn a_killed_helper_takes_its_sandboxes_along_and_the_next_run_has_another() {
    on_each_rung(|arena| {
        assert!(payload::spawn("orphans", arena).wait().unwrap().success());
    });
}

#[test]
fn the_terminals_signals_stop_nothing() {
    on_each_rung(|arena| {
        let mut builder = payload::spawn("deaf", arena);
        payload::until(|| payload::descendants(builder.id()).len() == processes());
        let group = Pid::from_child(&builder);
        for signal in [Signal::INT, Signal::HUP, Signal::TERM, Signal::QUIT] {
            rustix::process::kill_process_group(group, signal).unwrap();
        }
        assert!(builder.wait().unwrap().success());
    });
}
