//! An image of the store as it leaves: for one platform, or with all its platforms as an index.

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::export::Content;
use formwork_image::{
    Artifact, BlobSource, Entry, Family, ImageIndex, ImageView, Member, StoredImage, StoredIndex,
};
use formwork_layer::Compression;
use formwork_oci::{Annotations, Descriptor, Platform};
use formwork_solver::Cancel;

use super::packed::{add_blobs, is_at_hand, packed, view};
use crate::resolve::blobs;
use crate::{BuildError, Host};

/// An image with all layers as blobs.
#[derive(Debug)]
pub(super) enum Whole {
    /// For one platform.
    Image(Box<ImageView>),
    /// For several.
    Index(Box<ImageIndex>),
    /// Something that is no image.
    Artifact(Box<Artifact>),
}

impl From<Member> for Whole {
    fn from(member: Member) -> Self {
        match member {
            Member::Image(view) => Self::Image(view),
            Member::Artifact(artifact) => Self::Artifact(artifact),
        }
    }
}

impl Whole {
    /// An image for one platform.
    pub(super) fn of(view: ImageView) -> Self {
        Self::Image(Box::new(view))
    }

    /// What is written or sent.
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Self::Image(view) => Content::Image(view),
            Self::Index(index) => Content::Index(index),
            Self::Artifact(artifact) => Content::Artifact(artifact),
        }
    }
}

/// The image as it was built: as an index if it is one for several platforms. An index that was
/// there stays as it is unless another compression is asked for; otherwise it is made now, and the
/// store remembers it.
pub(super) fn whole(
    host: &Host,
    image: &StoredImage,
    compression: Option<Compression>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Whole, BuildError> {
    let Some(StoredIndex { descriptor }) = &image.index else {
        let view = packed(host, image, compression, events, cancel)?;
        return Ok(Whole::Image(Box::new(view)));
    };
    let failed = |error| BuildError::image(&error);
    if let (Some(descriptor), None) = (descriptor, compression)
        && image.platforms().map(|one| is_at_hand(host, one)).all(|there| there.unwrap_or(false))
    {
        let source = blobs(host, image, events, cancel) as Arc<dyn BlobSource>;
        let index = ImageIndex::open(descriptor.clone(), &source).map_err(failed)?;
        return Ok(Whole::Index(Box::new(index)));
    }
    let mut entries = Vec::new();
    for one in image.platforms() {
        let lone = StoredImage { index: None, others: Vec::new(), ..one.clone() };
        let view = view(host, &lone, compression, events, cancel)?;
        let platform = Some(one.platform.clone());
        entries.push(Entry { platform, ..Entry::of(view) });
    }
    // The order is that of a list, whichever platform this machine is of.
    entries.sort_by_key(|entry| entry.platform.as_ref().map(Platform::to_string));
    let index = ImageIndex::assemble(entries, Family::Oci, Annotations::new()).map_err(failed)?;
    if compression.is_none() {
        remember(host, image, &index)?;
    }
    Ok(Whole::Index(Box::new(index)))
}

/// An index that is in the store with all its images, as one of these without a name; `None` if it
/// has no image.
pub(super) fn stored(index: &ImageIndex) -> Option<StoredImage> {
    let images = index.images().map(|(_, view)| StoredImage::of(view)).collect();
    let top = index.descriptor();
    let descriptor = Descriptor::new(top.media_type.clone(), top.digest.clone(), top.size);
    let index = StoredIndex { descriptor: Some(descriptor) };
    StoredImage::together(images, &Platform::host(), None, Some(index))
}

/// Writes down the index of an image that had none, and the manifests that it names.
fn remember(host: &Host, image: &StoredImage, index: &ImageIndex) -> Result<(), BuildError> {
    let content = host.layers.content();
    content.insert(index.bytes()).map_err(BuildError::store)?;
    let mut known = image.clone();
    known.index = Some(StoredIndex { descriptor: Some(index.descriptor().clone()) });
    for (_, view) in index.images() {
        content.insert(view.manifest_bytes()).map_err(BuildError::store)?;
        add_blobs(&mut known, view);
    }
    host.images.put(&known).map_err(|error| BuildError::image(&error))
}
