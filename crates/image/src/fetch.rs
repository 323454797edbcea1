//! Blobs that are fetched from registries when somebody needs them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Write};

use formwork_content::{Blob, ContentStore, PartialBlob};
use formwork_oci::{Descriptor, Digest, Repository};
use formwork_registry::{RegistryClient, RegistryError};

use crate::{BlobBytes, BlobSource, ImageError};

/// The content store, completed from registries: a blob that is missing is fetched when it is
/// opened, and stays.
#[derive(Clone, Debug)]
pub struct FetchedBlobs {
    /// The client for all registries.
    pub client: RegistryClient,
    /// Where the blobs are, and where they come.
    pub content: ContentStore,
    /// The repositories that have blobs, by the blobs' digests.
    pub origins: BTreeMap<Digest, Repository>,
}

/// Fetches a blob into the content store unless it is there; what an earlier process was stopped at
/// is gone on with.
///
/// `progress` is told how many bytes have come so far, and says whether more are wanted.
///
/// # Errors
///
/// Fails where the registry does not give the blob, all of it and no other, or the store cannot be
/// written; the store has no part of it among its blobs then.
pub fn fetch(
    client: &RegistryClient,
    repository: &Repository,
    descriptor: &Descriptor,
    content: &ContentStore,
    progress: &dyn Fn(u64) -> bool,
) -> Result<Blob, ImageError> {
    if let Some(blob) = content.find(descriptor)? {
        return Ok(blob);
    }
    let is_wanted = Cell::new(true);
    let progress = |done| is_wanted.set(progress(done));
    let wanted = Wanted { client, repository, descriptor, progress: &progress };
    if let Some(partial) = content.resume(&descriptor.digest)? {
        return wanted.rest(partial, &is_wanted);
    }
    let mut staged = content.stage()?;
    let mut sink = Stoppable { sink: &mut staged, is_wanted: &is_wanted };
    // The client answers for the digest.
    client.blob(repository, descriptor, &mut sink, &progress)?;
    Ok(staged.commit_hashed(descriptor.digest.clone())?)
}

/// A blob that somebody wants.
struct Wanted<'a> {
    client: &'a RegistryClient,
    repository: &'a Repository,
    descriptor: &'a Descriptor,
    progress: &'a dyn Fn(u64),
}

impl Wanted<'_> {
    /// Fetches what an earlier process has not. What it has may be damaged: then all is fetched.
    fn rest(&self, mut partial: PartialBlob, is_wanted: &Cell<bool>) -> Result<Blob, ImageError> {
        let Self { client, repository, descriptor, progress } = self;
        if partial.size() > descriptor.size {
            partial.clear()?;
        }
        loop {
            let is_whole = partial.size() == 0;
            let mut beginning = partial.reader()?;
            let mut sink = Stoppable { sink: &mut partial, is_wanted };
            let fetched =
                client.rest_of_blob(repository, descriptor, &mut beginning, &mut sink, progress);
            match fetched {
                Ok(()) => return Ok(partial.commit_hashed(descriptor.digest.clone())?),
                Err(RegistryError::Invalid { .. }) if !is_whole => partial.clear()?,
                Err(error) => {
                    let is_of_use = match &error {
                        RegistryError::Invalid { .. } => false,
                        // There is no room for it, unless somebody asked to stop.
                        RegistryError::Local { .. } => !is_wanted.get(),
                        _ => true,
                    };
                    if !is_of_use {
                        partial.discard();
                    }
                    return Err(error.into());
                }
            }
        }
    }
}

/// Takes bytes as long as they are wanted.
struct Stoppable<'a, W> {
    sink: &'a mut W,
    is_wanted: &'a Cell<bool>,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_wanted.get() {
            return Err(io::Error::other("stopped"));
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl BlobSource for FetchedBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        if let Some(repository) = self.origins.get(&descriptor.digest) {
            fetch(&self.client, repository, descriptor, &self.content, &|_| true)?;
        }
        self.content.open(descriptor)
    }

    fn place(&self) -> String {
        self.content.place()
    }

    fn is_trusted(&self, digest: &Digest) -> bool {
        self.content.is_trusted(digest)
    }
}
