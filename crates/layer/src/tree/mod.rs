//! What a layer holds, as data.
//!
//! A [`Tree`] is a sorted list of entries. It is the form of a layer that everything else is made
//! from: directories ([`crate::materialize()`]), archives ([`crate::pack()`]), other trees
//! ([`Stack::merge`], [`crate::compose`]). Trees are made and compared without touching the bytes
//! of files, of which an entry knows only the hash and the place ([`Bytes`]).

mod builder;
mod bytes;
mod digest;
mod encoding;
mod entry;
mod links;
mod merge;
mod names;
mod stack;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use formwork_fs::RelPath;

pub use builder::{Removed, TreeBuilder};
pub(crate) use bytes::Neighbours;
pub use bytes::{Bytes, Origin};
pub use digest::TreeDigest;
pub use entry::{ContentHash, Entry, File, Metadata, Node, Xattrs};
pub use stack::{Found, Last, Resolved, Stack};
pub(crate) use stack::{Step, resolve_links};

use crate::LayerError;

/// The entries of one layer or of a whole root file system, in the order of [`RelPath`].
///
/// Invariants: each path occurs once; the directory of every entry is itself an entry (except for
/// the root, which may be left out); only directories have entries below them; the target of a
/// hard link comes before the link. What cannot be told apart on a file system has one form: see
/// [`Metadata`] and [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// A tree of some entries, in any order.
    ///
    /// # Errors
    ///
    /// Refuses entries that no file system could hold together: see the invariants.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, LayerError> {
        if !entries.is_sorted_by(|a, b| a.path < b.path) {
            entries.sort_by(|a, b| a.path.cmp(&b.path));
        }
        let mut tree = Self { entries };
        tree.check()?;
        links::normalise(&mut tree)?;
        tree.entries.iter_mut().for_each(normalise);
        Ok(tree)
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, taken out of the tree.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes in all files together.
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match &entry.node {
            Node::File(file) => file.size,
            _ => 0,
        };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    /// Whether there are devices that a step could come across: those outside of `/dev`, in whose
    /// place every step has one of its own.
    pub fn has_devices(&self) -> bool {
        let is_device = |entry: &Entry| match &entry.node {
            Node::HardLink { .. } => self.inode(entry).node.device().is_some(),
            node => node.device().is_some(),
        };
        let is_seen =
            |path: &RelPath| path.as_bytes().split(|byte| *byte == b'/').next() != Some(b"dev");
        // Most trees have none at all, and looking links up takes time.
        self.entries.iter().any(|entry| entry.node.device().is_some())
            && self.entries.iter().any(|entry| is_device(entry) && is_seen(&entry.path))
    }

    /// The entry at a path.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        let at = self.position(path).ok()?;
        self.entries.get(at)
    }

    /// The entry at a path and all entries below it.
    pub fn subtree(&self, path: &RelPath) -> &[Entry] {
        let start = self.position(path).unwrap_or_else(|at| at);
        let rest = &self.entries[start..];
        &rest[..rest.partition_point(|entry| entry.path.starts_with(path))]
    }

    /// The entries in a directory, without those below them.
    pub fn children(&self, directory: &RelPath) -> impl Iterator<Item = &Entry> + use<'_> {
        let below = match self.subtree(directory) {
            [first, below @ ..] if first.path == *directory => below,
            all => all,
        };
        Children { rest: below }
    }

    /// The entry that holds what this entry of the tree is a name of: the target of a hard link,
    /// or the entry itself.
    pub fn inode<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match &entry.node {
            // The invariant says that the target is there.
            Node::HardLink { target } => self.get(target).unwrap_or(entry),
            _ => entry,
        }
    }

    /// The tree with the bytes of every file at the file's path in a directory.
    #[must_use]
    pub fn with_bytes(mut self, origin: &Arc<Origin>) -> Self {
        for entry in &mut self.entries {
            if let Node::File(file) = &mut entry.node {
                let path = entry.path.clone();
                file.bytes = Bytes::At { origin: Arc::clone(origin), path };
            }
        }
        self
    }

    /// The tree with the bytes of files that another one has in the same place where that one has
    /// them.
    #[must_use]
    pub fn with_bytes_from(mut self, other: &Self) -> Self {
        let mut rest = other.entries.iter().peekable();
        for entry in &mut self.entries {
            while rest.next_if(|other| other.path < entry.path).is_some() {}
            if let Node::File(file) = &mut entry.node
                && let Some(other) = rest.next_if(|other| other.path == entry.path)
                && let Node::File(other) = &other.node
                && *file == *other
            {
                file.bytes = other.bytes.clone();
            }
        }
        self
    }

    fn position(&self, path: &RelPath) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path))
    }

    fn check(&self) -> Result<(), LayerError> {
        // The directories from the root down to the entry that was seen last.
        let mut open: Vec<&RelPath> = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let problem = |problem| LayerError::Tree { path: entry.path.clone(), problem };
            if i > 0 && self.entries[i - 1].path == entry.path {
                return Err(problem("it is there twice"));
            }
            let (parent, _) = entry.path.split_name();
            while open.last().is_some_and(|directory| directory.as_bytes() != parent) {
                open.pop();
            }
            if open.is_empty() && !parent.is_empty() {
                return Err(problem("what it lies in is no directory of the same layer"));
            }
            check_entry(entry).map_err(problem)?;
            if entry.node.is_directory() {
                open.push(&entry.path);
            }
        }
        Ok(())
    }
}

