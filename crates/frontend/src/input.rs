//! What goes into the frontend beside the Dockerfile.

use std::collections::{BTreeMap, BTreeSet};

use formwork_diagnostics::{SourceFile, Span};
use formwork_graph::Network;
use formwork_oci::{Digest, ImageConfig, Platform};

use crate::ImageLocation;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The stage to build; the last one where there is none.
    pub target: Option<String>,
    /// Values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// Labels for the resulting image.
    pub labels: BTreeMap<String, String>,
    /// Other sources of files and images, which come before stages and images of the same name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What the result runs on.
    pub target_platform: Platform,
    /// What the build runs on.
    pub build_platform: Platform,
    /// Whether the steps of several platforms are shown side by side, so that each has to tell its
    /// own.
    pub several_platforms: bool,
    /// Whether no earlier result must be used.
    pub no_cache: bool,
    /// Whose own earlier results must not be used: stages by name or number, steps as `STAGE:STEP` or
    /// `:LINE`, and steps that use a cache mount as `mount=ID`.
    pub no_cache_filter: BTreeSet<String>,
    /// Whether stages that the target does not need are lowered, too: for those who only check.
    pub all_stages: bool,
    /// What a RUN may ask for that breaks its confinement.
    pub allowed: Allowed,
    /// The network of each RUN that names none.
    pub network: Network,
}

impl Options {
    /// What is asked for where nothing is said: the last stage, with all that was kept.
    pub fn new(target_platform: Platform, build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            contexts: BTreeMap::new(),
            target_platform,
            build_platform,
            several_platforms: false,
            no_cache: false,
            no_cache_filter: BTreeSet::new(),
            all_stages: false,
            allowed: Allowed::default(),
            network: Network::Default,
        }
    }
}

/// What a RUN may ask for that breaks its confinement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The machine's network (`--network=host`).
    pub host_network: bool,
    /// All power within its namespaces (`--security=insecure`).
    pub insecure: bool,
}

/// A source that has a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the user's.
    Directory,
    /// An image.
    Image(ImageLocation),
}

/// An image on a platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey {
    /// Where it is to be found.
    pub location: ImageLocation,
    /// What it must run on.
    pub platform: Platform,
}

/// An image that a build needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The image.
    pub key: ImageKey,
    /// Where the Dockerfile names it.
    pub place: (SourceFile, Span),
    /// A stage that is spelled like it, in case there is no such image.
    pub nearest_stage: Option<String>,
}

/// What is known about an image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The digest of its manifest, or whatever else identifies it to the one who found it.
    pub manifest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// The images that were found.
pub type ResolvedImages = BTreeMap<ImageKey, ResolvedImage>;
