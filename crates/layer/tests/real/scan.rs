//! Scanning real directories.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formwork_fs::{RelPath, RootDir, Verdict};
use formwork_layer::tree::{ContentHash, Entry, Metadata, Node, Origin};
use formwork_layer::{StatCache, Tree, scan_context, scan_upper};
use rustix::fs::{CWD, FileType, Mode};

use crate::support::{is_root, path};

fn context(directory: &Path) -> Arc<Origin> {
    Origin::context(RootDir::open(directory).unwrap())
}

fn everything(_: &RelPath, _: bool) -> Verdict {
    Verdict::Keep
}

fn scan(directory: &Path) -> Tree {
    scan_context(&context(directory), &everything, None, 4, &|_| {}).unwrap()
}

fn names(tree: &Tree) -> Vec<String> {
    tree.entries().iter().map(|entry| entry.path.to_string()).collect()
}

fn content(entry: &Entry) -> Vec<u8> {
    let Node::File(file) = &entry.node else { panic!("{entry:?}") };
    file.read(1 << 30).unwrap().unwrap()
}

#[test]
fn a_context_is_what_a_build_may_see_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs_err::create_dir(at("sub")).unwrap();
    fs_err::write(at("sub/file"), "content").unwrap();
    fs_err::set_permissions(at("sub/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs_err::hard_link(at("sub/file"), at("zz-link")).unwrap();
    symlink("../nowhere", at("symlink")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    if is_root("the owner of a context's file") {
        rustix::fs::chown(at("sub/file"), Some(rustix::fs::Uid::from_raw(1234)), None).unwrap();
        fs_err::set_permissions(at("sub/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    }

    let tree = scan(dir.path());
    assert_eq!(names(&tree), ["/fifo", "/socket", "/sub", "/sub/file", "/symlink", "/zz-link"]);
    let file = tree.get(&path("sub/file")).unwrap();
    assert_eq!(content(file), b"content");
    assert_eq!((file.metadata.mode, file.metadata.uid, file.metadata.gid), (0o4751, 0, 0));
    let stat = fs_err::metadata(at("sub/file")).unwrap();
    assert_eq!(file.metadata.mtime.seconds, stat.mtime());
    assert_eq!(i64::from(file.metadata.mtime.nanoseconds), stat.mtime_nsec());
    let node = |name: &str| tree.get(&path(name)).unwrap().node.clone();
    assert_eq!(node("zz-link"), Node::HardLink { target: path("sub/file") });
    assert_eq!(node("symlink"), Node::Symlink { target: b"../nowhere"[..].into() });
    assert_eq!(node("fifo"), Node::Fifo);
    assert!(content(tree.get(&path("socket")).unwrap()).is_empty());
}

#[test]
fn filters_decide_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join("no")).unwrap();
    for name in ["no/secret", "yes"] {
        fs_err::write(dir.path().join(name), "").unwrap();
    }
    let filter = |path: &RelPath, _: bool| match path.as_bytes() {
        b"no" => Verdict::Prune,
        _ => Verdict::Keep,
    };
    let tree = scan_context(&context(dir.path()), &filter, None, 2, &|_| {}).unwrap();
    assert_eq!(names(&tree), ["/yes"]);
}

#[test]
fn a_link_to_a_file_that_is_left_out_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("a"), "text").unwrap();
    fs_err::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let filter = |path: &RelPath, _: bool| match path.as_bytes() {
        b"a" => Verdict::Prune,
        _ => Verdict::Keep,
    };
    let tree = scan_context(&context(dir.path()), &filter, None, 2, &|_| {}).unwrap();
    assert_eq!(content(&tree.entries()[0]), b"text");
}

#[test]
fn many_files_are_the_same_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..3000 {
        let sub = dir.path().join(format!("{}", i % 17));
        fs_err::create_dir_all(&sub).unwrap();
        fs_err::write(sub.join(format!("{i}")), format!("content {i}").repeat(i % 100)).unwrap();
    }
    fs_err::write(dir.path().join("large"), vec![7; 3 << 20]).unwrap();
    let one = scan_context(&context(dir.path()), &everything, None, 1, &|_| {}).unwrap();
    let four = scan_context(&context(dir.path()), &everything, None, 4, &|_| {}).unwrap();
    assert_eq!(one, four);
    let Node::File(large) = &four.get(&path("large")).unwrap().node else { panic!() };
    assert_eq!(large.content, ContentHash::of(&vec![7; 3 << 20]));
}

/// A context with a stat cache beside it.
struct Cached {
    _directory: tempfile::TempDir,
    context: std::path::PathBuf,
    cache: std::path::PathBuf,
}

