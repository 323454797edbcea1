//! One layer, in whichever forms somebody has needed.

mod import;
mod pack;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use formwork_content::Blob;
use formwork_fs::{FsError, RootDir};
use formwork_image::{BlobSource, VerifiedBytes};
use formwork_layer::tree::{Bytes, Node, Origin as Directory};
use formwork_layer::{
    ApplyOptions, MaterializeOptions, Stack, Tree, adopt_implied, materialize, set_times,
};
use formwork_oci::{ChainId, Descriptor, DiffId};
use formwork_snapshot::{Active, Committed, SnapshotKey, Snapshotter};

use crate::facts::{CREATED, DEVICES, IMPORTED, PackedFact, TREE, facts_of, whole_forms};
use crate::imported::{ImportedLayer, ImportedLayers, unusable as not_imported};
use crate::store::{LayerStore, now};
use crate::{BaseLayerError, WorkerError, name};

pub use pack::PackedLayer;

/// A layer of a root file system. Its list of files, its directory and its blob are each made
/// when they are asked for, once, and kept in the store.
pub struct Layer {
    name: SnapshotKey,
    store: Arc<LayerStore>,
    source: Source,
    forms: Mutex<Forms>,
    has_devices: OnceLock<bool>,
}

/// What there is of a layer in this process.
#[derive(Default)]
struct Forms {
    tree: Option<Arc<Tree>>,
    directory: Option<PathBuf>,
}

/// Where a layer comes from, if the store does not have it.
pub(crate) enum Source {
    /// From nowhere else.
    Store,
    /// From an image: a packed layer.
    Image {
        blobs: Arc<dyn BlobSource>,
        diff_id: DiffId,
        descriptor: Box<Descriptor>,
        /// The layers below it, lowest first.
        below: Vec<Arc<Layer>>,
        /// Whether somebody will need the directory, so that the blob is read only once.
        unpack: bool,
    },
    /// From a cache elsewhere.
    Imported(Box<ImportedLayer>),
    /// From nowhere that is known: there is a record of it, and no more. Its name is enough for the
    /// keys of the steps behind it; who needs its files lets the step run again.
    Gone(Arc<ImportedLayers>),
    /// From a plan.
    Plan {
        /// Makes the tree, which knows where the bytes are.
        tree: Box<dyn Fn() -> Result<Tree, WorkerError> + Send + Sync>,
        /// The layer that the same step had before, of whose files many may be the same.
        earlier: Option<SnapshotKey>,
    },
}

impl Layer {
    /// A layer that may be in the store, and otherwise comes from somewhere else.
    pub(crate) fn new(name: SnapshotKey, store: &Arc<LayerStore>, source: Source) -> Arc<Self> {
        let (forms, has_devices) = (Mutex::default(), OnceLock::new());
        Arc::new(Self { name, store: Arc::clone(store), source, forms, has_devices })
    }

    /// Keeps a layer that was built just now: its list of files, and the directory if there is
    /// one already. `source` makes the directory later otherwise.
    pub(crate) fn keep(
        store: &Arc<LayerStore>,
        tree: Tree,
        directory: Option<Active>,
        source: Source,
    ) -> Result<Arc<Self>, WorkerError> {
        Self::keep_made(store, tree, directory, source, now())
    }

    /// Keeps a layer that was made at some time, in seconds since 1970.
    pub(crate) fn keep_made(
        store: &Arc<LayerStore>,
        tree: Tree,
        directory: Option<Active>,
        source: Source,
        created: i64,
    ) -> Result<Arc<Self>, WorkerError> {
        let encoded = tree.encode();
        let name = name::of_tree(&tree.digest(), &encoded)
            .ok_or_else(|| WorkerError::Internal("a layer cannot be named".to_owned()))?;
        let created = created.to_string();
        let mut facts = facts_of(&tree, &encoded);
        facts.push((CREATED, created.as_bytes()));
        let has_devices = facts.iter().any(|(fact, _)| *fact == DEVICES);
        let has_directory = directory.is_some();
        let snapshot = store.snapshots.commit(&name, directory, &facts)?;
        let layer = Self::new(name, store, source);
        layer.has_devices.get_or_init(|| has_devices);
        let mut forms = layer.lock();
        if has_directory {
            layer.found(&mut forms, &snapshot, tree)?;
        } else {
            forms.tree = Some(Arc::new(tree));
        }
        drop(forms);
        Ok(layer)
    }

    /// What the layer is called in the store.
    pub fn name(&self) -> &SnapshotKey {
        &self.name
    }

