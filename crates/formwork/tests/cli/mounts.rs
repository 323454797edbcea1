//! Cache mounts that are listed, removed, and taken to other stores.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Built, Ran, Site, on_each_rung};

/// Adds to the files of a cache mount, and tells what was there.
const FILL: &str = "\
FROM busybox
RUN --mount=type=cache,id=things,target=/cache \
    mkdir -p /cache/deep && echo 1 > /cache/deep/file && chmod 640 /cache/deep/file && \
    chown 1000:50 /cache/deep/file && ln -s deep/file /cache/link && chmod 700 /cache
";
const SHOW: &str = "\
FROM busybox
RUN --mount=type=cache,id=things,target=/cache \
    cat /cache/link && stat -c '%a %u:%g' /cache /cache/deep/file && stat -c %y /cache/deep/file
";

/// What a step finds in the cache mount.
fn shown(site: &Site) -> Vec<String> {
    let built = site.build(&["--no-cache"], SHOW);
    built.log().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_mount_travels_to_another_store_as_it_is() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.build(&[], FILL);
        let before = shown(site);
        assert_eq!(before[..3], ["1", "700 0:0", "640 1000:50"]);
        for compression in ["gzip", "zstd", "uncompressed"] {
            let option = format!("--compression={compression}");
            site.run(&["mounts", "export", "things", "-o", "things.tar", &option]);
            assert_eq!(site.run(&["mounts", "rm", "things"]), "Deleted: things\n");
            assert_eq!(site.run(&["mounts", "ls", "--format=json"]), "");
            site.run(&["mounts", "import", "things", "-i", "things.tar"]);
            assert_eq!(shown(site), before, "{compression}");
        }
        assert!(site.run(&["mounts", "ls"]).contains("\nthings"));
    });
}

