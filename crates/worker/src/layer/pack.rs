//! A layer as a blob: packed once for each form that somebody wants, and remembered.

use std::io::{self, Write};

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_image::VerifiedBytes;
use formwork_layer::{Compression, LayerError, PackOptions, Packed, Tree, recompress};
use formwork_oci::{Descriptor, DiffId};
use formwork_sandbox::SandboxError;
use formwork_solver::Cancel;

use super::{Layer, Source};
use crate::facts::{PackForm, PackedFact};
use crate::{BaseLayerError, WorkerError};

/// A layer as an image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayer {
    /// The digest of the tar archive.
    pub diff_id: DiffId,
    /// The packed layer in the content store; `None` if only the diff ID was asked for.
    pub blob: Option<Descriptor>,
}

/// Takes bytes as long as nobody asks to stop.
struct Stoppable<'a, W> {
    sink: W,
    cancel: &'a Cancel,
}

impl Layer {
    /// The layer as a blob in the content store. A layer of a base image stays as it is there.
    ///
    /// # Errors
    ///
    /// Fails where the layer cannot be packed or, for a base image, not be fetched, and where
    /// somebody asks to stop meanwhile.
    pub fn pack(&self, form: PackForm, cancel: &Cancel) -> Result<PackedLayer, WorkerError> {
        if let Some((diff_id, descriptor)) = self.base_descriptor() {
            return Ok(PackedLayer { diff_id, blob: Some(descriptor) });
        }
        let fact = form.fact();
        if let Some(packed) = self.packed_fact(&fact)?
            && self.store.content.get(&packed.digest)?.is_some_and(|blob| blob.size == packed.size)
        {
            return Ok(packed.into_layer(form.compression));
        }
        let mut staged = self.store.content.stage()?;
        let packed = self.pack_into(&mut staged, form, cancel)?;
        staged.commit_hashed(packed.digest.clone())?;
        Ok(self.remember(&fact, packed)?.into_layer(form.compression))
    }

    /// The layer of a base image in another compression, with the bytes of its archive as they
    /// are; as it is where it has that compression. Other layers are packed as usual.
    ///
    /// # Errors
    ///
    /// Fails where the layer cannot be read, or the blob not be written.
    pub fn repack(&self, form: PackForm, cancel: &Cancel) -> Result<PackedLayer, WorkerError> {
        let Source::Image { blobs, diff_id, descriptor, .. } = &self.source else {
            return self.pack(form, cancel);
        };
        let own = descriptor.media_type.layer_compression();
        let is_foreign = !descriptor.urls.is_empty();
        if own == Some(form.compression.format()) || is_foreign {
            return self.pack(form, cancel);
        }
        // The time limit is for layers that are packed here.
        let fact = PackForm { epoch: None, ..form }.fact();
        if let Some(packed) = self.packed_fact(&fact)?
            && packed.diff_id == *diff_id
            && self.store.content.get(&packed.digest)?.is_some_and(|blob| blob.size == packed.size)
        {
            return Ok(packed.into_layer(form.compression));
        }
        let bytes = VerifiedBytes::open(&**blobs, descriptor)?;
        let mut staged = self.store.content.stage()?;
        let sink = Stoppable { sink: &mut staged, cancel };
        let packed = recompress(bytes, form.compression, self.store.threads, sink)?;
        if packed.diff_id != *diff_id {
            let (diff_id, problem) = (diff_id.clone(), BaseLayerError::Other(packed.diff_id));
            return Err(WorkerError::BaseLayer { diff_id, problem });
        }
        staged.commit_hashed(packed.digest.clone())?;
        Ok(self.remember(&fact, packed)?.into_layer(form.compression))
    }

    /// The layer's diff ID, without keeping a blob. If somebody will need the layer's directory, it is
    /// made meanwhile: the one takes a processor, the other waits for the disk's metadata. Whether
    /// that succeeds is told by [`Layer::directory`].
    ///
    /// # Errors
    ///
    /// Fails where the layer cannot be packed.
    pub fn measure(
        &self,
        epoch: Option<i64>,
        needs_directory: bool,
        cancel: &Cancel,
    ) -> Result<PackedLayer, WorkerError> {
        if let Some((diff_id, descriptor)) = self.base_descriptor() {
            return Ok(PackedLayer { diff_id, blob: Some(descriptor) });
        }
        let form = PackForm { compression: Compression::None, epoch };
        let fact = form.fact();
        if let Some(packed) = self.packed_fact(&fact)? {
            return Ok(PackedLayer { diff_id: packed.diff_id, blob: None });
        }
        // Who packs needs the list, which is not told while the directory is made.
        let tree = self.tree_with_bytes()?;
        let needs_directory = needs_directory && self.lock().directory.is_none();
        let packed = std::thread::scope(|scope| {
            if needs_directory {
                scope.spawn(|| drop(self.directory()));
            }
            self.pack_tree(&tree, io::sink(), form, cancel)
        })?;
        let packed = self.remember(&fact, packed)?;
        Ok(PackedLayer { diff_id: packed.diff_id, blob: None })
    }

    /// How large the layer is when it is packed, without keeping a blob.
    ///
    /// # Errors
    ///
    /// Fails where the layer cannot be packed.
    pub fn packed_size(&self, compression: Compression) -> Result<u64, WorkerError> {
        let form = PackForm { compression, epoch: None };
        let fact = form.fact();
        if let Some(packed) = self.packed_fact(&fact)? {
            return Ok(packed.size);
        }
        let packed = self.pack_into(std::io::sink(), form, &Cancel::default())?;
        Ok(self.remember(&fact, packed)?.size)
    }

    /// Keeps what came of packing, for whoever asks next.
    fn remember(&self, fact: &str, packed: Packed) -> Result<PackedFact, WorkerError> {
        let packed = PackedFact::from(packed);
        self.set_fact(fact, &packed)?;
        Ok(packed)
    }

    fn pack_into(
        &self,
        sink: impl Write,
        form: PackForm,
        cancel: &Cancel,
    ) -> Result<Packed, WorkerError> {
        self.pack_tree(&*self.tree_with_bytes()?, sink, form, cancel)
    }

    fn pack_tree(
        &self,
        tree: &Tree,
        sink: impl Write,
        form: PackForm,
        cancel: &Cancel,
    ) -> Result<Packed, WorkerError> {
        let options = PackOptions {
            compression: form.compression,
            latest_mtime: form.epoch,
            threads: self.store.threads,
            ..PackOptions::default()
        };
        formwork_layer::pack(tree, &options, Stoppable { sink, cancel }).map_err(
            |error| match error {
                LayerError::Write(_) if cancel.is_canceled() => SandboxError::Cancelled.into(),
                LayerError::Write(error) => {
                    let store = self.store.content.directory();
                    ContentError::from(FsError::new("write a layer to", store, error)).into()
                }
                other => other.into(),
            },
        )
    }
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.cancel.is_canceled() {
            true => Err(io::Error::other("stopped")),
            false => self.sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
