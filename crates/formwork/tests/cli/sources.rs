//! Where bases and other files come from.

use std::process::Command;

use formwork_testing::program;

use crate::support::{Ran, Site, Tree, on_each_rung};

/// Packs files of the context with the system's tar.
fn pack(site: &Site, arguments: &[&str]) {
    Ran::of(Command::new("tar").args(arguments).current_dir(site.context(""))).succeeded();
}

#[test]
fn archives_are_unpacked_by_add_and_copied_by_copy() {
    let site = Site::new();
    site.write("in/d/f", "F");
    site.chmod("in/d/f", 0o4711);
    site.link("in/l", "d/f");
    for (option, name) in [
        ("-c", "a.tar"),
        ("-cz", "a.tgz"),
        ("-cj", "a.tar.bz2"),
        ("-cJ", "a.tar.xz"),
        ("-c", "no-archive-by-its-name"),
    ] {
        pack(&site, &["-C", "in", "--owner=3", "--group=4", option, "-f", name, "d", "l"]);
    }
    pack(&site, &["--zstd", "-C", "in", "--owner=3", "--group=4", "-cf", "a.tar.zst", "d", "l"]);
    let unpacked = |root: &str, owner: &str| {
        let top = if root.is_empty() { None } else { Some(format!("drwxr-xr-x {owner} {root}")) };
        let rest = [
            format!("drwxr-xr-x {owner} {root}/d"),
            format!("-rws--x--x {owner} {root}/d/f \"F\""),
            format!("lrwxrwxrwx {owner} {root}/l -> d/f"),
        ];
        top.into_iter().chain(rest).collect::<Vec<_>>()
    };
    for name in ["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.tar.zst", "no-archive-by-its-name"] {
        let tree = site.tree(&[], &format!("FROM scratch\nADD {name} /\n"));
        assert_eq!(tree.lines(), unpacked("", "3:4"), "{name}");
    }
    let tree = site.tree(&[], "FROM scratch\nADD --chown=7:8 --chmod=600 a.tgz /\n");
    assert_eq!(tree.lines(), unpacked("", "7:8"));
    let tree = site.tree(&[], "FROM scratch\nCOPY a.tar /\nADD --unpack=false a.tar /b\n");
    let names: Vec<&String> = tree.0.keys().collect();
    assert_eq!(names, ["/a.tar", "/b"]);
}

#[test]
fn add_copies_what_is_no_archive_and_merges_what_is() {
    let site = Site::new();
    site.write("empty.tar.gz", "");
    site.write("text.tar", "no archive at all");
    site.write("in/d/new", "N");
    pack(&site, &["-C", "in", "--owner=0", "--group=0", "-cf", "a.tar", "d"]);
    site.write("d/old", "O");
    let dockerfile = "FROM scratch\nADD empty.tar.gz text.tar /\nCOPY d /d/\nADD a.tar d /\n";
    assert_eq!(
        site.tree(&[], dockerfile).lines(),
        [
            "drwxr-xr-x 0:0 /d",
            "-rw-r--r-- 0:0 /d/new \"N\"",
            "-rw-r--r-- 0:0 /d/old \"O\"",
            "-rw-r--r-- 0:0 /empty.tar.gz \"\"",
            "-rw-r--r-- 0:0 /old \"O\"",
            "-rw-r--r-- 0:0 /text.tar \"no archive at all\"",
        ]
    );
}

#[test]
fn copy_keeps_modification_times_without_fractions() {
    let site = Site::new();
    site.write("d/f", "F");
    for path in ["d/f", "d"] {
        let name = site.context(path);
        Ran::of(Command::new("touch").args(["-d", "2001-02-03T04:05:06.9Z"]).arg(name)).succeeded();
    }
    let tree = site.tree(&[], "FROM scratch\nCOPY d /d\nCOPY d/f /f\n");
    assert_eq!(tree.0["/d/f"].mtime, 981_173_106);
    assert_eq!(tree.0["/f"].mtime, 981_173_106);
    assert_eq!(tree.0["/d"].mtime, 981_173_106);
}

#[test]
fn sockets_of_the_context_are_empty_files() {
    let site = Site::new();
    site.write("a", "");
    let _socket = std::os::unix::net::UnixListener::bind(site.context("socket")).unwrap();
    let tree = site.tree(&[], "FROM scratch\nCOPY . /\n");
    let line = tree.lines().pop().unwrap();
    assert!(line.starts_with('-') && line.ends_with("/socket \"\""), "{line}");
}

#[test]
fn hard_links_of_the_context_are_files_with_the_same_content() {
    let site = Site::new();
    site.write("a", "A");
    fs_err::hard_link(site.context("a"), site.context("b")).unwrap();
    let tree = site.tree(&[], "FROM scratch\nCOPY . /\n");
    assert_eq!(tree.0.len(), 2);
    assert_eq!(tree.text("/a"), "A");
}

