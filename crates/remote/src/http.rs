//! Files of web servers.
//!
//! The bytes lie in the content store under their digest. Beside it, one record an address says
//! what the server called the version that is there, so that the next build only asks whether
//! there is a newer one; a file whose digest the user names is not even asked about.

use std::io::{self, Write};
use std::path::PathBuf;

use formwork_content::{Blob, BlobWriter, ContentStore, StoreLayout};
use formwork_fs::{AtomicFile, RelPath, RootDir, Timestamp};
use formwork_graph::{HttpSource, without_secrets};
use formwork_layer::Tree;
use formwork_layer::tree::{Bytes, ContentHash, Entry, File, Metadata, Node, Origin};
use formwork_oci::{Algorithm, Digest};
use formwork_registry::{Download, DownloadError, RegistryClient, Wanted};
use serde::{Deserialize, Serialize};

use crate::RemoteError;

/// The permissions of what is fetched, as in BuildKit.
const MODE: u32 = 0o600;

/// Fetches files and keeps them.
#[derive(Clone, Debug)]
pub struct Downloads {
    content: ContentStore,
    records: PathBuf,
    client: RegistryClient,
}

/// How a file is fetched, as far as that makes no difference to what it is.
pub struct Fetch<'a> {
    /// The value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Told how many bytes there are so far, and of how many; says whether to go on.
    pub progress: &'a dyn Fn(u64, Option<u64>) -> bool,
}

/// What is known about the file at an address.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    digest: Digest,
    size: u64,
    /// The BLAKE3 hash in hexadecimal digits, as trees have it.
    content: String,
}

impl Downloads {
    /// Fetches with a client and keeps what it gets in a store.
    pub fn new(layout: &StoreLayout, client: RegistryClient) -> Self {
        Self { content: ContentStore::of(layout), records: layout.downloads(), client }
    }

    /// The file, as a tree that holds nothing else, and its digest.
    ///
    /// It belongs to root with mode 0600, and was modified when the server says, else in 1970.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be had, is not the one that was asked for, or cannot be kept.
    pub fn tree(
        &self,
        source: &HttpSource,
        fetch: &Fetch<'_>,
    ) -> Result<(Tree, Digest), RemoteError> {
        let (record, blob) = self.file(source, fetch)?;
        let directory = blob.path.parent().unwrap_or(&self.records);
        let bytes = Bytes::At {
            // Not a layer: files of the content store must never be linked into one.
            origin: Origin::context(RootDir::open(directory)?),
            path: RelPath::root().join(blob.digest.hex()),
        };
        let content = record.content().unwrap_or(ContentHash([0; 32]));
        let mtime = Timestamp { seconds: record.modified(), nanoseconds: 0 };
        let entry = Entry {
            path: RelPath::root().join(&source.name),
            node: Node::File(File { size: blob.size, content, bytes }),
            metadata: Metadata { mtime, ..Metadata::root_owned(MODE) },
        };
        Ok((Tree::new(vec![entry])?, blob.digest))
    }

    /// When a file was modified, in seconds since 1970, if the server says it.
    ///
    /// # Errors
    ///
    /// Fails as [`Downloads::tree`] does.
    pub fn modified(
        &self,
        source: &HttpSource,
        fetch: &Fetch<'_>,
    ) -> Result<Option<i64>, RemoteError> {
        self.file(source, fetch).map(|(record, _)| record.dated())
    }

    /// The blob of a file.
    ///
    /// # Errors
    ///
    /// Fails as [`Downloads::tree`] does.
    pub fn blob(&self, source: &HttpSource, fetch: &Fetch<'_>) -> Result<Blob, RemoteError> {
        self.file(source, fetch).map(|(_, blob)| blob)
    }

    fn file(&self, source: &HttpSource, fetch: &Fetch<'_>) -> Result<(Record, Blob), RemoteError> {
        let path = self.record_path(source);
        let known = self.known(&path, source)?;
        match (known, &source.checksum) {
            (Some(known), Some(checksum)) if known.0.digest == *checksum => Ok(known),
            (known, _) => self.fetch(source, fetch, known, &path),
        }
    }

