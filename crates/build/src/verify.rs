//! Building an image once more, to see whether the same comes out.
//!
//! It is built in a store of its own, with nothing from any cache, from the inputs that were
//! written down; only the images that it is based on come from here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use formwork_cache::DirIndex;
use formwork_content::StoreLayout;
use formwork_diagnostics::{EventSink, SourceFile};
use formwork_frontend::{ImageLocation, NamedContext};
use formwork_fs::{RootDir, remove_tree};
use formwork_image::export::{self, Form};
use formwork_image::{ImageView, LocalImages, StoredImage};
use formwork_layer::Tree;
use formwork_layer::tree::{Entry, Node};
use formwork_oci::{ImageConfig, Platform, Reference};
use formwork_solver::Cancel;
use formwork_worker::{LayerStore, Root};
use serde_json::Value;

use crate::build::build_and;
use crate::recipe::{NamedImage, Recipe};
use crate::resolve::{ask_registry, base_of};
use crate::result::{Built, BuiltImage};
use crate::space::Keeper;
use crate::step::step;
use crate::transfer::packed;
use crate::{
    BuildError, BuildRequest, GitConfig, Host, HostTrust, Limits, PullPolicy, Secrets, StepWorld,
};

/// Where an image and what was built once more differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The platform, of an image for several.
    pub platform: Option<Platform>,
    /// The layer, counted from 1, and the instruction that made it; `None` for the configuration.
    pub layer: Option<(usize, String)>,
    /// The path of the file; `None` for the configuration.
    pub path: Option<String>,
    /// What is different about it, or the key of the configuration.
    pub field: String,
    /// How it is in the image.
    pub stored: String,
    /// How it came out now.
    pub rebuilt: String,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// The time that the image was said to be made at. Without one, times cannot be the same, and
    /// do not count.
    pub epoch: Option<i64>,
}

/// What is no input of an image, but needed to build it.
#[derive(Debug)]
pub struct Surroundings {
    /// Secrets for RUN.
    pub secrets: Secrets,
    /// What git needs of the machine.
    pub git: GitConfig,
    /// What of the host reaches RUN.
    pub trust: HostTrust,
    /// How many processes may run at the same time.
    pub jobs: usize,
    /// How much space the user's store may take meanwhile.
    pub limits: Limits,
}

