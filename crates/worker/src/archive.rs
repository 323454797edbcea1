//! Local archives for ADD, unpacked once and kept under their content.

use std::io::Seek;
use std::sync::Arc;

use formwork_fs::{RelPath, RootDir};
use formwork_layer::tree::{File, Origin};
use formwork_layer::{ApplyOptions, Tree, Whiteouts, apply};
use formwork_snapshot::{SnapshotKey, Snapshotter};

use crate::WorkerError;
use crate::facts::TREE;
use crate::store::LayerStore;

/// The fact that lists the directories that an archive does not describe.
const IMPLIED: &str = "implied";

/// An archive that is unpacked in the store.
pub(crate) struct Unpacked {
    pub(crate) tree: Tree,
    /// Directories that the archive does not describe although something lies in them.
    pub(crate) implied: Vec<RelPath>,
}

/// The files of an archive; `None` for a file that is none.
pub(crate) fn unpacked(
    store: &Arc<LayerStore>,
    file: &File,
) -> Result<Option<Unpacked>, WorkerError> {
    let name = format!("archive-{}", file.content);
    let key: SnapshotKey = name.parse()?;
    if let Some(known) = kept(store, &key)? {
        return Ok(Some(known));
    }
    let mut reader = file.open()?;
    if !formwork_layer::archive::is_archive(&mut reader)? {
        return Ok(None);
    }
    reader.rewind().map_err(formwork_layer::LayerError::Read)?;
    let active = store.snapshots.prepare()?;
    let directory = RootDir::open(active.upper())?;
    let options = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        threads: store.threads,
        ..ApplyOptions::default()
    };
    let applied = apply(reader, &directory, &options)?;
    let implied: Vec<&[u8]> = applied.implied.iter().map(RelPath::as_bytes).collect();
    let implied = implied.join(&0);
    let facts = [(TREE, &*applied.tree.encode()), (IMPLIED, &*implied)];
    store.snapshots.commit(&key, Some(active), &facts)?;
    kept(store, &key)
}

fn kept(store: &LayerStore, key: &SnapshotKey) -> Result<Option<Unpacked>, WorkerError> {
    let Some(snapshot) = store.snapshots.get(key)? else { return Ok(None) };
    let (Some(tree), Some(implied), Some(directory)) =
        (snapshot.fact(TREE)?, snapshot.fact(IMPLIED)?, snapshot.layer())
    else {
        return Ok(None);
    };
    let Ok(tree) = Tree::decode(&tree) else {
        store.snapshots.remove(key)?;
        return Ok(None);
    };
    let paths = implied.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let implied = paths.filter_map(|path| RelPath::new(path).ok()).collect();
    let tree = tree.with_bytes(&Origin::layer(RootDir::open(directory)?));
    Ok(Some(Unpacked { tree, implied }))
}