    /// One record for each address and algorithm.
    fn record_path(&self, source: &HttpSource) -> PathBuf {
        let name = format!("{} {}", algorithm(source).as_str(), source.url);
        self.records.join(Digest::of(name.as_bytes()).hex())
    }

    /// What was fetched before, if it is still there. A damaged record is none.
    fn known(
        &self,
        path: &std::path::Path,
        source: &HttpSource,
    ) -> Result<Option<(Record, Blob)>, RemoteError> {
        let Ok(bytes) = fs_err::read(path) else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        if record.url != source.url || record.content().is_none() {
            return Ok(None);
        }
        // Of another size it is what a crash of the machine has left.
        let blob = self.content.get(&record.digest)?.filter(|blob| blob.size == record.size);
        Ok(blob.map(|blob| (record, blob)))
    }

    fn fetch(
        &self,
        source: &HttpSource,
        fetch: &Fetch<'_>,
        known: Option<(Record, Blob)>,
        path: &std::path::Path,
    ) -> Result<(Record, Blob), RemoteError> {
        let record = known.as_ref().map(|(record, _)| record);
        // Of a version that is not the right one nothing is worth knowing.
        let record = record.filter(|_| source.checksum.is_none());
        let wanted = Wanted {
            url: &source.url,
            etag: record.and_then(|record| record.etag.as_deref()),
            last_modified: record.and_then(|record| record.last_modified.as_deref()),
            authorization: fetch.authorization,
        };
        let mut writer = Tee {
            blob: self.content.writer_for(algorithm(source))?,
            hasher: blake3::Hasher::new(),
        };
        match (self.client.download(wanted, &mut writer, fetch.progress)?, known) {
            (Download::Unchanged, Some(known)) => Ok(known),
            (Download::Unchanged, None) => Err(unasked(&source.url).into()),
            (Download::File { etag, last_modified }, _) => {
                let content = writer.hasher.finalize().to_hex().to_string();
                let blob = writer.blob.commit(None)?;
                check(source, &blob)?;
                let (url, digest, size) = (source.url.clone(), blob.digest.clone(), blob.size);
                let record = Record { url, etag, last_modified, digest, size, content };
                AtomicFile::write(path, &serde_json::to_vec(&record).unwrap_or_default())?;
                Ok((record, blob))
            }
        }
    }
}

impl Record {
    fn content(&self) -> Option<ContentHash> {
        blake3::Hash::from_hex(&self.content).ok().map(|hash| ContentHash(*hash.as_bytes()))
    }

    /// When the file was modified, in seconds since 1970.
    fn modified(&self) -> i64 {
        self.dated().unwrap_or(0)
    }

    /// The time that the server says.
    fn dated(&self) -> Option<i64> {
        let parse = |text: &String| jiff::fmt::rfc2822::parse(text).ok();
        let time = self.last_modified.as_ref().and_then(parse);
        time.map(|time| time.timestamp().as_second().max(0))
    }
}

fn algorithm(source: &HttpSource) -> Algorithm {
    source.checksum.as_ref().map_or(Algorithm::Sha256, Digest::algorithm)
}

fn check(source: &HttpSource, blob: &Blob) -> Result<(), RemoteError> {
    match &source.checksum {
        Some(wanted) if *wanted != blob.digest => Err(RemoteError::Checksum {
            url: without_secrets(&source.url),
            found: blob.digest.clone(),
            wanted: wanted.clone(),
        }),
        _ => Ok(()),
    }
}

/// A server that says "not modified" although nobody asked.
fn unasked(url: &str) -> DownloadError {
    let problem = "the server says that nothing has changed, which nobody asked".to_owned();
    DownloadError::Remote { url: without_secrets(url), problem }
}

/// Writes a blob and hashes it as trees do.
struct Tee {
    blob: BlobWriter,
    hasher: blake3::Hasher,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.blob.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

impl std::fmt::Debug for Fetch<'_> {
    /// Tells no credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}
