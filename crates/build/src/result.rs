//! From layers and instructions to an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formwork_frontend::{HistoryEntry, Lowered};
use formwork_fs::map_in_parallel;
use formwork_graph::{Op, OpId};
use formwork_image::export::Content;
use formwork_image::{
    Artifact, Assembly, BlobSource, Entry, Family, ImageIndex, ImageView, StoredImage, StoredIndex,
    StoredLayer, assemble as assemble_image,
};
use formwork_oci::{
    Descriptor, DiffId, Digest, History, ImageConfig, Platform, Reference, Repository, to_json,
};
use formwork_remote::Material;
use formwork_solver::Cancel;
use formwork_worker::{Layer, Output as OpOutput, PackForm, PackedLayer, Root, WorkerError};

use crate::blobs::ResultBlobs;
use crate::provenance::{Provenance, Subject, images_in_files};
use crate::recipe::Recipe;
use crate::request::Packing;
use crate::resolve::Images;
use crate::{AnnotationPlace, BuildError, BuildRequest, Host, ImageForm, Output};

/// What the history says about who made an image.
const COMMENT: &str = "formwork";

/// What a build has yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOutcome {
    /// The digest of the configuration: the image's id. Of an image for several platforms, that of
    /// the one which suits this machine best.
    pub id: Digest,
    /// The manifest or the index, if the image was packed.
    pub manifest: Option<Descriptor>,
    /// Whether the image is one for several platforms.
    pub is_index: bool,
    /// The names that the image was given.
    pub names: Vec<Reference>,
}

/// What a build makes: an image, or one for each platform and what joins them.
pub(crate) struct Built {
    /// The images, in the order of the platforms; at least one.
    pub(crate) images: Vec<BuiltImage>,
    /// The index of an image for several platforms, by its forms.
    pub(crate) indexes: Vec<(ImageForm, ImageIndex)>,
    names: Vec<Reference>,
    is_for_several: bool,
    /// What it was made from, if that is to be said.
    pub(crate) recipe: Option<Recipe>,
    /// What has the Dockerfile, if it came from elsewhere.
    pub(crate) dockerfile_from: Option<Material>,
}

/// An image that was built.
pub(crate) struct BuiltImage {
    /// The platform that was asked for.
    pub(crate) platform: Platform,
    pub(crate) config: ImageConfig,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) root: Root,
    /// The packed image, by its forms.
    pub(crate) views: Vec<(ImageForm, ImageView)>,
    /// Where all blobs are.
    pub(crate) blobs: Arc<ResultBlobs>,
    pub(crate) layers: Vec<StoredLayer>,
    /// What it was made from, if the store keeps that.
    pub(crate) recipe: Option<Digest>,
    /// What it was made of, besides images and files of the user's.
    pub(crate) materials: Vec<Material>,
    /// What is said about it, in each of its forms.
    pub(crate) attached: Vec<Artifact>,
}

/// Puts the images of all platforms together, packing layers as far as the outputs need it.
pub(crate) fn assemble_all(
    host: &Host,
    request: &BuildRequest,
    images: &Images,
    lowered: &[Lowered],
    outputs: &BTreeMap<OpId, OpOutput>,
    cancel: &Cancel,
) -> Result<Built, BuildError> {
    let platforms =
        request.options_by_platform().into_iter().map(|options| options.target_platform);
    let built = lowered.iter().zip(platforms).map(|(lowered, platform)| {
        assemble(host, request, images, lowered, platform, outputs, cancel)
    });
    let built: Vec<BuiltImage> = built.collect::<Result<_, _>>()?;
    let mut indexes = Vec::new();
    if request.is_for_several() {
        for form in unique(request.outputs.iter().filter_map(Output::form)) {
            let index = index(&built, &form)?;
            indexes.push((form, index));
        }
    }
    let is_for_several = request.is_for_several();
    Ok(Built {
        images: built,
        indexes,
        names: request.tags.clone(),
        is_for_several,
        recipe: None,
        dockerfile_from: request.dockerfile_from.clone(),
    })
}

/// Joins the images of all platforms.
fn index(images: &[BuiltImage], form: &ImageForm) -> Result<ImageIndex, BuildError> {
    let entry = |image: &BuiltImage| {
        let view = image.view(form)?.clone();
        let annotations = view.descriptor().annotations.clone();
        Some(Entry { platform: Some(image.platform.clone()), annotations, ..Entry::of(view) })
    };
    let entries: Option<Vec<Entry>> = images.iter().map(entry).collect();
    let entries = entries.ok_or_else(|| BuildError::internal("an image was not packed"))?;
    let annotations = form.annotations_of(AnnotationPlace::Index, None);
    let index = ImageIndex::assemble(entries, form.family(), annotations);
    let index = index.map_err(|error| BuildError::image(&error))?;
    Ok(index.annotated(form.annotations_of(AnnotationPlace::IndexDescriptor, None)))
}

