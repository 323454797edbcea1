//! What is told of mistakes: all of them in one run, each with its place.

use serde_json::Value;

use crate::support::{Ran, Site};

/// What a build tells: severity, code, the text that is pointed at, message.
fn told(
    site: &Site,
    arguments: &[&str],
    dockerfile: &str,
) -> Vec<(String, String, String, String)> {
    let ran = Ran::of(&mut site.build_command(arguments, dockerfile));
    let events = ran.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let diagnostics = events.filter(|event| event["event"] == "diagnostic");
    let read = |event: Value| {
        let diagnostic = &event["diagnostic"];
        let text = |key: &str| diagnostic[key].as_str().unwrap().to_owned();
        let span = &diagnostic["labels"][0]["span"];
        let end = |end: &str| usize::try_from(span[end]["offset"].as_u64().unwrap()).unwrap();
        let place = if span.is_null() { "" } else { &dockerfile[end("start")..end("end")] };
        (text("severity"), text("code"), place.to_owned(), text("message"))
    };
    diagnostics.map(read).collect()
}

/// The same without the message.
fn places(site: &Site, dockerfile: &str) -> Vec<(String, String, String)> {
    let told = told(site, &[], dockerfile);
    told.into_iter().map(|(severity, code, place, _)| (severity, code, place)).collect()
}

