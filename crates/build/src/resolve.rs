//! Finding the images that a Dockerfile names.
//!
//! A name is looked for in the local store first, unless the user asks for newer images; only then
//! is a registry asked, and what it says is kept, so that the next build needs no network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, EventSink};
use formwork_frontend::{
    ImageKey, ImageLocation, ImageRequest, ResolvedImage, ResolvedImages, image_requests,
};
use formwork_fs::map_in_parallel;
use formwork_image::{
    BlobSource, Choice, ImageError, ImageView, Location, StoredImage, StoredLayer, source,
};
use formwork_oci::{
    Descriptor, Digest, ImageConfig, MediaType, Platform, Reference, Repository, from_json,
};
use formwork_registry::{Known, RegistryError, ResolvedImage as FromRegistry};
use formwork_sandbox::MAX_LAYERS;
use formwork_snapshot::{SnapshotKey, Snapshotter};
use formwork_solver::Cancel;
use formwork_worker::{BaseImage, LocalLayer, is_of_image};

use crate::blobs::PulledBlobs;
use crate::error::{kind_of_image_error, kind_of_registry_error, lack_of_machine};
use crate::{BuildError, BuildRequest, ErrorKind, Host, PullPolicy};

/// The images of a build: what the frontend and what the worker have to know of each.
#[derive(Debug, Default)]
pub(crate) struct Images {
    pub(crate) resolved: ResolvedImages,
    pub(crate) bases: BTreeMap<Digest, BaseImage>,
    /// Where the blobs of the base images' layers are, by their digests.
    pub(crate) blobs: BTreeMap<Digest, Arc<dyn BlobSource>>,
    /// The repositories that have blobs, by their digests.
    pub(crate) origins: BTreeMap<Digest, Repository>,
}

/// The largest configuration that is read from the store.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Resolves all images that the target needs.
pub(crate) fn resolve(
    host: &Host,
    request: &BuildRequest,
    dockerfile: &formwork_dockerfile::Dockerfile,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Images, BuildError> {
    let mut images = Images::default();
    let resolver = Resolver { host, request, events, cancel };
    let options = request.options_by_platform();
    loop {
        let mut missing: Vec<ImageRequest> = Vec::new();
        for options in &options {
            let wanted = image_requests(dockerfile, options, &images.resolved);
            for request in wanted.map_err(BuildError::input)? {
                if !missing.iter().any(|known| known.key == request.key) {
                    missing.push(request);
                }
            }
        }
        if missing.is_empty() {
            return Ok(images);
        }
        let mut failed: Option<BuildError> = None;
        for (wanted, found) in missing.iter().zip(resolver.find_all(&missing)) {
            match (found, &mut failed) {
                (Ok(found), _) => images.add(wanted.key.clone(), found),
                (Err(failure), Some(known)) => {
                    known.diagnostics.extend(failure.into_error(wanted).diagnostics);
                }
                (Err(failure), none) => *none = Some(failure.into_error(wanted)),
            }
        }
        if let Some(mut failed) = failed {
            failed.diagnostics.sort_by_key(Diagnostic::primary_span);
            return Err(failed);
        }
    }
}

impl Images {
    fn add(&mut self, key: ImageKey, found: Found) {
        let Found { manifest, config, base, origins } = found;
        match &base {
            BaseImage::View(view) => {
                let digests = view.layers().map(|layer| layer.descriptor.digest.clone());
                self.blobs.extend(digests.map(|digest| (digest, Arc::clone(view.blobs()))));
            }
            BaseImage::Local(layers, blobs) => {
                let packed = layers.iter().filter_map(|layer| layer.packed.as_ref());
                let digests = packed.map(|blob| blob.digest.clone());
                self.blobs.extend(digests.map(|digest| (digest, Arc::clone(blobs))));
            }
        }
        self.origins.extend(origins);
        self.bases.insert(manifest.clone(), base);
        self.resolved.insert(key, ResolvedImage { manifest, config });
    }
}

/// An image that was found.
struct Found {
    manifest: Digest,
    config: ImageConfig,
    base: BaseImage,
    /// The repositories that have its layers.
    origins: BTreeMap<Digest, Repository>,
}

/// Why an image was not found.
enum Failure {
    Image(ImageError),
    Registry(RegistryError),
    Store(String),
}

struct Resolver<'a> {
    host: &'a Host,
    request: &'a BuildRequest,
    events: &'a Arc<dyn EventSink>,
    cancel: &'a Cancel,
}

