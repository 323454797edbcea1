//! Unpacking archives, those that mean harm above all.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use formwork_fs::{RelPath, RootDir};
use formwork_testing::archive::{Made, archive, made, pax};

use super::*;
use crate::tree::testing::{dir, file, one_of_everything, path, temporary, tree};
use crate::tree::{Entry, Metadata, Node, Origin, Stack};
use crate::{Compression, PackOptions, pack, scan_upper};

fn is_root() -> bool {
    let is_root = formwork_testing::is_root();
    if !is_root {
        formwork_testing::skipped("unpacking owners and devices (needs root)");
    }
    is_root
}

/// A directory to unpack into, beside things that must not be touched.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = temporary();
        fs_err::create_dir(directory.path().join("layer")).unwrap();
        fs_err::write(directory.path().join("outside"), "untouched").unwrap();
        Self { directory }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.directory.path().join("layer")
    }

    fn apply(&self, blob: &[u8]) -> Result<Applied, LayerError> {
        self.apply_with(blob, Whiteouts::Interpret)
    }

    fn apply_with(&self, blob: &[u8], whiteouts: Whiteouts) -> Result<Applied, LayerError> {
        let options = ApplyOptions { whiteouts, threads: 3, ..ApplyOptions::default() };
        let applied = apply(blob, &RootDir::open(self.layer()).unwrap(), &options);
        let indexed = index(blob, &options);
        // Reading without a directory sees the same.
        match (&applied, &indexed) {
            (Ok(applied), Ok(indexed)) => {
                assert_eq!(applied.tree, indexed.tree);
                assert_eq!(applied.implied, indexed.implied);
                assert_eq!(applied.diff_id, indexed.diff_id);
                assert_eq!(applied.diff_id.0, formwork_oci::Digest::of(blob));
            }
            (Err(applied), Err(indexed)) => assert_eq!(applied.to_string(), indexed.to_string()),
            (applied, indexed) => {
                panic!("{:?} {:?}", applied.as_ref().err(), indexed.as_ref().err())
            }
        }
        let names: Vec<_> = fs_err::read_dir(self.directory.path()).unwrap().collect();
        assert_eq!(names.len(), 2);
        assert_eq!(fs_err::read(self.directory.path().join("outside")).unwrap(), b"untouched");
        applied
    }

    /// What the directory holds, as a scan of it sees it.
    fn scan(&self) -> Tree {
        let origin = Origin::layer(RootDir::open(self.layer()).unwrap());
        let stat = fs_err::metadata(self.layer()).unwrap();
        let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
        let root = Metadata { mode, uid, gid, ..Metadata::default() };
        scan_upper(&origin, &root, 2).unwrap()
    }
}

/// A tree in short: names, and what files hold.
fn show(tree: &Tree, at: &Path) -> String {
    let show = |entry: &Entry| match &entry.node {
        Node::File(_) => {
            let content = fs_err::read(at.join(entry.path.as_path())).unwrap();
            format!("{}={}", entry.path, String::from_utf8_lossy(&content))
        }
        Node::Directory { opaque: true } => format!("{}/!", entry.path),
        Node::Directory { opaque: false } => format!("{}/", entry.path),
        Node::Symlink { target } => format!("{}@{}", entry.path, String::from_utf8_lossy(target)),
        Node::HardLink { target } => format!("{}->{target}", entry.path),
        Node::Whiteout => format!("{}-", entry.path),
        other => format!("{}:{other:?}", entry.path),
    };
    tree.entries().iter().map(show).collect::<Vec<_>>().join(" ")
}

/// What an archive becomes, or why it does not.
fn unpacked(entries: impl IntoIterator<Item = Made>) -> String {
    let place = Place::new();
    match place.apply(&archive(entries)) {
        Ok(applied) => {
            let shown = show(&applied.tree, &place.layer());
            let mut on_disk = place.scan();
            // The scan leaves the root out, the archive may have it.
            if applied.tree.get(&RelPath::root()).is_some() {
                let root = applied.tree.entries()[0].clone();
                on_disk = Tree::new([vec![root], on_disk.into_entries()].concat()).unwrap();
            }
            assert_eq!(shown, show(&on_disk, &place.layer()));
            shown
        }
        Err(error) => format!("error: {error}"),
    }
}

