//! How large images are.

use std::sync::Arc;

use formwork_image::{StoredImage, StoredLayer};
use formwork_layer::Compression;
use formwork_oci::ChainId;
use formwork_worker::{Layer, WorkerError, stored_layer, stored_layer_of_image};

use crate::{BuildError, Host};

/// How large an image is, in bytes; what is not known is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSizes {
    /// The files of all layers.
    pub unpacked: Option<u64>,
    /// All layers as they travel: those that were never packed as they would be.
    pub packed: Option<u64>,
    /// The files of each layer.
    pub layers: Vec<Option<u64>>,
}

/// Measures an image. A layer that was never packed is compressed once, without keeping the blob,
/// and its size remembered.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn measure(host: &Host, image: &StoredImage) -> Result<ImageSizes, BuildError> {
    let mut chain = None;
    let (mut layers, mut sizes) = (Vec::new(), Vec::new());
    for layer in &image.layers {
        let id = ChainId::above(chain.as_ref(), &layer.diff_id);
        layers.push(unpacked(host, layer, &id).map_err(|error| BuildError::worker(&error))?);
        sizes.push(packed(host, layer, &id).map_err(|error| BuildError::worker(&error))?);
        chain = Some(id);
    }
    Ok(ImageSizes {
        unpacked: layers.iter().copied().sum(),
        packed: sizes.into_iter().sum(),
        layers,
    })
}

fn unpacked(host: &Host, layer: &StoredLayer, id: &ChainId) -> Result<Option<u64>, WorkerError> {
    if layer.unpacked_size > 0 {
        return Ok(Some(layer.unpacked_size));
    }
    handle(host, layer, id)?.map(|handle| handle.unpacked_size()).transpose()
}

fn packed(host: &Host, layer: &StoredLayer, id: &ChainId) -> Result<Option<u64>, WorkerError> {
    if let Some(blob) = &layer.blob {
        return Ok(Some(blob.size));
    }
    let handle = handle(host, layer, id)?;
    handle.map(|handle| handle.packed_size(Compression::default())).transpose()
}

/// The layer, if it is unpacked in the store: that of an image that was fetched is so once a build
/// or a container has needed it.
fn handle(
    host: &Host,
    layer: &StoredLayer,
    id: &ChainId,
) -> Result<Option<Arc<Layer>>, WorkerError> {
    match layer.snapshot.as_deref() {
        Some(name) => stored_layer(&host.layers, name),
        None => stored_layer_of_image(&host.layers, id),
    }
}