impl Resolver<'_> {
    /// Finds several images side by side; the results are in the order of the requests.
    fn find_all(&self, requests: &[ImageRequest]) -> Vec<Result<Found, Failure>> {
        let find = |request: &ImageRequest| Ok::<_, Infallible>(self.find(&request.key));
        let Ok(found) = map_in_parallel(requests, requests.len(), find);
        found
    }

    fn find(&self, key: &ImageKey) -> Result<Found, Failure> {
        match &key.location {
            ImageLocation::Named(name) => self.find_named(name, &key.platform),
            ImageLocation::OciLayout { path, selector } => {
                let location = self.location(path, selector.as_deref());
                let view = match location.path.is_dir() {
                    true => source::oci_layout(&location, &key.platform)?,
                    false => source::oci_archive(&location, &key.platform)?,
                };
                Ok(of_view(view))
            }
            ImageLocation::DockerArchive { path, selector } => {
                let location = self.location(path, selector.as_deref());
                Ok(of_view(source::docker_archive(&location)?))
            }
        }
    }

    /// Relative paths start at the main build context.
    fn location(&self, path: &str, selector: Option<&str>) -> Location {
        let context = self.request.contexts.get(formwork_frontend::MAIN_CONTEXT);
        let directory = context.map_or(Path::new("."), |context| &context.directory);
        let choice = selector.map_or(Choice::Only, choice_of);
        Location { path: directory.join(path), choice }
    }

    fn find_named(&self, name: &Reference, platform: &Platform) -> Result<Found, Failure> {
        let local = self.host.images.get(name)?;
        let local = local.and_then(|image| image.for_platform(platform));
        match (policy_for(name, self.request.pull), local) {
            (PullPolicy::Missing | PullPolicy::Never, Some(local)) => self.of_local(&local),
            (PullPolicy::Never, None) => Err(not_pulled(name)),
            (PullPolicy::Newer, Some(local)) => match self.pull(name, platform) {
                Err(Failure::Registry(_)) => self.of_local(&local),
                result => result,
            },
            _ => self.pull(name, platform),
        }
    }

    fn of_local(&self, image: &StoredImage) -> Result<Found, Failure> {
        let bytes = self.host.layers.content().read(&image.config, CONFIG_LIMIT)?;
        let config: ImageConfig = from_json("image configuration", &bytes)
            .map_err(|error| Failure::Store(error.to_string()))?;
        let base = local_base(self.host, image, self.events, self.cancel)?;
        let manifest = image.manifest.as_ref().map(|manifest| manifest.digest.clone());
        let manifest = manifest.unwrap_or_else(|| image.config.clone());
        Ok(Found { manifest, config, base, origins: image.origins() })
    }

    /// Asks a registry, and keeps what it says.
    fn pull(&self, name: &Reference, platform: &Platform) -> Result<Found, Failure> {
        let resolved = ask(self.host, name, platform)?;
        let image = keep_pulled(self.host, name, &resolved)?;
        let manifest = resolved.document.descriptor;
        let descriptor = match manifest.media_type {
            MediaType::Other(_) => Descriptor { media_type: MediaType::OciManifest, ..manifest },
            _ => manifest,
        };
        let found = of_view(ImageView::new(
            descriptor,
            resolved.document.bytes,
            resolved.config_bytes,
            blobs(self.host, &image, self.events, self.cancel),
        )?);
        Ok(Found { origins: image.origins(), ..found })
    }
}

/// The image that a selector means: a name, or a digest behind `@`.
pub(crate) fn choice_of(selector: &str) -> Choice {
    match selector.strip_prefix('@').map(str::parse) {
        Some(Ok(digest)) => Choice::Digest(digest),
        _ => Choice::Name(selector.to_owned()),
    }
}

/// The policy for a name: what is named by its digest does not change.
fn policy_for(name: &Reference, policy: PullPolicy) -> PullPolicy {
    match policy {
        PullPolicy::Always | PullPolicy::Newer if name.digest().is_some() => PullPolicy::Missing,
        policy => policy,
    }
}

/// Why an image is missing that may not be pulled.
fn not_pulled(name: &Reference) -> Failure {
    Failure::Image(ImageError::NotFound {
        place: "the local store (`--pull=never` asks no registry)".to_owned(),
        wanted: format!("image `{}`", name.familiar()),
        available: Vec::new(),
    })
}