fn f(name: &str, content: &str) -> Made {
    made(b'0', name, content)
}

fn d(name: &str) -> Made {
    made(b'5', name, "")
}

fn hard(name: &str, target: &str) -> Made {
    made(b'1', name, "").link_name(target)
}

fn soft(name: &str, target: &str) -> Made {
    made(b'2', name, "").link_name(target)
}

#[test]
fn entries_become_what_they_say() {
    if !is_root() {
        return;
    }
    for (name, entries, expected) in [
        ("nothing", vec![], ""),
        ("a file", vec![f("a", "text")], "/a=text"),
        ("names in other forms", vec![d("./d/"), f("/d//./a", "x")], "/d/ /d/a=x"),
        ("the root", vec![d("./"), f("./a", "x")], "// /a=x"),
        ("implied directories", vec![f("a/b/c", "x")], "/a/ /a/b/ /a/b/c=x"),
        ("a later entry", vec![f("a", "1"), f("a", "2")], "/a=2"),
        ("a file over a directory", vec![d("a"), f("a/b", "x"), d("a/c"), f("a", "y")], "/a=y"),
        ("a directory over a file", vec![f("a", "x"), d("a"), f("a/b", "y")], "/a/ /a/b=y"),
        ("a directory again", vec![d("a"), f("a/b", "x"), d("a")], "/a/ /a/b=x"),
        ("a link over a directory", vec![d("a"), f("a/b", "x"), soft("a", "c")], "/a@c"),
        ("a symbolic link", vec![soft("a", "../../etc")], "/a@../../etc"),
        ("a hard link", vec![f("a", "x"), hard("b", "a")], "/a=x /b->/a"),
        ("a hard link before its file", vec![hard("a", "b"), f("b", "x")], "/a=x /b->/a"),
        (
            "a link to a link",
            vec![f("a", "x"), hard("b", "a"), hard("c", "b")],
            "/a=x /b->/a /c->/a",
        ),
        ("a link to a symbolic link", vec![soft("a", "x"), hard("b", "a")], "/a@x /b->/a"),
        ("a link to a replaced file", vec![f("a", "1"), hard("b", "a"), f("a", "2")], "/a=2 /b=1"),
        ("a link replaced", vec![f("a", "1"), hard("b", "a"), f("b", "2")], "/a=1 /b=2"),
        (
            "links to a replaced file",
            vec![f("a", "1"), hard("b", "a"), hard("c", "a"), f("a", "2"), hard("d", "a")],
            "/a=2 /b=1 /c->/b /d->/a",
        ),
        (
            "links to a file in a replaced directory",
            vec![d("d"), f("d/a", "1"), hard("b", "d/a"), f("d", "2")],
            "/b=1 /d=2",
        ),
        (
            "below a link of the layer",
            vec![d("usr"), soft("lib", "usr"), f("lib/a", "x")],
            "/lib@usr /usr/ /usr/a=x",
        ),
        (
            "below a link to outside",
            vec![soft("lib", "../../../tmp"), f("lib/a", "x")],
            "/lib@../../../tmp /tmp/ /tmp/a=x",
        ),
        (
            "below an absolute link",
            vec![soft("lib", "/usr/lib"), f("lib/a", "x")],
            "/lib@/usr/lib /usr/ /usr/lib/ /usr/lib/a=x",
        ),
        (
            "a hard link below a link",
            vec![d("usr"), soft("lib", "usr"), f("usr/a", "x"), hard("b", "lib/a")],
            "/b=x /lib@usr /usr/ /usr/a->/b",
        ),
        ("a fifo", vec![made(b'6', "a", "")], "/a:Fifo"),
    ] {
        assert_eq!(unpacked(entries), expected, "{name}");
    }
}

