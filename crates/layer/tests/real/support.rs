//! What several of these tests need.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use formwork_fs::{RelPath, RootDir, Timestamp};
use formwork_layer::tree::{Entry, File, Metadata, Node, Origin};
use formwork_layer::{Tree, scan_upper};

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

pub(crate) fn entry(at: &str, node: Node) -> Entry {
    let mode = if node.is_directory() { 0o755 } else { 0o644 };
    let mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 0 };
    Entry { path: path(at), node, metadata: Metadata { mtime, ..Metadata::root_owned(mode) } }
}

pub(crate) fn file(at: &str, content: impl AsRef<[u8]>) -> Entry {
    entry(at, Node::File(File::inline(content.as_ref())))
}

pub(crate) fn dir(at: &str) -> Entry {
    entry(at, Node::Directory { opaque: false })
}

pub(crate) fn symlink(at: &str, target: &str) -> Entry {
    entry(at, Node::Symlink { target: target.as_bytes().into() })
}

pub(crate) fn link(at: &str, target: &str) -> Entry {
    entry(at, Node::HardLink { target: path(target) })
}

pub(crate) fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
    Tree::new(entries.into_iter().collect()).unwrap()
}

/// One of everything that an ordinary tar archive can hold, with metadata in all fields.
pub(crate) fn one_of_everything() -> Vec<Entry> {
    let mut entries = vec![
        dir("dir"),
        dir("dir/empty"),
        file("dir/file", "content"),
        file("dir/none", ""),
        link("dir/link", "dir/file"),
        symlink("dir/symlink", "../elsewhere"),
        entry("dev-char", Node::CharDevice { major: 1, minor: 3 }),
        entry("dev-block", Node::BlockDevice { major: 8, minor: 1 }),
        entry("fifo", Node::Fifo),
        file("umlaut-\u{e4}", "x"),
        file(&"long-".repeat(40), "long"),
        file("large", vec![7; 3 << 20]),
    ];
    for (entry, number) in entries.iter_mut().zip(0u32..) {
        entry.metadata.uid = number * 1000;
        entry.metadata.gid = number * 3_000_000;
        entry.metadata.mtime.seconds += i64::from(number);
    }
    entries[2].metadata.mode = 0o4751;
    entries
}

/// The origin of a layer's directory.
pub(crate) fn layer(directory: &Path) -> Arc<Origin> {
    Origin::layer(RootDir::open(directory).unwrap())
}

/// What a layer's directory holds, without its root.
pub(crate) fn scan(directory: &Path) -> Tree {
    use std::os::unix::fs::MetadataExt;
    let stat = fs_err::metadata(directory).unwrap();
    let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
    let below = Metadata { mode, uid, gid, ..Metadata::default() };
    scan_upper(&layer(directory), &below, 4).unwrap()
}

/// A directory on the disk: one in /tmp may lack extended attributes.
pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Whether the tests run as root; says what is left out if not.
pub(crate) fn is_root(what: &str) -> bool {
    let is_root = formwork_testing::is_root();
    if !is_root {
        formwork_testing::skipped(&format!("{what} (needs root)"));
    }
    is_root
}

/// Whether a program is there; says what is left out if not.
pub(crate) fn has_program(program: &str) -> bool {
    formwork_testing::program(program).is_some()
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let file = fs_err::File::open(path).unwrap();
    formwork_fs::write_xattr_of(file.file().as_fd(), name.as_bytes(), value).unwrap();
}
