//! Archives, to a file or to a pipe.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use formwork_fs::{AtomicFile, Target};
use formwork_oci::{Descriptor, IMAGE_LAYOUT, Index, Reference, to_json};

use super::{Export, Form, Item, Named, path_of};
use crate::archive::{ArchiveWriter, Comparison};
use crate::copy::RangeSink;
use crate::{BlobSource, ImageError, ImageView};

/// Writes an image as an archive to a file, which appears when it is complete; returns the
/// descriptor of the manifest in it.
///
/// # Errors
///
/// Fails where [`all_to_file`] does.
pub fn to_file(
    image: &ImageView,
    names: &[Reference],
    form: Form,
    path: &Path,
) -> Result<Descriptor, ImageError> {
    let named = Named::image(image, names);
    all_to_file(&[named], form, path)?;
    Item::new(named, form).map(|item| item.manifest())
}

/// Writes an image as an archive to an open file, such as a pipe; returns the descriptor of the
/// manifest in it.
///
/// # Errors
///
/// Fails as [`all_to_stream`] does.
pub fn to_stream(
    image: &ImageView,
    names: &[Reference],
    form: Form,
    target: &File,
) -> Result<Descriptor, ImageError> {
    let named = Named::image(image, names);
    all_to_stream(&[named], form, target)?;
    Item::new(named, form).map(|item| item.manifest())
}

/// Writes several images as one archive to a file, which appears when it is complete; what they
/// share is in it once.
///
/// A path that leads to a pipe or a device is written to as it is. A file that holds this very
/// archive is left as it is, but for its time: to free the space of an old file takes longer than all
/// else.
///
/// # Errors
///
/// Fails where the file cannot be written or a blob is missing or damaged; the old file is then
/// kept.
pub fn all_to_file(images: &[Named<'_>], form: Form, path: &Path) -> Result<(), ImageError> {
    let export = Export::new(images, form)?;
    match Target::of(path)? {
        Target::Special(file) => export.write(&file, path),
        Target::File(path) if export.is_in(&path) => Ok(()),
        Target::File(path) => {
            let mut file = AtomicFile::create(&path)?;
            export.write(&*file.file(), &path)?;
            Ok(file.commit()?)
        }
    }
}

/// Writes several images as one archive to an open file, such as a pipe.
///
/// # Errors
///
/// Fails as [`all_to_file`] does; what was written until then has been written.
pub fn all_to_stream(images: &[Named<'_>], form: Form, target: &File) -> Result<(), ImageError> {
    Export::new(images, form)?.write(target, Path::new("the output"))
}

/// Writes images as one archive in which the contents of each one's lowest layers are left out, for
/// somebody who has them; the layers themselves are named as ever.
///
/// # Errors
///
/// Fails as [`all_to_stream`] does.
pub fn all_to_stream_without(
    images: &[Named<'_>],
    form: Form,
    target: &File,
    lowest: usize,
) -> Result<(), ImageError> {
    let mut export = Export::new(images, form)?;
    for item in &mut export.items {
        item.left_out = lowest;
    }
    export.write(target, Path::new("the output"))
}

impl Export {
    /// Whether a file holds the archive already, and is as new as if it had been written now.
    fn is_in(&self, path: &Path) -> bool {
        let Some(mut comparison) = Comparison::with(path) else { return false };
        // Whatever fails is told when the archive is written.
        self.write(&mut comparison, path).is_ok() && comparison.finish()
    }

    /// Writes the archive, with its entries sorted by name.
    fn write(&self, target: impl RangeSink, path: &Path) -> Result<(), ImageError> {
        let mut archive = ArchiveWriter::new(target, path);
        archive.directory("blobs/");
        let mut directory = String::new();
        for (name, blob) in self.blobs() {
            let parent = &name[..name.rfind('/').map_or(0, |slash| slash + 1)];
            if parent != directory {
                archive.directory(parent);
                parent.clone_into(&mut directory);
            }
            match blob {
                Blob::Document(bytes) => archive.file(&name, bytes),
                Blob::Layer(source, layer) => archive.blob(&name, source, layer)?,
            }
        }
        archive.file("index.json", &to_json(&Index::oci(self.entries())));
        if self.form == Form::Docker {
            archive.file("manifest.json", &self.docker_manifest());
        }
        archive.file("oci-layout", IMAGE_LAYOUT.as_bytes());
        archive.finish()
    }

    /// The blobs of the images by their paths, each once.
    fn blobs(&self) -> BTreeMap<String, Blob<'_>> {
        let mut blobs = BTreeMap::new();
        for Item { top, top_bytes, images, artifacts, left_out, .. } in &self.items {
            for artifact in artifacts {
                let source = &**artifact.blobs();
                blobs.extend(
                    artifact.parts().map(|blob| (path_of(blob), Blob::Layer(source, blob))),
                );
                blobs.insert(path_of(artifact.descriptor()), Blob::Document(artifact.bytes()));
            }
            for image in images {
                let (layers, source) = (image.manifest().layers.iter(), &**image.blobs());
                blobs.extend(layers.map(|layer| (path_of(layer), Blob::Layer(source, layer))));
                blobs.insert(path_of(image.descriptor()), Blob::Document(image.manifest_bytes()));
                let config = &image.manifest().config;
                blobs.insert(path_of(config), Blob::Document(image.config_bytes()));
                let upper = image.manifest().layers.iter().skip(*left_out);
                let upper: Vec<String> = upper.map(path_of).collect();
                for layer in image.manifest().layers.iter().take(*left_out).map(path_of) {
                    if !upper.contains(&layer) {
                        blobs.insert(layer, Blob::Document(b""));
                    }
                }
            }
            blobs.insert(path_of(top), Blob::Document(top_bytes));
        }
        blobs
    }
}

enum Blob<'a> {
    Document(&'a [u8]),
    Layer(&'a dyn BlobSource, &'a Descriptor),
}
