//! Places that a cache can lie in, as far as a cache needs them: names and blobs.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use formwork_cache::CacheKey;
use formwork_oci::{Descriptor, Digest, MediaType, Reference, Repository};
use formwork_registry::{BlobPush, OpenObject, RegistryError};

use super::CachePlace;
use super::directory::Directory;
use super::objects::Objects;
use crate::Host;
use crate::host::Registries;

/// The tag where the user has chosen none.
pub(crate) const DEFAULT_NAME: &str = "buildcache";
/// How many digits of a key are in a name.
const KEY_DIGITS: usize = 40;
/// The largest manifest that is read; registries promise to take as much.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// A place that a cache lies in.
#[derive(Debug)]
pub(crate) struct Place {
    kind: Kind,
    /// What the cache is called in it.
    name: String,
    title: String,
}

#[derive(Debug)]
enum Kind {
    Directory(Directory),
    Registry { registries: Arc<Registries>, repository: Repository },
    Bucket(Box<Objects>),
}

/// Why a place does not do what it should, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PlaceError(String);

impl PlaceError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl From<RegistryError> for PlaceError {
    fn from(error: RegistryError) -> Self {
        Self(error.to_string())
    }
}

impl From<formwork_fs::FsError> for PlaceError {
    fn from(error: formwork_fs::FsError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for PlaceError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Place {
    pub(crate) fn open(host: &Host, place: &CachePlace) -> Self {
        match place {
            CachePlace::Directory(path, name) => Self {
                kind: Kind::Directory(Directory::new(path)),
                name: name.clone(),
                title: path.display().to_string(),
            },
            CachePlace::Registry(reference) => {
                let repository = reference.repository().clone();
                let registries = Arc::clone(&host.registries);
                Self {
                    kind: Kind::Registry { registries, repository },
                    name: reference.tag().unwrap_or(DEFAULT_NAME).to_owned(),
                    title: reference.familiar(),
                }
            }
            CachePlace::Bucket(bucket) => Self {
                kind: Kind::Bucket(Box::new(Objects::new(&host.registries, bucket))),
                name: bucket.name.clone(),
                title: format!("s3://{}/{}", bucket.bucket.bucket, bucket.prefix),
            },
        }
    }

    /// What the place is called in messages.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The name of the bundle that was exported last.
    pub(crate) fn head(&self) -> &str {
        &self.name
    }

    /// The name of the bundle with the step of a key.
    pub(crate) fn name_of(&self, key: &CacheKey) -> String {
        format!("{}.fw1-{}", self.name, &key.to_string()[..KEY_DIGITS])
    }

    /// The name of the manifest of a cache mount.
    pub(crate) fn name_of_mount(&self, id: &str) -> String {
        format!("{}.fw1m-{}", self.name, &Digest::of(id.as_bytes()).hex()[..KEY_DIGITS])
    }

    /// The manifest under a name, if there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.read(name),
            Kind::Directory(directory) => directory.read(name),
            Kind::Registry { registries, repository } => {
                match registries.client()?.document(&tagged(repository, name)?) {
                    Ok(document) => Ok(Some(document.bytes)),
                    Err(RegistryError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// The manifest of a digest, in a registry, where images may be.
    pub(crate) fn read_manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>, PlaceError> {
        match &self.kind {
            Kind::Directory(_) | Kind::Bucket(_) => Ok(None),
            Kind::Registry { registries, repository } => {
                Ok(Some(registries.client()?.manifest(repository, digest)?.bytes))
            }
        }
    }

    /// The name to look under if there is nothing under that of the cache: that of an image, where
    /// the user has chosen none.
    pub(crate) fn image(&self) -> Option<&'static str> {
        let is_image = matches!(self.kind, Kind::Registry { .. }) && self.name == DEFAULT_NAME;
        is_image.then_some("latest")
    }

    /// Puts a manifest under a name, in place of what was there.
    pub(crate) fn write(&self, name: &str, manifest: &[u8]) -> Result<(), PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.write(name, manifest),
            Kind::Directory(directory) => directory.write(name, manifest),
            Kind::Registry { registries, repository } => {
                let name = tagged(repository, name)?;
                registries.client()?.put_manifest(&name, &MediaType::OciManifest, manifest)?;
                Ok(())
            }
        }
    }

    /// Writes the bytes of a blob into a sink, which must verify them, and never more than the
    /// descriptor says; `progress` is told how many there are so far.
    pub(crate) fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.fetch(blob, sink, progress),
            Kind::Directory(directory) => directory.fetch(blob, sink, progress),
            Kind::Registry { registries, repository } => {
                Ok(registries.client()?.blob(repository, blob, sink, progress)?)
            }
        }
    }

