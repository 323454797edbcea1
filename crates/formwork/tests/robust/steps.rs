//! Processes of RUN that fail, or cannot begin.

use crate::arena::{Arena, on_each_rung};

#[test]
fn a_step_that_fails_is_told_with_its_line_and_its_last_words() {
    on_each_rung(|arena| {
        let mut problems = Vec::new();
        for (step, says) in [
            ("RUN echo why it fails; exit 7", &["why it fails", "exit code 7"][..]),
            ("RUN echo why it fails >&2; false", &["why it fails", "exit code 1"]),
            ("RUN kill -9 $$", &["signal 9", "memory"]),
            ("RUN kill -SEGV $$", &["signal 11"]),
            ("RUN nothing-like-it", &["not found", "exit code 127"]),
            ("RUN [\"/bin/nothing\"]", &["/bin/nothing"]),
            ("RUN [\"nothing\"]", &["nothing"]),
            ("RUN [\"/etc/passwd\"]", &["/etc/passwd"]),
            ("RUN [\"/bin\"]", &["/bin"]),
            ("COPY script /\nRUN [\"/script\"]", &["/bin/bash"]),
            ("COPY foreign /\nRUN [\"/foreign\"]", &["/foreign"]),
            ("SHELL [\"/bin/bash\", \"-c\"]\nRUN true", &["/bin/bash"]),
        ] {
            arena.file("script", "#!/bin/bash\ntrue\n");
            arena.file("foreign", foreign_program());
            for name in ["script", "foreign"] {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs_err::set_permissions(arena.path("context").join(name), mode).unwrap();
            }
            let dockerfile = format!("FROM base\n{step}\n");
            let line = format!("Dockerfile:{}:1", dockerfile.lines().count());
            let ran = arena.build(&dockerfile, &[]);
            problems.extend(ran.check(1, &["error", &line, "^^^"]).err());
            problems.extend(ran.check(1, says).err());
            arena.assert_nothing_is_left();
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        arena.build("FROM base\nRUN true\n", &[]).image();
    });
}

/// The header of an ELF program for a processor that this one is not.
fn foreign_program() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    // An executable for S/390.
    elf[16..20].copy_from_slice(&[2, 0, 22, 0]);
    elf
}

#[test]
fn the_failure_of_one_step_ends_those_beside_it() {
    on_each_rung(fail_beside_another);
}

fn fail_beside_another(arena: &Arena) {
    let dockerfile = "FROM base AS slow\nRUN sleep 50\nFROM base AS bad\n\
                      RUN sleep 0.3; echo the reason; exit 9\n\
                      FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n";
    let ran = arena.build(dockerfile, &["-j", "4"]);
    ran.fails(1, &["the reason", "CANCELED", "error", "exit code 9", "Dockerfile:4:1"]);
    arena.assert_nothing_is_left();
}

#[test]
fn the_last_words_of_a_step_are_shown_in_every_view() {
    let Some(arena) = Arena::new() else { return };
    for view in ["--quiet", "--progress=plain", "--progress=tty", "--progress=json"] {
        let dockerfile = "FROM base\nRUN echo the reason; exit 9\n";
        arena.file("Dockerfile", dockerfile);
        let base = format!("base=oci-layout://{}", arena.base().display());
        let ran = arena.run(&["build", view, "--build-context", &base, "context"]);
        ran.fails(1, &["the reason", "exit code 9", "Dockerfile:2"]);
    }
}