fn expected(list: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    list.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

#[test]
fn all_mistakes_are_told_in_one_run_with_their_places() {
    let site = Site::new();
    let dockerfile = "FROM scratch\nRUNN x\nENV A=${B\nCOPY --chmod=99 a /\n";
    let error = |code, place| ("error", code, place);
    assert_eq!(
        places(&site, dockerfile),
        expected(&[
            error("unknown-instruction", "RUNN"),
            error("bad-expansion", "${B"),
            error("bad-mode", "99"),
        ])
    );
    let dockerfile = "FROM 127.0.0.1:9/a AS a\nFROM 127.0.0.1:9/b\nCOPY --from=a /x /\n";
    let missing = |place| error("unresolved-image", place);
    assert_eq!(
        places(&site, dockerfile),
        expected(&[missing("127.0.0.1:9/a"), missing("127.0.0.1:9/b")])
    );
}

#[test]
fn all_files_that_are_missing_are_told_before_the_first_step_runs() {
    let site = Site::new().with_busybox();
    site.write("src/main.rs", "");
    site.write("secret", "");
    site.write(".dockerignore", "secret\n");
    let dockerfile = "FROM busybox AS a\nRUN exit 1\nCOPY src/mian.rs secret /x/\nFROM busybox\n\
                      COPY --from=a / /a\nRUN --mount=target=/m,source=none true\n";
    let missing = |place| ("error", "missing-source", place);
    assert_eq!(
        places(&site, dockerfile),
        expected(&[missing("src/mian.rs"), missing("secret"), missing("none"),])
    );
}

#[test]
fn what_is_looked_for_is_pointed_at_with_the_reason() {
    let site = Site::new().with_busybox();
    site.write("secret", "");
    site.write(".dockerignore", "secret\n");
    site.link("loose", "nowhere");
    site.link("hidden", "secret");
    for (dockerfile, place, message, hint) in [
        (
            "FROM busybox\nCOPY loose /\n",
            "loose",
            "`loose` leads nowhere: `loose` is a symbolic link to `nowhere`",
            "",
        ),
        (
            "FROM busybox\nCOPY hidden /\n",
            "hidden",
            "`hidden` leads nowhere: `hidden` is a symbolic link to `secret`",
            ".dockerignore:1 `secret`",
        ),
        (
            "FROM busybox\nCOPY --from=busybox /etc/pasword /\n",
            "/etc/pasword",
            "`/etc/pasword` is not there",
            "did you mean `etc/passwd`?",
        ),
        (
            "FROM busybox\nUSER ap\nWORKDIR /w\nRUN true\n",
            "ap",
            "the user `ap` is not in /etc/passwd of the image; did you mean `app`?",
            "",
        ),
        (
            "FROM busybox\nRUN --mount=type=secret,id=key,required true\n",
            "key",
            "the secret `key` is required and was not given",
            "",
        ),
        (
            "FROM scratch\nRUN true\n",
            "RUN true",
            "cannot run `/bin/sh`",
            "set another with `SHELL`",
        ),
        (
            "FROM busybox\nCOPY /etc/hostname /\n",
            "/etc/hostname",
            "`/etc/hostname` is not in the build context",
            "paths begin at the build context",
        ),
        (
            "FROM scratch\nADD http://127.0.0.1:9/file /\n",
            "http://127.0.0.1:9/file",
            "cannot fetch `http://127.0.0.1:9/file`",
            "",
        ),
    ] {
        let told = told(&site, &[], dockerfile);
        let error = told.iter().rfind(|told| told.0 == "error").unwrap();
        assert_eq!(error.2, place, "{dockerfile}");
        assert!(error.3.starts_with(message), "{dockerfile}: {error:?}");
        let ran = Ran::of(site.formwork(&["build", "-f", "../Dockerfile", "."]).arg("-q"));
        assert!(ran.stderr.contains(hint), "{dockerfile}: {}", ran.stderr);
    }
}

#[test]
fn what_is_dropped_in_silence_elsewhere_is_pointed_at() {
    let site = Site::new().with_busybox();
    site.write("a", "");
    let dockerfile = "FROM busybox\nUSER nob\nCOPY ../a none* /x/\nCOPY --chown=ap:staf a /\n\
                      WORKDIR /w\nCOPY --link --chown=app a /\nADD --keep-git-dir a /\n\
                      COPY --parents --exclude=x <<e /\ne\nRUN --device=vendor/x=all true\nUSER 0\n";
    let dockerfile = dockerfile.replace("RUN --", "USER app\nRUN --");
    let mut found = places(&site, &dockerfile);
    // Steps tell theirs as they come.
    found.sort();
    let warning = |code, place| ("warning", code, place);
    assert_eq!(
        found,
        expected(&[
            warning("no-effect", "--keep-git-dir"),
            warning("no-effect", "--link"),
            warning("no-effect", "--parents"),
            warning("no-effect", "vendor/x=all"),
            warning("no-effect", "x"),
            warning("no-match", "none*"),
            warning("path-outside", "../a"),
            warning("unknown-account", "ap:staf"),
            warning("unknown-account", "ap:staf"),
            warning("unknown-account", "nob"),
        ])
    );
}

#[test]
fn failures_before_the_build_are_objects_too() {
    let site = Site::new();
    let ran = Ran::of(&mut site.formwork(&["build", "--progress=json", "nowhere"]));
    assert_eq!(ran.code, Some(1));
    let event: Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!(event["event"], "diagnostic");
    assert_eq!(event["diagnostic"]["severity"], "error");
    assert!(event["time"].is_u64(), "{event}");
}

#[test]
fn what_the_base_image_brings_is_told_as_such() {
    let site = Site::new().with_busybox();
    for (base, dockerfile, note) in [
        ("ONBUILD COPY none /", "FROM base\n", "the base image brings `ONBUILD COPY none /`"),
        ("USER ghost", "FROM base\nRUN true\n", "the base image sets the user"),
    ] {
        site.build(&["-t", "base"], &format!("FROM busybox\n{base}\n"));
        Ran::of(&mut site.build_command(&[], dockerfile)).failed(1, note);
    }
}

#[test]
fn what_several_platforms_have_in_common_is_told_once() {
    let site = Site::new();
    site.write("a", "");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let codes = |dockerfile: &str| {
        let told = told(&site, &platforms, dockerfile);
        told.into_iter().map(|(_, code, place, _)| format!("{code} {place}")).collect::<Vec<_>>()
    };
    let start = "FROM scratch\nARG TARGETARCH\nENV A=$B\n";
    assert_eq!(
        codes(&format!("{start}COPY no nope /$TARGETARCH/\n")),
        ["UndefinedVar $B", "missing-source no", "missing-source nope"]
    );
    assert_eq!(
        codes(&format!("{start}COPY a n* /$TARGETARCH/\n")),
        ["UndefinedVar $B", "no-match n*"]
    );
}
