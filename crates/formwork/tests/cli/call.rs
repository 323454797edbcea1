//! `formwork build --check` and `--call`: a Dockerfile is looked at and nothing is built.

use serde_json::{Value, json};

use crate::support::{Ran, Site};

/// A file with something to say about.
const DOCKERFILE: &str = "\
# VERSION of the program
ARG VERSION=1
# tools to build with
FROM scratch AS tools
ARG VERSION
ARG NAME=app-$VERSION
RUN --mount=type=secret,id=token,required --mount=type=ssh,id=key --mount=type=cache,target=/c true
FROM tools AS other
COPY x.log /$NOWHERE
FROM tools
MAINTAINER me
";

#[track_caller]
fn call(site: &Site, arguments: &[&str], dockerfile: &str) -> Ran {
    Ran::of(&mut site.build_command(arguments, dockerfile))
}

#[test]
fn a_check_tells_what_rules_find_in_all_stages() {
    let site = Site::new();
    site.write(".dockerignore", "*.log");
    let ran = call(&site, &["--check"], DOCKERFILE);
    assert_eq!(ran.code, Some(1));
    let expected = "\
Check complete, 3 warnings have been found!

WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
Usage of undefined variable '$NOWHERE'
../Dockerfile:9
--------------------
   7 |     RUN --mount=type=secret,id=token,required --mount=type=ssh,id=key --mount=type=cache,target=/c true
   8 |     FROM tools AS other
   9 | >>> COPY x.log /$NOWHERE
  10 |     FROM tools
  11 |     MAINTAINER me
--------------------
";
    assert_eq!(ran.stdout.split_at(expected.len()).0, expected);
    let ran = call(&site, &["--check", "--target=tools"], DOCKERFILE);
    assert!(ran.stdout.contains("1 warning has been found"), "{}", ran.stdout);
}

#[test]
fn a_check_without_findings_succeeds() {
    let site = Site::new();
    let ran = call(&site, &["--call=check"], "FROM scratch\n");
    assert_eq!(ran.succeeded().stdout, "Check complete, no warnings found.\n");
    let ran = call(&site, &["--call=check,ignorestatus"], DOCKERFILE).succeeded();
    assert!(ran.stdout.contains("MaintainerDeprecated"));
}

#[test]
fn a_check_as_json_is_that_of_buildx() {
    let site = Site::new();
    let text = "FROM scratch\nMAINTAINER me\nCOPI\n";
    let ran = call(&site, &["--call=check,format=json"], text);
    assert_eq!(ran.code, Some(1));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = json!([{
        "ruleName": "MaintainerDeprecated",
        "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
        "detail": "Maintainer instruction is deprecated in favor of using label",
        "location": { "ranges": [{ "start": { "line": 2 }, "end": { "line": 2 } }] },
    }]);
    assert_eq!(report["warnings"], expected);
    assert_eq!(report["buildError"]["message"], "`COPI` is no instruction");
    assert_eq!(report["sources"][0]["fileName"], "../Dockerfile");
}

#[test]
fn targets_are_listed_with_their_descriptions() {
    let site = Site::new();
    let ran = call(&site, &["--call=targets"], DOCKERFILE).succeeded();
    let expected = "TARGET    DESCRIPTION\ntools     to build with\nother\n(default)\n";
    assert_eq!(ran.stdout, expected);
    let ran = call(&site, &["--call=targets,format=json"], DOCKERFILE).succeeded();
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(list["targets"][0]["name"], "tools");
    assert_eq!(list["targets"][2]["default"], true);
    assert_eq!(list["targets"][2]["location"]["ranges"][0]["start"]["line"], 10);
}

#[test]
fn an_outline_tells_what_a_target_takes() {
    let site = Site::new();
    let arguments = ["--call=outline", "--target=tools", "--build-arg=VERSION=2"];
    let ran = call(&site, &arguments, DOCKERFILE).succeeded();
    let expected = "\
TARGET:      tools
DESCRIPTION: to build with

BUILD ARG   VALUE   DESCRIPTION
VERSION     2
NAME        app-2

SECRET   REQUIRED
token    true

SSH   REQUIRED
key

";
    assert_eq!(ran.stdout, expected);
    let ran = call(&site, &["--call=outline,format=json"], DOCKERFILE).succeeded();
    let outline: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(outline["cache"][0]["ID"], "/c");
    assert_eq!(outline["secrets"][0]["required"], true);
}

#[test]
fn findings_are_warnings_of_a_build_and_errors_where_the_file_says_so() {
    let site = Site::new();
    let text = "FROM scratch\nMAINTAINER me\n";
    let ran = call(&site, &[], text).succeeded();
    assert!(ran.stderr.contains("MaintainerDeprecated"), "{}", ran.stderr);
    let ran = call(&site, &[], &format!("# check=error=true\n{text}"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("lint violation found for rules: MaintainerDeprecated"));
    let argument = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    let ran = call(&site, &["--build-arg", argument], text).succeeded();
    assert!(!ran.stderr.contains("MaintainerDeprecated"), "{}", ran.stderr);
    let ran = call(&site, &["--build-arg=BUILDKIT_DOCKERFILE_CHECK=x"], text);
    assert!(ran.stderr.contains("`x` is no option"), "{}", ran.stderr);
}

#[test]
fn a_shell_of_the_base_is_meant_to_run_commands() {
    let site = Site::new();
    let base = "FROM scratch\nSHELL [\"/bin/bash\", \"-ec\"]\n";
    call(&site, &["-t", "chosen"], base).succeeded();
    call(&site, &["-t", "none"], "FROM scratch\nLABEL a=b\n").succeeded();
    for method in [&["--check"][..], &[]] {
        let told = |base: &str| {
            let ran = call(&site, method, &format!("FROM {base}\nCMD run this\n"));
            format!("{}{}", ran.stdout, ran.stderr).contains("JSONArgsRecommended")
        };
        assert!(told("none") && !told("chosen"), "{method:?}");
    }
}

#[test]
fn stages_that_are_not_built_make_no_build_fail() {
    let site = Site::new();
    let text = "# check=error=true\nFROM scratch AS unused\nENV A=$B\nFROM scratch\nCMD [\"a\"]\n";
    call(&site, &[], text).succeeded();
}

#[test]
fn what_is_dropped_in_silence_elsewhere_is_told() {
    let site = Site::new();
    site.write("a", "");
    let text = "FROM scratch\nCOPY ../../a /\nCOPY none* /x/\nCOPY --parents no/**/f /y/\n\
                COPY go.su[m] /z/\n";
    let ran = call(&site, &[], text).succeeded();
    // That is how people write that a file may be missing.
    assert!(!ran.stderr.contains("`go.su[m]` matches"), "{}", ran.stderr);
    for told in [
        "`../../a` leads out of where it is looked for: `/a` is taken",
        "`none*` matches nothing",
        "`no/**/f` matches nothing",
    ] {
        let message = format!("\"message\":\"{told}\"");
        assert_eq!(ran.stderr.matches(&message).count(), 1, "{told}: {}", ran.stderr);
    }
}
