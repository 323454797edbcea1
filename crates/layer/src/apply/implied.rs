//! The directories that an archive does not describe.

use std::os::fd::AsFd;

use formwork_fs::{Follow, RelPath, RootDir};

use crate::LayerError;
use crate::disk::{Maker, Ownership};
use crate::tree::{Stack, Tree};

/// Gives the directories that a layer merely implies the metadata that they have in the layers
/// below.
///
/// In a directory of a layer such a directory has to be there, and would hide the metadata of the
/// one below. So it takes over what that one has; where there is none, it stays what it is, mode
/// 0755 and root's. The layer is then right on top of exactly these layers.
///
/// `directory` is where the layer has been unpacked, if it has.
///
/// # Errors
///
/// Fails where the directory cannot be written.
pub fn adopt_implied(
    tree: Tree,
    implied: &[RelPath],
    below: &Stack<'_>,
    directory: Option<&RootDir>,
) -> Result<Tree, LayerError> {
    let maker = Maker::new(Ownership::Exact);
    let mut entries = tree.into_entries();
    for path in implied {
        let Some(found) = below.lookup(path) else { continue };
        let Ok(at) = entries.binary_search_by(|entry| entry.path.cmp(path)) else { continue };
        let entry = &mut entries[at];
        if !found.node().is_directory() {
            continue;
        }
        entry.metadata = found.metadata().clone();
        if let Some(root) = directory {
            let directory = root.open_dir(path, Follow::Never)?;
            maker.finish(directory.as_fd(), &entry.metadata, || directory.path().to_owned())?;
        }
    }
    Tree::new(entries)
}