    /// When the layer was made, in seconds since 1970; `None` for one of a base image.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn created(&self) -> Result<Option<i64>, WorkerError> {
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(None) };
        let fact = snapshot.fact(CREATED)?;
        Ok(fact.and_then(|fact| String::from_utf8(fact).ok()?.parse().ok()))
    }

    /// Whether the layer's directory, which has been made, has something outside of `/dev` that
    /// stands for a device. Costs a look at the store the first time.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn has_devices(&self) -> Result<bool, WorkerError> {
        if let Some(known) = self.has_devices.get() {
            return Ok(*known);
        }
        let snapshot = self.store.snapshots.peek(&self.name);
        let fact = snapshot.map(|snapshot| snapshot.fact(DEVICES)).transpose()?.flatten();
        Ok(*self.has_devices.get_or_init(|| fact.is_some()))
    }

    /// The number of bytes of the layer's files.
    ///
    /// # Errors
    ///
    /// Fails where [`Layer::tree`] does.
    pub fn unpacked_size(&self) -> Result<u64, WorkerError> {
        Ok(self.tree()?.size())
    }

    /// The image's descriptor of the layer, if it is one of a base image.
    pub fn base_descriptor(&self) -> Option<(DiffId, Descriptor)> {
        match &self.source {
            Source::Image { diff_id, descriptor, .. } => {
                Some((diff_id.clone(), Descriptor::clone(descriptor)))
            }
            Source::Store | Source::Imported(_) | Source::Gone(_) | Source::Plan { .. } => None,
        }
    }

    /// Gives the layer up, whose files are nowhere.
    pub(crate) fn lose(&self, elsewhere: &ImportedLayers) {
        match &self.source {
            Source::Gone(_) => elsewhere.lose(&self.name),
            _ => elsewhere.forget(&self.name),
        }
    }

    /// Whether the files of the layer are known to be nowhere.
    pub fn has_no_files(&self) -> bool {
        let is_elsewhere = match &self.source {
            Source::Gone(_) => false,
            Source::Imported(imported) => imported.blob.is_some(),
            Source::Store | Source::Image { .. } | Source::Plan { .. } => return false,
        };
        !is_elsewhere && !self.is_kept().unwrap_or_default()
    }

    /// What a cache elsewhere says about the layer, if it comes from there.
    pub fn imported(&self) -> Option<&ImportedLayer> {
        match &self.source {
            Source::Imported(imported) => Some(imported),
            Source::Image { .. } | Source::Store | Source::Gone(_) | Source::Plan { .. } => None,
        }
    }

    /// The list of the layer's files; where the bytes are is known once the directory is there.
    ///
    /// # Errors
    ///
    /// Fails where the layer can be neither read from the store nor be made.
    pub fn tree(&self) -> Result<Arc<Tree>, WorkerError> {
        let mut forms = self.lock();
        if forms.tree.is_none() {
            self.load(&mut forms)?;
        }
        if forms.tree.is_none() {
            self.make(&mut forms, false)?;
        }
        forms.tree.clone().ok_or_else(|| self.lost())
    }

    /// The layer's directory: a lower directory of an overlay.
    ///
    /// # Errors
    ///
    /// Fails where the layer can be neither read from the store nor be made.
    pub fn directory(&self) -> Result<PathBuf, WorkerError> {
        let mut forms = self.lock();
        if forms.directory.is_none() {
            self.load(&mut forms)?;
        }
        if forms.directory.is_none() {
            self.make(&mut forms, true)?;
        }
        forms.directory.clone().ok_or_else(|| self.lost())
    }

    /// The list of the layer's files, with the place of each file's bytes.
    pub(crate) fn tree_with_bytes(&self) -> Result<Arc<Tree>, WorkerError> {
        let tree = self.tree()?;
        if has_bytes(&tree) {
            return Ok(tree);
        }
        self.directory()?;
        self.tree()
    }

    /// Whether asking for a form of the layer will be answered at once.
    pub(crate) fn is_at_hand(&self) -> bool {
        let forms = self.lock();
        forms.directory.is_some() || matches!(self.store.snapshots.get(&self.name), Ok(Some(_)))
    }

    /// Whether the store has all that it takes to make any form of the layer.
    pub(crate) fn is_complete(&self) -> Result<bool, WorkerError> {
        if matches!(self.source, Source::Imported(_)) {
            return Ok(true);
        }
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(false) };
        if snapshot.fact(TREE)?.is_none() {
            return Ok(false);
        }
        Ok(snapshot.layer().is_some()
            || !matches!(self.source, Source::Store)
            || self.kept_blob(&snapshot)?.is_some())
    }

    /// Makes sure that everything about the layer is in the store, wherever it comes from; but for
    /// a layer of a base image.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Imported`] where it cannot be had, or is not what it should be.
    pub fn fetch(&self) -> Result<(), WorkerError> {
        let imported = match &self.source {
            Source::Imported(imported) => imported,
            Source::Store | Source::Image { .. } => return Ok(()),
            // A planned copy may take its files from a layer that is elsewhere.
            Source::Gone(_) | Source::Plan { .. } if self.is_kept()? => return Ok(()),
            Source::Gone(_) | Source::Plan { .. } => return self.directory().map(drop),
        };
        let mut forms = self.lock();
        if forms.tree.is_none() {
            self.load(&mut forms)?;
        }
        if self.is_kept()? { Ok(()) } else { self.import(&mut forms, imported, false) }
    }

    /// Whether the layer is in the store: the list of its files, and they themselves.
    fn is_kept(&self) -> Result<bool, WorkerError> {
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(false) };
        Ok(snapshot.fact(TREE)?.is_some()
            && (snapshot.layer().is_some() || self.kept_blob(&snapshot)?.is_some()))
    }

    /// Takes what the store has.
    fn load(&self, forms: &mut Forms) -> Result<(), WorkerError> {
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(()) };
        let Some(encoded) = snapshot.fact(TREE)? else { return Ok(()) };
        match Tree::decode(&encoded) {
            Ok(tree) => self.found(forms, &snapshot, tree),
            // Damaged: made again, if it can be.
            Err(_) => Ok(self.store.snapshots.remove(&self.name)?),
        }
    }

    /// Takes a tree, and the directory of a snapshot if there is one.
    fn found(
        &self,
        forms: &mut Forms,
        snapshot: &Committed,
        tree: Tree,
    ) -> Result<(), WorkerError> {
        let directory = snapshot.layer();
        let tree = match &directory {
            Some(path) => tree.with_bytes(&Directory::layer(RootDir::open(path)?)),
            None => tree,
        };
        forms.tree = Some(Arc::new(tree));
        forms.directory = directory;
        Ok(())
    }

    /// Makes what the store does not have.
    fn make(&self, forms: &mut Forms, needs_directory: bool) -> Result<(), WorkerError> {
        match &self.source {
            Source::Image { blobs, diff_id, descriptor, below, unpack } => {
                // Two images with the same base, or two builds, fetch and unpack it once.
                let turn = format!("unpack-{}", self.name);
                let _turn = self.store.layout.turn(&turn, &|| true)?;
                self.load(forms)?;
                if forms.directory.is_some() || (forms.tree.is_some() && !needs_directory) {
                    return Ok(());
                }
                VerifiedBytes::open(&**blobs, descriptor)
                    .map_err(WorkerError::from)
                    .and_then(|reader| {
                        self.unpack(forms, reader, diff_id, below, needs_directory || *unpack)
                    })
                    .map_err(|error| unusable(diff_id, error))
            }
            Source::Imported(imported) => {
                if !needs_directory && let Some(tree) = imported.tree(&self.name)? {
                    // Who builds this again without the cache elsewhere needs the list for keys.
                    let created = imported.created.to_string();
                    let encoded = tree.encode();
                    let mut facts = facts_of(&tree, &encoded);
                    facts.push((CREATED, created.as_bytes()));
                    self.store.snapshots.commit(&self.name, None, &facts)?;
                    forms.tree = Some(Arc::new(tree));
                    return Ok(());
                }
                self.import(forms, imported, needs_directory)
            }
            // What the plan would take may be elsewhere, as the layer was.
            Source::Plan { .. } if needs_directory && self.came_packed()? => {
                self.unpack_kept_blob(forms)
            }
            Source::Plan { tree: plan, earlier } if needs_directory => {
                let tree = match &forms.tree {
                    Some(tree) if has_bytes(tree) => Tree::clone(tree),
                    Some(tree) => with_bytes_of(Tree::clone(tree), plan()?),
                    None => plan()?,
                };
                let earlier = earlier.as_ref().and_then(|name| self.unpacked_files(name));
                let tree = match earlier {
                    Some(earlier) => tree.with_bytes_from(&earlier),
                    None => tree,
                };
                self.materialize(forms, tree)
            }
            Source::Plan { tree, .. } => {
                forms.tree = Some(Arc::new(tree()?));
                Ok(())
            }
            Source::Store => self.unpack_kept_blob(forms),
            Source::Gone(elsewhere) => {
                elsewhere.lose(&self.name);
                Err(not_imported(&self.name, &"the store has only a record of it"))
            }
        }
    }

    /// The files of another layer, if it is unpacked in the store. Nobody needs them: what is wrong
    /// with them only costs time.
    fn unpacked_files(&self, name: &SnapshotKey) -> Option<Tree> {
        let snapshot = self.store.snapshots.get(name).ok()??;
        let directory = RootDir::open(snapshot.layer()?).ok()?;
        let tree = Tree::decode(&snapshot.fact(TREE).ok()??).ok()?;
        Some(tree.with_bytes(&Directory::layer(directory)))
    }

    fn unpack(
        &self,
        forms: &mut Forms,
        reader: impl std::io::Read + Send,
        diff_id: &DiffId,
        below: &[Arc<Self>],
        with_directory: bool,
    ) -> Result<(), WorkerError> {
        let active = with_directory.then(|| self.store.snapshots.prepare()).transpose()?;
        let directory = active.as_ref().map(|active| RootDir::open(active.upper())).transpose()?;
        let options = ApplyOptions { threads: self.store.threads, ..ApplyOptions::default() };
        let applied = match &directory {
            Some(directory) => formwork_layer::apply(reader, directory, &options)?,
            None => formwork_layer::index(reader, &options)?,
        };
        if applied.diff_id != *diff_id {
            let (diff_id, problem) = (diff_id.clone(), BaseLayerError::Other(applied.diff_id));
            return Err(WorkerError::BaseLayer { diff_id, problem });
        }
        let tree = match applied.implied.as_slice() {
            [] => applied.tree,
            implied => {
                let below =
                    below.iter().map(|layer| layer.tree()).collect::<Result<Vec<_>, _>>()?;
                let below = Stack::new(below.iter().map(|tree| &**tree));
                adopt_implied(applied.tree, implied, &below, directory.as_ref())?
            }
        };
        let encoded = tree.encode();
        let facts = facts_of(&tree, &encoded);
        let snapshot = self.store.snapshots.commit(&self.name, active, &facts)?;
        self.found(forms, &snapshot, tree)
    }

    fn materialize(&self, forms: &mut Forms, tree: Tree) -> Result<(), WorkerError> {
        let active = self.store.snapshots.prepare()?;
        let directory = RootDir::open(active.upper())?;
        let threads = self.store.threads;
        let options = MaterializeOptions { hard_links: true, threads, ..Default::default() };
        materialize(&tree, &directory, &options)?;
        let encoded = tree.encode();
        let facts = facts_of(&tree, &encoded);
        let snapshot = self.store.snapshots.commit(&self.name, Some(active), &facts)?;
        self.found(forms, &snapshot, tree)
    }

    /// Makes the directory from a blob that was packed earlier, or that the layer came in.
    fn unpack_kept_blob(&self, forms: &mut Forms) -> Result<(), WorkerError> {
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(()) };
        let Some(packed) = self.kept_blob(&snapshot)? else { return Ok(()) };
        let blob = self.store.content.get(&packed.digest)?.ok_or_else(|| self.lost())?;
        match self.unpack_own(forms, &blob, &packed) {
            Err(error @ (WorkerError::Layer(_) | WorkerError::BaseLayer { .. })) => {
                // Where its bytes are to blame, it goes, and is made again.
                match self.store.content.examine(&blob) {
                    Err(damage) => Err(damage.into()),
                    Ok(()) => Err(error),
                }
            }
            result => result,
        }
    }

    fn unpack_own(
        &self,
        forms: &mut Forms,
        blob: &Blob,
        packed: &PackedFact,
    ) -> Result<(), WorkerError> {
        let Some(tree) = forms.tree.clone() else {
            return self.unpack(forms, blob.open()?, &packed.diff_id, &[], true);
        };
        let active = self.store.snapshots.prepare()?;
        let directory = RootDir::open(active.upper())?;
        let applied = formwork_layer::apply(blob.open()?, &directory, &self.apply_options(&tree))?;
        if applied.diff_id != packed.diff_id {
            let problem = BaseLayerError::Other(applied.diff_id);
            return Err(WorkerError::BaseLayer { diff_id: packed.diff_id.clone(), problem });
        }
        set_times(&tree, &directory, self.store.threads)?;
        let encoded = tree.encode();
        let facts = facts_of(&tree, &encoded);
        let snapshot = self.store.snapshots.commit(&self.name, Some(active), &facts)?;
        self.found(forms, &snapshot, Tree::clone(&tree))
    }

    /// How an archive is read that must not hold more than a tree says.
    fn apply_options(&self, tree: &Tree) -> ApplyOptions {
        let max_size = tree.size();
        // A small layer keeps few threads busy.
        let megabytes = usize::try_from(max_size >> 20).unwrap_or(usize::MAX);
        let threads = self.store.threads.min(megabytes.saturating_add(1));
        ApplyOptions { threads, max_size, ..ApplyOptions::default() }
    }

    /// A blob of the layer that holds all of it.
    fn kept_blob(&self, snapshot: &Committed) -> Result<Option<PackedFact>, WorkerError> {
        for name in whole_forms() {
            let fact = snapshot.fact(&name)?;
            let Some(packed) = fact.as_deref().and_then(PackedFact::decode) else { continue };
            if self.store.content.get(&packed.digest)?.is_some() {
                return Ok(Some(packed));
            }
        }
        Ok(None)
    }

    /// Whether the store has the blob in which the layer came from a cache elsewhere.
    fn came_packed(&self) -> Result<bool, WorkerError> {
        let Some(packed) = self.packed_fact(IMPORTED)? else { return Ok(false) };
        Ok(self.store.content.get(&packed.digest)?.is_some())
    }

    fn packed_fact(&self, name: &str) -> Result<Option<PackedFact>, WorkerError> {
        let Some(snapshot) = self.store.snapshots.get(&self.name)? else { return Ok(None) };
        Ok(snapshot.fact(name)?.as_deref().and_then(PackedFact::decode))
    }

    fn set_fact(&self, name: &str, packed: &PackedFact) -> Result<(), WorkerError> {
        if let Some(snapshot) = self.store.snapshots.get(&self.name)? {
            snapshot.set_fact(name, &packed.encode())?;
        }
        Ok(())
    }

    fn lost(&self) -> WorkerError {
        let path = self.store.layout.snapshots().join(self.name.as_str());
        let problem = "it is not in the store any more; build the image that it belongs to again";
        FsError::new("use the layer", path, io::Error::new(io::ErrorKind::NotFound, problem)).into()
    }

    fn lock(&self) -> MutexGuard<'_, Forms> {
        self.forms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error means that came up with a layer of a base image.
