//! A cache in a bucket of S3 or of what speaks like it. Each name and each blob is an object, which
//! appears as a whole or not at all.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use formwork_oci::{Descriptor, Digest};
use formwork_registry::{Bucket, DownloadError, OpenObject};

use super::export::open_bytes;
use super::place::{MANIFEST_LIMIT, PlaceError};
use super::{BucketPlace, in_parallel};
use crate::host::Registries;

/// The beginning of all names, with the version of the format.
const ROOT: &str = "formwork-cache-v1/";

/// How long ago a transfer in parts must have begun for nobody to be at it any more, in seconds.
const ABANDONED: i64 = 24 * 3600;

/// A cache in a bucket.
#[derive(Debug)]
pub(crate) struct Objects {
    registries: Arc<Registries>,
    place: BucketPlace,
}

impl From<DownloadError> for PlaceError {
    fn from(error: DownloadError) -> Self {
        Self::new(error.to_string())
    }
}

impl Objects {
    pub(crate) fn new(registries: &Arc<Registries>, place: &BucketPlace) -> Self {
        Self { registries: Arc::clone(registries), place: place.clone() }
    }

    fn bucket(&self) -> Result<Bucket<'_>, PlaceError> {
        Ok(self.registries.client()?.bucket(&self.place.bucket))
    }

    fn name(&self, name: &str) -> String {
        let BucketPlace { prefix, manifests_prefix, .. } = &self.place;
        format!("{prefix}{manifests_prefix}{ROOT}names/{name}")
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}{}", self.blobs(), digest.as_str().replacen(':', "/", 1))
    }

    /// What the names of all blobs begin with.
    fn blobs(&self) -> String {
        let BucketPlace { prefix, blobs_prefix, .. } = &self.place;
        format!("{prefix}{blobs_prefix}{ROOT}blobs/")
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, PlaceError> {
        let mut bytes = Vec::new();
        let name = self.name(name);
        let is_there = self.bucket()?.read(&name, MANIFEST_LIMIT + 1, &mut bytes, &|_| {})?;
        match bytes.len() as u64 > MANIFEST_LIMIT {
            true => Err(PlaceError::new(format!("{name} is too large"))),
            false => Ok(is_there.then_some(bytes)),
        }
    }

    pub(crate) fn write(&self, name: &str, manifest: &[u8]) -> Result<(), PlaceError> {
        let open = |from| open_bytes(manifest, from);
        let (digest, size) = (Digest::of(manifest), manifest.len() as u64);
        Ok(self.bucket()?.write(&self.name(name), &digest, size, &open, &|_| {})?)
    }

    pub(crate) fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), PlaceError> {
        let key = self.blob(&blob.digest);
        match self.bucket()?.read(&key, blob.size, sink, progress)? {
            true => Ok(()),
            false => Err(PlaceError::new(format!("there is no {key}"))),
        }
    }

    /// Whether a blob is there, which is then as good as new: whoever cleans up spares what was
    /// wanted just now.
    pub(crate) fn has(&self, blob: &Descriptor) -> Result<bool, PlaceError> {
        let (bucket, key) = (self.bucket()?, self.blob(&blob.digest));
        let Some((size, modified)) = bucket.look(&key)? else { return Ok(false) };
        let age = jiff::Timestamp::now().as_second().saturating_sub(modified);
        let is_old = u64::try_from(age).is_ok_and(|age| age > self.place.refresh_after.as_secs());
        if size == blob.size && is_old {
            bucket.refresh(&key, size)?;
        }
        Ok(size == blob.size)
    }

    pub(crate) fn put(
        &self,
        blob: &Descriptor,
        open: &OpenObject<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, PlaceError> {
        if self.has(blob)? {
            return Ok(false);
        }
        let key = self.blob(&blob.digest);
        self.bucket()?.write(&key, &blob.digest, blob.size, open, progress)?;
        Ok(true)
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, PlaceError> {
        let prefix = self.name("");
        let objects = self.bucket()?.list(&prefix)?;
        let name = |key: &str| key.strip_prefix(&prefix).map(str::to_owned);
        Ok(objects.iter().filter_map(|object| name(&object.key)).collect())
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), PlaceError> {
        Ok(self.bucket()?.remove(&self.name(name))?)
    }

    pub(crate) fn sweep(
        &self,
        needed: &BTreeSet<Digest>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<u64, PlaceError> {
        let needed: BTreeSet<String> = needed.iter().map(|digest| self.blob(digest)).collect();
        let bucket = self.bucket()?;
        let mut objects = bucket.list(&self.blobs())?;
        let now = jiff::Timestamp::now().as_second();
        let oldest = now.saturating_sub(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
        objects.retain(|object| !needed.contains(&object.key) && object.modified <= oldest);
        if !dry_run {
            in_parallel(&objects, |object| Ok(bucket.remove(&object.key)?))?;
            let own = self.blobs();
            let mut unfinished = bucket.unfinished(&own)?;
            let is_abandoned = |begun| begun <= oldest.min(now - ABANDONED);
            // Not every service knows that it was asked for some only.
            unfinished.retain(|one| one.key.starts_with(&own) && is_abandoned(one.begun));
            in_parallel(&unfinished, |one| Ok(bucket.abort(&one.key, &one.upload)?))?;
        }
        Ok(objects.iter().map(|object| object.size).sum())
    }
}
