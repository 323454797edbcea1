//! The files of images of the store, without running them: flattened, copied out, compared.

mod copy_out;
mod diff;
mod export;

pub use copy_out::{ImagePath, copy_out};
pub use diff::{ConfigChange, FileChange, FileDetail, ImageDiff, diff};
pub use export::export_files;

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::StoredImage;
use formwork_layer::Tree;
use formwork_solver::Cancel;
use formwork_worker::Root;

use crate::resolve::base_of;
use crate::{BuildError, Host};

/// The layers of an image as lists of files; with the places of their bytes if somebody needs those.
pub(crate) fn trees(
    host: &Host,
    image: &StoredImage,
    with_bytes: bool,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Vec<Arc<Tree>>, BuildError> {
    let base = base_of(host, image, events, cancel)?;
    let trees = || {
        let root = Root::of_image(&host.layers, &base, with_bytes)?;
        if with_bytes { root.trees_with_bytes() } else { root.trees() }
    };
    trees().map_err(|error| BuildError::worker(&error))
}
