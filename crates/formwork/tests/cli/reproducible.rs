//! The same inputs give the same digest: on any machine, with any number of threads, as anybody.

use std::path::Path;

use formwork_testing::program;
use serde_json::Value;

use crate::support::{Built, Ran, Repositories, on_each_rung};

/// When commits of test repositories are made.
const COMMIT: &str = "2001-02-03T04:05:06Z";

/// Something of everything, with enough files to keep several threads busy.
const DOCKERFILE: &str = "\
FROM busybox AS build
WORKDIR /src
COPY . .
RUN for i in $(seq 300); do head -c 9000 /bin/busybox > f$i; done && ln f1 hard && date > now && rm now
FROM busybox
COPY --from=build /src /src
RUN mkdir /made && touch /made/file && rm /etc/group
ENV A=1
";

#[test]
fn two_machines_make_the_same_bytes() {
    let Some(taskset) = program("taskset") else { return };
    let taskset = taskset.to_str().unwrap();
    let mut archives: Vec<(String, Vec<u8>)> = Vec::new();
    let machines: std::cell::RefCell<&mut Vec<_>> = std::cell::RefCell::new(&mut archives);
    on_each_rung(|site| {
        for processors in ["0", "0-63"] {
            // Another machine knows nothing.
            formwork_testing::remove_all(&site.store());
            if !site.make_busybox() {
                return;
            }
            for name in ["z", "a", "deep/b"] {
                site.write(name, name.repeat(1000));
            }
            for compression in ["gzip", "zstd"] {
                let archive = site.outside("image.tar");
                let output = format!("type=oci,dest={archive},compression={compression}");
                let build = site.build_command(&["--no-cache", "-o", &output], DOCKERFILE);
                let own = build.get_args().map(|a| a.to_owned()).collect::<Vec<_>>();
                let program = build.get_program().to_owned();
                let mut command = site.command(taskset, &["-c", processors]);
                command.arg(program).args(own);
                let settings = build.get_envs().filter_map(|(name, value)| Some((name, value?)));
                command.envs(settings);
                // What a machine is set to does not matter.
                command.env("TZ", "Asia/Kathmandu").env("LC_ALL", "C.UTF-8");
                let built = Built::of(&mut command);
                let bytes = fs_err::read(archive).unwrap();
                machines.borrow_mut().push((format!("{compression} {}", built.id), bytes));
            }
        }
    });
    let (gzip, zstd): (Vec<_>, Vec<_>) =
        archives.iter().partition(|(name, _)| name.starts_with("gzip"));
    for same in [gzip, zstd] {
        assert!(same.windows(2).all(|two| two[0] == two[1]), "archives of machines differ");
    }
}

/// What an image says about its time, and its digest.
fn created(layout: &str) -> String {
    let json =
        |path: &Path| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let blob = |digest: &Value| {
        let name = digest.as_str().unwrap().replace(':', "/");
        json(&Path::new(layout).join("blobs").join(name))
    };
    let index = json(&Path::new(layout).join("index.json"));
    let config = blob(&blob(&index["manifests"][0]["digest"])["config"]["digest"]);
    config["created"].as_str().unwrap().to_owned()
}

#[test]
fn the_time_of_a_commit_is_the_time_of_the_image() {
    let Some(repositories) = Repositories::start() else { return };
    let dockerfile = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY . /\nLABEL at=$SOURCE_DATE_EPOCH\n";
    repositories.commit("r", &[("Dockerfile", dockerfile), ("a", "1"), ("d/b", "2")]);
    on_each_rung(|site| {
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        let build = |arguments: &[&str]| {
            let arguments = [&["build", "-o", &output], arguments].concat();
            let mut build = site.formwork(&arguments);
            Ran::of(build.env_remove("SOURCE_DATE_EPOCH"))
        };
        let url = repositories.url("r");
        let remote = build(&["--source-date-epoch=context", &url]).succeeded().stdout;
        assert_eq!(created(&layout), COMMIT);
        // The user's own copy, whenever it was made and whosever it is.
        let clone = site.outside("clone");
        repositories.git("r", &["clone", "-q", ".", &clone]);
        fs_err::remove_dir_all(format!("{clone}/d")).unwrap();
        repositories.git("r", &["-C", &clone, "checkout", "-q", "--", "d"]);
        let local = build(&["--build-arg=SOURCE_DATE_EPOCH=context", &clone]).succeeded().stdout;
        assert_eq!(created(&layout), COMMIT);
        assert!(!remote.is_empty() && !local.is_empty());
        site.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
        let mut own = site.formwork(&["build", "-o", &output, "--source-date-epoch=99", "."]);
        Ran::of(own.env("SOURCE_DATE_EPOCH", "5")).succeeded();
        assert_eq!(created(&layout), "1970-01-01T00:01:39Z");
        build(&["--source-date-epoch=context", "."]).failed(1, "is in no git repository");
        build(&["--source-date-epoch=other", "."]).failed(1, "neither a number of seconds nor");
    });
}