#[test]
fn deletions_apply_to_layers_below() {
    if !is_root() {
        return;
    }
    for (name, entries, expected) in [
        ("a deletion", vec![f(".wh.a", "")], "/a-"),
        ("a deletion deep down", vec![f("a/b/.wh.c", "")], "/a/ /a/b/ /a/b/c-"),
        ("a deletion before a file", vec![f(".wh.a", ""), f("a", "x")], "/a=x"),
        ("a deletion after a file", vec![f("a", "x"), f(".wh.a", "")], "/a=x"),
        (
            "a deletion before a directory",
            vec![f(".wh.a", ""), d("a"), f("a/b", "x")],
            "/a/! /a/b=x",
        ),
        (
            "a deletion after a directory",
            vec![d("a"), f("a/b", "x"), f(".wh.a", "")],
            "/a/! /a/b=x",
        ),
        (
            "a deletion of what something lies in",
            vec![f(".wh.a", ""), f("a/b", "x")],
            "/a/! /a/b=x",
        ),
        (
            "an opaque directory",
            vec![d("a"), f("a/.wh..wh..opq", ""), f("a/b", "x")],
            "/a/! /a/b=x",
        ),
        (
            "an opaque directory at the end",
            vec![d("a"), f("a/b", "x"), f("a/.wh..wh..opq", "")],
            "/a/! /a/b=x",
        ),
        ("an opaque directory described later", vec![f("a/.wh..wh..opq", ""), d("a")], "/a/!"),
        (
            "what AUFS keeps for itself",
            vec![d(".wh..wh.plnk"), f(".wh..wh.plnk/1.2", ""), f(".wh..wh.aufs", ""), f("a", "x")],
            "/a=x",
        ),
        ("overlayfs's form of a deletion", vec![made(b'3', "a", "")], "/a-"),
        ("a deleted device", vec![made(b'3', "a", ""), f("a", "x")], "/a=x"),
    ] {
        assert_eq!(unpacked(entries), expected, "{name}");
    }
}

#[test]
fn hostile_archives_are_refused() {
    let long = "x".repeat(256);
    let deep = "d/".repeat(2100);
    for (name, entries, expected) in [
        ("a way out", vec![f("../outside", "gotcha")], "`../outside` leads out of the layer"),
        ("a way out in the middle", vec![f("a/../../outside", "gotcha")], "leads out of the layer"),
        ("a hard link to outside", vec![hard("a", "../outside")], "`a` leads out of the layer"),
        ("a hard link to what is not there", vec![hard("a", "outside")], "not in the same layer"),
        ("a hard link to a directory", vec![d("d"), hard("a", "d")], "hard link to a directory"),
        ("a hard link to the root", vec![d("."), hard("a", ".")], "hard link to a directory"),
        ("a hard link to itself", vec![hard("a", "a")], "hard link to itself"),
        ("hard links in a circle", vec![hard("a", "b"), hard("b", "a")], "hard link to itself"),
        ("a hard link to a deletion", vec![f(".wh.x", ""), hard("a", "x")], "or to nothing"),
        ("the root as a file", vec![f("./", "x")], "the root must be a directory"),
        ("the root as a link", vec![soft("/", "/etc")], "the root must be a directory"),
        ("a deletion of the root", vec![made(b'3', "/", "")], "deletes the root"),
        ("a deletion of the directory", vec![f("a/.wh..", "")], "deletes nothing"),
        ("a deletion of the parent", vec![f("a/.wh...", "")], "deletes nothing"),
        ("a deletion of nothing", vec![f("a/.wh.", "")], "deletes nothing"),
        ("an entry below a file", vec![f("a", ""), f("a/b", "")], "is not in a directory"),
        ("an entry below a loop", vec![soft("a", "a"), f("a/b", "")], "is not in a directory"),
        (
            "an entry below a link to a file",
            vec![f("x", ""), soft("a", "x"), f("a/b", "")],
            "is not in a directory",
        ),
        (
            "a long name",
            vec![pax(&[("path", long.as_bytes())]), f("a", "")],
            "longer than 255 bytes",
        ),
        (
            "a long name of an implied directory",
            vec![pax(&[("path", format!("{long}/a").as_bytes())]), f("a", "")],
            "longer than 255",
        ),
        ("a long path", vec![pax(&[("path", deep.as_bytes())]), d("a")], "longer than 4095"),
        ("a link without a target", vec![soft("a", "")], "needs a target"),
        (
            "an owner that is none",
            vec![pax(&[("uid", b"4294967295")]), f("a", "")],
            "no owner at all",
        ),
        (
            "a device out of range",
            vec![made(b'4', "a", "").patch(329, b"7777777\0")],
            "out of range",
        ),
    ] {
        let answer = unpacked(entries);
        assert!(answer.starts_with("error: ") && answer.contains(expected), "{name}: {answer}");
    }
}

