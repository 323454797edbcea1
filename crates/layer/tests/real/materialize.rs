//! Trees become real directories.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use formwork_fs::{RootDir, Timestamp};
use formwork_layer::tree::{Bytes, ContentHash, Entry, File, Node, Origin};
use formwork_layer::{LayerError, MaterializeOptions, Omitted, Ownership, Tree, materialize};

use crate::support::{
    dir, entry, file, is_root, link, one_of_everything, path, scan, symlink, temporary, tree,
};

fn fill(directory: &Path, tree: &Tree) -> Result<Omitted, LayerError> {
    let options = MaterializeOptions { hard_links: true, threads: 4, ..Default::default() };
    materialize(tree, &RootDir::open(directory).unwrap(), &options)
}

fn export(directory: &Path, tree: &Tree) -> Result<Omitted, LayerError> {
    // Asking for hard links makes no difference where the user may write.
    let options = MaterializeOptions {
        ownership: Ownership::Caller,
        hard_links: true,
        over: false,
        threads: 4,
    };
    materialize(tree, &RootDir::open(directory).unwrap(), &options)
}

#[test]
fn a_layer_comes_out_exactly() {
    if !is_root("owners and devices") {
        return;
    }
    let mut entries = one_of_everything();
    entries.push(entry("gone", Node::Whiteout));
    entries.push(entry("opaque", Node::Directory { opaque: true }));
    for entry in &mut entries {
        entry.metadata.mtime.nanoseconds = 123_456_789;
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    entries[2].metadata.xattrs =
        vec![(b"security.capability"[..].into(), capability[..].into())].into();
    entries[0].metadata.mode = 0o2000;
    let tree = tree(entries);
    let target = temporary();
    assert_eq!(fill(target.path(), &tree).unwrap(), Omitted::default());
    assert_eq!(scan(target.path()), tree);
}

/// A layer's directory with some files, and its tree.
fn source(entries: impl IntoIterator<Item = Entry>) -> (tempfile::TempDir, Tree) {
    let directory = temporary();
    // An ordinary user may only make files of their own.
    let mut entries: Vec<Entry> = entries.into_iter().collect();
    for entry in &mut entries {
        entry.metadata.uid = rustix::process::geteuid().as_raw();
        entry.metadata.gid = rustix::process::getegid().as_raw();
    }
    fill(directory.path(), &tree(entries)).unwrap();
    let tree = scan(directory.path());
    (directory, tree)
}

fn inode(directory: &Path, name: &str) -> u64 {
    fs_err::symlink_metadata(directory.join(name)).unwrap().ino()
}

#[test]
fn unchanged_files_of_a_layer_are_linked_and_others_copied() {
    if !is_root("owners of copies") {
        return;
    }
    let names = ["same", "mode", "uid", "gid", "time", "xattr"];
    let (from, tree) = source(
        names.map(|name| file(name, name)).into_iter().chain([dir("d"), file("d/deep", "deep")]),
    );
    let mut entries = tree.into_entries();
    for entry in &mut entries {
        let metadata = &mut entry.metadata;
        match entry.path.as_bytes() {
            b"mode" => metadata.mode = 0o600,
            b"uid" => metadata.uid = 5,
            b"gid" => metadata.gid = 5,
            b"time" => metadata.mtime.nanoseconds += 1,
            b"xattr" => metadata.xattrs = vec![(b"user.a"[..].into(), b"1"[..].into())].into(),
            _ => {}
        }
    }
    let wanted = Tree::new(entries).unwrap();
    let to = temporary();
    fill(to.path(), &wanted).unwrap();
    for name in ["same", "d/deep"] {
        assert_eq!(inode(to.path(), name), inode(from.path(), name), "{name}");
    }
    for name in &names[1..] {
        assert_ne!(inode(to.path(), name), inode(from.path(), name), "{name}");
        assert_eq!(fs_err::read(to.path().join(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(fs_err::metadata(to.path().join("uid")).unwrap().uid(), 5);
}

#[test]
fn without_leave_nothing_is_linked() {
    let (from, source) = source([file("a", "text")]);
    let to = temporary();
    let root = RootDir::open(to.path()).unwrap();
    materialize(&source, &root, &MaterializeOptions::default()).unwrap();
    assert_ne!(inode(to.path(), "a"), inode(from.path(), "a"));
    assert_eq!(scan(to.path()), source);
}

#[test]
fn two_copies_of_one_file_are_two_files() {
    let (_from, source) = source([file("a", "text")]);
    let original = source.entries()[0].clone();
    let copy = Entry { path: path("b"), ..original.clone() };
    let to = temporary();
    fill(to.path(), &tree([original, copy])).unwrap();
    assert_ne!(inode(to.path(), "a"), inode(to.path(), "b"));
    assert_eq!(fs_err::read(to.path().join("b")).unwrap(), b"text");
}

#[test]
fn nothing_of_a_context_is_linked_and_changes_are_seen() {
    let context = temporary();
    let name = context.path().join("file");
    fs_err::write(&name, "before").unwrap();
    let origin = Origin::context(RootDir::open(context.path()).unwrap());
    let bytes = Bytes::At { origin: Arc::clone(&origin), path: path("file") };
    let content = File { size: 6, content: ContentHash::of(b"before"), bytes };
    let mut wanted = entry("file", Node::File(content));
    let stat = fs_err::metadata(&name).unwrap();
    wanted.metadata.mode = stat.mode() & 0o7777;
    (wanted.metadata.uid, wanted.metadata.gid) = (stat.uid(), stat.gid());
    wanted.metadata.mtime =
        Timestamp { seconds: stat.mtime(), nanoseconds: u32::try_from(stat.mtime_nsec()).unwrap() };
    let wanted = tree([wanted]);

    let to = temporary();
    fill(to.path(), &wanted).unwrap();
    assert_ne!(inode(to.path(), "file"), stat.ino());
    // What is appended does not belong to the file that was scanned.
    fs_err::write(&name, "before and after").unwrap();
    let to = temporary();
    fill(to.path(), &wanted).unwrap();
    assert_eq!(fs_err::read(to.path().join("file")).unwrap(), b"before");
    for now in ["BEFORE", "befor", ""] {
        fs_err::write(&name, now).unwrap();
        let error = fill(temporary().path(), &wanted).unwrap_err();
        assert!(matches!(error, LayerError::Changed { .. }), "{now}: {error}");
    }
}

#[test]
fn many_files_come_out_with_any_number_of_threads() {
    if !is_root("owners") {
        return;
    }
    let files =
        (0..2000).map(|i| file(&format!("d{}/f{i}", i % 30), format!("{i}").repeat(i % 50)));
    let large = (0..3).map(|i| file(&format!("large{i}"), vec![7; 5 << 20]));
    let wanted = tree((0..30).map(|i| dir(&format!("d{i}"))).chain(files).chain(large));
    for threads in [1, 4] {
        let to = temporary();
        let options = MaterializeOptions { threads, ..Default::default() };
        materialize(&wanted, &RootDir::open(to.path()).unwrap(), &options).unwrap();
        assert_eq!(scan(to.path()), wanted);
    }
}

#[test]
fn what_is_in_the_way_of_a_layer_is_an_error() {
    for name in ["a", "d"] {
        let to = temporary();
        fs_err::write(to.path().join(name), "").unwrap();
        let error = fill(to.path(), &tree([file("a", ""), dir("d")])).unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
    }
}

#[test]
fn an_export_belongs_to_the_caller() {
    let mut entries = one_of_everything();
    entries
        .retain(|entry| !matches!(entry.node, Node::CharDevice { .. } | Node::BlockDevice { .. }));
    entries.push(entry("gone", Node::Whiteout));
    let mut root = dir("");
    root.metadata.mode = 0o700;
    entries.push(root);
    let to = temporary();
    fs_err::set_permissions(to.path(), PermissionsExt::from_mode(0o775)).unwrap();
    export(to.path(), &tree(entries)).unwrap();

    let stat = |name: &str| fs_err::symlink_metadata(to.path().join(name)).unwrap();
    let me = rustix::process::geteuid().as_raw();
    for name in ["dir", "dir/file", "dir/symlink", "fifo"] {
        assert_eq!(stat(name).uid(), me, "{name}");
    }
    assert_eq!(stat("dir/file").mode() & 0o7777, 0o4751);
    assert_eq!(stat("dir/file").mtime(), 1_600_000_002);
    assert_eq!(stat("dir").mtime(), 1_600_000_000);
    assert_eq!(stat("dir/link").ino(), stat("dir/file").ino());
    assert!(!to.path().join("gone").exists());
    // The directory itself is the user's own affair.
    assert_eq!(stat("").mode() & 0o7777, 0o775);
}

#[test]
fn an_export_replaces_files_and_keeps_the_rest() {
    let to = temporary();
    let outside = temporary();
    fs_err::write(outside.path().join("precious"), "untouched").unwrap();
    let at = |name: &str| to.path().join(name);
    fs_err::create_dir(at("dir")).unwrap();
    fs_err::write(at("dir/kept"), "kept").unwrap();
    fs_err::write(at("dir/file"), "old").unwrap();
    fs_err::hard_link(at("dir/file"), at("other-name")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("precious"), at("to-file")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("to-dir")).unwrap();
    fs_err::write(at("was-file"), "").unwrap();

    let wanted = tree([
        dir("dir"),
        file("dir/file", "new"),
        file("to-file", "new"),
        dir("to-dir"),
        file("to-dir/precious", "new"),
        dir("was-file"),
        symlink("dir/link", "file"),
        link("hard", "dir/file"),
    ]);
    // Twice: what the first left is replaced by the second.
    for _ in 0..2 {
        export(to.path(), &wanted).unwrap();
    }
    let read = |name: &str| fs_err::read_to_string(at(name)).unwrap();
    assert_eq!(read("dir/kept"), "kept");
    assert_eq!(read("other-name"), "old");
    for name in ["dir/file", "to-file", "to-dir/precious", "dir/link", "hard"] {
        assert_eq!(read(name), "new", "{name}");
    }
    assert_eq!(fs_err::read_to_string(outside.path().join("precious")).unwrap(), "untouched");
    assert!(fs_err::symlink_metadata(at("to-dir")).unwrap().is_dir());
}

#[test]
fn an_export_removes_no_directories() {
    let to = temporary();
    fs_err::create_dir(to.path().join("dir")).unwrap();
    fs_err::write(to.path().join("dir/precious"), "").unwrap();
    let error = export(to.path(), &tree([file("dir", "")])).unwrap_err().to_string();
    assert!(error.contains("cannot replace") && error.contains("dir"), "{error}");
    assert!(to.path().join("dir/precious").exists());
}

#[test]
fn an_export_shares_nothing_with_the_layer() {
    let (from, source) = source([file("a", "text")]);
    let to = temporary();
    export(to.path(), &source).unwrap();
    assert_ne!(inode(to.path(), "a"), inode(from.path(), "a"));
}

#[test]
fn devices_that_may_not_be_made_are_counted() {
    if formwork_testing::is_root() {
        formwork_testing::skipped("devices without the right to make them (needs a user)");
        return;
    }
    let to = temporary();
    let omitted = export(to.path(), &tree([entry("a", Node::CharDevice { major: 1, minor: 3 })]));
    assert_eq!(omitted.unwrap(), Omitted { devices: 1, xattrs: 0, owners: 0 });
}

#[test]
fn zeros_of_a_context_take_no_room() {
    let context = temporary();
    let mut content = vec![0; 3 << 20];
    content[1_500_000] = 1;
    fs_err::write(context.path().join("file"), &content).unwrap();
    let origin = Origin::context(RootDir::open(context.path()).unwrap());
    let bytes = Bytes::At { origin, path: path("file") };
    let content_hash = ContentHash::of(&content);
    let file = File { size: content.len() as u64, content: content_hash, bytes };
    let to = temporary();
    export(to.path(), &tree([entry("file", Node::File(file))])).unwrap();
    assert!(fs_err::read(to.path().join("file")).unwrap() == content);
    let blocks = fs_err::metadata(to.path().join("file")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}
