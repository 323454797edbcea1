//! The same Dockerfile built by formwork, buildah and BuildKit, and formwork's images read by
//! podman and umoci.
//!
//! Every difference that is meant stands in [`BUILDAH`] or [`BUILDKIT`] with its reason. BuildKit
//! is compared where `buildkitd` and `buildctl` are on the PATH.

mod buildkit;
mod compare;

use std::path::Path;
use std::process::Command;

use formwork_testing::program;
use serde_json::Value;

use crate::support::{Ran, Site, Tree};
use buildkit::BuildKit;
use compare::{BUILDKIT, MOUNT_POINT, differences, export};

const DOCKERFILE: &str = "\
FROM busybox AS build
ARG V=1
ENV A=$V
WORKDIR /src
COPY . .
RUN mkdir -p /out/d && echo \"$A\" > /out/d/f && ln -s f /out/d/l && ln /out/d/f /out/d/h \
    && echo 2 > /out/owned && chown app:staff /out/owned && chmod 4711 /out/owned
RUN rm -r /src/gone && echo changed > /src/a && mv /src/dir /src/moved
FROM busybox
LABEL one=1 two=\"2 3\"
ARG V=2
ENV PATH=$PATH:/own V=$V
COPY --from=build /out /out
COPY --from=build /src /src
COPY --chown=app:staff dir /owned/
COPY --from=build --chown=0:0 --chmod=640 /out/d/f /single
COPY a l /both/
ADD archive.tar.gz /unpacked/
ADD archive.tar.gz /etc
ADD a /added/
RUN rm /etc/group && rm -r /root && mkdir /root && echo x > /root/x
VOLUME /data
EXPOSE 80 53/udp
WORKDIR /home/app/x
USER app
RUN id -u > /tmp/id
ENTRYPOINT [\"/bin/sh\", \"-c\"]
CMD [\"cat /tmp/id\"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
";

/// What differs with buildah: a line of the comparison, and why.
const BUILDAH: [(&str, &str); 8] = [
    (
        "+ drwxr-xr-x 0:0 /data",
        "buildah makes a directory of a VOLUME, BuildKit and formwork do not",
    ),
    ("+ drwxr-xr-x 0:0 /dev", MOUNT_POINT),
    ("+ -rwxr-xr-x 0:0 /etc/hostname \"\"", MOUNT_POINT),
    ("+ -rwxr-xr-x 0:0 /etc/hosts \"\"", MOUNT_POINT),
    ("+ -rwxr-xr-x 0:0 /etc/resolv.conf \"\"", MOUNT_POINT),
    ("+ drwxr-xr-x 0:0 /proc", MOUNT_POINT),
    ("+ drwxr-xr-x 0:0 /run", MOUNT_POINT),
    ("+ drwxr-xr-x 0:0 /sys", MOUNT_POINT),
];

/// A context with what the Dockerfile copies.
fn site() -> Option<Site> {
    let site = Site::as_root()?;
    if !site.make_busybox() {
        return None;
    }
    site.write("a", "A");
    site.write("dir/x", "X");
    site.chmod("dir/x", 0o755);
    site.write("dir/deep/y", "Y");
    site.chmod("dir/deep", 0o700);
    site.write("gone/z", "Z");
    site.link("l", "a");
    site.write("ignored", "");
    site.write(".dockerignore", "ignored\narchive.tar.gz.not");
    site.write("../packed/p/q", "Q");
    let tar = ["-C", "../packed", "--owner=3", "--group=4", "-czf", "archive.tar.gz", "p"];
    Ran::of(Command::new("tar").args(tar).current_dir(site.context(""))).succeeded();
    Some(site)
}

/// What formwork makes of it: the files, and the configuration.
fn by_formwork(site: &Site) -> (Tree, Value) {
    let tree = site.tree(&["-t", "ours", "-o", "type=image"], DOCKERFILE);
    (tree, site.inspect("ours")["Config"].clone())
}

#[track_caller]
fn assert_meant(found: &[String], meant: &[(&str, &str)]) {
    let expected: Vec<&str> = meant.iter().map(|(line, _)| *line).collect();
    assert_eq!(found, expected, "{found:#?}");
}

/// Copies an image of the store into the storage of podman and buildah.
fn into_storage(site: &Site, name: &str, storage: &str, run: &str) {
    let source = format!("oci:{}", export(site, name));
    let target = format!("containers-storage:[vfs@{storage}+{run}]docker.io/library/{name}:latest");
    let arguments = ["--insecure-policy", "copy", "-q", &source, &target];
    Ran::of(&mut site.command("skopeo", &arguments)).succeeded();
}

/// The files of an image in an OCI layout.
fn tree_of(site: &Site, layout: &str) -> Tree {
    site.tree(&["--build-context", &format!("theirs=oci-layout://{layout}")], "FROM theirs\n")
}

#[test]
fn buildah_builds_the_same() {
    let (Some(buildah), Some(_)) = (program("buildah"), program("skopeo")) else { return };
    let Some(site) = site() else { return };
    let (storage, run) = (site.outside("storage"), site.outside("run"));
    let call = |arguments: &[&str]| {
        let global = ["--root", &storage, "--runroot", &run, "--storage-driver=vfs"];
        let mut command = site.command(buildah.to_str().unwrap(), &[&global, arguments].concat());
        Ran::of(&mut command).succeeded().stdout.trim().to_owned()
    };
    into_storage(&site, "busybox", &storage, &run);
    site.write("../Dockerfile", DOCKERFILE);
    call(&[
        "build",
        "-q",
        "--isolation=chroot",
        "--format=docker",
        "--pull=never",
        "--tag=theirs",
        "--ulimit=nofile=20000:20000",
        "--ulimit=nproc=20000:20000",
        "--identity-label=false",
        "--file=../Dockerfile",
        ".",
    ]);
    let mut inspected: Value =
        serde_json::from_str(&call(&["inspect", "--type=image", "theirs"])).unwrap();
    // The name of the container that was committed.
    inspected["Docker"]["config"]["Hostname"].take();
    let layout = site.outside("theirs");
    call(&["push", "-q", "theirs", &format!("oci:{layout}:latest")]);
    let theirs = (tree_of(&site, &layout), inspected["Docker"]["config"].clone());
    assert_meant(&differences(&by_formwork(&site), &theirs), &BUILDAH);
}

#[test]
fn buildkit_builds_the_same() {
    let Some(site) = site() else { return };
    let Some(buildkit) = BuildKit::start(&site) else { return };
    buildkit.write(DOCKERFILE);
    let theirs = buildkit.solve(&["--local=context=.", "--local=dockerfile=../file"]);
    let (tree, config, _) = theirs.unwrap();
    assert_meant(&differences(&by_formwork(&site), &(tree, config)), &BUILDKIT);
}

#[test]
fn podman_and_umoci_read_our_images() {
    let [Some(podman), Some(umoci), Some(_)] = ["podman", "umoci", "skopeo"].map(program) else {
        return;
    };
    let Some(site) = site() else { return };
    by_formwork(&site);
    let layout = export(&site, "ours");
    let bundle = site.outside("bundle");
    let image = format!("{layout}:latest");
    let arguments = ["unpack", "--image", &image, &bundle];
    Ran::of(&mut site.command(umoci.to_str().unwrap(), &arguments)).succeeded();
    assert_eq!(fs_err::read_to_string(format!("{bundle}/rootfs/tmp/id")).unwrap(), "1000\n");
    assert!(!Path::new(&format!("{bundle}/rootfs/etc/group")).exists());
    let (storage, run) = (site.outside("storage"), site.outside("run"));
    let global = ["--root", &storage, "--runroot", &run, "--storage-driver=vfs"];
    let call = |arguments: &[&str]| {
        let mut command = site.command(podman.to_str().unwrap(), &[&global, arguments].concat());
        Ran::of(&mut command).succeeded().stdout
    };
    into_storage(&site, "ours", &storage, &run);
    let inspected: Value = serde_json::from_str(&call(&["inspect", "ours"])).unwrap();
    let ours = site.inspect("ours");
    assert_eq!(format!("sha256:{}", inspected[0]["Id"].as_str().unwrap()), ours["Id"]);
    assert_eq!(inspected[0]["RootFS"]["Layers"], ours["RootFS"]["Layers"]);
    assert_eq!(inspected[0]["Config"]["Entrypoint"], ours["Config"]["Entrypoint"]);
    let archive = site.outside("docker.tar");
    let output = format!("type=docker,dest={archive}");
    site.build(&["-t", "loaded:2", "-o", &output], "FROM ours\n");
    let loaded = call(&["load", "-q", "-i", &archive]);
    assert!(loaded.contains("loaded:2"), "{loaded}");
}