#[test]
fn an_import_replaces_what_is_there_and_a_broken_one_does_not() {
    let site = Site::new().with_busybox();
    site.build(&[], FILL);
    let archive = Ran::of(&mut site.command("tar", &["-cf", "new.tar", "-C", "..", "Dockerfile"]));
    archive.succeeded();
    let whole = fs_err::read(site.context("new.tar")).unwrap();
    let import = |bytes: &[u8]| {
        let mut command = site.formwork(&["mounts", "import", "things"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that is refused need not be read to its end.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child.wait_with_output().unwrap().status.success()
    };
    assert!(!import(&whole[..700]));
    assert!(!import(b"no archive"));
    assert_eq!(shown(&site)[0], "1");
    assert!(import(&whole));
    let list = "FROM busybox\nRUN --mount=type=cache,id=things,target=/cache ls -A /cache";
    assert_eq!(site.build(&[], list).log(), ["Dockerfile"]);
}

#[test]
fn mounts_that_are_not_there_and_those_in_use_are_told() {
    let site = Site::new().with_busybox();
    let export = ["mounts", "export", "things", "-o", "x.tar"];
    Ran::of(&mut site.formwork(&export)).failed(1, "there are none");
    site.build(&[], FILL);
    Ran::of(&mut site.formwork(&["mounts", "rm", "thigns"])).failed(1, "there are `things`");
    Ran::of(&mut site.formwork(&["mounts", "rm"])).failed(2, "ID");
    site.run(&export);
    let used = "FROM busybox\nRUN --mount=type=cache,id=things,target=/cache \
                touch /cache/started; while [ ! -e /cache/end ]; do sleep 0.01; done";
    let mut build = site.build_command(&[], used).stderr(Stdio::null()).spawn().unwrap();
    let mounts = site.store().join("cache-mounts-v1");
    let mount = fs_err::read_dir(mounts).unwrap().next().unwrap().unwrap().path().join("0");
    while !mount.join("started").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let import = ["mounts", "import", "things", "-i", "x.tar"];
    Ran::of(&mut site.formwork(&import)).failed(4, "a step is using");
    Ran::of(&mut site.formwork(&["mounts", "rm", "--all"])).failed(4, "a step is using");
    Ran::of(&mut site.formwork(&["mounts", "rm", "things"])).failed(4, "a step is using");
    fs_err::write(mount.join("end"), "").unwrap();
    assert!(build.wait().unwrap().success());
    site.run(&import);
    assert_eq!(site.run(&["mounts", "rm", "--all"]), "Deleted: things\n");
}

/// A step that uses a cache mount together with the others that do, or alone.
fn together_or_alone(options: &str) -> String {
    // Each adds itself, and tells how many there are.
    format!(
        "RUN --mount=type=cache,target={options} cd $DIR; echo >> in; \
         for i in $(seq $WAIT); do sleep 0.05; [ $(wc -l < in) -gt 1 ] && break; done; \
         wc -l < in; sleep 0.1; rm -f in || true"
    )
}

/// The largest number of steps, of four builds at once, that used one directory together. Each
/// waits some twentieths of a second for others.
fn most_together(site: &Site, options: &str, wait: usize) -> usize {
    let directory = options.split(',').next().unwrap();
    let logs: Vec<Vec<String>> = std::thread::scope(|scope| {
        let build = |number: usize| {
            move || {
                let file = format!("../Dockerfile-{number}");
                let step = together_or_alone(options);
                let text =
                    format!("FROM busybox\nENV DIR={directory} N={number} WAIT={wait}\n{step}\n");
                site.write(&file, text);
                let arguments = ["build", "--progress=json", "--no-cache", "-f", &file, "."];
                let built = Built::of(&mut site.formwork(&arguments));
                built.log().into_iter().map(str::to_owned).collect()
            }
        };
        let builds: Vec<_> = (0..4).map(|number| scope.spawn(build(number))).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    logs.iter().flatten().filter_map(|line| line.trim().parse().ok()).max().unwrap()
}

#[test]
fn sharing_holds_between_processes() {
    let site = Site::new().with_busybox();
    assert_eq!(most_together(&site, "/a,sharing=locked", 3), 1);
    assert_eq!(most_together(&site, "/b,sharing=private", 3), 1);
    assert!(most_together(&site, "/c", 100) > 1);
    // Private ones leave a directory for each that there was at once.
    let mounts = site.run(&["mounts", "ls"]);
    assert_eq!(mounts.lines().count(), 4, "{mounts}");
}

#[test]
fn package_managers_wait_for_each_other_and_that_is_told_once() {
    let site = Site::new().with_busybox();
    site.write(
        "../Dockerfile",
        format!(
            "FROM busybox\nENV DIR=/var/cache/apt WAIT=3\n{}\n",
            together_or_alone("/var/cache/apt")
        ),
    );
    let build = |site: &Site| {
        let arguments = ["build", "--no-cache", "-f", "../Dockerfile", "."];
        Ran::of(&mut site.formwork(&arguments)).succeeded().stderr
    };
    assert!(build(&site).contains("steps that share the cache mount `/var/cache/apt` wait"));
    assert!(!build(&site).contains("wait for each other"));
    assert_eq!(most_together(&site, "/var/cache/apt", 3), 1);
    assert!(most_together(&site, "/var/cache/apt,sharing=shared", 100) > 1);
    assert_eq!(most_together(&site, "/var/lib/apt/lists", 3), 1);
}

#[test]
fn ids_are_apart_in_namespaces() {
    let site = Site::new().with_busybox();
    let dockerfile =
        "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/x; wc -l < /c/x\n";
    let build = |arguments: &[&str]| {
        let arguments = [&["--no-cache"], arguments].concat();
        site.build(&arguments, dockerfile).log().join(" ")
    };
    let namespace = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=team"];
    assert_eq!(
        [build(&[]), build(&[]), build(&namespace), build(&namespace)],
        ["1", "2", "1", "2"]
    );
    let mounts = site.run(&["mounts", "ls"]);
    assert!(["/c ", "team/c "].iter().all(|id| mounts.lines().any(|line| line.starts_with(id))));
}