#[test]
fn archives_may_be_limited() {
    let blob = archive([f("a", "12345"), f("b", "12345")]);
    let with = |max_size| index(&*blob, &ApplyOptions { max_size, ..ApplyOptions::default() });
    assert!(with(10).is_ok());
    let error = with(9).unwrap_err().to_string();
    assert!(error.contains("`/b` is larger than a layer may be"), "{error}");
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.map", b"0,1"),
        ("GNU.sparse.realsize", b"9000000000000000000"),
    ];
    let endless = archive([pax(records), f("a", "x")]);
    let error = index(&*endless, &ApplyOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`/a` is larger than a layer may be"), "{error}");
}

#[test]
fn attributes_that_overlayfs_would_obey_are_left_out() {
    if !is_root() {
        return;
    }
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let place = Place::new();
    let applied = place.apply(&archive([pax(records), d("a")])).unwrap();
    let xattrs = &applied.tree.get(&path("a")).unwrap().metadata.xattrs;
    assert_eq!(xattrs.iter().collect::<Vec<_>>(), [(&b"user.kept"[..], &b"1"[..])]);
    assert_eq!(place.scan().get(&path("a")).unwrap().node, Node::Directory { opaque: false });
}

#[test]
fn in_other_archives_nothing_is_a_deletion() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let blob = archive([f(".wh.a", "x"), d("d"), f("d/.wh..wh..opq", "y"), made(b'3', "dev", "")]);
    let applied = place.apply_with(&blob, Whiteouts::Literal).unwrap();
    assert_eq!(show(&applied.tree, &place.layer()), "/.wh.a=x /d/ /d/.wh..wh..opq=y");
}

#[test]
fn everything_comes_back_from_a_blob() {
    if !is_root() {
        return;
    }
    for compression in [Compression::None, Compression::default(), Compression::ZSTD] {
        let tree = one_of_everything();
        let options = PackOptions { compression, nanoseconds: true, ..PackOptions::default() };
        let mut blob = Vec::new();
        let packed = pack(&tree, &options, &mut blob).unwrap();
        let place = Place::new();
        let root = RootDir::open(place.layer()).unwrap();
        let applied = apply(&*blob, &root, &ApplyOptions::default()).unwrap();
        assert_eq!(applied.tree, tree);
        assert_eq!(applied.diff_id, packed.diff_id);
        assert_eq!(applied.uncompressed_size, packed.uncompressed_size);
        assert!(applied.implied.is_empty());
        assert_eq!(applied.omitted, Omitted::default());
        // The directory says the same, once more packed it is the same blob.
        let origin = Origin::layer(RootDir::open(place.layer()).unwrap());
        let scanned = scan_upper(&origin, &Metadata::default(), 4).unwrap();
        assert_eq!(scanned, tree);
        let mut again = Vec::new();
        assert_eq!(pack(&scanned, &options, &mut again).unwrap(), packed);
        assert!(again == blob);
    }
}

