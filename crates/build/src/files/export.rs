//! All files of an image as one archive.

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::StoredImage;
use formwork_layer::Stack;
use formwork_solver::Cancel;

use super::trees;
use crate::output::archive_files;
use crate::{BuildError, Destination, Host};

/// Writes the files of an image as a plain tar archive, as its processes would see them.
///
/// # Errors
///
/// Fails where a layer cannot be had, or the archive cannot be written; an old file is then kept.
pub fn export_files(
    host: &Host,
    image: &StoredImage,
    destination: &Destination,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let trees = trees(host, image, true, events, cancel)?;
    let merged = Stack::new(trees.iter().map(|tree| &**tree)).merge();
    archive_files(&merged, None, destination).map_err(|error| BuildError::worker(&error))
}
