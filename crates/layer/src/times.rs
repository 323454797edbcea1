//! Modification times that an archive could not carry: it has whole seconds, often none after
//! `SOURCE_DATE_EPOCH`, and the tree has them all.

use std::os::fd::AsFd;

use formwork_fs::{Follow, RelPath, RootDir};

use crate::disk::set_time;
use crate::tree::{Node, Tree};
use crate::{LayerError, flow};

/// Gives all entries of a directory, which holds a tree, the modification times of the tree.
///
/// # Errors
///
/// Fails where an entry is missing or its time cannot be set.
pub fn set_times(tree: &Tree, directory: &RootDir, threads: usize) -> Result<(), LayerError> {
    let is_timed = |node: &Node| !matches!(node, Node::Whiteout | Node::HardLink { .. });
    let entries: Vec<_> = tree.entries().iter().filter(|entry| is_timed(&entry.node)).collect();
    flow::map(
        &entries,
        threads,
        |_| false,
        |entry| {
            // The root has no name in a parent that could be opened.
            let (parent, name) = match entry.path.parent() {
                Some(parent) => (parent, entry.path.name()),
                None => (RelPath::root(), &b"."[..]),
            };
            let parent = directory.open_dir(&parent, Follow::Never)?;
            let path = || directory.path_of(&entry.path);
            match set_time(parent.as_fd(), name, entry.metadata.mtime, path) {
                // It could not be made.
                Err(LayerError::Fs(error))
                    if error.is_not_found() && entry.node.device().is_some() =>
                {
                    Ok(())
                }
                result => result,
            }
        },
    )?;
    Ok(())
}

/// Whether a tree that came out of an archive is another one as that archive had to have it: equal
/// but for modification times, and these cut off to seconds and set back to the latest that was
/// allowed.
pub fn is_packed_form(unpacked: &Tree, tree: &Tree, latest: Option<i64>) -> bool {
    unpacked.digest() == tree.digest()
        && unpacked.entries().iter().zip(tree.entries()).all(|(unpacked, entry)| {
            let seconds = entry.metadata.mtime.seconds;
            let packed = latest.map_or(seconds, |latest| seconds.min(latest));
            let time = unpacked.metadata.mtime;
            matches!(entry.node, Node::Whiteout | Node::HardLink { .. })
                || (time.seconds, time.nanoseconds) == (packed, 0)
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use formwork_fs::Timestamp;

    use super::*;
    use crate::tree::{Entry, File, Metadata, Origin};
    use crate::{ApplyOptions, PackOptions, apply, pack, scan_upper};

    fn tree() -> Tree {
        let at = |path: &str, mode, seconds, node| {
            let mtime = Timestamp { seconds, nanoseconds: 123_456_789 };
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            let metadata = Metadata { mode, uid, gid, mtime, ..Metadata::default() };
            Entry { path: RelPath::new(path).unwrap(), node, metadata }
        };
        let directory = || Node::Directory { opaque: false };
        Tree::new(vec![
            at("", 0o755, 5000, directory()),
            at("d", 0o500, 1000, directory()),
            at("d/f", 0o644, 3000, Node::File(File::inline(*b"abc"))),
            at("d/l", 0o777, 2000, Node::Symlink { target: Arc::from(&b"f"[..]) }),
        ])
        .unwrap()
    }

    #[test]
    fn times_come_back_that_an_archive_has_lost() {
        let tree = tree();
        for latest in [None, Some(2500)] {
            let mut blob = Vec::new();
            let options = PackOptions { latest_mtime: latest, ..PackOptions::default() };
            pack(&tree, &options, &mut blob).unwrap();
            let place = tempfile::tempdir().unwrap();
            let directory = RootDir::open(place.path()).unwrap();
            let applied = apply(&*blob, &directory, &ApplyOptions::default()).unwrap();
            assert!(is_packed_form(&applied.tree, &tree, latest));
            assert!(!is_packed_form(&applied.tree, &tree, Some(999)));
            assert_ne!(applied.tree.encode(), tree.encode());
            set_times(&tree, &directory, 2).unwrap();
            let none = Metadata { mode: u32::MAX, ..Metadata::default() };
            let found = scan_upper(&Origin::layer(directory), &none, 1).unwrap();
            assert_eq!(found.encode(), tree.encode());
        }
    }
}
