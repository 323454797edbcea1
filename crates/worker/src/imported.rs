//! Layers that another machine has built and that lie in a cache elsewhere.
//!
//! What is said about such a layer is believed only as far as it proves itself. Its list of files
//! must have the hash that the layer's name has, its blob the digest that it is known by, the
//! archive in it the diff ID, and the files of that archive must be those of the list. Whatever
//! does not fit makes the layer unusable ([`WorkerError::Imported`]), never the build: whoever
//! carries out the graph does that again without the layer.
//!
//! Knows nothing of where caches are or what they look like: blobs come from a [`BlobSource`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use formwork_image::{BlobSource, VerifiedBytes};
use formwork_layer::Tree;
use formwork_layer::compression;
use formwork_oci::{Descriptor, DiffId};
use formwork_snapshot::SnapshotKey;

use crate::{WorkerError, name};

/// The largest list of files that is read: some millions of files.
const TREE_LIMIT: u64 = 1 << 30;

/// A layer that can be fetched, or of which at least the list of files can.
#[derive(Clone, Debug)]
pub struct ImportedLayer {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The list of its files; without one it is read off the blob.
    pub tree: Option<ImportedTree>,
    /// The packed layer; without one only the list can be had.
    pub blob: Option<ImportedBlob>,
    /// Where the blobs are.
    pub blobs: Arc<dyn BlobSource>,
}

/// The list of a layer's files, as [`Tree::encode`] writes it, compressed or not.
#[derive(Clone, Debug)]
pub enum ImportedTree {
    /// As bytes.
    Inline(Vec<u8>),
    /// As a blob.
    Blob(Box<Descriptor>),
}

/// A packed layer in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedBlob {
    /// The digest of the archive.
    pub diff_id: DiffId,
    /// The blob.
    pub descriptor: Descriptor,
    /// The form, as [`crate::PackForm::name`] says it.
    pub form: String,
    /// The latest modification time that the form allows.
    pub epoch: Option<i64>,
}

/// The layers that caches elsewhere have, by their names in the store. Grows while a build runs.
#[derive(Debug, Default)]
pub struct ImportedLayers {
    layers: Mutex<BTreeMap<SnapshotKey, ImportedLayer>>,
    /// Those whose files somebody needed in vain.
    lost: Mutex<BTreeSet<SnapshotKey>>,
}

impl ImportedLayers {
    /// Adds a layer, unless one of the name is known.
    pub fn add(&self, name: SnapshotKey, layer: ImportedLayer) {
        let mut layers = self.lock();
        match layers.get_mut(&name) {
            Some(known) if known.blob.is_none() && layer.blob.is_some() => *known = layer,
            Some(_) => {}
            None => drop(layers.insert(name, layer)),
        }
    }

    /// The layer of a name.
    pub fn get(&self, name: &SnapshotKey) -> Option<ImportedLayer> {
        self.lock().get(name).cloned()
    }

    /// Gives a layer up that is of no use: the step that makes it has to run again.
    pub fn forget(&self, name: &SnapshotKey) {
        self.lock().remove(name);
        self.lose(name);
    }

    /// Gives a layer up that no cache was known to have.
    pub(crate) fn lose(&self, name: &SnapshotKey) {
        self.lost().insert(name.clone());
    }

    /// Takes back what was given up of the layers that caches turn out to have.
    pub fn recover(&self) {
        let layers = self.lock();
        self.lost().retain(|name| !layers.contains_key(name));
    }

    /// Whether a layer was given up.
    pub fn is_lost(&self, name: &SnapshotKey) -> bool {
        self.lost().contains(name)
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<SnapshotKey>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SnapshotKey, ImportedLayer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImportedLayer {
    /// The list of files, if there is one, verified by the layer's name.
    pub(crate) fn tree(&self, layer: &SnapshotKey) -> Result<Option<Tree>, WorkerError> {
        let unreadable = |error: &dyn std::fmt::Display| unusable(layer, error);
        let packed: Box<dyn Read> = match &self.tree {
            None => return Ok(None),
            Some(ImportedTree::Inline(bytes)) => Box::new(bytes.as_slice()),
            Some(ImportedTree::Blob(blob)) => {
                let bytes = VerifiedBytes::open(&*self.blobs, blob);
                Box::new(bytes.map_err(|error| unreadable(&error))?)
            }
        };
        let mut encoded = Vec::new();
        let reader = compression::reader(packed).map_err(|error| unreadable(&error))?;
        let read = reader.take(TREE_LIMIT).read_to_end(&mut encoded);
        read.map_err(|error| unreadable(&error))?;
        let tree = Tree::decode(&encoded).map_err(|error| unreadable(&error))?;
        if name::of_tree(&tree.digest(), &encoded).as_ref() != Some(layer) {
            return Err(unusable(layer, &"the list of its files is that of another layer"));
        }
        Ok(Some(tree))
    }
}

/// That a layer of a cache cannot be used.
pub(crate) fn unusable(layer: &SnapshotKey, reason: &dyn std::fmt::Display) -> WorkerError {
    WorkerError::Imported { layer: layer.clone(), reason: reason.to_string() }
}
