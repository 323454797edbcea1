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
                command.arg(program).args(own).env("FORMWORK_ROOT", site.store());
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
        build(&["--source-date-epoch=other", "."]).failed(2, "neither a number of seconds nor");
    });
}
