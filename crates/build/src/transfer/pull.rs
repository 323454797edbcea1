//! From a registry into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_frontend::ImageLocation;
use formwork_fs::map_in_parallel;
use formwork_image::{BlobSource, StoredImage, export};
use formwork_oci::{Descriptor, Digest, Platform, Reference, Repository};
use formwork_solver::Cancel;

use super::elsewhere::open;
use super::whole::{Whole, stored};
use crate::resolve::{ask_registry, blobs};
use crate::step::step;
use crate::{BuildError, ErrorKind, Host};

/// How many layers are fetched at the same time.
const PARALLEL: usize = 4;

/// Fetches an image with all its layers, and keeps it under its name.
///
/// # Errors
///
/// Fails where the registry does not have the image, or nothing for the platform, and where the
/// store cannot be written. What was fetched by then stays, and need not be fetched again.
pub fn pull(
    host: &Host,
    name: &Reference,
    platform: &Platform,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<StoredImage, BuildError> {
    let title = format!("resolve {name}");
    let image = step(title, events, cancel, |_| ask_registry(host, name, platform))?;
    if image.platform.fitness(platform).is_none() {
        let message =
            format!("the image `{}` is for {}, not {platform}", name.familiar(), image.platform);
        let warning =
            Diagnostic::warning("platform", message).with_note("there is no other under this name");
        events.emit(Event::Message(Box::new(warning)));
    }
    fetch_layers(host, &image, events, cancel)?;
    // Other tools find it as soon as it is complete.
    let kept = host.images.get(name).map_err(|error| BuildError::image(&error))?;
    let kept = kept.as_ref().unwrap_or(&image);
    host.images.put(kept).map_err(|error| BuildError::image(&error))?;
    Ok(image)
}

/// Fetches an image with all its platforms, and whatever else its index leads to, so that it can be
/// passed on as it is; keeps it under its name.
///
/// # Errors
///
/// Fails as [`pull`] does, and where the name stands for no image.
pub fn pull_whole(
    host: &Host,
    name: &Reference,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<StoredImage, BuildError> {
    let location = ImageLocation::Named(name.clone());
    let opened = step(format!("resolve {name}"), events, cancel, |_| {
        open(host, &location, None, false, events, cancel)
    })?;
    let image = match &opened.whole {
        Whole::Image(view) => Some(StoredImage::of(view)),
        Whole::Index(index) => stored(index),
        Whole::Artifact(_) => None,
    };
    let no_image = || BuildError::input_error(format!("`{}` is no image", name.familiar()));
    let mut image = StoredImage { name: Some(name.clone()), ..image.ok_or_else(no_image)? };
    remember_origins(&mut image, &opened.origins);
    image.others.iter_mut().for_each(|other| remember_origins(other, &opened.origins));
    // Several layers at a time; what is left then is little.
    image.platforms().try_for_each(|one| fetch_layers(host, one, events, cancel))?;
    let content = host.layers.content();
    let copied = match &opened.whole {
        Whole::Image(view) => export::copy_blobs(view, content),
        Whole::Index(index) => export::copy_index(index, content),
        Whole::Artifact(_) => Ok(()),
    };
    copied.and_then(|()| host.images.put(&image)).map_err(|error| BuildError::image(&error))?;
    Ok(image)
}

fn remember_origins(image: &mut StoredImage, origins: &BTreeMap<Digest, Repository>) {
    for layer in &mut image.layers {
        layer.origin = layer.blob.as_ref().and_then(|blob| origins.get(&blob.digest)).cloned();
    }
}

/// The names of all images that the registry has in a repository.
///
/// # Errors
///
/// Fails where the registry has none, or does not say.
pub fn tags(host: &Host, repository: &Repository) -> Result<Vec<Reference>, BuildError> {
    let client = host.registries.client().map_err(|error| BuildError::registry(&error))?;
    let mut tags = client.tags(repository).map_err(|error| BuildError::registry(&error))?;
    tags.sort();
    if tags.is_empty() {
        let message = format!("the registry has no tags in the repository `{repository}`");
        return Err(BuildError::new(ErrorKind::Registry, Diagnostic::error("image", message)));
    }
    let names = tags.iter().map(|tag| format!("{repository}:{tag}").parse::<Reference>());
    names.collect::<Result<_, _>>().map_err(BuildError::input_error)
}

/// Fetches the layers that the store does not have, several at a time; after a failure none is
/// begun.
fn fetch_layers(
    host: &Host,
    image: &StoredImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let source = blobs(host, image, events, cancel);
    let mut seen = BTreeSet::new();
    let layers = image.layers.iter().filter_map(|layer| layer.blob.as_ref());
    let layers: Vec<&Descriptor> = layers.filter(|layer| seen.insert(&layer.digest)).collect();
    let result = map_in_parallel(&layers, PARALLEL, |layer| source.open(layer).map(drop));
    result.map(drop).map_err(|error| match cancel.is_canceled() {
        true => BuildError::canceled(),
        false => BuildError::image(&error),
    })
}
