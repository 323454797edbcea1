//! What is to be built, and where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use formwork_diagnostics::SourceFile;
use formwork_frontend::Options;
use formwork_layer::Compression;
use formwork_oci::{Annotations, Platform, Reference};
use formwork_remote::{GitConfig, Material};
use formwork_worker::{HostTrust, Secrets, StepWorld};

use crate::{CacheFrom, CacheTo, Engine, Limits, Provenance};

/// What is to be built.
#[derive(Debug)]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: SourceFile,
    /// What the user asks of it.
    pub options: Options,
    /// The platforms of an image for several, with that of the options among them; empty for an
    /// image for one.
    pub platforms: Vec<Platform>,
    /// The directories that files come from, by their names; the main one is called
    /// [`formwork_frontend::MAIN_CONTEXT`].
    pub contexts: BTreeMap<String, ContextSpec>,
    /// What contexts and the Dockerfile were made of, as far as they came from elsewhere.
    pub materials: Vec<Material>,
    /// Which of that has the Dockerfile.
    pub dockerfile_from: Option<Material>,
    /// When registries are asked for images that are named.
    pub pull: PullPolicy,
    /// How many processes may run at the same time.
    pub jobs: usize,
    /// Secrets for RUN.
    pub secrets: Secrets,
    /// The sockets of SSH agents for RUN, by their names.
    pub agents: BTreeMap<String, PathBuf>,
    /// What git needs of the machine.
    pub git: GitConfig,
    /// What of the host reaches RUN.
    pub trust: HostTrust,
    /// What the user asks of the world of RUN.
    pub world: StepWorld,
    /// The names that the result gets.
    pub tags: Vec<Reference>,
    /// Where the result goes.
    pub outputs: Vec<Output>,
    /// The names that the outputs have of their own, in their order; one without any has those of
    /// the result.
    pub output_names: Vec<Vec<Reference>>,
    /// What is said about the result beside it.
    pub provenance: Option<Provenance>,
    /// The caches elsewhere in which steps are looked for, in this order.
    pub cache_from: Vec<CacheFrom>,
    /// The caches elsewhere that get the steps.
    pub cache_to: Vec<CacheTo>,
    /// Whether the records of the image's steps go into the image itself.
    pub inline_cache: bool,
    /// The places from which empty cache mounts are filled.
    pub mounts_from: Vec<CacheFrom>,
    /// The places that get the cache mounts.
    pub mounts_to: Vec<CacheTo>,
    /// How much space the store may take, and how much stays free.
    pub limits: Limits,
    /// The time that everything is said to be made at, in seconds since 1970, and beyond which no
    /// modification time lies (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
}

/// When a registry is asked for an image that is named. One by its digest never changes, so it is
/// asked for only where it is missing, whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where the store does not have it.
    #[default]
    Missing,
    /// Every time.
    Always,
    /// Every time; where that fails, the one in the store will do.
    Newer,
    /// Never: what is missing is an error.
    Never,
}

/// A directory that files come from.
#[derive(Clone, Debug)]
pub struct ContextSpec {
    /// The directory.
    pub directory: PathBuf,
    /// The file that says what is left out of it.
    pub ignore: Option<SourceFile>,
    /// What it stands for, if it was put there for one build only: an address, or standard input.
    pub stands_for: Option<String>,
}

/// Where a result goes, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Into the local store.
    Store(StoreOptions),
    /// To the registries that the names lead to.
    Push {
        /// How the image is packed.
        form: ImageForm,
        /// Whether it is known there by its digest alone, without the names' tags.
        by_digest: bool,
        /// Whether the registries' certificates are not verified, nor TLS demanded.
        insecure: bool,
    },
    /// Into an archive, as an OCI image layout or as docker loads it.
    Archive {
        /// Whether docker must be able to load it.
        docker: bool,
        /// Where to.
        destination: Destination,
        /// How the image is packed.
        form: ImageForm,
    },
    /// Into a directory, as an OCI image layout or as docker loads it.
    Layout {
        /// Whether the media types are docker's.
        docker: bool,
        /// The directory.
        directory: PathBuf,
        /// How the image is packed.
        form: ImageForm,
    },
    /// Into a container engine on this machine.
    Load {
        /// The engine.
        engine: Engine,
        /// How the image is packed.
        form: ImageForm,
    },
    /// The files into a directory, owned by the user.
    Files {
        /// The directory.
        directory: PathBuf,
        /// Whether each platform has a directory of its own in there; if nothing is said, those
        /// of several platforms have.
        split: Option<bool>,
        /// Whether what was in the directory goes.
        delete: bool,
    },
    /// The files into a tar archive.
    Tar {
        /// Where to.
        destination: Destination,
        /// As for [`Output::Files`].
        split: Option<bool>,
    },
}

