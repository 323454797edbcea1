//! A directory that holds a whole root file system.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use formwork_fs::{FileKind, RelPath, RootDir, remove_tree};
use formwork_layer::tree::{Entry, Metadata};
use formwork_layer::{Census, MaterializeOptions, Stack, Tree, materialize};
use formwork_snapshot::SnapshotKey;

use crate::exec::root_metadata;
use crate::mounts::make_directory;
use crate::root::Root;
use crate::{LayerStore, WorkerError};

/// What a process finds there is the kernel's on other machines, so no layer has anything to say.
pub(super) const KERNELS: [&str; 3] = ["dev", "proc", "sys"];

/// A directory with the files of some layers, which a process may change. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Place {
    /// Holds the root file system as `root`, and what is put aside beside it.
    pub(super) directory: PathBuf,
    /// Where the process has its root.
    pub(super) root: PathBuf,
    layers: Vec<SnapshotKey>,
    /// What it held when the last step was done.
    pub(super) census: Census,
}

impl Place {
    /// Writes all files of a root file system.
    pub(crate) fn make(store: &LayerStore, root: &Root) -> Result<Self, WorkerError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = store.layout.scratch()?.join(format!("root-{number}"));
        make_directory(&directory)?;
        let root_directory = directory.join("root");
        make_directory(&root_directory)?;
        let (layers, census) = (Vec::new(), Census::default());
        let mut place = Self { directory, root: root_directory, layers, census };
        let trees = root.trees_with_bytes()?;
        let merged = Stack::new(trees.iter().map(|tree| &**tree)).merge();
        place.write(merged, store.threads, false)?;
        place.dress(root)?;
        place.census = place.look(&[], store.threads)?;
        place.is_now(root);
        Ok(place)
    }

    /// Where the process has its root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The temporary directory that this is in, and the way from there to a path of the root.
    pub(super) fn way_to(&self, path: &RelPath) -> (&Path, RelPath) {
        let place = self.directory.parent().unwrap_or(&self.directory);
        let name = self.directory.file_name().unwrap_or_default().as_encoded_bytes();
        (place, RelPath::root().join(name).join("root").append(path))
    }

    /// Whether this is the root file system or one that it is made of by more layers.
    pub(super) fn is_below(&self, root: &Root) -> bool {
        let layers = root.layers();
        self.layers.len() <= layers.len()
            && self.layers.iter().zip(layers).all(|(own, layer)| own == layer.name())
    }

    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Adds the layers that are missing.
    pub(super) fn rise_to(&mut self, root: &Root, threads: usize) -> Result<(), WorkerError> {
        let missing = &root.layers()[self.layers.len()..];
        if missing.is_empty() {
            return Ok(());
        }
        for layer in missing {
            self.write(Tree::clone(&*layer.tree_with_bytes()?), threads, true)?;
        }
        self.dress(root)?;
        self.census = self.look(&[], threads)?;
        self.is_now(root);
        Ok(())
    }

    /// Remembers that the directory holds this root file system.
    pub(super) fn is_now(&mut self, root: &Root) {
        self.layers = root.layers().iter().map(|layer| layer.name().clone()).collect();
    }

    /// What the directory holds at this moment, but for some paths.
    pub(super) fn look(&self, ignored: &[RelPath], threads: usize) -> Result<Census, WorkerError> {
        let kernels = KERNELS.iter().filter_map(|path| RelPath::new(path).ok());
        let ignored: Vec<RelPath> = kernels.chain(ignored.iter().cloned()).collect();
        Ok(Census::take(&RootDir::open(&self.root)?, &ignored, threads)?)
    }

    fn write(&self, tree: Tree, threads: usize, over: bool) -> Result<(), WorkerError> {
        let is_kernels = |entry: &Entry| {
            let first = entry.path.as_bytes().split(|byte| *byte == b'/').next();
            KERNELS.iter().any(|name| first == Some(name.as_bytes()))
        };
        let mut entries = tree.into_entries();
        entries.retain(|entry| !is_kernels(entry));
        let tree = Tree::new(entries)?;
        let options = MaterializeOptions { threads, over, ..MaterializeOptions::default() };
        materialize(&tree, &RootDir::open(&self.root)?, &options)?;
        Ok(())
    }

    /// Gives the directory the mode and owner of the root.
    fn dress(&self, root: &Root) -> Result<(), WorkerError> {
        let Metadata { mode, uid, gid, .. } = root_metadata(root)?;
        let path = &self.root;
        let failed = |errno| formwork_fs::FsError::new("prepare", path, errno);
        let root = RootDir::open(path)?;
        formwork_fs::give(root.as_fd(), b"", uid, gid)
            .and_then(|()| formwork_fs::give_mode(root.as_fd(), FileKind::Directory, mode))
            .map_err(failed)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (Some(parent), Some(name)) = (self.directory.parent(), self.directory.file_name())
        else {
            return;
        };
        // What cannot be removed now goes with the other temporary files of this process.
        if let Ok(parent) = RootDir::open(Path::new(parent)) {
            let _ = remove_tree(&parent, name.as_encoded_bytes());
        }
    }
}
