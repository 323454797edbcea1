//! From one place to another, past the list of the store's images.

use std::path::PathBuf;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_frontend::ImageLocation;
use formwork_oci::{Descriptor, Platform, Reference};
use formwork_solver::Cancel;

use super::elsewhere::{open, put};
use super::recompress::{Recompression, recompressed};
use crate::step::step;
use crate::{BuildError, Host};

/// Where an image is copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyTarget {
    /// To a registry, under this name.
    Registry(Reference),
    /// Into an image layout.
    Layout {
        /// The directory or archive.
        path: PathBuf,
        /// Whether it is a directory.
        directory: bool,
        /// Whether docker must be able to load it.
        docker: bool,
        /// The image's name there.
        name: Option<Reference>,
    },
}

/// What is copied, and how.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// Where from.
    pub from: ImageLocation,
    /// Where to.
    pub to: CopyTarget,
    /// For which platform; all of them if there is none.
    pub platform: Option<Platform>,
    /// Whether what is said about the image goes along.
    pub referrers: bool,
    /// How its layers are compressed there; as they are if nothing is said.
    pub recompression: Option<Recompression>,
}

/// Copies an image; it keeps its digest, unless it gets docker's media types or its layers another
/// compression. Between repositories of one registry, layers stay where they are.
///
/// # Errors
///
/// Fails where the source has no such image, and where the target cannot be written.
pub fn copy(
    host: &Host,
    request: &CopyRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Descriptor, BuildError> {
    let CopyRequest { from, to, platform, referrers, recompression } = request;
    let machine = Platform::host();
    // Docker's archives have room for one platform, and docker takes this machine's, too.
    let platform = match to {
        CopyTarget::Layout { docker: true, .. } => platform.as_ref().or(Some(&machine)),
        _ => platform.as_ref(),
    };
    let mut opened = step(format!("resolve {from}"), events, cancel, |_| {
        open(host, from, platform, *referrers, events, cancel)
    })?;
    if let Some(how) = recompression {
        opened.whole = recompressed(host, &opened.whole, *how, events, cancel)?;
    }
    put(host, &opened, to, "copy", events, cancel)
}
