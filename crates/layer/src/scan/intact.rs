//! Whether a layer's directory still holds what it held.

use formwork_fs::{Follow, FsError, RootDir};

use super::{LARGE, hash};
use crate::LayerError;
use crate::flow;
use crate::tree::{Entry, Node, Tree};

/// Whether each file in a directory that was made from a tree, or the tree from it, has the
/// content that the tree says. Uses up to `threads` threads.
///
/// This is the question after a loss of power: file systems with a journal bring names, owners and
/// modes to the disk in order, but the bytes of files when they like.
///
/// # Errors
///
/// Fails where a file cannot be read.
pub fn is_intact(tree: &Tree, directory: &RootDir, threads: usize) -> Result<bool, LayerError> {
    let is_large = |entry: &Entry| matches!(&entry.node, Node::File(file) if file.size >= LARGE);
    let intact = flow::map(tree.entries(), threads, is_large, |entry| holds(entry, directory))?;
    Ok(intact.into_iter().all(|intact| intact))
}

fn holds(entry: &Entry, directory: &RootDir) -> Result<bool, LayerError> {
    let Node::File(expected) = &entry.node else { return Ok(true) };
    let file = match directory.open_file(&entry.path, Follow::Never) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let found =
        hash(&file).map_err(|error| FsError::new("read", directory.path_of(&entry.path), error))?;
    Ok(found == (expected.size, expected.content))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use formwork_fs::RelPath;

    use super::*;
    use crate::scan::scan_context;
    use crate::tree::Origin;

    #[test]
    fn lost_bytes_and_lost_files_are_seen() {
        let directory = crate::tree::testing::temporary();
        fs_err::create_dir(directory.path().join("d")).unwrap();
        fs_err::write(directory.path().join("d/a"), "abc").unwrap();
        fs_err::write(directory.path().join("empty"), "").unwrap();
        let root = || RootDir::open(directory.path()).unwrap();
        let origin: Arc<Origin> = Origin::context(root());
        let keep = |_: &RelPath, _: bool| formwork_fs::Verdict::Keep;
        let tree = scan_context(&origin, &keep, None, 1, &|_| {}).unwrap();
        assert!(is_intact(&tree, &root(), 2).unwrap());
        fs_err::write(directory.path().join("d/a"), "\0\0\0").unwrap();
        assert!(!is_intact(&tree, &root(), 2).unwrap());
        fs_err::write(directory.path().join("d/a"), "abc").unwrap();
        assert!(is_intact(&tree, &root(), 2).unwrap());
        fs_err::remove_file(directory.path().join("empty")).unwrap();
        assert!(!is_intact(&tree, &root(), 2).unwrap());
    }
}
