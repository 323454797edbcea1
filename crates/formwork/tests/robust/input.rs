//! Mistakes in a Dockerfile, a build context or on the command line.

use crate::arena::{Arena, Ran, on_each_rung};

/// A build that fails because of what the user wrote, and words of the message in their order.
struct Mistake {
    dockerfile: &'static str,
    args: &'static [&'static str],
    says: &'static [&'static str],
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        dockerfile: "FROM base\nRUNN echo hello\n",
        args: &[],
        says: &["RUNN", "Dockerfile:2:1", "RUNN echo hello", "^^^^", "did you mean `RUN`"],
    },
    Mistake { dockerfile: "", args: &[], says: &["Dockerfile", "FROM"] },
    Mistake { dockerfile: "RUN true\n", args: &[], says: &["Dockerfile:1:1", "^^^"] },
    Mistake {
        dockerfile: "FROM base AS build\nRUN true\n",
        args: &["--target", "biuld"],
        says: &["biuld", "did you mean `--target build`?"],
    },
    Mistake {
        dockerfile: "FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /x /\n",
        args: &[],
        says: &["`b` → `a` → `b`", "Dockerfile:2:13", "^", "comes before both"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY mian.c /\n",
        args: &[],
        says: &["`mian.c` is not in the build context", "Dockerfile:2", "^", "mean `main.c`"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY secret.env /\n",
        args: &[],
        says: &["`secret.env`", "Dockerfile:2", "^", ".dockerignore:2 `*.env`", "begins with `!`"],
    },
    Mistake {
        dockerfile: "FROM base\nADD util.c /\n",
        args: &[],
        says: &["`util.c`", "Dockerfile:2", "^", "there is `src/util.c`"],
    },
    Mistake {
        dockerfile: "FROM base AS b\nFROM scratch\nCOPY --from=b /bin/bussybox /\n",
        args: &[],
        says: &["`/bin/bussybox`", "Dockerfile:3", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nRUN <<EOF\necho\nEOG\n",
        args: &[],
        says: &["EOF", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nRUN <<A cat <<B\nx\nA\ny\n",
        args: &[],
        says: &["`B`", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY --form=b /x /\nUSRE x\nRUN --mount=type=chache true\n",
        args: &[],
        says: &["Dockerfile:2", "^", "Dockerfile:3", "^", "Dockerfile:4", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nARG V\nRUN echo ${V:?give a version}\nENV X=\"${V:?give a version}\"\n",
        args: &[],
        says: &["give a version", "Dockerfile:4", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nRUN --mount=type=secret,id=token,required true\n",
        args: &[],
        says: &["`token`", "--secret id=token,src=FILE", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nUSER nobdy\nRUN true\n",
        args: &[],
        says: &["nobdy", "Dockerfile:", "^"],
    },
    Mistake {
        dockerfile: "FROM scratch\nCOPY --chown=nobdy main.c /\n",
        args: &[],
        says: &["nobdy", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY src /etc/passwd\n",
        args: &[],
        says: &["/etc/passwd", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY main.c src/util.c /etc/passwd/\n",
        args: &[],
        says: &["Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY main.c /etc/passwd/below/\n",
        args: &[],
        says: &["/etc/passwd", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nWORKDIR /etc/passwd\n",
        args: &[],
        says: &["/etc/passwd", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nRUN ln -s b /a && ln -s a /b\nCOPY main.c /a/\n",
        args: &[],
        says: &["/a", "Dockerfile:3", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY loop/main.c /\n",
        args: &[],
        says: &["`loop/main.c`", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY dangling/x /\n",
        args: &[],
        says: &["`dangling/x`", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY outside/passwd /\n",
        args: &[],
        says: &["`outside/passwd`", "Dockerfile:2", "^"],
    },
    Mistake {
        dockerfile: "FROM base\nCOPY http://127.0.0.1:9/x /\n",
        args: &[],
        says: &["Dockerfile:2", "^"],
    },
    Mistake { dockerfile: "FROM Base:Ä\n", args: &[], says: &["Dockerfile:1", "^"] },
    Mistake { dockerfile: "ARG V\nFROM base:$V\n", args: &[], says: &["Dockerfile:2", "^"] },
];

fn prepare(arena: &Arena) {
    for file in ["main.c", "src/util.c", "secret.env"] {
        arena.file(file, file);
    }
    arena.file(".dockerignore", "# what nobody needs\n*.env\n");
    let link = |target: &str, name: &str| {
        fs_err::os::unix::fs::symlink(target, arena.path("context").join(name)).unwrap();
    };
    link("loop", "loop");
    link("nothing", "dangling");
    link("/etc", "outside");
}

#[test]
fn a_mistake_is_told_with_its_place_its_cause_and_the_way_out() {
    let Some(arena) = Arena::new() else { return };
    prepare(&arena);
    let mut problems = Vec::new();
    for mistake in MISTAKES {
        let ran = arena.build(mistake.dockerfile, mistake.args);
        problems.extend(ran.check(1, mistake.says).err());
        arena.assert_nothing_is_left();
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    arena.build("FROM base\nCOPY main.c /\n", &[]).image();
}

/// Without a network, so that no registry has an image of a stage's misspelt name.
fn without_network(arena: &Arena, dockerfile: &str) -> Ran {
    arena.file("Dockerfile", dockerfile);
    let mut command = arena.build_command(&[]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    arena.start(command).wait()
}

#[test]
fn a_misspelt_stage_is_told_apart_from_an_image() {
    let Some(arena) = Arena::new() else { return };
    let ran = without_network(
        &arena,
        "FROM base AS build\nRUN true\nFROM scratch\nCOPY --from=biuld /bin/sh /\n",
    );
    ran.fails(3, &["biuld", "Dockerfile:4", "^", "did you mean the stage `build`?"]);
    let ran = without_network(&arena, "FROM bass\n");
    ran.fails(3, &["bass", "Dockerfile:1", "^^^^", "127.0.0.1:9"]);
    arena.assert_nothing_is_left();
}

#[test]
fn a_build_argument_that_nobody_takes_is_told() {
    let Some(arena) = Arena::new() else { return };
    let ran = arena.build("FROM base\nARG VERSION\n", &["--build-arg", "VERSOIN=1"]);
    ran.image();
    ran.fails(0, &["warning", "VERSOIN", "VERSION"]);
}

#[test]
fn mistakes_on_the_command_line_have_a_code_of_their_own() {
    let Some(arena) = Arena::new() else { return };
    for (args, says) in [
        (&["--outptu", "x"][..], &["--outptu", "--output"][..]),
        (&["-t", "Ünsinn"], &["--tag", "Ünsinn"]),
        (&["--output", "type=zip"], &["zip", "oci"]),
        (&["--push"], &["name", "--tag"]),
        (&["--secret", "src=x"], &["--secret", "id"]),
        (&["--build-context", "x"], &["--build-context", "NAME=SOURCE"]),
        (&["--jobs", "0"], &["--jobs"]),
        (&["--platform", "nothing/at/all/of/it"], &["platform"]),
    ] {
        arena.build("FROM base\n", args).fails(2, says);
    }
    arena.run(&["build"]).fails(2, &["PATH"]);
    arena.run(&["biuld", "."]).fails(2, &["biuld", "build"]);
    arena.run(&["build", "nowhere"]).fails(1, &["nowhere"]);
    arena.build("FROM base\n", &["-f", "nowhere"]).fails(1, &["nowhere"]);
    arena.build("FROM base\n", &["--secret", "id=x,src=nowhere"]).fails(1, &["x", "nowhere"]);
    arena.file("binary", b"FROM base\n\xff\n");
    arena.build("FROM base\n", &["-f", "context/binary"]).fails(1, &["UTF-8", "byte 10"]);
    arena.assert_nothing_is_left();
}

#[test]
fn ordinary_users_are_told_the_same() {
    on_each_rung(|arena| {
        prepare(arena);
        let ran = arena.build("FROM base\nCOPY mian.c /\n", &[]);
        ran.fails(1, &["`mian.c`", "Dockerfile:2", "mean `main.c`"]);
        arena.assert_nothing_is_left();
    });
}
#[test]
fn triggers_of_a_base_are_checked_and_named() {
    let Some(arena) = Arena::new() else { return };
    let dockerfile = "FROM base\nONBUILD COPY nothing-like-it /\n";
    arena.build(dockerfile, &["-t", "with-trigger"]).image();
    arena.build("FROM with-trigger\nRUN true\n", &[]).fails(1, &["nothing-like-it", "^"]);
    arena.build("FROM base\nONBUILD RUNN x\n", &[]).fails(1, &["RUNN", "Dockerfile:2", "^"]);
    arena.build("FROM base\nONBUILD FROM x\n", &[]).fails(1, &["Dockerfile:2", "^"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let Some(arena) = Arena::of_ordinary_user() else { return };
    arena.file("private", "");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs_err::set_permissions(arena.path("context/private"), mode).unwrap();
    let ran = arena.build("FROM base\nCOPY private /\n", &[]);
    ran.fails(1, &["context/private", "Permission denied", "Dockerfile:2:1", "^^^"]);
    arena.assert_nothing_is_left();
}
