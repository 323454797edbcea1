//! What an image of the store was made from, so that it can be made once more.
//!
//! A recipe names its inputs: files of contexts by their directories, base images by their digests.
//! It holds no secret: neither their values nor what build arguments say of proxies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use formwork_diagnostics::SourceFile;
use formwork_frontend::{
    Allowed, ImageLocation, MAIN_CONTEXT, NamedContext, Options, is_proxy_arg,
};
use formwork_graph::Network;
use formwork_image::StoredImage;
use formwork_oci::{Digest, Platform, from_json, to_json};
use serde::{Deserialize, Serialize};

use crate::resolve::Images;
use crate::{BuildError, BuildRequest, ContextSpec, Host};

/// The largest recipe that is read.
const LIMIT: u64 = 16 << 20;
/// The version of the form that is written.
const VERSION: u32 = 1;

/// What an image was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    version: u32,
    /// The Dockerfile.
    pub dockerfile: Text,
    /// The directories that files came from, by their names.
    pub contexts: BTreeMap<String, Directory>,
    /// The contexts that are images, by their names.
    pub images_as_contexts: BTreeMap<String, String>,
    /// The stage.
    pub target: Option<String>,
    /// The values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// The labels that were given.
    pub labels: BTreeMap<String, String>,
    /// The platforms; one for an image without an index.
    pub platforms: Vec<Platform>,
    /// The time that everything is said to be made at, in seconds since 1970.
    pub epoch: Option<i64>,
    /// The images that the Dockerfile names, as they were then.
    pub images: Vec<NamedImage>,
    /// Whether steps had no network.
    pub offline: bool,
    /// Whether steps might use the machine's network as it is, and have all power.
    pub allowed: (bool, bool),
}

/// A text with the name that messages call it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The name.
    pub name: String,
    /// The text.
    pub text: String,
}

/// A directory with files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is; `None` for one that was only there for the build.
    pub path: Option<PathBuf>,
    /// What is left out of it.
    pub ignore: Option<Text>,
}

/// An image that the Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// Its name.
    pub name: String,
    /// For which platform.
    pub platform: Platform,
    /// Its manifest, or its configuration where it was never packed.
    pub digest: Digest,
}

impl Recipe {
    /// What a request and the images that it led to say.
    pub(crate) fn of(host: &Host, request: &BuildRequest, images: &Images) -> Self {
        let options = &request.options;
        let text = |source: &SourceFile| Text {
            name: source.name().to_owned(),
            text: source.text().to_owned(),
        };
        let is_kept =
            |path: &PathBuf| host.layout.scratch().is_ok_and(|scratch| !path.starts_with(scratch));
        let contexts = request.contexts.iter().map(|(name, context)| {
            let path = fs_err::canonicalize(&context.directory).ok().filter(is_kept);
            let path = path.filter(|path| path.to_str().is_some());
            (name.clone(), Directory { path, ignore: context.ignore.as_ref().map(text) })
        });
        let as_contexts = options.contexts.iter().filter_map(|(name, context)| match context {
            NamedContext::Image(location) => Some((name.clone(), location.to_string())),
            NamedContext::Directory => None,
        });
        let named = images.resolved.iter().filter_map(|(key, image)| match &key.location {
            ImageLocation::Named(_) => Some(NamedImage {
                name: key.location.to_string(),
                platform: key.platform.clone(),
                digest: image.manifest.clone(),
            }),
            _ => None,
        });
        let several = request.is_for_several();
        let one = || vec![options.target_platform.clone()];
        Self {
            version: VERSION,
            dockerfile: text(&request.dockerfile),
            contexts: contexts.collect(),
            images_as_contexts: as_contexts.collect(),
            target: options.target.clone(),
            build_args: options
                .build_args
                .iter()
                .filter(|(name, _)| !is_proxy_arg(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            labels: options.labels.clone(),
            platforms: if several { request.platforms.clone() } else { one() },
            epoch: request.epoch,
            images: named.collect(),
            offline: options.network == Network::None,
            allowed: (options.allowed.host_network, options.allowed.insecure),
        }
    }

    /// Keeps the recipe as a blob of the store.
    pub(crate) fn keep(&self, host: &Host) -> Result<Digest, BuildError> {
        let bytes = to_json(self);
        host.layers.content().insert(&bytes).map_err(BuildError::store)?;
        Ok(Digest::of(&bytes))
    }

    /// The recipe of an image of the store; `None` where nobody wrote one down.
    ///
    /// # Errors
    ///
    /// Fails where it is lost or damaged.
    pub fn of_image(host: &Host, image: &StoredImage) -> Result<Option<Self>, BuildError> {
        let Some(digest) = &image.recipe else { return Ok(None) };
        let bytes = host.layers.content().read(digest, LIMIT).map_err(BuildError::store)?;
        let recipe: Self = from_json("recipe of an image", &bytes).map_err(BuildError::store)?;
        match recipe.version {
            VERSION => Ok(Some(recipe)),
            other => Err(BuildError::input_error(format!(
                "the recipe of `{}` has version {other}, written by another formwork",
                image.title()
            ))),
        }
    }

    /// What the frontend is asked for once more.
    pub(crate) fn options(&self) -> Result<Options, BuildError> {
        let mut contexts = BTreeMap::new();
        for (name, location) in &self.images_as_contexts {
            let location = location.parse().map_err(BuildError::input_error)?;
            contexts.insert(name.clone(), NamedContext::Image(location));
        }
        for name in self.contexts.keys().filter(|name| *name != MAIN_CONTEXT) {
            contexts.insert(name.clone(), NamedContext::Directory);
        }
        let first = self.platforms.first().cloned();
        let platform = first.unwrap_or_else(Platform::host);
        Ok(Options {
            target: self.target.clone(),
            build_args: self.build_args.clone(),
            labels: self.labels.clone(),
            contexts,
            allowed: Allowed { host_network: self.allowed.0, insecure: self.allowed.1 },
            network: if self.offline { Network::None } else { Network::Default },
            ..Options::new(platform, Platform::host())
        })
    }

    /// The directories that files come from once more.
    pub(crate) fn directories(&self) -> Result<BTreeMap<String, ContextSpec>, BuildError> {
        let mut directories = BTreeMap::new();
        for (name, Directory { path, ignore }) in &self.contexts {
            let gone = |why: &str| {
                BuildError::input_error(format!(
                    "the image cannot be built again: its build context `{name}` {why}"
                ))
            };
            let Some(path) = path else {
                return Err(gone("was only there for the build (standard input, a web server)"));
            };
            if !path.is_dir() {
                return Err(gone(&format!("is not there any more: {}", path.display())));
            }
            let ignore = ignore.as_ref().map(|text| SourceFile::new(&*text.name, &*text.text));
            directories.insert(
                name.clone(),
                ContextSpec { directory: path.clone(), ignore, stands_for: None },
            );
        }
        Ok(directories)
    }
}