    /// Whether a blob is there.
    pub(crate) fn has(&self, blob: &Descriptor) -> Result<bool, PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.has(blob),
            Kind::Directory(directory) => Ok(directory.has(blob)),
            Kind::Registry { registries, repository } => {
                Ok(registries.client()?.blob_exists(repository, &blob.digest)?)
            }
        }
    }

    /// Sends a blob, unless it is there; whether it was sent. `open` gives its bytes from a position
    /// on.
    pub(crate) fn put(
        &self,
        blob: &Descriptor,
        open: &OpenObject<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, PlaceError> {
        let whole = || open(0);
        match &self.kind {
            Kind::Bucket(objects) => objects.put(blob, open, progress),
            Kind::Directory(directory) => directory.put(blob, &whole, progress),
            Kind::Registry { registries, repository } => {
                let sent = registries.client()?.push_blob(repository, blob, &whole, progress)?;
                Ok(sent == BlobPush::Sent)
            }
        }
    }

    /// The names of this cache and, where blobs are shared with them, of all others.
    pub(crate) fn names(&self) -> Result<Vec<String>, PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.names(),
            Kind::Directory(directory) => directory.names(),
            Kind::Registry { registries, repository } => {
                let mut tags = registries.client()?.tags(repository)?;
                tags.retain(|tag| self.is_own(tag));
                Ok(tags)
            }
        }
    }

    /// Whether a name is one of this cache.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.name);
        let is_ours = |rest: &str| rest.starts_with(".fw1-") || rest.starts_with(".fw1m-");
        rest.is_some_and(|rest| rest.is_empty() || is_ours(rest))
    }

    /// Removes a manifest with its names.
    pub(crate) fn remove(&self, digest: &Digest, names: &[String]) -> Result<(), PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => names.iter().try_for_each(|name| objects.remove(name)),
            Kind::Directory(directory) => names.iter().try_for_each(|name| directory.remove(name)),
            Kind::Registry { registries, repository } => {
                match registries.client()?.delete_manifest(repository, digest) {
                    Err(RegistryError::Status { answer, .. }) if answer.status == 405 => {
                        Err(PlaceError::new(
                            "the registry lets nobody remove anything (CNCF Distribution does with \
                             `storage: {delete: {enabled: true}}`)",
                        ))
                    }
                    result => Ok(result.map(drop)?),
                }
            }
        }
    }

    /// Removes blobs that nobody needs; how many bytes they have, or `None` where the place sees to
    /// that itself.
    pub(crate) fn sweep(
        &self,
        needed: &BTreeSet<Digest>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<Option<u64>, PlaceError> {
        match &self.kind {
            Kind::Bucket(objects) => objects.sweep(needed, grace, dry_run).map(Some),
            Kind::Directory(directory) => directory.sweep(needed, grace, dry_run).map(Some),
            Kind::Registry { .. } => Ok(None),
        }
    }

    /// Whether two places are the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.title == other.title && self.name == other.name
    }
}

fn tagged(repository: &Repository, tag: &str) -> Result<Reference, PlaceError> {
    format!("{repository}:{tag}")
        .parse()
        .map_err(|error| PlaceError::new(format!("the name `{tag}` cannot be a tag: {error}")))
}

/// The digest of a manifest.
pub(crate) fn digest_of(manifest: &[u8]) -> Digest {
    Digest::of(manifest)
}
