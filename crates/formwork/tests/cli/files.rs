//! Looking into images without running them.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Site, Tree, on_each_rung};

const DOCKERFILE: &str = "\
FROM scratch
COPY --chown=5:6 a /dir/a
COPY --chmod=4755 a /dir/sub/b
COPY links /
ENV A=1
";

/// A site with `app:1` in its store; `/link` leads to `/dir`.
fn prepare(site: &Site) {
    site.write("a", "A");
    site.link("links/link", "dir");
    site.mkdir("out");
    site.build(&["-t", "app:1"], DOCKERFILE);
}

#[test]
fn all_files_are_exported_as_one_archive() {
    on_each_rung(|site| {
        prepare(site);
        let archive = site.outside("files.tar");
        site.run(&["export", "-o", &archive, "app:1"]);
        let expected = [
            "drwxr-xr-x 5:6 /dir",
            "-rw-r--r-- 5:6 /dir/a \"A\"",
            "drwsr-xr-x 0:0 /dir/sub",
            "-rwsr-xr-x 0:0 /dir/sub/b \"A\"",
            "lrwxrwxrwx 0:0 /link -> dir",
        ];
        assert_eq!(Tree::from_archive(Path::new(&archive)).lines(), expected);
        let printed = site.formwork(&["export", "app:1"]).output().unwrap();
        assert!(printed.stdout == fs_err::read(&archive).unwrap());
    });
}

#[test]
fn files_are_copied_out_as_by_docker() {
    on_each_rung(|site| {
        prepare(site);
        let is_file = |path: &str| fs_err::read(site.context(path)).is_ok_and(|text| text == b"A");
        for (source, target, made) in [
            ("app:1:/dir/a", "out", "out/a"),
            ("app:1:/dir/a", "out/new", "out/new"),
            ("app:1:dir/a", "out/new", "out/new"),
            ("app:1:/dir", "out", "out/dir/sub/b"),
            ("app:1:/dir", "out/other", "out/other/sub/b"),
            ("app:1:/dir/.", "out", "out/sub/b"),
            ("app:1:/link/", "out/through", "out/through/a"),
            ("app:1:/link/a", "out/linked", "out/linked"),
            ("app:1:/", "out/all", "out/all/dir/a"),
        ] {
            site.run(&["cp", source, target]);
            assert!(is_file(made), "{source} {target}");
        }
        site.run(&["cp", "app:1:/link", "out/link"]);
        assert!(site.context("out/link").is_symlink());
        site.run(&["cp", "-L", "app:1:/link", "out/followed"]);
        assert!(is_file("out/followed/a"));
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(site.context("out/a")).unwrap());
        assert_eq!(owner, site.user().map_or(0, |user| user.uid));
    });
}

#[test]
fn what_cannot_be_copied_out_is_told() {
    let site = Site::new();
    prepare(&site);
    site.write("file", "");
    for (source, target, message) in [
        ("app:1:/absent", "out", "`/absent`"),
        ("app:1:/dir/a/.", "out", "not a directory"),
        ("app:1:/dir/a", "out/absent/", "not a directory"),
        ("app:1:/dir/a", "out/absent/file", "does not exist"),
        ("app:1:/dir", "file", "is no directory"),
        ("app:1:/../../etc/passwd", "out", "no `/../../etc/passwd`"),
    ] {
        Ran::of(&mut site.formwork(&["cp", source, target])).failed(1, message);
    }
    Ran::of(&mut site.formwork(&["cp", "app", "out"])).failed(2, "IMAGE:PATH");
    let archive = site.formwork(&["cp", "app:1:/dir/sub", "-"]).output().unwrap();
    let file = site.outside("sub.tar");
    fs_err::write(&file, &archive.stdout).unwrap();
    let tree = Tree::from_archive(Path::new(&file));
    assert_eq!(tree.lines(), ["drwsr-xr-x 0:0 /sub", "-rwsr-xr-x 0:0 /sub/b \"A\""]);
}

#[test]
fn images_differ_in_files_and_configuration() {
    let site = Site::new();
    prepare(&site);
    let other = DOCKERFILE.replace("5:6", "5:7").replace("A=1", "A=2").replace("sub/b", "sub/c");
    site.build(&["-t", "app:2"], &other);
    assert_eq!(site.run(&["diff", "--exit-code", "app:1", "app:1"]), "");
    let shown = "\
C /dir (owner 5:6 → 5:7)
C /dir/a (owner 5:6 → 5:7)
D /dir/sub/b
A /dir/sub/c
config.Env: [\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\"A=1\"] → \
[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\"A=2\"]
";
    assert_eq!(site.run(&["diff", "app:1", "app:2"]), shown);
    let json =
        Ran::of(&mut site.formwork(&["diff", "--format", "json", "--exit-code", "app:1", "app:2"]));
    assert_eq!(json.code, Some(1), "{}", json.stderr);
    let diff: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(diff["Files"][0]["Details"][0]["To"], "5:7");
    assert_eq!(diff["Files"][3]["Kind"], "added");
    assert_eq!(diff["Config"][0]["Key"], "config.Env");
}
