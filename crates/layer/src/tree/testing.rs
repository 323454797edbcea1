//! Trees for tests, in few words.

use formwork_fs::{RelPath, Timestamp};

use super::{Entry, File, Metadata, Node, Tree};

/// A directory beside the test program: those in /tmp may lack extended attributes.
pub(crate) fn temporary() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

pub(crate) fn entry(at: &str, node: Node) -> Entry {
    let mode = if node.is_directory() { 0o755 } else { 0o644 };
    Entry { path: path(at), node, metadata: Metadata::root_owned(mode) }
}

pub(crate) fn file(at: &str, content: &str) -> Entry {
    entry(at, Node::File(File::inline(content.as_bytes())))
}

pub(crate) fn dir(at: &str) -> Entry {
    entry(at, Node::Directory { opaque: false })
}

pub(crate) fn opaque(at: &str) -> Entry {
    entry(at, Node::Directory { opaque: true })
}

pub(crate) fn symlink(at: &str, target: &str) -> Entry {
    let mut entry = entry(at, Node::Symlink { target: target.as_bytes().into() });
    entry.metadata.mode = 0o777;
    entry
}

pub(crate) fn link(at: &str, target: &str) -> Entry {
    entry(at, Node::HardLink { target: path(target) })
}

pub(crate) fn whiteout(at: &str) -> Entry {
    let mut entry = entry(at, Node::Whiteout);
    entry.metadata = Metadata::default();
    entry
}

pub(crate) fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
    Tree::new(entries.into_iter().collect()).unwrap()
}

/// One of everything, with metadata in all fields.
pub(crate) fn one_of_everything() -> Tree {
    let mut entries = vec![
        dir(""),
        dir("dir"),
        opaque("dir/opaque"),
        file("dir/file", "content"),
        file("dir/empty", ""),
        link("dir/link", "dir/file"),
        symlink("dir/symlink", "../elsewhere"),
        entry("dev-char", Node::CharDevice { major: 1, minor: 3 }),
        entry("dev-block", Node::BlockDevice { major: 8, minor: 1 }),
        entry("fifo", Node::Fifo),
        whiteout("gone"),
    ];
    for (i, entry) in entries.iter_mut().enumerate() {
        let number = u32::try_from(i).unwrap();
        entry.metadata.uid = number * 1000;
        entry.metadata.gid = number * 2000;
        entry.metadata.mtime =
            Timestamp { seconds: 1_600_000_000 + i64::from(number), nanoseconds: number };
    }
    let capability = (
        b"security.capability"[..].into(),
        b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..].into(),
    );
    entries[3].metadata.mode = 0o4755;
    entries[3].metadata.xattrs = vec![capability].into();
    tree(entries)
}