impl Cached {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (context, cache) = (directory.path().join("context"), directory.path().join("cache"));
        fs_err::create_dir(&context).unwrap();
        Self { _directory: directory, context, cache }
    }

    fn scan(&self) -> Tree {
        // Each scan begins a new process's life.
        let mut cache = StatCache::load(&self.cache);
        scan_context(&context(&self.context), &everything, Some(&mut cache), 2, &|_| {}).unwrap()
    }

    fn hash(&self, name: &str) -> ContentHash {
        match &self.scan().get(&path(name)).unwrap().node {
            Node::File(file) => file.content,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rewrite_with_the_same_size_and_time_is_seen() {
    let cached = Cached::new();
    let file = cached.context.join("file");
    fs_err::write(&file, "one").unwrap();
    let time = SystemTime::now() - Duration::from_secs(1000);
    let set_time = || {
        let file = fs_err::OpenOptions::new().write(true).open(&file).unwrap();
        file.file().set_modified(time).unwrap();
    };
    set_time();
    assert_eq!(cached.hash("file"), ContentHash::of(b"one"));
    // The same inode, size and mtime, and immediately.
    fs_err::write(&file, "two").unwrap();
    set_time();
    assert_eq!(cached.hash("file"), ContentHash::of(b"two"));
}

#[test]
fn writes_right_after_a_scan_are_seen() {
    let cached = Cached::new();
    let file = cached.context.join("file");
    for round in 0..50 {
        let text = format!("{round:04}");
        fs_err::write(&file, &text).unwrap();
        assert_eq!(cached.hash("file"), ContentHash::of(text.as_bytes()));
    }
}

fn upper(directory: &Path) -> Tree {
    let stat = fs_err::metadata(directory).unwrap();
    let below = Metadata {
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        ..Metadata::default()
    };
    scan_upper(&Origin::layer(RootDir::open(directory).unwrap()), &below, 4).unwrap()
}

#[test]
fn an_upper_directory_is_what_a_process_changed() {
    if !is_root("whiteouts and owners") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs_err::create_dir(at("opaque")).unwrap();
    fs_err::create_dir(at("plain")).unwrap();
    crate::support::set_xattr(&at("opaque"), "user.overlay.opaque", b"y");
    crate::support::set_xattr(&at("plain"), "user.overlay.origin", b"");
    fs_err::write(at("file"), "content").unwrap();
    rustix::fs::chown(
        at("file"),
        Some(rustix::fs::Uid::from_raw(1000)),
        Some(rustix::fs::Gid::from_raw(2000)),
    )
    .unwrap();
    crate::support::set_xattr(&at("file"), "user.overlay.impure", b"y");
    crate::support::set_xattr(&at("file"), "user.thing", b"1");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    crate::support::set_xattr(&at("file"), "security.capability", capability);
    rustix::fs::mknodat(CWD, at("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, null).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();

    let tree = upper(dir.path());
    assert_eq!(names(&tree), ["/file", "/gone", "/null", "/opaque", "/plain"]);
    let node = |name: &str| tree.get(&path(name)).unwrap().node.clone();
    assert_eq!(node("opaque"), Node::Directory { opaque: true });
    assert_eq!(node("plain"), Node::Directory { opaque: false });
    assert_eq!(node("gone"), Node::Whiteout);
    assert_eq!(node("null"), Node::CharDevice { major: 1, minor: 3 });
    let metadata = &tree.get(&path("file")).unwrap().metadata;
    assert_eq!((metadata.uid, metadata.gid), (1000, 2000));
    let xattrs: Vec<_> = metadata.xattrs.iter().collect();
    assert_eq!(xattrs, [(&b"security.capability"[..], &capability[..])]);
}

#[test]
fn the_root_counts_only_if_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(upper(dir.path()).is_empty());
    let below = Metadata { mode: 0o1777, ..Metadata::default() };
    let origin = Origin::layer(RootDir::open(dir.path()).unwrap());
    let tree = scan_upper(&origin, &below, 1).unwrap();
    assert_eq!(names(&tree), ["/"]);
    let mode = fs_err::metadata(dir.path()).unwrap().mode() & 0o7777;
    assert_eq!(tree.entries()[0].metadata.mode, mode);
}

#[test]
fn whiteouts_are_no_links_although_they_share_a_device() {
    if !is_root("whiteouts") {
        return;
    }
    // As overlayfs makes them since Linux 5.8.
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("a");
    rustix::fs::mknodat(CWD, &one, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    fs_err::hard_link(&one, dir.path().join("b")).unwrap();
    let tree = upper(dir.path());
    assert_eq!(names(&tree), ["/a", "/b"]);
    assert!(tree.entries().iter().all(|entry| entry.node == Node::Whiteout));
}