/// Steps over what lies below each child by a binary search.
struct Children<'a> {
    rest: &'a [Entry],
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        let (child, rest) = self.rest.split_first()?;
        let below = match child.node {
            Node::Directory { .. } => rest.partition_point(|e| e.path.starts_with(&child.path)),
            _ => 0,
        };
        self.rest = &rest[below..];
        Some(child)
    }
}

/// What is wrong with an entry, whatever is around it.
pub(crate) fn check_entry(entry: &Entry) -> Result<(), &'static str> {
    let Entry { path, node, metadata } = entry;
    if path.is_root() && !node.is_directory() {
        return Err("the root must be a directory");
    }
    if path.as_bytes().len() >= PATH_MAX {
        return Err("its path is longer than 4095 bytes");
    }
    if path.name().len() > NAME_MAX {
        return Err("its name is longer than 255 bytes");
    }
    if metadata.mode > 0o7777 {
        return Err("its mode has unknown bits");
    }
    if metadata.uid == NO_ID || metadata.gid == NO_ID {
        return Err("its owner is 4294967295, which the kernel takes for no owner at all");
    }
    if metadata.mtime.nanoseconds >= 1_000_000_000 {
        return Err("its modification time has more than 999999999 nanoseconds");
    }
    if metadata.xattrs.iter().any(|(name, _)| !is_xattr_name(name)) {
        return Err("an extended attribute has no valid name");
    }
    match node {
        Node::Symlink { target } if target.is_empty() || target.contains(&0) => {
            Err("a symbolic link needs a target without NUL bytes")
        }
        Node::Symlink { target } if target.len() >= PATH_MAX => {
            Err("its target is longer than 4095 bytes")
        }
        Node::CharDevice { major: 0, minor: 0 } => Err("device 0/0 means a whiteout"),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor }
            if *major > MAX_MAJOR || *minor > MAX_MINOR =>
        {
            Err("its device number is out of range")
        }
        Node::File(File { size, bytes: Bytes::Inline(bytes), .. })
            if bytes.len() as u64 != *size =>
        {
            Err("it has not as many bytes as it says")
        }
        _ => Ok(()),
    }
}

/// The kernel takes names without NUL bytes, archives such without equals signs.
fn is_xattr_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0 | b'='))
}

