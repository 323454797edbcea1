//! How large images are.

use formwork_image::{StoredImage, StoredLayer};
use formwork_layer::Compression;
use formwork_worker::{Layer, WorkerError, stored_layer};

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
    let layers: Vec<Option<u64>> = image
        .layers
        .iter()
        .map(|layer| unpacked(host, layer))
        .collect::<Result<_, _>>()
        .map_err(|error| BuildError::worker(&error))?;
    let packed: Vec<Option<u64>> = image
        .layers
        .iter()
        .map(|layer| packed(host, layer))
        .collect::<Result<_, _>>()
        .map_err(|error| BuildError::worker(&error))?;
    Ok(ImageSizes {
        unpacked: layers.iter().copied().sum(),
        packed: packed.into_iter().sum(),
        layers,
    })
}

fn unpacked(host: &Host, layer: &StoredLayer) -> Result<Option<u64>, WorkerError> {
    if layer.unpacked_size > 0 {
        return Ok(Some(layer.unpacked_size));
    }
    match handle(host, layer)? {
        Some(handle) => Ok(Some(handle.unpacked_size()?)),
        None => Ok(None),
    }
}

fn packed(host: &Host, layer: &StoredLayer) -> Result<Option<u64>, WorkerError> {
    if let Some(blob) = &layer.blob {
        return Ok(Some(blob.size));
    }
    match handle(host, layer)? {
        Some(handle) => Ok(Some(handle.packed_size(Compression::default())?)),
        None => Ok(None),
    }
}

/// The layer, if it is unpacked in the store.
fn handle(host: &Host, layer: &StoredLayer) -> Result<Option<std::sync::Arc<Layer>>, WorkerError> {
    match layer.snapshot.as_deref() {
        Some(name) => stored_layer(&host.layers, name),
        None => Ok(None),
    }
}