/// Builds an image of the store once more and compares.
///
/// # Errors
///
/// Fails where the inputs were not written down or are gone, and where the build fails.
pub fn verify(
    host: &Host,
    image: &StoredImage,
    surroundings: Surroundings,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Verified, BuildError> {
    let title = image.title();
    let recipe = Recipe::of_image(host, image)?.ok_or_else(|| {
        BuildError::input_error(format!("nobody wrote down what `{title}` was made from"))
            .with_help("only images that were built into this store can be built again")
    })?;
    let scratch = host.layout.scratch().map_err(BuildError::store)?.join("verify");
    // What is built lies in a store of its own, which counts as if it were in the user's.
    fs_err::create_dir_all(&scratch).map_err(BuildError::store)?;
    let own = elsewhere(host, &scratch.join("store"))?;
    let beside = Keeper::growing(&own).into_iter().chain([scratch.clone()]).collect();
    let events = &Keeper::begin_beside(host, surroundings.limits, events, beside)?;
    let (own, scratch) = (&own, &*scratch);
    let result = verify_in(host, image, &recipe, surroundings, (own, scratch), events, cancel);
    if let (Some(parent), Some(name)) = (scratch.parent(), scratch.file_name()) {
        // Otherwise it goes with the process.
        let _ =
            RootDir::open(parent).and_then(|parent| remove_tree(&parent, name.as_encoded_bytes()));
    }
    result
}

fn verify_in(
    host: &Host,
    image: &StoredImage,
    recipe: &Recipe,
    surroundings: Surroundings,
    (own, scratch): (&Host, &Path),
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Verified, BuildError> {
    let mut options = recipe.options()?;
    for (number, base) in recipe.images.iter().enumerate() {
        let directory = scratch.join(format!("base-{number}"));
        let view = step(format!("find {}", base.name), events, cancel, |_| {
            base_image(host, base, events, cancel)
        })?;
        export::to_directory(&view, &[], Form::Oci, &directory)
            .map_err(|error| BuildError::image(&error))?;
        let path = directory.to_string_lossy().into_owned();
        let location = ImageLocation::OciLayout { path, selector: None };
        let name = format!("{}::{}", base.name, base.platform);
        options.contexts.insert(name, NamedContext::Image(location));
    }
    let several = recipe.platforms.len() > 1;
    let request = BuildRequest {
        dockerfile: SourceFile::new(&*recipe.dockerfile.name, &*recipe.dockerfile.text),
        options,
        platforms: if several { recipe.platforms.clone() } else { Vec::new() },
        contexts: recipe.directories()?,
        materials: Vec::new(),
        dockerfile_from: None,
        pull: PullPolicy::Missing,
        jobs: surroundings.jobs,
        secrets: surroundings.secrets,
        agents: BTreeMap::new(),
        git: surroundings.git,
        trust: surroundings.trust,
        world: StepWorld::default(),
        tags: Vec::new(),
        outputs: Vec::new(),
        output_names: Vec::new(),
        provenance: None,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        inline_cache: false,
        mounts_from: Vec::new(),
        mounts_to: Vec::new(),
        limits: surroundings.limits,
        epoch: recipe.epoch,
    };
    let compare = |built: &Built| compare(host, image, built, recipe, events, cancel);
    let (_, difference) = build_and(own, &request, events, cancel, compare)?;
    Ok(Verified { difference, epoch: recipe.epoch })
}

/// The same machine with an empty store.
fn elsewhere(host: &Host, root: &Path) -> Result<Host, BuildError> {
    let layout = StoreLayout::open(root).and_then(|layout| layout.under_boot(&host.boot));
    let layout = layout.map_err(BuildError::store)?;
    let layers = LayerStore::open(&layout, &host.boot, host.layers.threads(), host.entered.clone());
    Ok(Host {
        images: LocalImages::of(&layout),
        index: DirIndex::new(layout.index(), layout.runs(), layout.locks()),
        layers: Arc::new(layers.map_err(BuildError::store)?),
        layout,
        ..host.clone()
    })
}

/// A base image as it was: from the store, or from its registry.
fn base_image(
    host: &Host,
    base: &NamedImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<ImageView, BuildError> {
    let is_it = |image: &&StoredImage| {
        let manifest = image.manifest.as_ref().map(|manifest| &manifest.digest);
        manifest == Some(&base.digest) || image.config == base.digest
    };
    let images = host.images.list().map_err(BuildError::store)?.images;
    let stored = images.iter().flat_map(StoredImage::platforms).find(is_it);
    let stored = match stored {
        Some(image) => StoredImage { index: None, others: Vec::new(), ..image.clone() },
        None => {
            let name: Reference = base.name.parse().map_err(BuildError::input_error)?;
            let pinned = Reference::by_digest(name.repository().clone(), base.digest.clone());
            ask_registry(host, &pinned, &base.platform).map_err(|error| {
                error.with_help(&format!(
                    "`{}` was {} when the image was built, and that is needed to build it again",
                    base.name, base.digest
                ))
            })?
        }
    };
    packed::view(host, &stored, None, events, cancel)
}

/// The first difference between an image of the store and one that was built now.
fn compare(
    host: &Host,
    image: &StoredImage,
    built: &Built,
    recipe: &Recipe,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Option<Difference>, BuildError> {
    let several = built.images.len() > 1;
    for rebuilt in &built.images {
        let Some(stored) = image.for_platform(&rebuilt.platform) else {
            return Err(BuildError::internal("the image has lost a platform"));
        };
        if let Some(difference) = compare_one(host, &stored, rebuilt, recipe, events, cancel)? {
            let platform = several.then(|| rebuilt.platform.clone());
            return Ok(Some(Difference { platform, ..difference }));
        }
    }
    Ok(None)
}

fn compare_one(
    host: &Host,
    stored: &StoredImage,
    rebuilt: &BuiltImage,
    recipe: &Recipe,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Option<Difference>, BuildError> {
    let config = host.config_of(stored)?;
    let same = config.rootfs.diff_ids == rebuilt.config.rootfs.diff_ids;
    if !same {
        let base = base_of(host, stored, events, cancel)?;
        let worker = |error| BuildError::worker(&error);
        let old = Root::of_image(&host.layers, &base, false).and_then(|root| root.trees());
        let (old, new) = (old.map_err(worker)?, rebuilt.root.trees().map_err(worker)?);
        let instructions = instructions(&config);
        for (number, (old, new)) in old.iter().zip(&new).enumerate() {
            let found = compare_trees(old, new, recipe.epoch);
            if let Some(difference) = found {
                let made_by = instructions.get(number).cloned().unwrap_or_default();
                return Ok(Some(Difference { layer: Some((number + 1, made_by)), ..difference }));
            }
        }
        if old.len() != new.len() {
            let (old, new) = (old.len().to_string(), new.len().to_string());
            return Ok(Some(Difference::of("number of layers", old, new)));
        }
        if recipe.epoch.is_some() {
            let ids = |config: &ImageConfig| format!("{:?}", config.rootfs.diff_ids);
            let (old, new) = (ids(&config), ids(&rebuilt.config));
            return Ok(Some(Difference::of("rootfs.diff_ids", old, new)));
        }
    }
    let json = |config: &ImageConfig| serde_json::to_value(config).unwrap_or_default();
    let (mut old, mut new) = (json(&config), json(&rebuilt.config));
    if recipe.epoch.is_none() {
        [&mut old, &mut new].into_iter().for_each(without_times);
    }
    Ok(compare_values("", &old, &new))
}

impl Difference {
    fn of(field: &str, stored: String, rebuilt: String) -> Self {
        let (platform, layer, path) = (None, None, None);
        Self { platform, layer, path, field: field.to_owned(), stored, rebuilt }
    }
}

/// The instructions that made layers, in order.
fn instructions(config: &ImageConfig) -> Vec<String> {
    let made = config.history.iter().filter(|entry| !entry.empty_layer);
    made.map(|entry| entry.created_by.clone().unwrap_or_default()).collect()
}

/// Takes what time it was out of a configuration, and the digests that depend on it.
fn without_times(config: &mut Value) {
    if let Some(config) = config.as_object_mut() {
        config.remove("created");
        config.remove("rootfs");
    }
    let history = config.get_mut("history").and_then(Value::as_array_mut);
    for entry in history.into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.remove("created");
    }
}

/// The first difference of two layers.
fn compare_trees(old: &Tree, new: &Tree, epoch: Option<i64>) -> Option<Difference> {
    let (mut old, mut new) = (old.entries().iter().peekable(), new.entries().iter().peekable());
    loop {
        let at = |path: &formwork_fs::RelPath, difference: Difference| {
            Some(Difference { path: Some(path.to_string()), ..difference })
        };
        let (there, missing) = ("there".to_owned(), "missing".to_owned());
        match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(one), None) => {
                return at(&one.path, Difference::of("file", there, missing));
            }
            (None, Some(other)) => {
                return at(&other.path, Difference::of("file", missing, there));
            }
            (Some(one), Some(other)) if one.path < other.path => {
                return at(&one.path, Difference::of("file", there, missing));
            }
            (Some(one), Some(other)) if one.path > other.path => {
                return at(&other.path, Difference::of("file", missing, there));
            }
            (Some(one), Some(other)) => {
                if let Some((field, old, new)) = compare_entries(one, other, epoch) {
                    return at(&one.path, Difference::of(field, old, new));
                }
            }
        }
        old.next();
        new.next();
    }
}

fn compare_entries(
    old: &Entry,
    new: &Entry,
    epoch: Option<i64>,
) -> Option<(&'static str, String, String)> {
    let kind = |node: &Node| match node {
        Node::File(_) => "file",
        Node::Directory { .. } => "directory",
        Node::Symlink { .. } => "symbolic link",
        Node::HardLink { .. } => "hard link",
        Node::CharDevice { .. } | Node::BlockDevice { .. } => "device",
        Node::Fifo => "pipe",
        Node::Whiteout => "deletion",
    };
    let (one, other) = (kind(&old.node), kind(&new.node));
    if one != other {
        return Some(("type", one.to_owned(), other.to_owned()));
    }
    if old.node != new.node {
        let show = |node: &Node| match node {
            Node::File(file) => {
                let hash: String = file.content.0.iter().map(|b| format!("{b:02x}")).collect();
                format!("{} bytes, BLAKE3 {}", file.size, hash.get(..16).unwrap_or_default())
            }
            Node::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
            other => format!("{other:?}"),
        };
        return Some(("content", show(&old.node), show(&new.node)));
    }
    let (one, other) = (&old.metadata, &new.metadata);
    let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
    if one.mode != other.mode {
        return Some(("mode", format!("{:o}", one.mode), format!("{:o}", other.mode)));
    }
    if (one.uid, one.gid) != (other.uid, other.gid) {
        return Some(("owner", owner(one.uid, one.gid), owner(other.uid, other.gid)));
    }
    if one.xattrs != other.xattrs {
        let names = |xattrs: &formwork_layer::tree::Xattrs| {
            let show = |(name, value): (&[u8], &[u8])| {
                format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            };
            xattrs.iter().map(show).collect::<Vec<_>>().join(" ")
        };
        return Some(("extended attributes", names(&one.xattrs), names(&other.xattrs)));
    }
    let epoch = epoch?;
    let time = |seconds: i64| seconds.min(epoch);
    let (one, other) = (time(one.mtime.seconds), time(other.mtime.seconds));
    (one != other).then(|| ("modification time", one.to_string(), other.to_string()))
}

/// The first difference of two documents, with the path to it.
fn compare_values(path: &str, old: &Value, new: &Value) -> Option<Difference> {
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match (old, new) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            let value = |map: &serde_json::Map<String, Value>, key: &str| {
                map.get(key).cloned().unwrap_or(Value::Null)
            };
            keys.into_iter()
                .find_map(|key| compare_values(&below(key), &value(one, key), &value(other, key)))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (one, other))| compare_values(&format!("{path}[{at}]"), one, other))
        }
        (old, new) if old == new => None,
        (old, new) => Some(Difference::of(path, old.to_string(), new.to_string())),
    }
}