/// The image that a user means by a name or an id, pulled as far as the policy has it.
///
/// # Errors
///
/// Fails where there is no such image, neither in the store nor, if it is asked, in the registry.
pub fn find_image(
    host: &Host,
    text: &str,
    platform: Option<&Platform>,
    policy: PullPolicy,
) -> Result<StoredImage, BuildError> {
    let on_platform = |image: StoredImage| match platform {
        None => Ok(image),
        Some(wanted) => image.for_platform(wanted).ok_or_else(|| ImageError::NotFound {
            place: "the local store".to_owned(),
            wanted: format!("image `{text}` for another platform than {}", image.platform),
            available: Vec::new(),
        }),
    };
    let local = host.images.resolve(text).and_then(on_platform);
    // An id is nothing that a registry could be asked for.
    let name = match (&local, text.parse::<Reference>()) {
        (Ok(image), Ok(name)) => Some(name).filter(|name| image.is_called(name)),
        (Err(ImageError::NotFound { .. }), Ok(name)) => Some(name),
        _ => None,
    };
    let Some(name) = name else { return local.map_err(|error| BuildError::image(&error)) };
    let host_platform = Platform::host();
    let pull = || ask_registry(host, &name, platform.unwrap_or(&host_platform));
    match (policy_for(&name, policy), local) {
        (PullPolicy::Missing | PullPolicy::Never, Ok(image)) => Ok(image),
        (PullPolicy::Never, Err(error)) => Err(BuildError::image(&error)),
        (PullPolicy::Newer, Ok(image)) => match pull() {
            Err(error) if error.kind == ErrorKind::Registry => Ok(image),
            result => result,
        },
        _ => pull(),
    }
}

/// Asks a registry what a name stands for, and keeps what it says under the name.
pub(crate) fn ask_registry(
    host: &Host,
    name: &Reference,
    platform: &Platform,
) -> Result<StoredImage, BuildError> {
    let kept = || {
        let resolved = ask(host, name, platform)?;
        keep_pulled(host, name, &resolved)
    };
    kept().map_err(Failure::into_plain_error)
}

/// Asks a registry for what the store does not have.
fn ask(host: &Host, name: &Reference, platform: &Platform) -> Result<FromRegistry, Failure> {
    let content = host.layers.content();
    let read = |digest: &Digest| content.read(digest, CONFIG_LIMIT).ok();
    let is_known = host.images.get(name).is_ok_and(|image| image.is_some());
    let known = Known { document: &read, name: is_known };
    Ok(host.registries.client()?.resolve_knowing(name, platform, known)?)
}

/// Keeps the documents of an image, and where its layers are.
fn keep_pulled(
    host: &Host,
    name: &Reference,
    resolved: &FromRegistry,
) -> Result<StoredImage, Failure> {
    check_layers(name, resolved)?;
    let content = host.layers.content();
    content.insert(&resolved.document.bytes)?;
    content.insert(&resolved.config_bytes)?;
    let layers = resolved.manifest.layers.iter().zip(&resolved.config.rootfs.diff_ids);
    let layers = layers.map(|(blob, diff_id)| StoredLayer {
        diff_id: diff_id.clone(),
        unpacked_size: 0,
        blob: Some(blob.clone()),
        snapshot: None,
        origin: Some(name.repository().clone()),
    });
    let image = StoredImage {
        name: Some(name.clone()),
        manifest: Some(resolved.document.descriptor.clone()),
        config: resolved.manifest.config.digest.clone(),
        platform: resolved.config.platform(),
        created: resolved.config.created.clone(),
        layers: layers.collect(),
        index: None,
        others: Vec::new(),
        recipe: None,
        attached: Vec::new(),
    };
    // What the name means elsewhere is asked for no more because of this.
    let kept = match host.images.get(name) {
        Ok(Some(old)) => old.beside(image.clone(), &Platform::host()),
        // A damaged record is replaced.
        Ok(None) | Err(_) => image.clone(),
    };
    host.images.put(&kept)?;
    Ok(image)
}

/// Whether an image has as many layers as its configuration says, and no more than can be stacked.
fn check_layers(name: &Reference, resolved: &FromRegistry) -> Result<(), Failure> {
    let (layers, diff_ids) =
        (resolved.manifest.layers.len(), resolved.config.rootfs.diff_ids.len());
    let reason = match layers {
        _ if layers != diff_ids => {
            format!("the manifest has {layers} layers, the configuration {diff_ids} diff IDs")
        }
        _ if layers > MAX_LAYERS => {
            format!("it has {layers} layers, and overlayfs stacks at most {MAX_LAYERS}")
        }
        _ => return Ok(()),
    };
    let image = format!("{name} with the digest {}", resolved.document.descriptor.digest);
    Err(ImageError::Invalid { image, reason }.into())
}

