//! The cache elsewhere: records and layers that machines give each other through a directory, a
//! registry or a bucket (`--cache-to`, `--cache-from`).
//!
//! # The format, version 1
//!
//! A place has *blobs*, known by their digests, and *names*, each of which leads to one manifest. A
//! build exports a **bundle**: an OCI image manifest with the artifact type
//! `application/vnd.formwork.cache.v1`, an empty configuration (`{}`) and these layers:
//!
//! | media type | what |
//! |---|---|
//! | `application/vnd.formwork.cache.records.v1+zstd` | the first: a [`bundle::Records`] as JSON, packed with Zstandard |
//! | `application/vnd.formwork.cache.tree.v1+zstd` | the list of a layer's files, where that is too large to stand in the records |
//! | `application/vnd.oci.image.layer.v1.tar…` | packed layers, byte for byte those of the image; those of up to 2 KiB stand in the records |
//!
//! so that a registry's own garbage collection keeps whatever a bundle needs. A bundle holds the
//! records of all steps of its build. These names lead to bundles, `NAME` being the tag that the
//! user chose (`buildcache` without one):
//!
//! | name | leads to |
//! |---|---|
//! | `NAME.fw1-<first 40 digits of the key>` | the bundle in which the step of that cache key is, one name a key |
//! | `NAME` | the bundle that was exported last: a good guess that saves asking for each key |
//! | `NAME.fw1m-<first 40 digits of SHA-256 of the id>` | a cache mount: see [`mounts`] |
//!
//! Nobody reads a list, changes it and writes it back, which no registry does atomically: whoever
//! exports a step writes the name of its key, and two who write the same name mean the same step.
//! So branches and machines share one place and none loses what another one wrote. Only names that
//! are new (or older than a day, so that `formwork cache gc` sees that they are used) are written.
//!
//! An import reads `NAME` and its records: two requests for a whole build, however many steps it
//! has. For a key that is not among them its own name is asked for, and the bundle that it leads to
//! read. Layers are fetched when a step needs their files; the keys of the steps behind them, and
//! most copies, need the list of their files at most.
//!
//! In `mode=max` all layers of the build are in the bundle, in `mode=min` those of the image; the
//! records and lists of files of all other steps are there all the same, so that a build that
//! changes nothing in an earlier stage neither runs nor fetches it. Where it does, those stages run.
//!
//! In a directory the names are files in `formwork-cache-v1/names`, in a bucket objects below
//! `formwork-cache-v1/names/`; blobs are in `formwork-cache-v1/blobs/sha256`.
//!
//! # What is believed
//!
//! Whoever may write to a place may say what a step yields: that cannot be proven short of running
//! it. All else has to prove itself: see [`formwork_worker::ImportedLayer`]. What does not fit is
//! told once, dropped and built; so is what belongs to another format or version. A place that
//! fails or is slow is told once and not asked again.

mod bundle;
mod directory;
mod export;
mod gc;
mod import;
mod index;
mod inline;
mod mounts;
mod objects;
mod place;
mod upload;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use formwork_fs::map_in_parallel;
use formwork_layer::Compression;
use formwork_oci::Reference;
use formwork_registry::BucketConfig;

use crate::ErrorKind;

pub(crate) use export::{Export, export};
pub use gc::{Cleared, clear_cache};
pub(crate) use import::Imports;
pub(crate) use index::TravelIndex;
pub(crate) use inline::field as inline_field;
pub(crate) use mounts::{fill_mounts, send_mounts, used_mounts};
pub use mounts::{send_cache_mount, take_cache_mount};
pub(crate) use upload::Uploads;

/// How long a blob may take: whether it is small is not known, and its transport looks after a
/// connection that is silent.
const BLOB_TIME: Duration = Duration::from_secs(24 * 3600);

/// Where a cache lies that several machines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A directory, and the name of the cache in it.
    Directory(PathBuf, String),
    /// A repository of a registry; the tag is the name of the cache in it.
    Registry(Reference),
    /// A part of a bucket.
    Bucket(Box<BucketPlace>),
}

impl CachePlace {
    /// Whose failure it is if the place does not take something.
    fn kind_of_failure(&self) -> ErrorKind {
        match self {
            Self::Directory(..) => ErrorKind::Machine,
            Self::Registry(_) | Self::Bucket(_) => ErrorKind::Registry,
        }
    }
}

/// A part of a bucket of S3 or of what speaks like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    /// The bucket.
    pub bucket: BucketConfig,
    /// What all names of objects begin with.
    pub prefix: String,
    /// What comes after that in the names of blobs.
    pub blobs_prefix: String,
    /// What comes after that in the names of manifests.
    pub manifests_prefix: String,
    /// How old an object may be before it is made new again when it is wanted.
    pub refresh_after: Duration,
    /// What the cache is called.
    pub name: String,
}

/// A cache to look for steps in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFrom {
    /// Where.
    pub place: CachePlace,
    /// How long the build waits for its answers, all together. Layers that a step needs are not
    /// counted.
    pub timeout: Duration,
}

/// A cache that gets the steps of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// Where.
    pub place: CachePlace,
    /// Which layers go there.
    pub mode: CacheMode,
    /// How they are packed; as the image is, if nothing is said.
    pub compression: Option<Compression>,
    /// Whether the build succeeds if they cannot be sent.
    pub ignore_error: bool,
    /// How long that may take when the build is done.
    pub timeout: Duration,
}

/// Which layers go to a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the image.
    #[default]
    Min,
    /// Those of all steps.
    Max,
}

impl BucketPlace {
    /// How old an object may be if nothing is said, as with BuildKit.
    pub const REFRESH_AFTER: Duration = Duration::from_secs(24 * 3600);
}

impl CacheFrom {
    /// How long a build waits for a cache if nothing is said.
    pub const TIMEOUT: Duration = Duration::from_secs(60);
}

impl CacheTo {
    /// How long an export may take if nothing is said: as long as with BuildKit.
    pub const TIMEOUT: Duration = Duration::from_secs(600);
}

/// How many requests there are at the same time.
const PARALLEL: usize = 16;

/// Does something for all items, several at a time; the first failure ends it.
fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), place::PlaceError> + Sync,
) -> Result<(), place::PlaceError> {
    map_in_parallel(items, PARALLEL, work).map(drop)
}