#[test]
fn large_and_sparse_files_come_back() {
    if !is_root() {
        return;
    }
    let noise: Vec<u8> =
        (0..3_000_000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let mut hollow = vec![0; 5_000_000];
    hollow[2_500_000..2_600_000].copy_from_slice(&noise[..100_000]);
    let many = (0..500).map(|i| f(&format!("many/{i}"), &i.to_string()));
    let entries = [made(b'0', "noise", &noise), made(b'0', "hollow", &hollow)];
    let place = Place::new();
    let applied = place.apply(&archive(many.chain(entries))).unwrap();
    assert!(fs_err::read(place.layer().join("noise")).unwrap() == noise);
    assert!(fs_err::read(place.layer().join("hollow")).unwrap() == hollow);
    assert!(fs_err::metadata(place.layer().join("hollow")).unwrap().blocks() * 512 < 1_500_000);
    assert_eq!(applied.tree.size(), 8_000_000 + 10 + 180 + 1200);
    assert_eq!(applied.tree, place.scan());
}

#[test]
fn a_directory_that_is_only_implied_is_the_one_below() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let applied = place.apply(&archive([f("etc/new/file", "x"), f("opt/.wh.gone", "")])).unwrap();
    assert_eq!(applied.implied, ["etc", "etc/new", "opt"].map(path));
    let mut etc = dir("etc");
    (etc.metadata.mode, etc.metadata.uid, etc.metadata.mtime.seconds) = (0o2750, 77, 1234);
    let below = tree([etc.clone(), file("etc/other", ""), file("opt", "no directory")]);
    let root = RootDir::open(place.layer()).unwrap();
    let stack = Stack::new([&below]);
    let adopted = adopt_implied(applied.tree, &applied.implied, &stack, Some(&root)).unwrap();
    assert_eq!(adopted.get(&path("etc")).unwrap().metadata, etc.metadata);
    let default = Metadata::root_owned(0o755);
    assert_eq!(adopted.get(&path("etc/new")).unwrap().metadata, default);
    assert_eq!(adopted.get(&path("opt")).unwrap().metadata, default);
    assert_eq!(place.scan().get(&path("etc")).unwrap().metadata, etc.metadata);
}

#[test]
fn a_blob_that_breaks_off_is_an_error_everywhere() {
    let blob = archive([f("a", "text"), made(b'0', "b", vec![7; 1_000_000]), d("c")]);
    for end in (1..blob.len() - 1024).step_by(1000) {
        let result = index(&blob[..end], &ApplyOptions::default());
        // Only between two entries may an archive end without saying so.
        if let Ok(applied) = result {
            assert!(end % 512 == 0 || applied.tree.is_empty(), "{end}");
        }
    }
    let mut gzip = Vec::new();
    let source = tree([file("a", &"text".repeat(100_000))]);
    pack(&source, &PackOptions::default(), &mut gzip).unwrap();
    for end in 1..gzip.len() {
        assert!(index(&gzip[..end], &ApplyOptions::default()).is_err(), "{end}");
    }
}

#[test]
fn errors_of_the_stream_are_passed_on() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let start = archive([f("a", "text")]);
    let error =
        index(io::Read::chain(&start[..700], Broken), &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, LayerError::Read(_)), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    // Something is in the way of a small file, a large one, and a directory.
    for name in ["small", "large", "dir"] {
        fs_err::write(place.layer().join(name), "").unwrap();
    }
    let root = RootDir::open(place.layer()).unwrap();
    let many = || (0..2000).map(|i| f(&format!("many/{i}"), "x"));
    for entry in [f("small", "x"), made(b'0', "large", vec![1; 4_000_000]), d("dir")] {
        let blob = archive([entry].into_iter().chain(many()));
        let error = apply(&*blob, &root, &ApplyOptions::default()).unwrap_err();
        assert!(matches!(&error, LayerError::Fs(_)), "{error}");
        assert!(error.to_string().contains("exists"), "{error}");
        let _ = fs_err::remove_dir_all(place.layer().join("many"));
    }
}