/// How the local store keeps a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// How the image is packed; it is not, as long as nobody needs that, if nothing is said.
    pub form: Option<ImageForm>,
    /// Whether the base image's layers are unpacked, too, as `formwork run` needs them.
    pub unpack: bool,
    /// Whether the image is known by `NAME@DIGEST`, too.
    pub canonical: bool,
    /// What the image is called before `@` and its digest.
    pub dangling_prefix: Option<String>,
    /// Whether that is only for an image without another name.
    pub dangling_only: bool,
}

/// How an image is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageForm {
    /// How new layers are compressed.
    pub compression: Compression,
    /// Whether layers of base images are compressed likewise, in place of how they are.
    pub force_compression: bool,
    /// Whether the media types are docker's, of which there is none for zstd.
    pub docker_types: bool,
    /// The annotations, which docker's media types have not.
    pub annotations: Vec<Annotation>,
}

/// How layers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) compression: Compression,
    /// Whether that holds for layers of base images, too.
    pub(crate) force: bool,
}

/// An annotation of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated.
    pub place: AnnotationPlace,
    /// The platform whose image is meant; all where none is given.
    pub platform: Option<Platform>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What an annotation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// The manifest of an image.
    Manifest,
    /// What an index says about the manifest.
    ManifestDescriptor,
    /// The index.
    Index,
    /// What the list of images of a layout says about the index.
    IndexDescriptor,
}

impl ImageForm {
    /// How layers are packed.
    pub(crate) fn packing(&self) -> Packing {
        Packing { compression: self.compression, force: self.force_compression }
    }

    /// The annotations of a place, for the image of a platform where the place belongs to one.
    pub(crate) fn annotations_of(
        &self,
        place: AnnotationPlace,
        platform: Option<&Platform>,
    ) -> Annotations {
        annotations_of(&self.annotations, place, platform)
    }
}

/// Those of some annotations that belong to a place, for the image of a platform where the place
/// belongs to one.
pub(crate) fn annotations_of(
    annotations: &[Annotation],
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> Annotations {
    let is_meant = |annotation: &&Annotation| {
        let wanted = annotation.platform.as_ref();
        annotation.place == place && (wanted.is_none() || wanted == platform)
    };
    let pair = |annotation: &Annotation| (annotation.name.clone(), annotation.value.clone());
    annotations.iter().filter(is_meant).map(pair).collect()
}

impl BuildRequest {
    /// Whether the result is an index of images.
    pub(crate) fn is_for_several(&self) -> bool {
        self.platforms.len() > 1
    }

    /// All names that the result gets anywhere, each once.
    pub(crate) fn all_names(&self) -> Vec<Reference> {
        let mut all: Vec<Reference> = Vec::new();
        for name in self.tags.iter().chain(self.output_names.iter().flatten()) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// What the user asks for, for each platform.
    pub(crate) fn options_by_platform(&self) -> Vec<Options> {
        if !self.is_for_several() {
            return vec![self.options.clone()];
        }
        let options = |platform: &Platform| Options {
            target_platform: platform.clone(),
            several_platforms: true,
            ..self.options.clone()
        };
        self.platforms.iter().map(options).collect()
    }
}

/// A file, or standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl Output {
    /// How the image is packed, if the result has packed layers.
    pub(crate) fn form(&self) -> Option<&ImageForm> {
        match self {
            Self::Push { form, .. }
            | Self::Archive { form, .. }
            | Self::Layout { form, .. }
            | Self::Load { form, .. } => Some(form),
            Self::Store(options) => options.form.as_ref(),
            Self::Files { .. } | Self::Tar { .. } => None,
        }
    }
}
