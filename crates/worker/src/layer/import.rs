//! A layer that comes from a cache elsewhere: nothing of it is believed before it is proven.

use std::io::Read;

use formwork_fs::{FsError, RootDir};
use formwork_image::VerifiedBytes;
use formwork_layer::compression::{Format, MAGIC_BYTES};
use formwork_layer::{ApplyOptions, Compression, Tree, is_packed_form, set_times};
use formwork_oci::{Descriptor, Digest};
use formwork_snapshot::{Active, Snapshotter};

use super::{Forms, Layer};
use crate::facts::{CREATED, IMPORTED, PACKED, PackForm, PackedFact, facts_of, is_form};
use crate::imported::{ImportedBlob, ImportedLayer, unusable as not_imported};
use crate::{WorkerError, name};

/// What came out of a layer of a cache elsewhere.
struct Unpacked {
    tree: Tree,
    /// Whether the blob is what packing the tree gives.
    is_packed_form: bool,
    /// The number of bytes of the archive.
    archive_size: u64,
}

impl Layer {
    /// Takes over a layer of a cache elsewhere, after everything about it has been proven.
    pub(super) fn import(
        &self,
        forms: &mut Forms,
        imported: &ImportedLayer,
        needs_directory: bool,
    ) -> Result<(), WorkerError> {
        let told = |error: WorkerError| match error {
            told @ WorkerError::Imported { .. } => told,
            other => not_imported(&self.name, &other),
        };
        let Some(blob) = &imported.blob else {
            return Err(not_imported(&self.name, &"the cache has no files of it"));
        };
        let promised = match &forms.tree {
            Some(tree) => Some(Tree::clone(tree)),
            None => imported.tree(&self.name)?,
        };
        let active = needs_directory.then(|| self.store.snapshots.prepare()).transpose()?;
        let unpacked = self.unpack_imported(imported, blob, promised, active.as_ref());
        let Unpacked { tree, is_packed_form, archive_size } = unpacked.map_err(told)?;
        let (diff_id, created) = (blob.diff_id.clone(), imported.created.to_string());
        let Descriptor { digest, size, .. } = blob.descriptor.clone();
        let plain = PackedFact { digest: diff_id.0.clone(), size: archive_size, diff_id };
        let packed = PackedFact { diff_id: blob.diff_id.clone(), digest, size };
        let (plain, packed) = (plain.encode(), packed.encode());
        let form = format!("{PACKED}{}", blob.form);
        let plain_form = PackForm { compression: Compression::None, epoch: blob.epoch }.fact();
        let encoded = tree.encode();
        let mut facts = facts_of(&tree, &encoded);
        facts.extend([(CREATED, created.as_bytes()), (IMPORTED, &*packed)]);
        // Other archives of the same files would make another image than a fresh build.
        if is_packed_form {
            facts.extend([(&*form, &*packed), (&*plain_form, &*plain)]);
        }
        let snapshot = self.store.snapshots.commit(&self.name, active, &facts)?;
        self.found(forms, &snapshot, tree)
    }

    /// Unpacks a layer of a cache elsewhere, or only looks through it; the list of its files, and
    /// whether the blob is what packing them gives.
    fn unpack_imported(
        &self,
        imported: &ImportedLayer,
        blob: &ImportedBlob,
        promised: Option<Tree>,
        active: Option<&Active>,
    ) -> Result<Unpacked, WorkerError> {
        let directory = active.map(|active| RootDir::open(active.upper())).transpose()?;
        let reader = VerifiedBytes::open(&*imported.blobs, &blob.descriptor)?;
        let options = match &promised {
            Some(tree) => self.apply_options(tree),
            None => ApplyOptions { threads: self.store.threads, ..ApplyOptions::default() },
        };
        let applied = match &directory {
            Some(directory) => formwork_layer::apply(reader, directory, &options)?,
            None => formwork_layer::index(reader, &options)?,
        };
        if applied.diff_id != blob.diff_id {
            return Err(not_imported(&self.name, &"its archive has another digest than it should"));
        }
        if name::tree_digest(&self.name) != Some(applied.tree.digest().0) {
            return Err(not_imported(&self.name, &"its archive has other files than it should"));
        }
        let tree = promised.unwrap_or_else(|| applied.tree.clone());
        if let Some(directory) = &directory {
            set_times(&tree, directory, self.store.threads)?;
        }
        let is_packed_form = is_packed_form(&applied.tree, &tree, blob.epoch)
            && is_form(&blob.form, blob.epoch, self.format_of(&blob.descriptor.digest)?);
        Ok(Unpacked { tree, is_packed_form, archive_size: applied.uncompressed_size })
    }

    /// How a blob of the content store is compressed.
    fn format_of(&self, digest: &Digest) -> Result<Format, WorkerError> {
        let blob = self.store.content.get(digest)?.ok_or_else(|| self.lost())?;
        let mut start = Vec::new();
        let read = blob.open()?.take(MAGIC_BYTES as u64).read_to_end(&mut start);
        read.map_err(|error| FsError::new("read", &blob.path, error))?;
        Ok(Format::detect(&start))
    }
}
