//! Images with their layers in another compression.
//!
//! The archives in the layers stay byte for byte, and so do configurations: an image keeps its id.
//! Manifests name other blobs, so they have other digests; what is said about the old ones is not
//! about the new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::{BlobSource, Entry, Family, ImageIndex, ImageView, Layer, Member};
use formwork_layer::{Compression, recompress};
use formwork_oci::{Descriptor, Digest, MediaType};
use formwork_solver::Cancel;
use formwork_worker::{BaseLayerError, WorkerError};

use super::index::entries_of;
use super::whole::Whole;
use crate::blobs::ResultBlobs;
use crate::step::step;
use crate::{BuildError, Host};

/// How layers are to be compressed.
#[derive(Clone, Copy, Debug)]
pub struct Recompression {
    /// The form that all layers get.
    pub compression: Compression,
    /// Whether those that have the form are compressed anew as well, such as for another level.
    pub force: bool,
}

/// Something of which each layer has the form that is asked for. What is no image stays as it is.
pub(super) fn recompressed(
    host: &Host,
    whole: &Whole,
    how: Recompression,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Whole, BuildError> {
    let mut work = Work { host, how, events, cancel, done: BTreeMap::new() };
    match whole {
        Whole::Image(view) => work.image(view).map(Whole::of),
        Whole::Artifact(artifact) => Ok(Whole::Artifact(artifact.clone())),
        Whole::Index(index) => {
            let mut entries = entries_of(whole);
            let mut renamed = BTreeMap::new();
            for entry in &mut entries {
                if let Member::Image(view) = &mut entry.member {
                    let new = work.image(view)?;
                    let old = view.descriptor().digest.to_string();
                    renamed.insert(old, new.descriptor().digest.to_string());
                    **view = new;
                }
            }
            entries.iter_mut().for_each(|entry| rename(entry, &renamed));
            let annotations = index.index().annotations.clone();
            let index = ImageIndex::assemble(entries, Family::Oci, annotations);
            Ok(Whole::Index(Box::new(index.map_err(|error| BuildError::image(&error))?)))
        }
    }
}

/// Lets an entry that says which image it is about, as BuildKit's provenance does, go on to do so.
fn rename(entry: &mut Entry, renamed: &BTreeMap<String, String>) {
    for value in entry.annotations.values_mut() {
        if let Some(new) = renamed.get(value) {
            value.clone_from(new);
        }
    }
}

struct Work<'a> {
    host: &'a Host,
    how: Recompression,
    events: &'a Arc<dyn EventSink>,
    cancel: &'a Cancel,
    /// The new layers by the digests of the old ones: images of an index share some.
    done: BTreeMap<Digest, Descriptor>,
}

impl Work<'_> {
    fn image(&mut self, view: &ImageView) -> Result<ImageView, BuildError> {
        let mut base: BTreeMap<Digest, Arc<dyn BlobSource>> = BTreeMap::new();
        let mut layers = Vec::new();
        for layer in view.layers() {
            if self.stays(layer.descriptor) {
                base.insert(layer.descriptor.digest.clone(), Arc::clone(view.blobs()));
                layers.push(layer.descriptor.clone());
            } else {
                layers.push(self.layer(view, layer)?);
            }
        }
        let blobs = Arc::new(ResultBlobs { content: self.host.layers.content().clone(), base });
        view.with_layers(layers, blobs).map_err(|error| BuildError::image(&error))
    }

    /// Whether a layer has the form already, or lies where nobody may take it from.
    fn stays(&self, layer: &Descriptor) -> bool {
        let has_form = layer.media_type.layer_compression() == Some(self.how.compression.format());
        (has_form && !self.how.force) || !layer.urls.is_empty()
    }

    fn layer(&mut self, view: &ImageView, layer: Layer<'_>) -> Result<Descriptor, BuildError> {
        let old = &layer.descriptor.digest;
        if let Some(done) = self.done.get(old) {
            return Ok(done.clone());
        }
        let title = format!("compress {}", old.short());
        let new = step(title, self.events, self.cancel, |_| {
            self.compress(view, layer).map_err(|error| BuildError::worker(&error))
        })?;
        self.done.insert(old.clone(), new.clone());
        Ok(new)
    }

    fn compress(&self, view: &ImageView, layer: Layer<'_>) -> Result<Descriptor, WorkerError> {
        let bytes = view.open_layer(layer)?;
        let mut staged = self.host.layers.content().stage()?;
        let (compression, threads) = (self.how.compression, self.host.layers.threads());
        let packed = recompress(bytes, compression, threads, &mut staged)?;
        if packed.diff_id != *layer.diff_id {
            let (diff_id, problem) = (layer.diff_id.clone(), BaseLayerError::Other(packed.diff_id));
            return Err(WorkerError::BaseLayer { diff_id, problem });
        }
        staged.commit_hashed(packed.digest.clone())?;
        let media_type = MediaType::OciLayer(compression.format());
        Ok(Descriptor::new(media_type, packed.digest, packed.size))
    }
}
