//! An image of the store with all layers as blobs.

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::{Assembly, BlobSource, Family, ImageView, StoredImage, assemble};
use formwork_layer::Compression;
use formwork_oci::{Annotations, Descriptor, DiffId, ImageConfig};
use formwork_solver::Cancel;
use formwork_worker::Root;

use crate::request::Packing;
use crate::resolve::{base_of, blobs};
use crate::result::pack_all;
use crate::{BuildError, Host};

/// The image as a view whose layers can be opened: as it is, if it has been packed and no other
/// compression is asked for; otherwise it is packed now, and the store remembers that.
pub(crate) fn packed(
    host: &Host,
    image: &StoredImage,
    compression: Option<Compression>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<ImageView, BuildError> {
    let view = view(host, image, compression, events, cancel)?;
    if image.manifest.is_none() && *view.id() == image.config {
        remember(host, image, &view)?;
    }
    Ok(view)
}

/// The same, without writing anything down about the image.
pub(crate) fn view(
    host: &Host,
    image: &StoredImage,
    compression: Option<Compression>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<ImageView, BuildError> {
    let source = blobs(host, image, events, cancel) as Arc<dyn BlobSource>;
    if let Some(manifest) = &image.manifest
        && compression.is_none()
        && is_at_hand(host, image)?
    {
        let view = ImageView::open(manifest.clone(), source);
        return view.map_err(|error| BuildError::image(&error));
    }
    let compression = compression.unwrap_or_default();
    let config = host.config_of(image)?;
    let layers = pack(host, image, &config, compression, events, cancel)?;
    let (family, annotations) = (Family::Oci, Annotations::new());
    let assembly = Assembly { config: &config, layers, family, annotations };
    assemble(assembly, source).map_err(|error| BuildError::image(&error))
}

/// Whether all blobs are in the store or some registry has them.
pub(super) fn is_at_hand(host: &Host, image: &StoredImage) -> Result<bool, BuildError> {
    let content = host.layers.content();
    for layer in &image.layers {
        let Some(blob) = &layer.blob else { return Ok(false) };
        if layer.origin.is_none() && content.find(blob).map_err(BuildError::store)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Packs the layers that were built here; those of a base image stay as they are.
fn pack(
    host: &Host,
    image: &StoredImage,
    config: &ImageConfig,
    compression: Compression,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Vec<Descriptor>, BuildError> {
    let base = base_of(host, image, events, cancel)?;
    let root =
        Root::of_image(&host.layers, &base, false).map_err(|error| BuildError::worker(&error))?;
    // The time limit that the layers were built with is not written down. Where there was one, it
    // is also the image's time.
    let limit = config.created.as_deref().and_then(seconds);
    for epoch in [None, limit] {
        let measured = pack_all(&root, &[], epoch, false, cancel)?;
        let diff_ids: Vec<&DiffId> = measured.iter().map(|forms| &forms.diff_id).collect();
        if diff_ids.into_iter().eq(&config.rootfs.diff_ids) {
            let packed =
                pack_all(&root, &[Packing { compression, force: false }], epoch, false, cancel)?;
            return Ok(packed.into_iter().flat_map(|forms| forms.blobs).collect());
        }
    }
    let title = image.title();
    Err(BuildError::input_error(format!("the layers of `{title}` have changed since it was built"))
        .with_help("build it again"))
}

fn seconds(rfc3339: &str) -> Option<i64> {
    rfc3339.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// Writes down the blobs of an image that had none, and leaves what its name means on other
/// platforms as it is.
fn remember(host: &Host, image: &StoredImage, view: &ImageView) -> Result<(), BuildError> {
    host.layers.content().insert(view.manifest_bytes()).map_err(BuildError::store)?;
    let whole = match &image.name {
        Some(name) => host.images.get(name).map_err(|error| BuildError::image(&error))?,
        None => None,
    };
    let known =
        whole.as_ref().filter(|whole| whole.platforms().any(|one| one.config == *view.id()));
    let mut known = known.unwrap_or(image).clone();
    add_blobs(&mut known, view);
    host.images.put(&known).map_err(|error| BuildError::image(&error))
}

/// Notes the manifest and the packed layers of an image, in whichever platform it is for.
pub(super) fn add_blobs(image: &mut StoredImage, view: &ImageView) {
    if image.config == *view.id() {
        image.manifest = Some(view.descriptor().clone());
        for (layer, blob) in image.layers.iter_mut().zip(&view.manifest().layers) {
            layer.blob = Some(blob.clone());
        }
    }
    image.others.iter_mut().for_each(|other| add_blobs(other, view));
}