/// Puts an image together, packing layers as far as the outputs need it.
fn assemble(
    host: &Host,
    request: &BuildRequest,
    images: &Images,
    lowered: &Lowered,
    platform: Platform,
    outputs: &BTreeMap<OpId, OpOutput>,
    cancel: &Cancel,
) -> Result<BuiltImage, BuildError> {
    let root = outputs
        .get(&lowered.target)
        .and_then(|output| output.root().ok())
        .ok_or_else(|| BuildError::internal("the target has no result"))?
        .clone();
    let forms = unique(request.outputs.iter().filter_map(Output::form));
    let packings: Vec<Packing> = forms.iter().map(ImageForm::packing).collect();
    let packings = unique(packings.iter());
    let is_stored = request.outputs.iter().any(|output| matches!(output, Output::Store(_)));
    let packed = pack_all(&root, &packings, request.epoch, is_stored, cancel)?;
    let mut config = lowered.config.clone();
    config.rootfs.diff_ids = packed.iter().map(|forms| forms.diff_id.clone()).collect();
    add_history(&mut config, lowered, outputs, request.epoch)?;
    let config_bytes = to_json(&config);
    let blobs = Arc::new(result_blobs(host, images));
    let mut views = Vec::new();
    for form in forms {
        let index = packings.iter().position(|known| *known == form.packing());
        let index = index.ok_or_else(|| BuildError::internal("a compression is forgotten"))?;
        let layers = packed.iter().map(|forms| forms.blobs[index].clone()).collect();
        let family = form.family();
        let of = |place| form.annotations_of(place, Some(&platform));
        let annotations = of(AnnotationPlace::Manifest);
        let assembly = Assembly { config: &config, layers, family, annotations };
        let blobs = Arc::clone(&blobs) as Arc<dyn BlobSource>;
        let view = assemble_image(assembly, blobs).map_err(|error| BuildError::image(&error))?;
        let view = view.annotated(of(AnnotationPlace::ManifestDescriptor));
        views.push((form, view));
    }
    let layers = stored_layers(&root, &packed, images)?;
    let fetched = fetched(request, lowered, outputs);
    let materials = fetched.chain(images_in_files(images, &platform));
    let materials: BTreeSet<Material> = materials.collect();
    Ok(BuiltImage {
        platform,
        config,
        config_bytes,
        root,
        views,
        blobs,
        layers,
        recipe: None,
        materials: materials.into_iter().collect(),
        attached: Vec::new(),
    })
}

/// What an image was made of that was fetched, besides images.
fn fetched(
    request: &BuildRequest,
    lowered: &Lowered,
    outputs: &BTreeMap<OpId, OpOutput>,
) -> impl Iterator<Item = Material> {
    let needed = lowered.graph.needed_for(&[lowered.target]);
    let fetched = needed.into_iter().filter_map(|op| match outputs.get(&op)? {
        OpOutput::Fetched(_, material) => Some(Material::clone(material)),
        OpOutput::Root(_) | OpOutput::Context(_) => None,
    });
    request.materials.iter().cloned().chain(fetched)
}

impl Built {
    pub(crate) fn names(&self) -> &[Reference] {
        &self.names
    }

    /// The repositories that have layers of the base images, by the layers' digests.
    pub(crate) fn origins(&self) -> BTreeMap<Digest, Repository> {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        layers
            .filter_map(|layer| Some((layer.blob.as_ref()?.digest.clone(), layer.origin.clone()?)))
            .collect()
    }

    /// The index in a form, if there is one.
    pub(crate) fn index(&self, form: &ImageForm) -> Option<&ImageIndex> {
        self.indexes.iter().find(|(known, _)| known == form).map(|(_, index)| index)
    }

