//! What runs again after which change, and what does not.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{Built, Ran, Site, on_each_rung, on_each_rung_with_namespaces};

const STEPS: &str = "\
FROM busybox AS build
COPY src /src
RUN cat /src/* > /out
FROM busybox
COPY --from=build /out /app
RUN cp /app /final
";

fn site_with_sources() -> Site {
    let site = Site::new().with_busybox();
    site.write("src/a", "1");
    site.write("src/b", "2");
    site
}

/// Sets the modification time of a file of the context.
fn set_mtime(site: &Site, path: &str, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = fs_err::File::open(site.context(path)).unwrap();
    file.file().set_modified(time).unwrap();
}

#[test]
fn a_second_build_runs_nothing() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("src/a", "1");
        let first = site.build(&[], STEPS);
        assert_eq!(
            first.executed(),
            [
                "COPY src /src",
                "RUN cat /src/* > /out",
                "COPY --from=build /out /app",
                "RUN cp /app /final"
            ]
        );
        let second = site.build(&[], STEPS);
        assert_eq!(second.executed(), [""; 0]);
        assert_eq!(second.id, first.id);
    });
}

#[test]
fn a_file_that_was_only_touched_is_still_cached() {
    let site = site_with_sources();
    site.build(&[], STEPS);
    set_mtime(&site, "src/a", 1_000_000_000);
    let again = site.build(&[], STEPS);
    assert!(!again.executed().contains(&"RUN cat /src/* > /out"), "{:?}", again.executed());
}

#[test]
fn changed_content_runs_what_uses_it() {
    let site = site_with_sources();
    site.build(&[], STEPS);
    site.write("src/a", "3");
    let again = site.build(&[], STEPS);
    assert_eq!(
        again.executed(),
        [
            "COPY src /src",
            "RUN cat /src/* > /out",
            "COPY --from=build /out /app",
            "RUN cp /app /final"
        ]
    );
    assert_eq!(site.tree(&[], STEPS).text("/final"), "32");
}

#[test]
fn content_that_is_back_is_cached_again() {
    let site = site_with_sources();
    let first = site.build(&[], STEPS);
    site.write("src/a", "3");
    site.build(&[], STEPS);
    site.write("src/a", "1");
    let third = site.build(&[], STEPS);
    assert!(!third.executed().iter().any(|name| name.starts_with("RUN")), "{:?}", third.executed());
    assert_eq!(third.id, first.id);
}

#[test]
fn an_equal_size_and_time_do_not_hide_a_change() {
    let site = site_with_sources();
    set_mtime(&site, "src/a", 1_600_000_000);
    site.build(&[], STEPS);
    site.write("src/a", "7");
    set_mtime(&site, "src/a", 1_600_000_000);
    assert_eq!(site.tree(&[], STEPS).text("/final"), "72");
}

#[test]
fn an_equal_result_of_a_changed_step_keeps_what_follows_cached() {
    let site = site_with_sources();
    site.build(&[], STEPS);
    // The sum of both files stays the same.
    site.write("src/a", "");
    site.write("src/b", "12");
    let again = site.build(&[], STEPS);
    assert_eq!(again.executed(), ["COPY src /src", "RUN cat /src/* > /out"]);
}

#[test]
fn permissions_count() {
    let site = site_with_sources();
    site.mkdir("src/d");
    let dockerfile = "FROM busybox\nCOPY src /src\nRUN stat -c %a /src/d > /mode\n";
    assert_eq!(site.tree(&[], dockerfile).text("/mode"), "755\n");
    site.chmod("src/d", 0o700);
    assert_eq!(site.tree(&[], dockerfile).text("/mode"), "700\n");
}

#[test]
fn arguments_count_where_they_are_declared() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox\nRUN echo before > /1\nARG V\nRUN echo after > /2\n";
    let build = |value: &str| site.build(&["--build-arg", value], dockerfile);
    build("V=1");
    assert_eq!(build("V=2").executed(), ["RUN echo after > /2"]);
    assert_eq!(build("V=1").executed(), [""; 0]);
    let undeclared = "FROM busybox\nRUN echo before > /1\n";
    site.build(&["--build-arg", "HTTPS_PROXY=http://one"], undeclared);
    let other = site.build(&["--build-arg", "HTTPS_PROXY=http://two"], undeclared);
    assert_eq!(other.executed(), [""; 0]);
}

#[test]
fn metadata_alone_runs_nothing() {
    let site = site_with_sources();
    let one = site.build(&[], "FROM busybox\nRUN echo 1 > /1\nLABEL a=1\nRUN echo 2 > /2\n");
    let two = site.build(&[], "FROM busybox\nRUN echo 1 > /1\nLABEL a=2\nRUN echo 2 > /2\n");
    assert_eq!(two.executed(), [""; 0]);
    assert_ne!(one.id, two.id);
    let env = site.build(&[], "FROM busybox\nRUN echo 1 > /1\nENV a=2\nRUN echo 2 > /2\n");
    assert_eq!(env.executed(), ["RUN echo 2 > /2"]);
}

#[test]
fn a_step_without_the_cache_runs() {
    let site = site_with_sources();
    let first = site.build(&[], STEPS);
    let again = site.build(&["--no-cache"], STEPS);
    assert_eq!(again.executed().len(), 4, "{:?}", again.executed());
    assert_eq!(again.id, first.id);
}

#[test]
fn a_failed_step_is_not_remembered() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox\nRUN --mount=target=/ctx . /ctx/script\n";
    site.write("script", "exit 3");
    Ran::of(&mut site.build_command(&[], dockerfile)).failed(1, "exit code 3");
    site.write("script", "exit 0");
    assert_eq!(site.build(&[], dockerfile).executed().len(), 1);
}

#[test]
fn linked_copies_stay_when_the_base_changes() {
    let site = site_with_sources();
    let dockerfile =
        |base: &str| format!("FROM busybox\nRUN echo {base} > /base\nCOPY --link src /src\n");
    site.build(&[], &dockerfile("1"));
    let again = site.build(&[], &dockerfile("2"));
    assert_eq!(again.executed(), ["RUN echo 2 > /base"]);
}

#[test]
fn linked_copies_with_names_of_users_ask_the_base() {
    let site = site_with_sources();
    let dockerfile = |uid: u32| {
        format!(
            "FROM busybox\nRUN mkdir -p /etc; echo app:x:{uid}:{uid}::/:/bin/sh > /etc/passwd\n\
             COPY --link --chown=app src/a /a\n"
        )
    };
    assert_eq!(site.tree(&[], &dockerfile(5)).line("/a"), "-rw-r--r-- 5:5 /a \"1\"");
    assert_eq!(site.tree(&[], &dockerfile(6)).line("/a"), "-rw-r--r-- 6:6 /a \"1\"");
}

#[test]
fn what_a_bind_mount_shows_counts_and_nothing_else() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox\nRUN --mount=source=src,target=/s cat /s/a > /a\n";
    site.build(&[], dockerfile);
    site.write("other", "x");
    assert_eq!(site.build(&[], dockerfile).executed(), [""; 0]);
    site.write("src/a", "9");
    assert_eq!(site.tree(&[], dockerfile).text("/a"), "9");
}

#[test]
fn cache_mounts_outlive_builds_and_count_in_no_key() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = |n: u32| {
            format!(
                "FROM busybox\nRUN --mount=type=cache,target=/c echo {n} >> /c/n; cat /c/n > /n\n"
            )
        };
        site.build(&[], &dockerfile(1));
        assert_eq!(site.tree(&[], &dockerfile(2)).text("/n"), "1\n2\n");
        assert_eq!(site.tree(&[], &dockerfile(1)).text("/n"), "1\n");
    });
}

#[test]
fn builds_at_the_same_time_share_their_steps() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "\
FROM busybox
RUN --mount=type=cache,target=/count echo x >> /count/n && sleep 0.3 && echo done > /done
";
        let mut first = site.build_command(&[], dockerfile);
        let mut second = site.build_command(&[], dockerfile);
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| Built::of(&mut first));
            (Built::of(&mut second), one.join().unwrap())
        });
        assert_eq!(one.id, two.id);
        let count = "FROM busybox\nRUN --mount=type=cache,target=/count wc -l < /count/n > /n\n";
        assert_eq!(site.tree(&[], count).text("/n"), "1\n");
    });
}

/// make and cargo go by modification times. A repeated step whose result is equal to that of an
/// older build must not bring back times that are older than what it was made from.
#[test]
fn equal_results_never_bring_old_times_onto_newer_files() {
    let site = site_with_sources();
    let dockerfile = "\
FROM busybox
COPY src/a /src/a
RUN if [ ! /out -nt /src/a ]; then echo constant > /out; fi
RUN if [ /src/a -nt /out ]; then echo stale; else echo fresh; fi > /verdict; cat /verdict
";
    let verdict = |content: &str| {
        site.write("src/a", content);
        let mut command: Command = site.build_command(&[], dockerfile);
        // Without an epoch, times are those of the real clock.
        let built = Built::of(command.env_remove("SOURCE_DATE_EPOCH"));
        assert!(!built.log().contains(&"stale"), "{:?}", built.steps);
    };
    verdict("one");
    // The file's time is now later than that of the first `/out`.
    std::thread::sleep(Duration::from_millis(20));
    verdict("two");
    verdict("one");
}

/// Makes every layer of the store look as if the machine had been started again since.
fn restart(site: &Site) {
    let layers = site.store().join("snapshots-v1");
    for layer in fs_err::read_dir(layers).unwrap() {
        fs_err::write(layer.unwrap().path().join("boot"), "another boot").unwrap();
    }
    fs_err::write(site.store().join("locks/boot"), "another boot").unwrap();
    // The clock of files moves in steps of some milliseconds.
    std::thread::sleep(Duration::from_millis(20));
}

/// The files of a name in all layers of the store.
fn files_in_layers(site: &Site, name: &str) -> Vec<std::path::PathBuf> {
    let layers = fs_err::read_dir(site.store().join("snapshots-v1")).unwrap();
    let files = layers.map(|layer| layer.unwrap().path().join("fs").join(name));
    files.filter(|file| file.exists()).collect()
}

#[test]
fn what_survives_a_restart_is_still_cached_and_runs() {
    let site = site_with_sources();
    let first = site.build(&["-t", "app:1"], STEPS);
    restart(&site);
    assert_eq!(site.run(&["run", "app:1", "cat", "/final"]), "12");
    restart(&site);
    let second = site.build(&[], STEPS);
    assert_eq!(second.executed(), [""; 0]);
    assert_eq!(second.id, first.id);
}

#[test]
fn bytes_that_a_restart_has_lost_are_made_again() {
    let site = site_with_sources();
    site.build(&[], STEPS);
    restart(&site);
    let lost = files_in_layers(&site, "final");
    assert_eq!(lost.len(), 1);
    fs_err::write(&lost[0], "\0\0").unwrap();
    let again = site.build(&["-t", "app:1"], STEPS);
    assert!(again.executed().contains(&"RUN cp /app /final"), "{:?}", again.executed());
    assert_eq!(site.run(&["run", "app:1", "cat", "/final"]), "12");
}

/// The file of a name in the layer that has it with some content.
fn in_layer(site: &Site, name: &str, beside: &str, content: &str) -> std::path::PathBuf {
    let has_content = |file: &std::path::PathBuf| {
        fs_err::read_to_string(file.with_file_name(beside)).is_ok_and(|text| text == content)
    };
    files_in_layers(site, name).into_iter().find(has_content).unwrap()
}

#[test]
fn files_of_a_copy_that_stay_the_same_are_written_once() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        for file in ["changed", "same", "chmod", "touched", "lost"] {
            site.write(&format!("src/{file}"), "1");
        }
        let dockerfile = "FROM busybox\nCOPY src /src\nRUN cat /src/* > /out\n";
        site.build(&[], dockerfile);
        let before = in_layer(site, "src/same", "changed", "1");
        site.write("src/changed", "2");
        site.chmod("src/chmod", 0o600);
        set_mtime(site, "src/touched", 1_000_000_000);
        fs_err::remove_file(site.context("src/lost")).unwrap();
        let tree = site.tree(&["-t", "app"], dockerfile);
        assert_eq!(tree.text("/out"), "2111");
        let after = in_layer(site, "src/same", "changed", "2");
        let is_shared = |name: &str| {
            let of = |file: &std::path::Path| {
                let metadata = fs_err::metadata(file.with_file_name(name)).unwrap();
                (metadata.ino(), metadata.mode() & 0o7777, metadata.mtime())
            };
            let (old, new) = (of(&before), of(&after));
            let told = fs_err::metadata(site.context("src").join(name)).unwrap();
            assert_eq!((new.1, new.2), (told.mode() & 0o7777, told.mtime()), "{name}");
            old.0 == new.0
        };
        let shared = ["same", "changed", "chmod", "touched"].map(is_shared);
        assert_eq!(shared, [true, false, false, false]);
        assert!(!after.with_file_name("lost").exists());
        // What was there before is as it was.
        site.write("src/changed", "1");
        site.chmod("src/chmod", 0o644);
        site.write("src/lost", "1");
        assert_eq!(site.tree(&[], dockerfile).text("/out"), "11111");
    });
}

#[test]
fn a_torn_file_is_not_taken_over_from_the_copy_before() {
    let site = site_with_sources();
    site.build(&["-t", "app:1"], STEPS);
    restart(&site);
    for file in files_in_layers(&site, "src/b") {
        fs_err::write(&file, "\0").unwrap();
        let time = fs_err::metadata(site.context("src/b")).unwrap().modified().unwrap();
        fs_err::File::open(&file).unwrap().file().set_modified(time).unwrap();
    }
    site.write("src/a", "3");
    site.build(&["-t", "app:1"], STEPS);
    assert_eq!(site.run(&["run", "app:1", "cat", "/final"]), "32");
}

#[test]
fn packed_layers_that_a_restart_has_torn_are_packed_again() {
    let site = site_with_sources();
    let build = || {
        site.build(&["-o", "type=oci,dest=../app.tar"], STEPS);
        fs_err::read(site.outside("app.tar")).unwrap()
    };
    let first = build();
    let mut torn = 0;
    for blob in fs_err::read_dir(site.store().join("content/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let bytes = fs_err::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            fs_err::write(&path, vec![0; bytes.len()]).unwrap();
            torn += 1;
        }
    }
    assert!(torn > 1);
    restart(&site);
    assert!(build() == first, "the archive is another one");
}

#[test]
fn single_stages_can_be_kept_from_the_cache() {
    let site = site_with_sources();
    let first = site.build(&[], STEPS);
    let stage = ["COPY src /src", "RUN cat /src/* > /out"];
    for filter in ["build", "0", "BUILD"] {
        let again = site.build(&["--no-cache-filter", filter], STEPS);
        // What the stage yields is what it was, so the rest is cached.
        assert_eq!(again.executed(), stage, "{filter}");
        assert_eq!(again.id, first.id);
    }
    assert_eq!(site.build(&["--no-cache-filter=build,1"], STEPS).executed().len(), 4);
    let mut wrong = site.build_command(&["--no-cache-filter=biuld"], STEPS);
    crate::support::Ran::of(&mut wrong).failed(1, "--no-cache-filter build");
}

#[test]
fn single_steps_can_be_kept_from_the_cache() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox AS build\nWORKDIR /w\nRUN echo one \\\n  > one\n# cache: of all\n\
                      RUN cp one two\n\nFROM busybox\nCOPY --from=build /w /w\nRUN <<E\n\
                      cat /w/two > /three\nE\n";
    let (one, two) = ("RUN echo one   > one", "RUN cp one two");
    let (copy, three) = ("COPY --from=build /w /w", "RUN <<E");
    let first = site.build(&[], dockerfile);
    for (filter, steps) in [
        ("build:3", vec![one]),
        ("[build 4/4]", vec![two]),
        ("build 3/4,0:4", vec![one, two]),
        (":4", vec![one]),
        (":6", vec![two]),
        (":11", vec![three]),
        ("stage-1", vec![copy, three]),
        ("[stage-1 2/3],:3", vec![one, copy]),
    ] {
        let again = site.build(&["--no-cache-filter", filter], dockerfile);
        assert_eq!(again.executed(), steps, "{filter}");
        assert_eq!(again.id, first.id, "{filter}");
    }
    for (wrong, told) in [
        ("biuld:3", "--no-cache-filter build"),
        ("build:5", "the last step of the stage is 4"),
        ("build:1", "`--pull` asks for its image anew"),
        ("build:x", "a step is `STAGE:NUMBER`"),
        ("3/4", "put the stage before it"),
        (":5", "the nearest is `RUN cp one two`: `--no-cache-filter :6`"),
        ("mount=/c", "it uses none at all"),
    ] {
        let mut wrong = site.build_command(&["--no-cache-filter", wrong], dockerfile);
        Ran::of(&mut wrong).failed(1, told);
    }
    let off = dockerfile.replace("# cache: of all", "# cache: off");
    assert_eq!(site.build(&[], &off).executed(), [two]);
    assert_eq!(site.build(&[], &off).executed(), [two]);
}

#[test]
fn a_cache_mount_can_be_kept_from_a_build() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox\nRUN echo > /before\n\
                      RUN --mount=type=cache,target=/other touch /other/x\n\
                      RUN --mount=type=cache,id=counts,target=/c echo >> /c/n; cat /c/n > /n\n\
                      RUN wc -l < /n > /lines\n";
    let filter = "--no-cache-filter=mount=counts";
    let first = site.build(&[filter], dockerfile);
    let step = "RUN --mount=type=cache,id=counts,target=/c echo >> /c/n; cat /c/n > /n";
    // Without the earlier line in it the step's result is what it was.
    let again = site.build(&[filter], dockerfile);
    assert_eq!((again.executed(), &again.id), (vec![step], &first.id));
    assert_eq!(site.build(&[], dockerfile).executed(), [""; 0]);
    let kept = site.build(&["--no-cache-filter=:4"], dockerfile);
    assert_eq!(kept.executed(), [step, "RUN wc -l < /n > /lines"]);
    assert_eq!(site.build(&["--no-cache-filter=mount=/other"], dockerfile).executed().len(), 1);
    let mut wrong = site.build_command(&["--no-cache-filter=mount=count"], dockerfile);
    Ran::of(&mut wrong).failed(1, "did you mean `--no-cache-filter mount=counts`?");
    // What a dry run says, the mount does not feel.
    Ran::of(&mut site.build_command(&["--dry-run", filter], dockerfile)).succeeded();
    let kept = site.build(&["--no-cache-filter=:4"], dockerfile);
    assert_eq!(kept.executed(), [step, "RUN wc -l < /n > /lines"]);
}

#[test]
fn a_result_that_is_too_old_is_not_used_and_what_follows_stays_cached() {
    let site = Site::new().with_busybox();
    let dockerfile = |ttl: &str| {
        format!(
            "FROM busybox\n# cache: ttl={ttl}\nRUN echo made > /list\n\
             # cache: is a word like others\nRUN cp /list /copy\n"
        )
    };
    let first = site.build(&[], &dockerfile("1h")).id;
    assert_eq!(site.build(&[], &dockerfile("1h")).executed(), [""; 0]);
    // How old is too old, is no part of the key.
    assert_eq!(site.build(&[], &dockerfile("2d")).executed(), [""; 0]);
    let again = site.build(&[], &dockerfile("0s"));
    assert_eq!(again.executed(), ["RUN echo made > /list"]);
    assert_eq!(again.step("echo made").reasons, ["its last result is older than 0s"]);
    assert_eq!(again.step("echo made").outcome, "unchanged");
    assert_eq!(again.id, first);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(site.build(&[], &dockerfile("1s")).executed(), ["RUN echo made > /list"]);
    let wrong = Ran::of(&mut site.formwork(&["build", "-f", "../Dockerfile", "."]));
    assert!(!wrong.stderr.contains("says nothing"), "{}", wrong.stderr);
    site.write("../Dockerfile", dockerfile("soon"));
    let wrong = Ran::of(&mut site.formwork(&["build", "-f", "../Dockerfile", "."])).succeeded();
    assert!(wrong.stderr.contains("`cache: ttl=soon` says nothing"), "{}", wrong.stderr);
}

#[test]
fn each_kind_of_change_causes_the_misses_that_it_should() {
    let site = site_with_sources();
    site.link("d/link", "one");
    let build = |env: &str, owner: &str, secret: &str| {
        site.write("../secret", secret);
        let dockerfile = format!(
            "FROM busybox\nENV A={env}\nRUN --mount=type=secret,id=s wc -c /run/secrets/s\n\
             COPY d /l/\nCOPY --chown={owner} src/a /a\nRUN cat /a\n"
        );
        let built = site.build(&["--secret", "id=s,src=../secret"], &dockerfile);
        let first = |name: &&str| name.split(' ').next().unwrap().to_owned();
        built.executed().iter().map(first).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(build("1", "app", "x"), "RUN COPY COPY RUN");
    assert_eq!(build("1", "app", "x"), "");
    assert_eq!(build("1", "app", "other"), "", "a secret's value");
    assert_eq!(build("2", "app", "x"), "RUN RUN", "a variable");
    assert_eq!(build("2", "7:8", "x"), "COPY RUN", "an owner");
    fs_err::remove_file(site.context("d/link")).unwrap();
    site.link("d/link", "two");
    assert_eq!(build("2", "7:8", "x"), "COPY COPY RUN", "a link's target");
    site.chmod("src/a", 0o600);
    assert_eq!(build("2", "7:8", "x"), "COPY RUN", "a mode");
    site.write("../base/more", "more");
    site.write("../base/Dockerfile", "FROM busybox\nCOPY more /\n");
    site.run(&["build", "-q", "-t", "busybox", "../base"]);
    assert_eq!(build("2", "7:8", "x"), "RUN COPY COPY RUN", "another base");
}

#[test]
fn another_platform_repeats_what_depends_on_it() {
    let site = Site::new();
    if !site.make_busybox() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    fs_err::copy(site.context("../base/busybox"), site.context("busybox")).unwrap();
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN echo built > /built\n\
                      ARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
                      FROM scratch\nCOPY --from=build /built /built\nCOPY busybox /bin/sh\n\
                      RUN --mount=type=cache,target=/c echo x >> /c/x; echo here > /here\n";
    let build = |platform: &str| site.build(&["--platform", platform], dockerfile);
    let native = build("linux/amd64");
    assert_eq!(native.executed().len(), 5);
    let other = build("linux/386");
    // What runs on the building machine and what is only copied is the same everywhere.
    let repeated = [
        "RUN echo $TARGETARCH > /arch",
        "RUN --mount=type=cache,target=/c echo x >> /c/x; echo here > /here",
    ];
    assert_eq!(other.executed(), repeated);
    assert_ne!(other.id, native.id);
    for (platform, id) in [("linux/amd64", &native.id), ("linux/386", &other.id)] {
        let again = build(platform);
        assert_eq!((again.executed(), &again.id), (vec![], id), "{platform}");
    }
    // Their programs would not get on with each other's files.
    let mounts = site.run(&["mounts", "ls"]);
    for id in ["/c ", "/c@linux/386 "] {
        assert!(mounts.lines().any(|line| line.starts_with(id)), "{mounts}");
    }
    // So each may be kept from the cache alone.
    for filter in ["mount=/c@linux/386", "[linux/386 stage-1 4/4]"] {
        let arguments = ["--no-cache-filter", filter, "--platform=linux/amd64,linux/386"];
        assert_eq!(site.build(&arguments, dockerfile).executed().len(), 1, "{filter}");
    }
}

/// An archive of two files, the first with what `permitted` says as its capabilities.
fn archive_with_capability(permitted: Option<u8>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, permitted) in [("a", permitted), ("b", None)] {
        if let Some(permitted) = permitted {
            // Version 2 and "effective", then two words each of permitted and inheritable ones.
            let mut value = [0; 20];
            (value[0], value[3], value[4]) = (1, 2, permitted);
            let field = ("SCHILY.xattr.security.capability", &value[..]);
            archive.append_pax_extensions([field]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(1);
        archive.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn a_capability_of_a_file_is_part_of_it() {
    let site = Site::new().with_busybox();
    let dockerfile = "FROM scratch AS files\nADD files.tar /\n\
                      FROM busybox\nCOPY --from=files /b /b\nCOPY --from=files /a /a\n\
                      RUN cat /a\n";
    let build = |permitted| {
        site.write("files.tar", archive_with_capability(permitted));
        let built = site.build(&[], dockerfile);
        (built.executed().join(", "), built.id)
    };
    let (executed, plain) = build(None);
    assert_eq!(executed.split(", ").count(), 4);
    let repeated = "ADD files.tar /, COPY --from=files /a /a, RUN cat /a";
    let (executed, first) = build(Some(1));
    assert_eq!(executed, repeated, "a capability");
    let (executed, second) = build(Some(2));
    assert_eq!(executed, repeated, "another");
    assert!(plain != first && first != second && plain != second);
    assert_eq!(build(Some(1)), (String::new(), first), "the first once more");
    assert_eq!(build(None), (String::new(), plain), "none, as in the beginning");
}

#[test]
fn attributes_that_no_image_gets_repeat_nothing() {
    let site = site_with_sources();
    let dockerfile = "FROM busybox\nCOPY src /src\nRUN cat /src/a\n";
    let first = site.build(&[], dockerfile).id;
    let note = |file: &str| {
        let mut command = Command::new("setfattr");
        command.args(["-n", "user.note", "-v", "x"]).arg(site.context(file));
        command.output().is_ok_and(|output| output.status.success())
    };
    if !note("src/a") {
        return formwork_testing::skipped("setfattr is missing, or files have no attributes here");
    }
    assert_eq!(site.build(&[], dockerfile).executed(), [""; 0]);
    assert_eq!(site.build(&["--no-cache"], dockerfile).id, first);
}
