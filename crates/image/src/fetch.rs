//! Blobs that are fetched from registries when somebody needs them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Write};

use formwork_content::{Blob, ContentStore, StagedBlob};
use formwork_oci::{Descriptor, Digest, Repository};
use formwork_registry::RegistryClient;

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

/// Fetches a blob into the content store unless it is there.
///
/// `progress` is told how many bytes have come so far, and says whether more are wanted.
///
/// # Errors
///
/// Fails where the registry does not give the blob, all of it and no other, or the store cannot be
/// written; the store is then as it was.
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
    let mut sink = Stoppable { staged: content.stage()?, is_wanted: &is_wanted };
    // The client answers for the digest.
    client.blob(repository, descriptor, &mut sink, &|done| is_wanted.set(progress(done)))?;
    Ok(sink.staged.commit_hashed(descriptor.digest.clone())?)
}

/// Takes bytes as long as they are wanted.
struct Stoppable<'a> {
    staged: StagedBlob,
    is_wanted: &'a Cell<bool>,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_wanted.get() {
            return Err(io::Error::other("stopped"));
        }
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
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

    fn is_trusted(&self) -> bool {
        self.content.is_trusted()
    }
}
