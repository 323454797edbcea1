//! Programs that cannot be executed, and what is said of them.

use std::os::unix::fs::PermissionsExt;

use formwork_sandbox::{ProcessSpec, ProgramProblem, SandboxError, User};

use crate::arena::{Arena, copy_program, elf, rel};
use crate::rungs::on_each_rung;

/// A layer with programs that have something wrong with them.
fn with_programs(arena: &Arena, program: &str) -> ProcessSpec {
    let files = [
        ("p/script", "#!/bin/sh\necho ran \"$@\""),
        ("p/no-interpreter", "#! /opt/none/python3 -u\n"),
        ("p/script-of-script", "#!/p/no-interpreter\n"),
        ("p/no-first-line", "echo never\n"),
        ("p/empty", ""),
        ("p/bare-first-line", "#!\n"),
        ("p/loop", "#!/p/loop\n"),
        ("p/directory/", ""),
        ("p/to-script", "->../p/script"),
        ("p/broken", "->nothing"),
    ];
    let layer = arena.tree("programs", &files);
    let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    elf(&layer.join("p/foreign"), foreign, None);
    elf(&layer.join("p/sparc"), 43, None);
    elf(&layer.join("p/dynamic"), native(), Some("/lib/ld-none.so.1"));
    for entry in fs_err::read_dir(layer.join("p")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    fs_err::write(layer.join("p/not-executable"), "#!/bin/sh\n").unwrap();
    fs_err::set_permissions(layer.join("p/not-executable"), PermissionsExt::from_mode(0o644))
        .unwrap();
    let mut spec = arena.spec(&[program]);
    spec.root.layers.push(layer);
    spec.cwd = rel("p");
    spec
}

fn native() -> u16 {
    if cfg!(target_arch = "x86_64") { 62 } else { 183 }
}

#[test]
fn programs_are_found_as_a_shell_finds_them() {
    on_each_rung(|arena| {
        for (program, path, expected) in [
            ("/p/script", None, "ran\n"),
            ("./script", None, "ran\n"),
            ("to-script", Some("/nowhere:/p/script:/p:/bin"), "ran\n"),
            ("script", Some(":/bin"), "ran\n"),
            ("true", None, ""),
            // Forbidden in one directory, found in the next.
            ("not-executable", Some("/p:/tmp"), "found\n"),
        ] {
            let mut spec = with_programs(arena, program);
            spec.root
                .layers
                .push(arena.tree("more", &[("tmp/not-executable", "#!/bin/sh\necho found")]));
            let more = arena.path("more/tmp/not-executable");
            fs_err::set_permissions(more, PermissionsExt::from_mode(0o755)).unwrap();
            spec.env.extend(path.map(|path| ("PATH".into(), path.into())));
            assert_eq!(arena.run(spec).unwrap().success(), expected, "{program}");
        }
    });
}

#[test]
fn what_is_wrong_with_a_program_is_said() {
    on_each_rung(|arena| {
        let missing = |path: &str| ProgramProblem::InterpreterMissing(path.into());
        let foreign = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86_64" };
        for (program, expected) in [
            ("/p/none", ProgramProblem::Missing),
            (
                "none",
                ProgramProblem::NotInPath(
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                ),
            ),
            ("/p/broken", ProgramProblem::Missing),
            ("/p/script/below", ProgramProblem::Missing),
            ("/p/not-executable", ProgramProblem::NotExecutable),
            ("/p/directory", ProgramProblem::Directory),
            ("/p/no-interpreter", missing("/opt/none/python3")),
            ("/p/script-of-script", missing("/opt/none/python3")),
            ("/p/dynamic", missing("/lib/ld-none.so.1")),
            ("/p/foreign", ProgramProblem::Architecture(foreign.into())),
            ("/p/sparc", ProgramProblem::Architecture("ELF machine 43".into())),
            ("/p/no-first-line", ProgramProblem::Format),
            ("/p/empty", ProgramProblem::Format),
            ("/p/bare-first-line", ProgramProblem::Format),
        ] {
            match arena.run(with_programs(arena, program)).map(|ended| ended.report) {
                Err(SandboxError::Program { program: named, problem }) => {
                    assert_eq!(problem, expected, "{program}");
                    assert_eq!(named, program);
                }
                other => panic!("{program}: {other:?}"),
            }
        }
    });
}

#[test]
fn programs_of_others_are_not_executable() {
    on_each_rung(|arena| {
        let mut spec = with_programs(arena, "/private/script");
        let layer = arena.tree("private", &[("private/script", "#!/bin/sh\n")]);
        let mode = PermissionsExt::from_mode(0o700);
        fs_err::set_permissions(layer.join("private"), mode).unwrap();
        spec.root.layers.push(layer);
        spec.user = User { uid: 1000, gid: 1000, groups: vec![] };
        let error = arena.refused(spec);
        assert!(
            error.contains("`/private/script`: the file is not executable by this user"),
            "{error}"
        );
    });
}

#[test]
fn arguments_may_be_long_but_not_too_long() {
    on_each_rung(|arena| {
        let long = "x".repeat(100_000);
        let mut spec = arena.spec(&["sh", "-c", "echo ${#1}", "sh", &long]);
        spec.env.push(("LONG".into(), long.clone().into()));
        assert_eq!(arena.run(spec).unwrap().success(), "100000\n");
        let spec = arena.spec(&["true", &long.repeat(2)]);
        let error = arena.refused(spec);
        assert!(error.contains("longer than the kernel takes"), "{error}");
    });
}

#[test]
fn impossible_arguments_are_refused() {
    on_each_rung(|arena| {
        let refused = |change: &dyn Fn(&mut ProcessSpec)| {
            let mut spec = arena.script("true");
            change(&mut spec);
            arena.refused(spec)
        };
        assert!(refused(&|spec| spec.args.clear()).contains("no program"));
        assert!(refused(&|spec| spec.args[0] = "".into()).contains("no program"));
        assert!(refused(&|spec| spec.args[1] = "a\0b".into()).contains("NUL"));
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0")] {
            let error = refused(&|spec| spec.env.push((name.into(), value.into())));
            assert!(error.contains(&format!("variable `{name}`")), "{error}");
        }
        assert!(refused(&|spec| spec.hostname = "x".repeat(65)).contains("host name"));
    });
}

#[test]
fn the_static_program_of_these_tests_is_static() {
    on_each_rung(|arena| {
        // Else a missing loader would be what the tests above see.
        let copy = arena.tree("copy", &[]).join("busybox");
        copy_program(&arena.busybox().join("bin/busybox"), &copy);
        let mut spec = arena.spec(&["/busybox", "true"]);
        spec.root.layers.push(arena.path("copy"));
        arena.run(spec).unwrap().success();
    });
}