#[test]
fn the_dockerfile_may_have_any_name_or_the_usual_ones() {
    let site = Site::new();
    site.write("a", "A");
    let label = |site: &Site, arguments: &[&str]| {
        site.run(&[&["build", "-q", "-t", "x"], arguments, &["."]].concat());
        site.inspect("x")["Config"]["Labels"]["n"].as_str().unwrap().to_owned()
    };
    for name in ["Containerfile", "dockerfile", "Dockerfile"] {
        site.write(name, format!("FROM scratch\nLABEL n={name}\nCOPY a /\n"));
        assert_eq!(label(&site, &[]), name);
    }
    site.write("deep/other", "FROM scratch\nLABEL n=other\nCOPY a /\n");
    assert_eq!(label(&site, &["--file", "deep/other"]), "other");
}

#[test]
fn named_contexts_stand_in_for_stages_and_images() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../other/f", "other");
        site.write("../other/.dockerignore", "ignored");
        site.write("../other/ignored", "");
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        let base = "FROM scratch\nCOPY <<f /layout/\nlayout\nf\n";
        site.build(&["-t", "in:1", "-o", &output], base);
        let dockerfile = "\
FROM no.such.registry.invalid/base AS base
FROM scratch
COPY --from=directory / /directory/
COPY --from=base / /base/
COPY --from=image:1 /etc/group /group
";
        let layout_context = format!("no.such.registry.invalid/base=oci-layout://{layout}");
        let contexts = [
            "--build-context",
            "directory=../other",
            "--build-context",
            &layout_context,
            "--build-context",
            "image:1=docker-image://busybox",
        ];
        let tree = site.tree(&contexts, dockerfile);
        assert_eq!(
            tree.lines(),
            [
                "drwxr-xr-x 0:0 /base",
                "drwxr-xr-x 0:0 /base/layout",
                "-rw-r--r-- 0:0 /base/layout/f \"layout\\n\"",
                "drwxr-xr-x 0:0 /directory",
                "-rw-r--r-- 0:0 /directory/.dockerignore \"ignored\"",
                "-rw-r--r-- 0:0 /directory/f \"other\"",
                "-rw-r--r-- 0:0 /group \"root:x:0:\\napp:x:1000:\\nstaff:x:50:app\\nnogroup:x:65534:\\n\"",
            ]
        );
        let stage = "FROM busybox AS deps\nRUN exit 1\nFROM scratch\nCOPY --from=deps /f /\n";
        let tree = site.tree(&["--build-context", "deps=../other"], stage);
        assert_eq!(tree.lines(), ["-rw-r--r-- 0:0 /f \"other\""]);
    });
}

#[test]
fn images_come_from_layouts_and_archives_of_others() {
    let Some(skopeo) = program("skopeo") else { return };
    on_each_rung(|site| {
        site.write("a", "A");
        let layout = site.outside("layout");
        site.build(
            &["-t", "in:1", "-o", &format!("type=oci,tar=false,dest={layout}")],
            "FROM scratch\nCOPY a /\nENV A=1\n",
        );
        for (kind, transport) in
            [("oci-archive", "oci-archive"), ("docker-archive", "docker-archive")]
        {
            let archive = site.outside(kind);
            let (from, to) = (format!("oci:{layout}"), format!("{transport}:{archive}:in:1"));
            let arguments = ["--insecure-policy", "copy", "-q", &from, &to];
            Ran::of(&mut site.command(skopeo.to_str().unwrap(), &arguments)).succeeded();
            let context = format!("base={kind}:{archive}");
            let tree = site.tree(
                &["--build-context", &context, "-t", "out", "-o", "type=image"],
                "FROM base\nCOPY a /b\n",
            );
            assert_eq!(
                tree.lines(),
                ["-rw-r--r-- 0:0 /a \"A\"", "-rw-r--r-- 0:0 /b \"A\""],
                "{kind}"
            );
            assert_eq!(site.inspect("out")["Config"]["Env"][1], "A=1", "{kind}");
        }
        let archive = site.outside("docker-archive");
        let tree = site.tree(&[], &format!("FROM docker-archive:{archive}\nCOPY a /c\n"));
        assert_eq!(tree.0.len(), 2);
    });
}

#[test]
fn layers_with_whiteouts_are_read_back() {
    let site = Site::new().with_busybox();
    let archive = site.outside("image.tar");
    let dockerfile = "\
FROM busybox
RUN mkdir -p /d/e && echo 1 > /d/gone && echo 1 > /d/e/f && echo 1 > /gone
RUN rm -r /gone /d/gone /d/e && mkdir /d/e && echo 2 > /d/e/g
";
    site.build(&["-o", &format!("type=oci,dest={archive}")], dockerfile);
    let expected = site.tree(&[], dockerfile).lines_without(&Tree::default());
    let other = Site::new();
    let found = other.tree(&["--build-context", &format!("b=oci-archive:{archive}")], "FROM b\n");
    assert_eq!(found.lines(), expected);
    assert!(found.0.contains_key("/d/e/g") && !found.0.contains_key("/d/e/f"));
}
