//! The layers of an image on a newer base, without building anything.
//!
//! That is right only if nothing in these layers depended on what has changed. What can be told
//! from files is looked at first: see [`conflicts`]. What a step would have done otherwise on the
//! new base nobody can tell but by building it.

mod config;
mod conflicts;
mod elf;

use std::collections::BTreeMap;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::{Assembly, BlobSource, Family, ImageView, StoredImage, assemble};
use formwork_layer::Tree;
use formwork_oci::{Descriptor, Digest, Manifest, Reference, Repository, from_json};
use formwork_solver::Cancel;

pub use conflicts::{Conflict, Trouble};

use crate::files::trees;
use crate::recipe::Recipe;
use crate::transfer::packed;
use crate::{BuildError, Host, PullPolicy, find_image};

/// The annotations with an image's base (OCI image specification, "Pre-Defined Annotation Keys").
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// The largest manifest that is read.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// What is to be put on what.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// The image.
    pub image: StoredImage,
    /// Its base, by a name or an id; the one that it was built on, if nothing is said.
    pub old_base: Option<String>,
    /// The new base.
    pub new_base: String,
    /// When registries are asked for the bases.
    pub pull: PullPolicy,
    /// The name of the result; without one nothing is made, and only looked whether it is safe.
    pub name: Option<Reference>,
    /// Whether it is made although that may not be safe.
    pub force: bool,
}

/// What a rebase has come to.
#[derive(Clone, Debug)]
pub struct Rebased {
    /// What speaks against it.
    pub conflicts: Vec<Conflict>,
    /// How many layers were kept, and how many those of the bases are.
    pub layers: (usize, usize, usize),
    /// The result, if one was made.
    pub image: Option<StoredImage>,
}

/// Puts an image's own layers on another base.
///
/// # Errors
///
/// Fails where the image is not based on what is said to be its base, where the bases are for other
/// platforms, and where layers cannot be had.
pub fn rebase(
    host: &Host,
    request: &RebaseRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Rebased, BuildError> {
    let image = &request.image;
    let platform = Some(&image.platform);
    let old = match &request.old_base {
        Some(name) => find_image(host, name, platform, request.pull)?,
        None => recorded_base(host, image)?,
    };
    let new = find_image(host, &request.new_base, platform, request.pull)?;
    check_platform(image, &new)?;
    let own = own_layers(image, &old)?;
    let all = |image: &StoredImage| trees(host, image, true, events, cancel);
    let (image_trees, old_trees, new_trees) = (all(image)?, all(&old)?, all(&new)?);
    let conflicts =
        conflicts::find(&refs(&image_trees[own..]), &refs(&old_trees), &refs(&new_trees));
    let layers = (image.layers.len() - own, own, new.layers.len());
    let is_refused = !conflicts.is_empty() && !request.force;
    let name = request.name.as_ref().filter(|_| !is_refused);
    let made = match name {
        None => None,
        Some(name) => {
            let bases = Bases { old: &old, new: &new, own };
            Some(put_together(host, image, &bases, name, events, cancel)?)
        }
    };
    Ok(Rebased { conflicts, layers, image: made })
}

/// An image's old base and new one, and how many of its layers are the old one's.
struct Bases<'a> {
    old: &'a StoredImage,
    new: &'a StoredImage,
    own: usize,
}

fn refs(trees: &[Arc<Tree>]) -> Vec<&Tree> {
    trees.iter().map(|tree| &**tree).collect()
}

/// The base that an image is said to have: the one whose layers it begins with.
fn recorded_base(host: &Host, image: &StoredImage) -> Result<StoredImage, BuildError> {
    let named = named_bases(host, image)?;
    let is_named = |base: &StoredImage| {
        let manifest = base.manifest.as_ref().map(|manifest| &manifest.digest);
        named.iter().any(|(_, digest)| manifest == Some(digest) || base.config == *digest)
    };
    let known = host.images.list().map_err(BuildError::store)?.images;
    let known = known.iter().flat_map(StoredImage::platforms);
    let fits = |base: &&StoredImage| is_named(base) && own_layers(image, base).is_ok();
    // Of two, one on top of the other, the higher one is the base.
    let found = known.filter(fits).max_by_key(|base| base.layers.len()).cloned();
    if let Some(found) = found {
        return Ok(StoredImage { index: None, others: Vec::new(), ..found });
    }
    // It has moved on since then.
    for (name, digest) in &named {
        let Ok(name) = name.parse::<Reference>() else { continue };
        let pinned = format!("{}@{digest}", name.repository());
        if let Ok(found) = find_image(host, &pinned, Some(&image.platform), PullPolicy::Missing)
            && own_layers(image, &found).is_ok()
        {
            return Ok(found);
        }
    }
    let message = format!("nobody wrote down what `{}` is based on", image.title());
    Err(BuildError::input_error(message).with_help("name its base: `--old-base IMAGE`"))
}

