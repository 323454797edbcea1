//! What a build tells while it runs.

use crate::support::{Ran, Site, on_each_rung};

const DOCKERFILE: &str = "\
FROM busybox AS one
RUN echo first; echo second >&2
FROM busybox
COPY --from=one /etc/group /group
";

fn plain(site: &Site, arguments: &[&str]) -> Ran {
    site.write("../Dockerfile", DOCKERFILE);
    let mut command = site.formwork(&["build", "-f", "../Dockerfile"]);
    Ran::of(command.args(arguments).arg(".")).succeeded()
}

#[test]
fn plain_progress_tells_output_time_and_what_was_cached() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let first = plain(site, &[]).stderr;
        assert!(first.contains("[one 2/2] RUN echo first; echo second >&2\n"), "{first}");
        let has_line = |text: &str, end: &str| {
            text.lines().any(|line| line.starts_with('#') && line.ends_with(end))
        };
        assert!(has_line(&first, " first") && has_line(&first, " second"), "{first}");
        assert!(first.contains(" DONE 0."), "{first}");
        let second = plain(site, &[]).stderr;
        assert!(has_line(&second, " CACHED"), "{second}");
        assert!(!has_line(&second, " first"), "{second}");
    });
}

#[test]
fn quiet_says_nothing_but_the_id() {
    let site = Site::new().with_busybox();
    let ran = plain(&site, &["-q"]);
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.starts_with("sha256:") && ran.stdout.len() == 72, "{}", ran.stdout);
}

#[test]
fn a_terminal_shows_steps_live() {
    let Some(script) = formwork_testing::program("script") else { return };
    let site = Site::new().with_busybox();
    site.write("../Dockerfile", DOCKERFILE);
    let build = site.formwork(&[]);
    let line = format!("{} build -f ../Dockerfile .", build.get_program().to_str().unwrap());
    let mut command = site.command(script.to_str().unwrap(), &["-qec", &line, "/dev/null"]);
    let ran = Ran::of(command.env("FORMWORK_ROOT", site.store()).env("TERM", "xterm")).succeeded();
    assert!(ran.stdout.contains("RUN echo first"), "{}", ran.stdout);
    assert!(ran.stdout.contains('\u{1b}'), "no control sequence in {:?}", ran.stdout);
}

#[test]
fn independent_stages_run_side_by_side_as_far_as_jobs_allow() {
    let site = Site::new().with_busybox();
    // Each waits for the other, for at most ten seconds.
    let stage = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,target=/m touch /m/{own}; \
             n=0; until [ -e /m/{other} ] || [ $((n += 1)) -gt 100 ]; do sleep 0.1; done; \
             [ -e /m/{other} ] && echo met > /{own} || echo alone > /{own}\n"
        )
    };
    let last = "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let dockerfile = format!("{}{}{last}", stage("a", "b"), stage("b", "a"));
    let tree = site.tree(&["--jobs", "2"], &dockerfile);
    assert_eq!((tree.text("/a"), tree.text("/b")), ("met\n".into(), "met\n".into()));
    // With one job nothing overlaps.
    let dockerfile = "\
FROM busybox AS a
RUN --mount=type=cache,target=/m mkdir /m/lock && sleep 0.2 && rmdir /m/lock
FROM busybox AS b
RUN --mount=type=cache,target=/m mkdir /m/lock && sleep 0.1 && rmdir /m/lock
FROM scratch
COPY --from=a /etc/group /a
COPY --from=b /etc/group /b
";
    site.build(&["--jobs", "1"], dockerfile);
}

#[test]
fn the_memory_that_a_step_takes_is_told() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=80M count=1\n";
        let told = |progress: &str| {
            site.write("../Dockerfile", dockerfile);
            let build = ["build", "--no-cache", progress, "-f", "../Dockerfile", "."];
            Ran::of(&mut site.formwork(&build)).succeeded().stderr
        };
        let json = told("--progress=json");
        let usage = json.lines().find(|line| line.contains("\"step-usage\"")).unwrap();
        let usage: serde_json::Value = serde_json::from_str(usage).unwrap();
        assert!(usage["peak_memory"].as_u64() > Some(80_000_000), "{usage}");
        assert!(usage["processor_seconds"].as_f64().is_some(), "{usage}");
        let plain = told("--progress=plain");
        assert!(plain.contains("s, peak memory 8"), "{plain}");
    });
}
