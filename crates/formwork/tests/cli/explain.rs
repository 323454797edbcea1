//! Why steps run.

use serde_json::Value;

use crate::support::{Built, Ran, Site};

const STEPS: &str = "\
FROM busybox AS build
ARG VERSION=1
COPY src /src
RUN cat /src/* > /out
RUN echo $VERSION >> /out
FROM busybox
COPY --from=build /out /app
";

fn site() -> Site {
    let site = Site::new().with_busybox();
    site.write("src/a", "1");
    site.write("src/b", "2");
    site
}

/// The reasons of one step.
#[track_caller]
fn reasons<'a>(built: &'a Built, step: &str) -> Vec<&'a str> {
    built.step(step).reasons.iter().map(String::as_str).collect()
}

#[test]
fn a_first_build_has_nothing_to_explain() {
    let site = site();
    let built = site.build(&[], STEPS);
    assert!(built.steps.iter().all(|step| step.reasons.is_empty()), "{:#?}", built.steps);
    let told = site.run(&["explain", "RUN cat"]);
    assert!(told.contains("it is new"), "{told}");
}

#[test]
fn changed_files_are_named_and_the_steps_behind_them_say_whom_they_follow() {
    let site = site();
    site.build(&[], STEPS);
    site.write("src/a", "3");
    site.write("src/c", "4");
    site.chmod("src/b", 0o600);
    let again = site.build(&[], STEPS);
    assert_eq!(
        reasons(&again, "COPY src"),
        ["/src/a changed", "/src/b had mode 644, has 600", "/src/c is new"]
    );
    assert_eq!(reasons(&again, "RUN cat"), ["`COPY src /src` before it changed"]);
    assert_eq!(reasons(&again, "RUN echo"), ["`COPY src /src` before it changed"]);
    assert_eq!(reasons(&again, "COPY --from"), ["/app changed"]);
    assert!(reasons(&site.build(&[], STEPS), "COPY src").is_empty());
}

#[test]
fn variables_and_commands_are_told() {
    let site = site();
    site.build(&[], STEPS);
    let other = site.build(&["--build-arg", "VERSION=2"], STEPS);
    let told = reasons(&other, "RUN echo");
    assert!(told.contains(&"VERSION was `1`, is `2`"), "{told:?}");
    let edited = STEPS.replace("RUN echo $VERSION", "RUN echo v$VERSION");
    assert_eq!(reasons(&site.build(&[], &edited), "RUN echo"), ["the command changed"]);
    let no_cache = site.build(&["--no-cache"], STEPS);
    assert_eq!(reasons(&no_cache, "RUN cat"), ["the cache is not to be used"]);
}

#[test]
fn another_image_is_told() {
    let site = site();
    let dockerfile = "FROM other\nRUN echo > /file";
    for number in ["1", "2"] {
        site.write("number", number);
        site.build(&["-t", "other"], "FROM busybox\nCOPY number /");
        let built = site.build(&[], dockerfile);
        if number == "2" {
            assert_eq!(reasons(&built, "RUN echo"), ["the image `other:latest` changed"]);
        }
    }
}

#[test]
fn a_result_that_was_removed_is_told() {
    let site = site();
    let build = || site.build(&["-o", "type=tar,dest=../out.tar"], STEPS);
    build();
    site.run(&["prune"]);
    let told = reasons(&build(), "RUN cat").join("");
    assert_eq!(told, "its result is no longer in the store");
}

#[test]
fn explain_tells_of_the_last_build_in_which_something_ran() {
    let site = Site::new();
    Ran::of(&mut site.formwork(&["explain"])).failed(1, "no build");
    site.make_busybox();
    site.write("src/a", "1");
    let plain = |arguments: &[&str]| {
        let all = [&["build", "--progress=plain", "-f", "../Dockerfile"], arguments, &["."]];
        Ran::of(&mut site.formwork(&all.concat())).succeeded().stderr
    };
    site.build(&[], STEPS);
    site.write("src/a", "3");
    let told = plain(&["--explain"]);
    assert!(told.contains("s (/src/a changed)"), "{told}");
    assert!(told.contains("because:\n    - /src/a changed\n"), "{told}");
    assert!(plain(&[]).contains("CACHED"));
    let step = site.run(&["explain", "COPY src"]);
    assert!(step.contains("- /src/a changed") && !step.contains("RUN"), "{step}");
    let all: Vec<Value> = site
        .run(&["explain", "--format=json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(all.iter().any(|step| step["Reasons"][0] == "/src/a changed"), "{all:?}");
    Ran::of(&mut site.formwork(&["explain", "no such"])).failed(1, "no step");
}

#[test]
fn a_dry_run_tells_what_would_happen_and_builds_nothing() {
    let site = Site::new().with_busybox();
    let dockerfile = "FROM busybox AS a\nCOPY src /src\nRUN sleep 0.3; cat /src/* > /out\n\
                      FROM busybox AS b\nRUN echo b > /b\n\
                      FROM busybox\nCOPY --from=a /out /\nCOPY --from=b /b /\nRUN cat /out /b > /c\n";
    site.write("src/file", "1");
    site.write("../Dockerfile", dockerfile);
    let dry = || {
        let arguments = ["build", "--dry-run", "-q", "-f", "../Dockerfile", "."];
        Ran::of(&mut site.formwork(&arguments)).succeeded().stdout
    };
    let told = dry();
    assert!(told.contains("RUN echo b > /b\n    would run: it is new"), "{told}");
    assert!(told.contains("steps would run, for 0.0s or more: "), "{told}");
    // Nothing has happened.
    assert_eq!(site.build(&[], dockerfile).executed().len(), 6);
    let told = dry();
    assert!(told.ends_with("everything comes from the cache\n"), "{told}");
    site.write("src/file", "2");
    let told = dry();
    assert!(told.contains("COPY src /src\n    would run, for 0."), "{told}");
    assert!(told.contains("- file changed") || told.contains("src/file"), "{told}");
    assert!(told.contains("RUN echo b > /b\n    comes from the cache"), "{told}");
    assert!(told.contains("`COPY src /src` would run before it"), "{told}");
    // `formwork explain` tells the same, and of single steps.
    let explain = |before: &[&str]| {
        let build = ["--dry-run", "-q", "-f", "../Dockerfile", "."];
        let arguments = [&["explain"], before, &build].concat();
        Ran::of(&mut site.formwork(&arguments))
    };
    assert_eq!(explain(&[]).succeeded().stdout, told);
    let step = explain(&["COPY src"]).succeeded().stdout;
    assert!(step.starts_with("[a 2/3] COPY src /src\n    would run, for 0."), "{step}");
    assert!(
        !step.contains("RUN") && step.trim_end().ends_with(told.lines().last().unwrap()),
        "{step}"
    );
    explain(&["no such"]).failed(1, "no step with `no such`");
    Ran::of(&mut site.formwork(&["explain", "--dry-run", "--no-such", "."])).failed(2, "--no-such");
    // What has changed about a step itself is told, too, and it runs whatever is before it.
    let changed = dockerfile.replace("cat /src/* > /out", "cat /src/*  > /out");
    site.write("../Dockerfile", &changed);
    let own = dry();
    let at = own.find("RUN sleep").unwrap_or_else(|| panic!("{own}"));
    let lines: Vec<&str> = own[at..].lines().skip(1).take(3).collect();
    assert!(lines[0].ends_with("as the last time, because:"), "{own}");
    assert_eq!(
        lines[1..],
        ["    - the command changed", "    - `COPY src /src` would run before it"]
    );
    site.write("../Dockerfile", dockerfile);
    // The step that sleeps says how long the build takes.
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("5 steps would run, for about 0."), "{told}");
    assert_eq!(site.build(&[], dockerfile).executed().len(), 5);
    let mut wrong = site.build_command(&["--dry-run"], "FROM busybox\nCOPY missing /\n");
    Ran::of(&mut wrong).failed(1, "missing");
    let json = Ran::of(&mut site.build_command(&["--dry-run"], dockerfile)).succeeded().stdout;
    assert_eq!(json.lines().filter(|line| line.contains("\"Outcome\":\"cached\"")).count(), 6);
}