/// The names and digests of images that an image may be based on: those of its recipe, or what its
/// manifest says.
fn named_bases(host: &Host, image: &StoredImage) -> Result<Vec<(String, Digest)>, BuildError> {
    if let Some(recipe) = Recipe::of_image(host, image)? {
        return Ok(recipe.images.into_iter().map(|base| (base.name, base.digest)).collect());
    }
    let Some(manifest) = &image.manifest else { return Ok(Vec::new()) };
    let bytes = host.layers.content().read(&manifest.digest, MANIFEST_LIMIT);
    let manifest = bytes.ok().and_then(|bytes| from_json::<Manifest>("manifest", &bytes).ok());
    let said = manifest.and_then(|Manifest { annotations, .. }| {
        let digest = annotations.get(BASE_DIGEST)?.parse().ok()?;
        Some((annotations.get(BASE_NAME)?.clone(), digest))
    });
    Ok(said.into_iter().collect())
}

/// Where an image's own layers begin.
fn own_layers(image: &StoredImage, base: &StoredImage) -> Result<usize, BuildError> {
    let mut pairs = image.layers.iter().zip(&base.layers);
    let is_prefix = base.layers.len() <= image.layers.len()
        && pairs.all(|(own, below)| own.diff_id == below.diff_id);
    match is_prefix && !base.layers.is_empty() {
        true => Ok(base.layers.len()),
        false => Err(BuildError::input_error(format!(
            "`{}` is not based on `{}` as that is now: its layers are others",
            image.title(),
            base.title()
        ))
        .with_help("name the base as it was then: `--old-base NAME@sha256:…`")),
    }
}

fn check_platform(image: &StoredImage, base: &StoredImage) -> Result<(), BuildError> {
    match image.platform.fitness(&base.platform).or(base.platform.fitness(&image.platform)) {
        Some(_) => Ok(()),
        None => Err(BuildError::input_error(format!(
            "`{}` is for {}, the new base for {}",
            image.title(),
            image.platform,
            base.platform
        ))),
    }
}

/// Two places of blobs as one.
#[derive(Debug)]
struct Both {
    first: Arc<dyn BlobSource>,
    digests: Vec<Digest>,
    second: Arc<dyn BlobSource>,
}

impl BlobSource for Both {
    fn open(
        &self,
        descriptor: &Descriptor,
    ) -> Result<formwork_image::BlobBytes, formwork_image::ImageError> {
        self.place_of(&descriptor.digest).open(descriptor)
    }

    fn place(&self) -> String {
        self.second.place()
    }

    fn is_trusted(&self, digest: &Digest) -> bool {
        self.place_of(digest).is_trusted(digest)
    }
}

impl Both {
    fn place_of(&self, digest: &Digest) -> &dyn BlobSource {
        if self.digests.contains(digest) { &*self.first } else { &*self.second }
    }
}

fn put_together(
    host: &Host,
    image: &StoredImage,
    bases: &Bases<'_>,
    name: &Reference,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<StoredImage, BuildError> {
    let own: ImageView = packed::view(host, image, None, events, cancel)?;
    // Its digest will be told, so that it has to be found by it.
    let below = packed::packed(host, bases.new, None, events, cancel)?;
    let old_config = host.config_of(bases.old)?;
    let config = config::rebased(own.config(), &old_config, below.config(), bases.own);
    let upper = own.manifest().layers.iter().skip(bases.own);
    let layers: Vec<Descriptor> = below.manifest().layers.iter().chain(upper).cloned().collect();
    let blobs = Both {
        first: Arc::clone(below.blobs()),
        digests: below.manifest().layers.iter().map(|layer| layer.digest.clone()).collect(),
        second: Arc::clone(own.blobs()),
    };
    let mut annotations = own.manifest().annotations.clone();
    let digest = below.descriptor().digest.to_string();
    annotations.insert(BASE_DIGEST.to_owned(), digest);
    match &bases.new.name {
        Some(name) => annotations.insert(BASE_NAME.to_owned(), name.to_string()),
        None => annotations.remove(BASE_NAME),
    };
    let assembly = Assembly { config: &config, layers, family: Family::Oci, annotations };
    let made = assemble(assembly, Arc::new(blobs)).map_err(|error| BuildError::image(&error))?;
    let content = host.layers.content();
    content.insert(made.config_bytes()).map_err(BuildError::store)?;
    content.insert(made.manifest_bytes()).map_err(BuildError::store)?;
    let origins: BTreeMap<Digest, Repository> =
        bases.new.origins().into_iter().chain(image.origins()).collect();
    let stored = stored(&made, name, &origins);
    // What no registry has must be here.
    for layer in stored.layers.iter().filter(|layer| layer.origin.is_none()) {
        if let Some(blob) = &layer.blob {
            formwork_image::copy_blob(&**made.blobs(), blob, content)
                .map_err(|error| BuildError::image(&error))?;
        }
    }
    host.images.put(&stored).map_err(|error| BuildError::image(&error))?;
    Ok(stored)
}

fn stored(
    made: &ImageView,
    name: &Reference,
    origins: &BTreeMap<Digest, Repository>,
) -> StoredImage {
    let mut stored = StoredImage { name: Some(name.clone()), ..StoredImage::of(made) };
    for layer in &mut stored.layers {
        layer.origin = layer.blob.as_ref().and_then(|blob| origins.get(&blob.digest)).cloned();
    }
    stored
}
