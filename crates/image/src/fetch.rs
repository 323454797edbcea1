//! Blobs that are fetched from registries when somebody needs them.

use std::collections::BTreeMap;

use formwork_content::{Blob, ContentStore};
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
/// `progress` is told how many bytes have come so far.
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
    progress: &dyn Fn(u64),
) -> Result<Blob, ImageError> {
    if let Some(blob) = content.find(descriptor)? {
        return Ok(blob);
    }
    let mut staged = content.stage()?;
    // The client answers for the digest.
    client.blob(repository, descriptor, &mut staged, progress)?;
    Ok(staged.commit_hashed(descriptor.digest.clone())?)
}

impl BlobSource for FetchedBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        if let Some(repository) = self.origins.get(&descriptor.digest) {
            fetch(&self.client, repository, descriptor, &self.content, &|_| {})?;
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