#[test]
fn an_image_is_built_once_more_and_compared() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a", "A");
        site.write("ignored", "1");
        site.write(".dockerignore", "ignored\n");
        let dockerfile = "FROM busybox\nARG V=1\nWORKDIR /w\nCOPY . .\nRUN echo $V > v\nENV V=$V\n";
        site.build(&["-t", "app", "--build-arg=V=2", "--label=x=y"], dockerfile);
        let inputs = site.inspect("app")["Inputs"].clone();
        assert_eq!(inputs["epoch"], 1_700_000_000);
        assert_eq!(inputs["build_args"]["V"], "2");
        assert_eq!(inputs["images"][0]["name"], "busybox:latest");
        let same = site.run(&["verify", "app"]);
        assert!(same.contains("app is what its inputs make"), "{same}");
        assert!(same.contains("SOURCE_DATE_EPOCH=1700000000"), "{same}");
        // Neither the Dockerfile of today counts nor what was left out, but the base image of then.
        site.write("../Dockerfile", "FROM scratch\n");
        site.write("ignored", "2");
        site.write("../base/extra", "");
        site.run(&["build", "-q", "-t", "busybox", "-f", "../Dockerfile", "."]);
        let moved = Ran::of(&mut site.formwork(&["verify", "app"]));
        assert!(moved.stderr.contains("is needed to build it again"), "{}", moved.stderr);
        assert!(site.make_busybox());
        site.run(&["verify", "-q", "app"]);
        site.write("a", "B");
        let ran = Ran::of(&mut site.formwork(&["verify", "--format=json", "app"]));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        let difference = &found["Difference"];
        assert_eq!(difference["Path"], "/w/a");
        assert_eq!(difference["Field"], "content");
        assert!(difference["Instruction"].as_str().unwrap().starts_with("COPY . ."), "{found}");
        fs_err::remove_file(site.context("a")).unwrap();
        let ran = Ran::of(&mut site.formwork(&["verify", "-q", "app"]));
        assert!(ran.stdout.contains("path      /w/a\n  field     file"), "{}", ran.stdout);
    });
}

#[test]
fn what_is_never_the_same_is_found() {
    let site = crate::support::Site::new().with_busybox();
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n";
    site.build(&["-t", "random"], dockerfile);
    let ran = Ran::of(&mut site.formwork(&["verify", "-q", "random"]));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let expected = "path      /id\n  field     content\n  image     37 bytes";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    // Without a time, times do not count, and all else does.
    let mut build = site.build_command(&["-t", "timeless"], "FROM busybox\nRUN touch /a\n");
    Ran::of(build.env_remove("SOURCE_DATE_EPOCH")).succeeded();
    let mut verify = site.formwork(&["verify", "-q", "timeless"]);
    let ran = Ran::of(verify.env_remove("SOURCE_DATE_EPOCH")).succeeded();
    assert!(ran.stdout.contains("times do not count"), "{}", ran.stdout);
    site.run(&["tag", "busybox", "copy"]);
    let archive = site.outside("a.tar");
    site.run(&["save", "-o", &archive, "timeless"]);
    site.run(&["rm", "timeless"]);
    site.run(&["load", "-q", "-i", &archive]);
    let mut verify = site.formwork(&["verify", "timeless"]);
    Ran::of(&mut verify).failed(1, "nobody wrote down what `timeless:latest` was made from");
}
