//! From one place to another, past the list of the store's images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_frontend::ImageLocation;
use formwork_image::export::{self, PushOptions};
use formwork_image::{BlobSource, Choice, ImageView, Location, source};
use formwork_oci::{Descriptor, Digest, Platform, Reference, Repository};
use formwork_solver::Cancel;

use crate::blobs::PulledBlobs;
use crate::output::{form, make_directory};
use crate::resolve::choice_of;
use crate::step::{sending, step};
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

/// Copies an image for one platform; it keeps its digest, unless it gets docker's media types.
/// Between repositories of one registry, layers stay where they are.
///
/// # Errors
///
/// Fails where the source has no such image, and where the target cannot be written.
pub fn copy(
    host: &Host,
    from: &ImageLocation,
    to: &CopyTarget,
    platform: &Platform,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Descriptor, BuildError> {
    let _in_use = host.use_store()?;
    let (view, origins) = step(format!("resolve {from}"), events, cancel, |_| {
        open(host, from, platform, events, cancel)
    })?;
    step("copy", events, cancel, |step| match to {
        CopyTarget::Registry(name) => {
            let client =
                host.registries.client().map_err(|error| BuildError::image(&error.into()))?;
            let options = PushOptions { origins: &origins, progress: &sending(step, &**events) };
            export::to_registry(client, &view, std::slice::from_ref(name), options)
                .map(|report| report.manifest)
                .map_err(|error| BuildError::image(&error))
        }
        CopyTarget::Layout { path, directory, docker, name } => {
            let names = name.as_slice();
            let form = form(*docker);
            if *directory {
                make_directory(path).map_err(BuildError::store)?;
                export::to_directory(&view, names, form, path)
            } else {
                export::to_file(&view, names, form, path)
            }
            .map_err(|error| BuildError::image(&error))
        }
    })
}

/// The image, and the repositories that have its layers.
fn open(
    host: &Host,
    from: &ImageLocation,
    platform: &Platform,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(ImageView, BTreeMap<Digest, Repository>), BuildError> {
    let location = |path: &str, selector: &Option<String>| {
        // A path that leads nowhere is the user's mistake.
        fs_err::metadata(path).map_err(BuildError::input_error)?;
        let choice = selector.as_deref().map_or(Choice::Only, choice_of);
        Ok(Location { path: path.into(), choice })
    };
    let found = match from {
        ImageLocation::Named(name) => return of_registry(host, name, platform, events, cancel),
        ImageLocation::OciLayout { path, selector } => {
            let location = location(path, selector)?;
            match location.path.is_dir() {
                true => source::oci_layout(&location, platform),
                false => source::oci_archive(&location, platform),
            }
        }
        ImageLocation::DockerArchive { path, selector } => {
            source::docker_archive(&location(path, selector)?)
        }
    };
    Ok((found.map_err(|error| BuildError::image(&error))?, BTreeMap::new()))
}

fn of_registry(
    host: &Host,
    name: &Reference,
    platform: &Platform,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(ImageView, BTreeMap<Digest, Repository>), BuildError> {
    let failed = |error| BuildError::image(&error);
    let client = host.registries.client().map_err(|error| failed(error.into()))?;
    let resolved = client.resolve(name, platform).map_err(|error| failed(error.into()))?;
    let layers = resolved.manifest.layers.iter();
    let origins: BTreeMap<Digest, Repository> =
        layers.map(|layer| (layer.digest.clone(), name.repository().clone())).collect();
    let blobs = PulledBlobs {
        content: host.layers.content().clone(),
        registries: Arc::clone(&host.registries),
        events: Arc::clone(events),
        cancel: cancel.clone(),
        origins: origins.clone(),
    };
    let blobs = Arc::new(blobs) as Arc<dyn BlobSource>;
    let (manifest, config) = (resolved.document.bytes, resolved.config_bytes);
    let view = ImageView::new(resolved.document.descriptor, manifest, config, blobs);
    Ok((view.map_err(failed)?, origins))
}
