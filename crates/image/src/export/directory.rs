//! Image layouts in directories.

use std::io::Write;
use std::path::Path;

use formwork_content::ContentStore;
use formwork_fs::{AtomicFile, FsError};
use formwork_oci::{ANNOTATION_REF_NAME, Descriptor, Reference};

use super::{Export, Form, Item, Named};
use crate::copy::copy_blob;
use crate::{Artifact, ImageError, ImageIndex, ImageView, Member};

/// Writes an image into an image layout, which is made if need be; returns the descriptor of the
/// manifest in it.
///
/// Blobs that are there are not copied again. Other images stay on the layout's list; one with the
/// same tag is taken off it, since readers look images up by their tags; an image without a name
/// takes the place of the others without one.
///
/// # Errors
///
/// Fails where the directory cannot be written or a blob is missing or damaged; the list of images
/// is then as it was.
pub fn to_directory(
    image: &ImageView,
    names: &[Reference],
    form: Form,
    directory: &Path,
) -> Result<Descriptor, ImageError> {
    all_to_directory(&[Named::image(image, names)], form, directory)?;
    Item::new(Named::image(image, names), form).map(|item| item.manifest())
}

/// Writes several images into an image layout, as [`to_directory`] does with one.
///
/// # Errors
///
/// Fails as [`to_directory`] does.
pub fn all_to_directory(
    images: &[Named<'_>],
    form: Form,
    directory: &Path,
) -> Result<(), ImageError> {
    let export = Export::new(images, form)?;
    let layout = ContentStore::create(directory)?;
    for item in &export.items {
        item.images.iter().try_for_each(|image| copy_blobs(image, &layout))?;
        item.artifacts.iter().try_for_each(|artifact| copy_artifact(artifact, &layout))?;
        insert(&layout, &item.top, &item.top_bytes)?;
    }
    let entries = export.entries();
    let name = |entry: &Descriptor| entry.annotations.get(ANNOTATION_REF_NAME).cloned();
    // What is said about an image mostly has no name, and takes the place of nothing but itself.
    let takes_place = |new: &Descriptor, old: &Descriptor| match (name(new), &new.artifact_type) {
        (Some(own), _) => name(old) == Some(own),
        (None, None) => old.artifact_type.is_none() && name(old).is_none(),
        (None, Some(_)) => new.digest == old.digest,
    };
    layout.update_index(|old| entries.iter().any(|new| takes_place(new, old)), &entries)?;
    if form == Form::Docker {
        AtomicFile::write(directory.join("manifest.json"), &export.docker_manifest())?;
    }
    Ok(())
}

/// Copies all blobs of an image into an image layout, without putting it on the layout's list.
///
/// # Errors
///
/// Fails where the layout cannot be written or a blob is missing or damaged.
pub fn copy_blobs(image: &ImageView, layout: &ContentStore) -> Result<(), ImageError> {
    for layer in &image.manifest().layers {
        copy_blob(&**image.blobs(), layer, layout)?;
    }
    insert(layout, &image.manifest().config, image.config_bytes())?;
    insert(layout, image.descriptor(), image.manifest_bytes())
}

/// Copies all blobs of an artifact into an image layout, without putting it on the layout's list.
///
/// # Errors
///
/// Fails as [`copy_blobs`] does.
pub fn copy_artifact(artifact: &Artifact, layout: &ContentStore) -> Result<(), ImageError> {
    for blob in artifact.parts() {
        copy_blob(&**artifact.blobs(), blob, layout)?;
    }
    insert(layout, artifact.descriptor(), artifact.bytes())
}

/// Copies an index with all that it leads to into an image layout, without putting it on the
/// layout's list.
///
/// # Errors
///
/// Fails as [`copy_blobs`] does.
pub fn copy_index(index: &ImageIndex, layout: &ContentStore) -> Result<(), ImageError> {
    for member in index.members() {
        match member {
            Member::Image(image) => copy_blobs(image, layout)?,
            Member::Artifact(artifact) => copy_artifact(artifact, layout)?,
        }
    }
    insert(layout, index.descriptor(), index.bytes())
}

/// Puts a document into an image layout under the digest that its image knows it by.
fn insert(layout: &ContentStore, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ImageError> {
    if layout.find(descriptor)?.is_none() {
        let failed = |error| FsError::new("write a blob to", layout.directory(), error);
        let mut staged = layout.stage()?;
        staged.write_all(bytes).map_err(failed)?;
        staged.commit_hashed(descriptor.digest.clone())?;
    }
    Ok(())
}