    /// The image or the index in a form.
    pub(crate) fn content(&self, form: &ImageForm) -> Option<Content<'_>> {
        match (self.index(form), &*self.images) {
            (Some(index), _) => Some(Content::Index(index)),
            (None, [image]) => image.view(form).map(Content::Image),
            (None, _) => None,
        }
    }

    /// What is said about the images in a form.
    pub(crate) fn attached(&self, form: &ImageForm) -> Vec<Artifact> {
        let of = |image: &BuiltImage| match image.view(form) {
            Some(view) => image.attached_to(view),
            None => Vec::new(),
        };
        self.images.iter().flat_map(of).collect()
    }

    /// The image as the store remembers it under a name, in a form if one is asked for.
    pub(crate) fn stored(
        &self,
        name: Option<Reference>,
        form: Option<&ImageForm>,
    ) -> Option<StoredImage> {
        let images = self.images.iter().map(|image| image.stored(form)).collect();
        let index = match form {
            Some(form) => self.index(form),
            None => self.indexes.first().map(|(_, index)| index),
        };
        let descriptor = index.map(|index| index.descriptor().clone());
        let index = self.is_for_several.then_some(StoredIndex { descriptor });
        StoredImage::together(images, &Platform::host(), name, index)
    }

    pub(crate) fn into_outcome(self) -> Result<BuildOutcome, BuildError> {
        let nothing = || BuildError::internal("nothing was built");
        let first = self.images.first().ok_or_else(nothing)?;
        let id = self.stored(None, None).map_or_else(|| first.id(), |image| image.config);
        let manifest = match self.is_for_several {
            true => self.indexes.first().map(|(_, index)| index.descriptor()),
            false => first.views.first().map(|(_, view)| view.descriptor()),
        };
        let (manifest, is_index) = (manifest.cloned(), self.is_for_several);
        Ok(BuildOutcome { id, manifest, is_index, names: self.names })
    }
}

impl ImageForm {
    fn family(&self) -> Family {
        if self.docker_types { Family::Docker } else { Family::Oci }
    }
}

impl BuiltImage {
    /// The image packed in a form.
    pub(crate) fn view(&self, form: &ImageForm) -> Option<&ImageView> {
        self.views.iter().find(|(known, _)| known == form).map(|(_, view)| view)
    }

    /// What is said about the image as it is packed in a form.
    pub(crate) fn attached_to(&self, view: &ImageView) -> Vec<Artifact> {
        let is_about = |artifact: &&Artifact| {
            let subject = artifact.manifest().subject.as_ref();
            subject.is_some_and(|subject| subject.digest == view.descriptor().digest)
        };
        self.attached.iter().filter(is_about).cloned().collect()
    }

    /// Says what the image was made from, in each of its forms.
    pub(crate) fn attest(
        &mut self,
        host: &Host,
        provenance: &Provenance,
        recipe: &Recipe,
        names: &[Reference],
        dockerfile: Option<&Material>,
    ) -> Result<(), BuildError> {
        let (platform, materials) = (&self.platform, &*self.materials);
        for (_, view) in &self.views {
            let manifest = Some(view.descriptor());
            let subject = Subject { names, platform, manifest, materials, dockerfile };
            self.attached.extend(provenance.artifact(host, recipe, &subject)?);
        }
        Ok(())
    }

    /// The image's id.
    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config_bytes)
    }

    /// The image as the store remembers it.
    fn stored(&self, form: Option<&ImageForm>) -> StoredImage {
        let view = match form {
            Some(form) => self.view(form),
            None => self.views.first().map(|(_, view)| view),
        };
        let mut layers = self.layers.clone();
        for (layer, blob) in layers.iter_mut().zip(view.iter().flat_map(|v| &v.manifest().layers)) {
            if layer.blob.as_ref().is_none_or(|known| known.digest != blob.digest) {
                layer.origin = None;
                layer.blob = Some(blob.clone());
            }
        }
        StoredImage {
            name: None,
            manifest: view.map(|view| view.descriptor().clone()),
            config: self.id(),
            platform: self.config.platform(),
            created: self.config.created.clone(),
            layers,
            index: None,
            others: Vec::new(),
            recipe: self.recipe.clone(),
            attached: match view {
                Some(view) => {
                    self.attached_to(view).iter().map(|a| a.descriptor().clone()).collect()
                }
                None => Vec::new(),
            },
        }
    }
}

/// A layer's diff ID, and a blob for each compression that was asked for.
pub(crate) struct Forms {
    pub(crate) diff_id: DiffId,
    pub(crate) blobs: Vec<Descriptor>,
}

/// Each value once, in order.
fn unique<'a, T: Clone + PartialEq + 'a>(values: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut unique = Vec::new();
    for value in values {
        if !unique.contains(value) {
            unique.push(value.clone());
        }
    }
    unique
}

/// Packs all layers, several at a time, or only measures them if nobody needs blobs; then, if they
/// are about to be stored, their directories are made beside it.
pub(crate) fn pack_all(
    root: &Root,
    packings: &[Packing],
    epoch: Option<i64>,
    is_stored: bool,
    cancel: &Cancel,
) -> Result<Vec<Forms>, BuildError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    map_in_parallel(root.layers(), threads, |layer| {
        forms(layer, packings, epoch, is_stored, cancel)
    })
    .map_err(|error| BuildError::worker(&error))
}