fn unusable(diff_id: &DiffId, error: WorkerError) -> WorkerError {
    match error {
        told @ WorkerError::BaseLayer { .. } => told,
        other => WorkerError::BaseLayer {
            diff_id: diff_id.clone(),
            problem: BaseLayerError::Failed(Box::new(other)),
        },
    }
}

/// A layer of the store by its name, if it is unpacked there.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn stored_layer(
    store: &Arc<LayerStore>,
    name: &str,
) -> Result<Option<Arc<Layer>>, WorkerError> {
    let Ok(name) = name.parse::<SnapshotKey>() else { return Ok(None) };
    let is_there = store.snapshots.get(&name)?.is_some();
    Ok(is_there.then(|| Layer::new(name, store, Source::Store)))
}

/// A layer that came with an image by its chain ID, if it is unpacked in the store.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn stored_layer_of_image(
    store: &Arc<LayerStore>,
    id: &ChainId,
) -> Result<Option<Arc<Layer>>, WorkerError> {
    match name::of_chain_id(id) {
        Some(name) => stored_layer(store, name.as_str()),
        None => Ok(None),
    }
}

/// Whether the bytes of all files are known.
fn has_bytes(tree: &Tree) -> bool {
    tree.entries().iter().all(|entry| match &entry.node {
        Node::File(file) => !matches!(file.bytes, Bytes::Missing),
        _ => true,
    })
}

/// A tree with the bytes of one that holds the same, but for its modification times.
fn with_bytes_of(tree: Tree, planned: Tree) -> Tree {
    let planned = planned.into_entries();
    let mut entries = tree.into_entries();
    for (entry, planned) in entries.iter_mut().zip(planned) {
        let is_same_place = entry.path == planned.path;
        if let (Node::File(file), Node::File(planned)) = (&mut entry.node, planned.node)
            && is_same_place
            && *file == planned
        {
            file.bytes = planned.bytes;
        }
    }
    // The entries are those of a valid tree.
    Tree::new(entries).unwrap_or_default()
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layer").field(&self.name).finish()
    }
}