/// The kernel's limit for paths that are given to it, with the NUL at the end.
const PATH_MAX: usize = 4096;
/// The limit for one component on all common file systems.
const NAME_MAX: usize = 255;
/// The kernel keeps 12 bits of a device's major number and 20 of its minor one.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;
/// `(uid_t) -1`, which `chown(2)` takes for "leave it as it is".
const NO_ID: u32 = u32::MAX;

/// Gives entries that are the same the same form.
fn normalise(entry: &mut Entry) {
    match entry.node {
        Node::Symlink { .. } => entry.metadata.mode = 0o777,
        Node::Whiteout => entry.metadata = Metadata::default(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{dir, entry, file, link, path, symlink, tree, whiteout};
    use super::*;

    fn problem(entries: Vec<Entry>) -> String {
        Tree::new(entries).unwrap_err().to_string()
    }

    #[test]
    fn entries_are_sorted_and_found() {
        let tree = tree([file("a/b/c", "1"), dir("a/b"), file("a-b", "2"), dir("a"), dir("a/d")]);
        let paths = |entries: &[Entry]| {
            let paths = entries.iter().map(|entry| entry.path.to_string());
            paths.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(tree.entries()), "/a /a/b /a/b/c /a/d /a-b");
        assert_eq!(paths(tree.subtree(&path("a"))), "/a /a/b /a/b/c /a/d");
        assert_eq!(paths(tree.subtree(&path("a/c"))), "");
        assert_eq!(paths(tree.subtree(&path(""))), paths(tree.entries()));
        let children = |of: &str| {
            let children = tree.children(&path(of)).map(|entry| entry.path.to_string());
            children.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(children(""), "/a /a-b");
        assert_eq!(children("a"), "/a/b /a/d");
        assert_eq!(children("a/d"), "");
        assert!(tree.get(&path("a/b")).unwrap().node.is_directory());
        assert!(tree.get(&path("b")).is_none());
        assert_eq!(tree.size(), 2);
    }

    #[test]
    fn devices_count_where_a_step_has_none_of_its_own() {
        let device = |path| entry(path, Node::CharDevice { major: 1, minor: 3 });
        let has_devices = |entries: Vec<Entry>| tree(entries).has_devices();
        assert!(!has_devices(vec![dir("a"), file("a/b", ""), whiteout("c")]));
        assert!(!has_devices(vec![dir("dev"), device("dev/a"), dir("dev/b"), device("dev/b/c")]));
        assert!(has_devices(vec![device("a")]));
        assert!(has_devices(vec![dir("devel"), device("devel/a")]));
        assert!(has_devices(vec![dir("dev"), device("dev/a"), link("x", "dev/a")]));
        assert!(has_devices(vec![
            dir("a"),
            entry("a/b", Node::BlockDevice { major: 8, minor: 1 })
        ]));
    }

    #[test]
    fn equal_files_in_equal_places_have_their_bytes_where_another_tree_has_them() {
        let none = |tree: &Tree| Tree::decode(&tree.encode()).unwrap();
        let earlier = tree([
            dir("a"),
            file("a/changed", "old"),
            file("a/gone", "gone"),
            file("a/same", "same"),
            file("b", "moved"),
            dir("c"),
            file("z", "last"),
        ]);
        let now = none(&tree([
            dir("a"),
            file("a/changed", "new"),
            file("a/same", "same"),
            link("b", "a/same"),
            file("c", "moved"),
            file("z", "last"),
        ]));
        let found = now.clone().with_bytes_from(&earlier);
        assert_eq!(found, now);
        let known = found.entries().iter().filter(|entry| match &entry.node {
            Node::File(file) => !file.bytes.is_missing(),
            _ => false,
        });
        let known: Vec<_> = known.map(|entry| entry.path.to_string()).collect();
        assert_eq!(known, ["/a/same", "/z"]);
    }

    #[test]
    fn a_tree_is_one_that_a_file_system_can_hold() {
        for (entries, expected) in [
            (vec![file("a", ""), file("a", "")], "/a cannot be part of a layer: it is there twice"),
            (vec![file("a/b", "")], "/a/b cannot be part of a layer: what it lies in"),
            (vec![file("a", ""), file("a/b", "")], "no directory of the same layer"),
            (vec![whiteout("a"), file("a/b", "")], "no directory of the same layer"),
            (vec![dir("a"), file("a/b/c", "")], "no directory of the same layer"),
            (vec![dir("a"), dir("b"), file("a/b", ""), file("b/c/d", "")], "/b/c/d cannot"),
            (vec![file("", "")], "the root must be a directory"),
            (vec![symlink("a", "")], "needs a target"),
            (vec![symlink("a", "b\0")], "needs a target"),
            (vec![entry("a", Node::CharDevice { major: 0, minor: 0 })], "means a whiteout"),
            (vec![entry("a", Node::BlockDevice { major: 4096, minor: 0 })], "out of range"),
            (vec![entry("a", Node::CharDevice { major: 1, minor: 1 << 20 })], "out of range"),
            (vec![file(&"x".repeat(256), "")], "name is longer"),
        ] {
            let problem = problem(entries);
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn metadata_is_within_the_kernels_bounds() {
        let with = |change: fn(&mut Metadata)| {
            let mut entry = file("a", "");
            change(&mut entry.metadata);
            problem(vec![entry])
        };
        assert!(with(|m| m.mode = 0o10000).contains("mode"));
        assert!(with(|m| m.uid = u32::MAX).contains("owner"));
        assert!(with(|m| m.gid = u32::MAX).contains("owner"));
        assert!(with(|m| m.mtime.nanoseconds = 1_000_000_000).contains("time"));
        for name in [&b""[..], b"user.a=b", b"user.\0"] {
            let mut entry = file("a", "");
            entry.metadata.xattrs = vec![(name.into(), [].into())].into();
            assert!(problem(vec![entry]).contains("attribute"), "{name:?}");
        }
    }

    #[test]
    fn the_first_name_of_a_file_is_the_file() {
        let target = |tree: &Tree, at: &str| match &tree.get(&path(at)).unwrap().node {
            Node::HardLink { target } => target.to_string(),
            other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_owned(),
        };
        let chain = tree([link("a", "m"), link("z", "b"), link("b", "a"), file("m", "text")]);
        let targets = ["a", "b", "m", "z"].map(|at| target(&chain, at));
        assert_eq!(targets, ["File", "/a", "/a", "/a"]);
        assert_eq!(chain.inode(chain.get(&path("z")).unwrap()).path, path("a"));
        assert_eq!(chain.get(&path("z")).unwrap().metadata.mode, 0o644);

        assert!(problem(vec![link("a", "b")]).contains("is not in the same layer"));
        assert!(problem(vec![link("a", "b"), link("b", "a")]).contains("to itself"));
        assert!(problem(vec![link("a", "a")]).contains("to itself"));
        assert!(problem(vec![link("a", "b"), dir("b")]).contains("directory"));
        assert!(problem(vec![link("a", "b"), whiteout("b")]).contains("directory"));
    }

    #[test]
    fn links_to_symbolic_links_keep_to_the_link() {
        let tree = tree([link("z", "a"), symlink("a", "target")]);
        assert!(matches!(tree.get(&path("a")).unwrap().node, Node::Symlink { .. }));
        assert_eq!(tree.get(&path("z")).unwrap().metadata.mode, 0o777);
    }

    #[test]
    fn fifty_thousand_entries_take_ten_megabytes() {
        // The entry itself, and its path: sixteen bytes of counters and a typical length.
        let bytes_per_entry = size_of::<Entry>() + 16 + 48;
        assert!(50_000 * bytes_per_entry <= 10_000_000);
    }
}
