//! From one place to another, past the list of the store's images.

use std::path::PathBuf;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_frontend::ImageLocation;
use formwork_oci::{Descriptor, Platform, Reference};
use formwork_solver::Cancel;

use super::elsewhere::{open, put};
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

/// Copies an image with all its platforms, or for one; it keeps its digest, unless it gets docker's
/// media types. Between repositories of one registry, layers stay where they are. With `referrers`,
/// what is said about it goes along.
///
/// # Errors
///
/// Fails where the source has no such image, and where the target cannot be written.
pub fn copy(
    host: &Host,
    from: &ImageLocation,
    to: &CopyTarget,
    platform: Option<&Platform>,
    referrers: bool,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Descriptor, BuildError> {
    let machine = Platform::host();
    // Docker's archives have room for one platform, and docker takes this machine's, too.
    let platform = match to {
        CopyTarget::Layout { docker: true, .. } => platform.or(Some(&machine)),
        _ => platform,
    };
    let opened = step(format!("resolve {from}"), events, cancel, |_| {
        open(host, from, platform, referrers, events, cancel)
    })?;
    put(host, &opened, to, "copy", events, cancel)
}
