//! Several builds at once on one store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use crate::support::{Built, Ran, Site, on_each_rung};

/// Builds what is in `Dockerfile` beside the context, so many times at once.
fn build_together(site: &Site, count: usize, arguments: &[&str]) -> Vec<Built> {
    let build = || {
        let mut command = site.formwork(&["build", "--progress=json", "-f", "../Dockerfile"]);
        Built::of(command.args(arguments).arg("."))
    };
    scope(|scope| {
        let builds: Vec<_> = (0..count).map(|_| scope.spawn(build)).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    })
}

/// How often the step of `COUNTED` has run.
fn count(site: &Site) -> usize {
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,id=count,target=/c cat /c/count\n";
    site.build(&["--no-cache"], dockerfile).log().len()
}

const COUNTED: &str = "\
FROM busybox
RUN --mount=type=cache,id=count,target=/c \\
    echo ran >> /c/count && echo begun && sleep 1 && echo over >&2 && echo made > /made
RUN cp /made /copy
";

#[test]
fn a_step_that_eight_builds_want_runs_once_and_all_see_its_log() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../Dockerfile", COUNTED);
        let builds = build_together(site, 8, &[]);
        assert_eq!(count(site), 1);
        assert!(builds.iter().all(|build| build.id == builds[0].id));
        let (mut ran, mut waited) = (0, 0);
        for build in &builds {
            let step = build.step("--mount=type=cache");
            match step.outcome.as_str() {
                "done" => ran += 1,
                "cached" if step.waited => waited += 1,
                // On a busy machine a build may begin when the step is over.
                "cached" => continue,
                other => panic!("{other}"),
            }
            assert_eq!(step.log, ["begun", "over"]);
        }
        assert_eq!(ran, 1);
        assert!(waited > 0, "nobody waited");
    });
}

#[test]
fn builds_without_the_cache_wait_for_nobody() {
    let site = Site::new().with_busybox();
    site.write("../Dockerfile", COUNTED);
    let builds = build_together(&site, 3, &["--no-cache"]);
    assert_eq!(count(&site), 3);
    assert!(builds.iter().all(|build| build.id == builds[0].id));
}

#[test]
fn when_the_build_that_runs_a_step_fails_another_one_runs_it() {
    let site = Site::new().with_busybox();
    site.write(
        "../Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=once,target=/c \\\n    \
         sleep 0.3; if mkdir /c/failed; then echo no; exit 3; fi; echo yes\n",
    );
    let build = || {
        let arguments = ["build", "--progress=json", "-f", "../Dockerfile", "."];
        Ran::of(&mut site.formwork(&arguments))
    };
    let (one, two) = scope(|scope| {
        let one = scope.spawn(build);
        let two = scope.spawn(build);
        (one.join().unwrap(), two.join().unwrap())
    });
    let mut codes = [one.code, two.code];
    codes.sort();
    assert_eq!(codes[0], Some(0), "{}{}", one.stderr, two.stderr);
    assert_ne!(codes[1], Some(0), "{}{}", one.stderr, two.stderr);
}

/// Steps that use a layer, a cache mount and a blob of the store for a while.
const SLOW: &str = "\
FROM busybox AS build
RUN --mount=type=cache,id=used,target=/c echo kept > /c/file; echo a > /a
RUN --mount=type=cache,id=used,target=/c sleep 0.2; cat /c/file /a > /b
FROM busybox
COPY --from=build /b /c
RUN sleep 0.1; cat /c > /d
";

#[test]
fn what_running_builds_use_is_never_pruned() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../Dockerfile", SLOW);
        let archive = |number: usize| format!("type=oci,dest=../out-{number}.tar");
        let done = AtomicBool::new(false);
        scope(|scope| {
            let prune = || {
                while !done.load(Ordering::SeqCst) {
                    site.run(&["prune", "--all", "--force"]);
                    site.run(&["rm", "--force", "half"]);
                }
            };
            let pruners: Vec<_> = (0..2).map(|_| scope.spawn(prune)).collect();
            let build = |number: usize| {
                move || {
                    for round in 0..3 {
                        let argument = format!("{number}-{round}");
                        let file = format!("../Dockerfile-{argument}");
                        site.write(&file, SLOW.replace("echo a", &format!("echo {argument}")));
                        let output = archive(number);
                        let arguments = [
                            "build",
                            "-f",
                            &file,
                            "-t",
                            "half",
                            "-o",
                            &output,
                            "-o",
                            "type=image",
                            ".",
                        ];
                        Ran::of(&mut site.formwork(&arguments)).succeeded();
                    }
                }
            };
            let builds: Vec<_> = (0..3).map(|number| scope.spawn(build(number))).collect();
            let ended: Vec<_> = builds.into_iter().map(|build| build.join()).collect();
            done.store(true, Ordering::SeqCst);
            let pruned: Vec<_> = pruners.into_iter().map(|pruner| pruner.join()).collect();
            assert!(ended.iter().chain(&pruned).all(Result::is_ok));
        });
        // Nothing was left half there.
        let fresh = site.build(&["--no-cache", "-o", "type=oci,dest=../fresh.tar"], SLOW).id;
        assert_eq!(site.build(&["-o", "type=oci,dest=../again.tar"], SLOW).id, fresh);
    });
}