/// The layers of an image of the store.
pub(crate) fn base_of(
    host: &Host,
    image: &StoredImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<BaseImage, BuildError> {
    local_base(host, image, events, cancel).map_err(Failure::into_plain_error)
}

/// The layers of an image of the store: their directories if it was built here, else blobs.
fn local_base(
    host: &Host,
    image: &StoredImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<BaseImage, Failure> {
    if let Some(layers) = built_here(host, image)? {
        return Ok(BaseImage::Local(layers, blobs(host, image, events, cancel)));
    }
    match &image.manifest {
        Some(manifest) => {
            let view = ImageView::open(manifest.clone(), blobs(host, image, events, cancel))?;
            Ok(BaseImage::View(Box::new(view)))
        }
        None => {
            let title = image.title();
            Err(Failure::Store(format!(
                "the layers of `{title}` are not in the store any more; build it again"
            )))
        }
    }
}

/// The layers of an image that was built here, if all of them are still there or, if they came
/// with its base, can be had.
fn built_here(host: &Host, image: &StoredImage) -> Result<Option<Vec<LocalLayer>>, Failure> {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let key = layer.snapshot.as_deref().and_then(|name| name.parse().ok());
        let Some(key) = key else { return Ok(None) };
        let packed = packed(host, layer, &key)?;
        let snapshot = host.layers.snapshots().get(&key);
        let is_there = snapshot.map_err(|error| Failure::Store(error.to_string()))?.is_some();
        if !is_there && packed.is_none() {
            return Ok(None);
        }
        layers.push(LocalLayer { key, diff_id: layer.diff_id.clone(), packed });
    }
    // An image without layers that was never packed is complete, too.
    let is_built_here = !layers.is_empty() || image.manifest.is_none();
    Ok(is_built_here.then_some(layers))
}

/// The blob of a layer that came with an image, if it is in the store or some registry has it.
fn packed(
    host: &Host,
    layer: &StoredLayer,
    key: &SnapshotKey,
) -> Result<Option<Descriptor>, Failure> {
    let Some(blob) = layer.blob.as_ref().filter(|_| is_of_image(key)) else { return Ok(None) };
    let can_be_had = layer.origin.is_some() || host.layers.content().find(blob)?.is_some();
    Ok(can_be_had.then(|| blob.clone()))
}

/// The blobs of an image of the store, which are fetched where they are missing.
pub(crate) fn blobs(
    host: &Host,
    image: &StoredImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Arc<PulledBlobs> {
    Arc::new(PulledBlobs {
        content: host.layers.content().clone(),
        layout: host.layout.clone(),
        registries: Arc::clone(&host.registries),
        events: Arc::clone(events),
        cancel: cancel.clone(),
        origins: image.origins(),
    })
}

fn of_view(view: ImageView) -> Found {
    Found {
        manifest: view.descriptor().digest.clone(),
        config: view.config().clone(),
        base: BaseImage::View(Box::new(view)),
        origins: BTreeMap::new(),
    }
}

impl Failure {
    /// Whose fault it is, what is wrong, and the way out where the machine lacks something.
    fn tell(&self) -> (ErrorKind, String, Option<&'static str>) {
        match self {
            Self::Image(error) => {
                (kind_of_image_error(error), error.to_string(), lack_of_machine(error))
            }
            Self::Registry(error) => {
                (kind_of_registry_error(error), error.to_string(), lack_of_machine(error))
            }
            Self::Store(message) => (ErrorKind::Machine, message.clone(), None),
        }
    }

    /// As an error that has no place in a Dockerfile.
    fn into_plain_error(self) -> BuildError {
        let (kind, message, help) = self.tell();
        let diagnostic = Diagnostic::error("image", message);
        BuildError::new(kind, help.into_iter().fold(diagnostic, Diagnostic::with_help))
    }

    fn into_error(self, wanted: &ImageRequest) -> BuildError {
        let (kind, message, help) = self.tell();
        let (source, span) = &wanted.place;
        let title = format!("the image `{}` cannot be had", wanted.key.location);
        let mut diagnostic =
            Diagnostic::error("unresolved-image", title).at(source, *span, "").with_note(message);
        diagnostic = help.into_iter().fold(diagnostic, Diagnostic::with_help);
        if let Some(stage) = &wanted.nearest_stage {
            diagnostic = diagnostic.with_help(format!("did you mean the stage `{stage}`?"));
        }
        BuildError::new(kind, diagnostic)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<formwork_content::ContentError> for Failure {
    fn from(error: formwork_content::ContentError) -> Self {
        Self::Image(error.into())
    }
}