fn forms(
    layer: &Layer,
    packings: &[Packing],
    epoch: Option<i64>,
    is_stored: bool,
    cancel: &Cancel,
) -> Result<Forms, WorkerError> {
    if packings.is_empty() {
        let PackedLayer { diff_id, blob } = layer.measure(epoch, is_stored, cancel)?;
        return Ok(Forms { diff_id, blobs: blob.into_iter().collect() });
    }
    let mut diff_id = None;
    let mut blobs = Vec::new();
    for Packing { compression, force } in packings {
        let form = PackForm { compression: *compression, epoch };
        let packed = if *force { layer.repack(form, cancel) } else { layer.pack(form, cancel) }?;
        blobs.extend(packed.blob);
        diff_id = Some(packed.diff_id);
    }
    match diff_id {
        Some(diff_id) if blobs.len() == packings.len() => Ok(Forms { diff_id, blobs }),
        _ => Err(WorkerError::Internal("a packed layer has no blob".to_owned())),
    }
}

/// Adds the instructions to the history, and says when the image was made.
///
/// An instruction that makes no layer has the time of the one before it, so that an unchanged
/// build gives an unchanged image.
fn add_history(
    config: &mut ImageConfig,
    lowered: &Lowered,
    outputs: &BTreeMap<OpId, OpOutput>,
    epoch: Option<i64>,
) -> Result<(), BuildError> {
    let mut time = config.history.iter().rev().find_map(|entry| entry.created.clone());
    let mut entries: Vec<History> = Vec::new();
    for HistoryEntry { created_by, layer } in &lowered.history {
        let layer = layer.and_then(|op| new_layer(lowered, outputs, op));
        if let Some(layer) = &layer {
            let created = layer.created().map_err(|error| BuildError::worker(&error))?;
            time = created.and_then(rfc3339).or(time);
        }
        entries.push(History {
            created: time.clone(),
            created_by: Some(created_by.clone()),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: layer.is_none(),
        });
    }
    // What comes before the first layer was made with it.
    let first = entries.iter().find_map(|entry| entry.created.clone());
    let fixed = epoch.and_then(rfc3339);
    for entry in &mut entries {
        entry.created = fixed.clone().or(entry.created.take()).or(first.clone());
    }
    config.created = fixed.or(time);
    let own = entries.iter().filter(|entry| !entry.empty_layer).count();
    account_for(&mut config.history, config.rootfs.diff_ids.len().saturating_sub(own));
    config.history.extend(entries);
    Ok(())
}

/// Gives each layer of a base image an entry in its history, as BuildKit does: one that tells of more
/// or fewer would put the blame for what follows on the wrong instructions.
fn account_for(history: &mut Vec<History>, layers: usize) {
    let mut left = layers;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => entry.empty_layer = true,
        }
    }
    let unknown = History {
        created: None,
        created_by: None,
        author: None,
        comment: Some("a layer of which the base image's history does not tell".to_owned()),
        empty_layer: false,
    };
    history.extend(std::iter::repeat_n(unknown, left));
}

/// The layer that an op has added; `None` if it has changed nothing.
fn new_layer(
    lowered: &Lowered,
    outputs: &BTreeMap<OpId, OpOutput>,
    op: OpId,
) -> Option<Arc<Layer>> {
    let base = match &lowered.graph.step(op).op {
        Op::Exec(exec) => exec.rootfs,
        Op::File(file) => file.base,
        Op::Source(_) => return None,
    };
    let layers = |op: &OpId| outputs.get(op)?.root().ok().map(Root::layers);
    let (before, after) = (layers(&base)?, layers(&op)?);
    (after.len() > before.len()).then(|| after.last().cloned()).flatten()
}

/// Seconds since 1970 as RFC 3339 text.
fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// The sources of the result's blobs.
fn result_blobs(host: &Host, images: &Images) -> ResultBlobs {
    ResultBlobs { content: host.layers.content().clone(), base: images.blobs.clone() }
}

fn stored_layers(
    root: &Root,
    packed: &[Forms],
    images: &Images,
) -> Result<Vec<StoredLayer>, BuildError> {
    let layers = root.layers().iter().zip(packed).map(|(layer, forms)| {
        let blob = forms.blobs.first().cloned();
        let is_base = layer.base_descriptor().is_some();
        let origin = blob.as_ref().and_then(|blob| images.origins.get(&blob.digest)).cloned();
        Ok(StoredLayer {
            diff_id: forms.diff_id.clone(),
            unpacked_size: if is_base { 0 } else { layer.unpacked_size()? },
            blob,
            snapshot: Some(layer.name().to_string()),
            origin,
        })
    });
    layers.collect::<Result<_, WorkerError>>().map_err(|error| BuildError::worker(&error))
}
