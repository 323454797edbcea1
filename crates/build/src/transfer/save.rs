//! From the store into an archive or a directory.

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::StoredImage;
use formwork_image::export::{self, Named};
use formwork_layer::Compression;
use formwork_oci::Reference;
use formwork_solver::Cancel;

use super::whole::{Whole, whole};
use crate::output::{form, make_directory, stdout};
use crate::step::step;
use crate::{BuildError, Destination, Host};

/// How images are saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveForm {
    /// Whether the media types are docker's, and `docker load` must be able to read it.
    pub docker: bool,
    /// Whether it is a directory rather than an archive; standard output takes archives only.
    pub directory: bool,
    /// How layers are compressed; as they are if nothing is said.
    pub compression: Option<Compression>,
}

/// Saves images with their names; what they share is saved once.
///
/// # Errors
///
/// Fails where an image is not complete any more, or the destination cannot be written; an old file
/// is then kept.
pub fn save(
    host: &Host,
    images: &[(StoredImage, Vec<Reference>)],
    how: &SaveForm,
    destination: &Destination,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let view = |(image, _): &(StoredImage, _)| whole(host, image, how.compression, events, cancel);
    let wholes = images.iter().map(view).collect::<Result<Vec<Whole>, _>>()?;
    let named = wholes.iter().zip(images);
    let named = named.map(|(whole, (_, names))| Named::new(whole.content(), names));
    let named: Vec<Named<'_>> = named.collect();
    let form = form(how.docker);
    let title = match destination {
        Destination::File(path) => format!("save to {}", path.display()),
        Destination::Stdout => "save to standard output".to_owned(),
    };
    step(title, events, cancel, |_| {
        match destination {
            Destination::File(path) if how.directory => {
                make_directory(path).map_err(BuildError::store)?;
                export::all_to_directory(&named, form, path)
            }
            Destination::File(path) => export::all_to_file(&named, form, path),
            Destination::Stdout => {
                let stdout = stdout().map_err(BuildError::store)?;
                export::all_to_stream(&named, form, &stdout)
            }
        }
        .map_err(|error| BuildError::image(&error))
    })
}
