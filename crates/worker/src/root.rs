//! What ops yield.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use formwork_cache::Identity;
use formwork_fs::RelPath;
use formwork_layer::tree::{Bytes, Last, Node};
use formwork_layer::{Stack, Tree};
use formwork_remote::Material;

use crate::context::Context;
use crate::layer::Layer;
use crate::{BaseImage, LayerStore, WorkerError, name};

/// What an op yields; cheap to clone.
#[derive(Clone, Debug)]
pub enum Output {
    /// A root file system.
    Root(Root),
    /// A directory of the user's.
    Context(Arc<Context>),
    /// Files that were fetched from elsewhere, and from where.
    Fetched(Arc<Tree>, Arc<Material>),
}

/// A root file system: layers, and their identity as a whole.
#[derive(Clone, Debug)]
pub struct Root {
    identity: Identity,
    layers: Arc<[Arc<Layer>]>,
}

impl Output {
    /// The root file system.
    ///
    /// # Errors
    ///
    /// Fails for a context, which a valid graph has in no such place.
    pub fn root(&self) -> Result<&Root, WorkerError> {
        match self {
            Self::Root(root) => Ok(root),
            Self::Context(_) | Self::Fetched(..) => {
                Err(WorkerError::Internal("a context is used as a root file system".to_owned()))
            }
        }
    }
}

impl Root {
    /// A root file system without layers.
    pub(crate) fn scratch() -> Self {
        Self { identity: Identity::scratch(), layers: Arc::default() }
    }

    /// The root file system of an image.
    pub(crate) fn image(identity: Identity, layers: Vec<Arc<Layer>>) -> Self {
        Self { identity, layers: layers.into() }
    }

    /// The root file system of an image outside any build; `unpack` says whether somebody will need
    /// its files rather than the list of them.
    ///
    /// # Errors
    ///
    /// Fails where the image's layers cannot be named.
    pub fn of_image(
        store: &Arc<LayerStore>,
        image: &BaseImage,
        unpack: bool,
    ) -> Result<Self, WorkerError> {
        // Nothing is recorded under it, so the identity does not matter.
        Ok(Self::image(Identity::scratch(), image.layers(store, unpack)?))
    }

    /// This root file system with a layer that was built here.
    pub(crate) fn with(&self, layer: Arc<Layer>) -> Result<Self, WorkerError> {
        let digest = name::tree_digest(layer.name()).ok_or_else(|| {
            WorkerError::Internal(format!("the layer {} has no tree in its name", layer.name()))
        })?;
        let layers = self.layers.iter().cloned().chain([layer]).collect();
        Ok(Self { identity: self.identity.with_layer(&digest), layers })
    }

    /// What cache keys say about it.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// The lists of files of all layers, with the places of the files' bytes.
    ///
    /// # Errors
    ///
    /// Fails where a layer can be neither read from the store nor be made.
    pub fn trees_with_bytes(&self) -> Result<Vec<Arc<Tree>>, WorkerError> {
        for_all(&self.layers, Layer::tree_with_bytes)
    }

    /// The lists of files of all layers, made side by side where they are missing.
    ///
    /// # Errors
    ///
    /// Fails where a layer can be neither read from the store nor be made.
    pub fn trees(&self) -> Result<Vec<Arc<Tree>>, WorkerError> {
        for_all(&self.layers, Layer::tree)
    }

    /// The directories of all layers, made side by side where they are missing; of a layer that
    /// occurs more than once the topmost place.
    ///
    /// overlayfs refuses a directory that it is given twice. Whatever the lower of two equal
    /// layers adds or hides, the upper one does as well, so the lower one shows nowhere.
    pub(crate) fn directories(&self) -> Result<Vec<PathBuf>, WorkerError> {
        for_all(&self.layers, Layer::directory).map(topmost)
    }

    /// Whether a step on the layers' directories, which have been made, could come across what stands
    /// for a device: whether there is one outside of `/dev`.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn has_devices(&self) -> Result<bool, WorkerError> {
        for layer in self.layers.iter() {
            if layer.has_devices()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a file holds, following links; `None` if there is no such file or it has more than
    /// `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, WorkerError> {
        let trees = self.trees()?;
        let stack = Stack::new(trees.iter().map(|tree| &**tree));
        let Ok(path) = RelPath::clean(path) else { return Ok(None) };
        // A path that leads in a circle is no file.
        let Ok(resolved) = stack.resolve(&path, Last::Follow) else { return Ok(None) };
        let Some(found) = resolved.found else { return Ok(None) };
        let Node::File(file) = found.node() else { return Ok(None) };
        if !matches!(file.bytes, Bytes::Missing) {
            return Ok(file.read(limit)?);
        }
        // The list of files is there, and the files are not: the layer has to be unpacked.
        let path = found.path();
        let Some(at) = trees.iter().rposition(|tree| tree.get(path).is_some()) else {
            return Ok(None);
        };
        let tree = self.layers[at].tree_with_bytes()?;
        match tree.get(path).map(|entry| &tree.inode(entry).node) {
            Some(Node::File(file)) => Ok(file.read(limit)?),
            _ => Ok(None),
        }
    }
}

/// How many layers are made at the same time; each has threads of its own.
const AT_ONCE: usize = 4;

/// Does something for all layers, several at a time, the lower ones first; returns the results in
/// order.
fn for_all<T: Send>(
    layers: &[Arc<Layer>],
    work: impl Fn(&Layer) -> Result<T, WorkerError> + Sync,
) -> Result<Vec<T>, WorkerError> {
    let (ready, slow): (Vec<usize>, Vec<usize>) =
        (0..layers.len()).partition(|index| layers[*index].is_at_hand());
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, WorkerError>>>> =
        layers.iter().map(|_| Mutex::default()).collect();
    let make = |index: usize| {
        let result = work(&layers[index]);
        if result.is_err() {
            // What is left need not be made.
            next.store(slow.len(), Ordering::Relaxed);
        }
        *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    };
    std::thread::scope(|scope| {
        let make_slow = || {
            while let Some(index) = slow.get(next.fetch_add(1, Ordering::Relaxed)) {
                make(*index);
            }
        };
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, make_slow).ok();
        let started = (0..AT_ONCE.min(slow.len())).map_while(start).count();
        ready.into_iter().for_each(&make);
        if started == 0 {
            // The machine had no thread to give.
            make_slow();
        }
    });
    let results = results.into_iter();
    results.filter_map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Of equal directories the last one, in their order.
fn topmost(directories: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<PathBuf> =
        directories.into_iter().rev().filter(|directory| seen.insert(directory.clone())).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_directories_the_topmost_counts() {
        let paths = |text: &str| text.split(' ').map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(topmost(paths("base a b a c")), paths("base b a c"));
        assert_eq!(topmost(paths("a a a")), paths("a"));
    }
}
