//! Blobs in an OCI image layout.
//!
//! A blob is written beside its place, hashed on the way, and renamed into it when it is whole. So
//! a blob that can be seen is complete, unless the machine lost power before its bytes reached the
//! disk, or somebody tampered with it. The length tells the first, the digest both; whoever acts on
//! a document verifies it ([`ContentStore::read`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_fs::{AtomicFile, FsError, Lease, copy_range};
use formwork_oci::{Algorithm, Descriptor, Digest, Hasher};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::boot::{Trusted, mark_examined, was_used_lately};
use crate::layout::make_directory;
use crate::{ContentError, PartialBlob, StoreLayout};

const BLOBS: &str = "blobs";
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The blobs of an OCI image layout, and its list of images.
///
/// Cheap to clone; may be used from several threads and by several processes at once.
#[derive(Clone, Debug)]
pub struct ContentStore {
    directory: PathBuf,
    staging: Staging,
    /// Keeps others from removing what is used.
    lease: Option<Arc<Lease>>,
}

/// Where blobs are written until they are whole.
#[derive(Clone, Debug)]
enum Staging {
    /// In the store's directory for temporary files, which is cleaned after a killed process.
    Scratch(StoreLayout),
    /// In the image layout itself, where the store cannot be: on another file system.
    Beside,
}

/// A blob that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What its bytes are.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// The file that holds them.
    pub path: PathBuf,
}

/// A blob that is being written and hashed. Writes are not buffered.
///
/// Dropped without [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    staged: StagedBlob,
    hasher: Hasher,
}

/// A blob that is being written by somebody who hashes it himself. Writes are not buffered.
///
/// Dropped without [`StagedBlob::commit_hashed`], it leaves nothing.
#[derive(Debug)]
pub struct StagedBlob {
    file: AtomicFile,
    store: ContentStore,
    size: u64,
}

impl ContentStore {
    /// The blobs of a store.
    pub fn of(layout: &StoreLayout) -> Self {
        let (staging, lease) = (Staging::Scratch(layout.clone()), Arc::clone(layout.lease()));
        Self { directory: layout.content(), staging, lease: Some(lease) }
    }

    /// The same blobs for somebody who only looks at what is there: nothing of it is held.
    #[must_use]
    pub fn unheld(&self) -> Self {
        Self { lease: None, ..self.clone() }
    }

    /// The blobs of an image layout anywhere, which is made where it is missing.
    ///
    /// # Errors
    ///
    /// Fails where the directory cannot be written.
    pub fn create(directory: impl Into<PathBuf>) -> Result<Self, ContentError> {
        let (directory, staging) = (directory.into(), Staging::Beside);
        let store = Self { directory, staging, lease: None };
        make_directory(&store.directory, 0o755)?;
        make_directory(&store.directory.join(BLOBS), 0o755)?;
        make_directory(&store.algorithm_directory(Algorithm::Sha256), 0o755)?;
        store.create_index()?;
        Ok(store)
    }

    /// The image layout.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this is a formwork store's own image layout, in which nobody else writes.
    pub fn is_own(&self) -> bool {
        matches!(self.staging, Staging::Scratch(_))
    }

    /// Whether a blob is there, whatever its length.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be looked at.
    pub fn contains(&self, digest: &Digest) -> Result<bool, ContentError> {
        Ok(self.get(digest)?.is_some())
    }

    /// A blob, if it is there.
    ///
    /// It is held: no other process removes it as long as this one lives. Counts as a use of it,
    /// which is noted once a day in its file's modification time. Then, and where another boot has
    /// left it, its bytes are compared with its digest, since disks forget: damaged, it is as good as
    /// absent.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be looked at.
    pub fn get(&self, digest: &Digest) -> Result<Option<Blob>, ContentError> {
        self.hold(digest)?;
        let Some((blob, stat)) = self.peek(digest)? else { return Ok(None) };
        let counts = self.trusted().covers(stat) && was_used_lately(stat);
        // Layouts of others are theirs; who only looks reads nothing.
        if counts || self.lease.is_none() {
            return Ok(Some(blob));
        }
        let is_whole = blob.is_whole()?;
        if is_whole {
            mark_examined(&blob.path);
        }
        Ok(is_whole.then_some(blob))
    }

    pub(crate) fn hold(&self, digest: &Digest) -> Result<(), ContentError> {
        Ok(self.lease.as_ref().map_or(Ok(()), |lease| lease.hold(digest.as_str()))?)
    }

    /// A blob as it is, and what the kernel knows about its file.
    fn peek(&self, digest: &Digest) -> Result<Option<(Blob, Stat)>, ContentError> {
        let path = self.path(digest);
        match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_file(stat.st_mode) => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                Ok(Some((Blob { digest: digest.clone(), size, path }, stat)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(FsError::new("examine", path, errno).into()),
        }
    }

    fn trusted(&self) -> Trusted {
        match &self.staging {
            Staging::Scratch(layout) => layout.trusted(),
            Staging::Beside => Trusted::Always,
        }
    }

    /// A blob, if it is there with the length that its descriptor states.
    ///
    /// One of another length is as good as absent: writing it anew replaces it.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be looked at.
    pub fn find(&self, descriptor: &Descriptor) -> Result<Option<Blob>, ContentError> {
        Ok(self.get(&descriptor.digest)?.filter(|blob| blob.size == descriptor.size))
    }

    /// All bytes of a blob, verified.
    ///
    /// # Errors
    ///
    /// [`ContentError::Missing`], [`ContentError::TooLarge`] if there are more than `limit` bytes,
    /// and [`ContentError::Damaged`] if they are not those that the digest promises.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let missing =
            || ContentError::Missing { digest: digest.clone(), store: self.directory.clone() };
        let blob = self.get(digest)?.ok_or_else(missing)?;
        let too_large = |size| ContentError::TooLarge { digest: digest.clone(), size, limit };
        if blob.size > limit {
            return Err(too_large(blob.size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or_default());
        blob.open()?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| FsError::new("read", &blob.path, error))?;
        if bytes.len() as u64 > limit {
            return Err(too_large(bytes.len() as u64));
        }
        let actual = digest.algorithm().hash(&bytes);
        if actual == *digest {
            Ok(bytes)
        } else {
            Err(ContentError::Damaged { path: blob.path, actual })
        }
    }

    /// Compares a blob with its digest; one that is damaged is removed.
    ///
    /// # Errors
    ///
    /// [`ContentError::Damaged`], and where the blob cannot be read.
    pub fn examine(&self, blob: &Blob) -> Result<(), ContentError> {
        let actual = blob.actual_digest()?;
        if actual == blob.digest {
            return Ok(());
        }
        self.remove(&blob.digest)?;
        Err(ContentError::Damaged { path: blob.path.clone(), actual })
    }

    /// Puts some bytes into the store, under their SHA-256 digest.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn insert(&self, bytes: &[u8]) -> Result<Blob, ContentError> {
        let digest = Digest::of(bytes);
        if let Some(blob) = self.get(&digest)?
            && blob.size == bytes.len() as u64
            && self.read(&digest, blob.size).is_ok()
        {
            return Ok(blob);
        }
        let mut staged = self.stage()?;
        staged.write_bytes(bytes)?;
        staged.commit_hashed(digest)
    }

    /// Begins a blob that will be known by its SHA-256 digest.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn writer(&self) -> Result<BlobWriter, ContentError> {
        self.writer_for(Algorithm::Sha256)
    }

    /// Begins a blob that will be known by a digest of the given kind.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn writer_for(&self, algorithm: Algorithm) -> Result<BlobWriter, ContentError> {
        Ok(BlobWriter { staged: self.stage()?, hasher: Hasher::new(algorithm) })
    }

    /// Begins a blob whose digest the caller computes, perhaps on another thread.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn stage(&self) -> Result<StagedBlob, ContentError> {
        Ok(StagedBlob { file: self.stage_file(&self.directory)?, store: self.clone(), size: 0 })
    }

    /// Begins a blob that is fetched from elsewhere, or goes on with it where another process was
    /// stopped; `None` while somebody else fetches it, and in a layout that is no formwork store's.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn resume(&self, digest: &Digest) -> Result<Option<PartialBlob>, ContentError> {
        match &self.staging {
            Staging::Scratch(layout) => PartialBlob::open(self, layout, digest),
            Staging::Beside => Ok(None),
        }
    }

    /// Removes a blob; tells whether it was there.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ContentError> {
        let path = self.path(digest);
        match rustix::fs::unlinkat(CWD, &path, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(FsError::new("remove", path, errno).into()),
        }
    }

    /// All blobs, damaged ones included, sorted by digest. Files whose names are no digests are passed over.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be looked at.
    pub fn list(&self) -> Result<Vec<Blob>, ContentError> {
        let mut blobs = Vec::new();
        for algorithm in ALGORITHMS {
            for digest in self.digests(algorithm)? {
                // One that is gone since it was listed is no blob any more.
                blobs.extend(self.peek(&digest)?.map(|(blob, _)| blob));
            }
        }
        blobs.sort_unstable_by(|a, b| a.digest.cmp(&b.digest));
        Ok(blobs)
    }

    fn digests(&self, algorithm: Algorithm) -> Result<Vec<Digest>, ContentError> {
        let path = self.algorithm_directory(algorithm);
        let failed = |errno| FsError::new("list the directory", &path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(failed(errno).into()),
        };
        let mut digests = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let hex = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
            digests.extend(format!("{}:{hex}", algorithm.as_str()).parse::<Digest>());
        }
        Ok(digests)
    }

    /// A temporary file that may be renamed to anywhere in this image layout.
    pub(crate) fn stage_file(&self, destination: &Path) -> Result<AtomicFile, ContentError> {
        match &self.staging {
            Staging::Scratch(layout) => Ok(AtomicFile::create_in(layout.scratch()?, destination)?),
            Staging::Beside => {
                let mut file = AtomicFile::create(self.directory.join("staged"))?;
                file.set_destination(destination);
                Ok(file)
            }
        }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.algorithm_directory(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn algorithm_directory(&self, algorithm: Algorithm) -> PathBuf {
        self.directory.join(BLOBS).join(algorithm.as_str())
    }
}

impl Blob {
    /// Whether the blob has the digest that it should have.
    fn is_whole(&self) -> Result<bool, ContentError> {
        Ok(self.actual_digest()? == self.digest)
    }

    /// The digest of the bytes that are there.
    fn actual_digest(&self) -> Result<Digest, ContentError> {
        let mut file = self.open()?;
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FsError::new("read", &self.path, error).into()),
            };
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..count]);
        }
    }

    /// Opens the blob for reading. The bytes are not verified.
    ///
    /// # Errors
    ///
    /// Fails where the file is gone or may not be read.
    pub fn open(&self) -> Result<File, ContentError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::empty())
            .map_err(|errno| FsError::new("open", &self.path, errno))?;
        Ok(File::from(file))
    }
}

impl BlobWriter {
    /// The number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.staged.size
    }

    /// Puts the blob into the store, in place of one with the same digest.
    ///
    /// # Errors
    ///
    /// [`ContentError::WrongLength`] or [`ContentError::WrongDigest`] where the bytes are not
    /// those that were expected; the store then stays as it was.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<Blob, ContentError> {
        let digest = self.hasher.finish();
        if let Some((expected, size)) = expected {
            if self.staged.size != size {
                return Err(ContentError::WrongLength {
                    digest: expected.clone(),
                    expected: size,
                    actual: self.staged.size,
                });
            }
            if digest != *expected {
                return Err(ContentError::WrongDigest {
                    expected: expected.clone(),
                    actual: digest,
                });
            }
        }
        self.staged.commit_hashed(digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.staged.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedBlob {
    /// Puts the blob into the store, in place of one with the same digest.
    ///
    /// The caller answers for the digest: it is not checked.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn commit_hashed(mut self, digest: Digest) -> Result<Blob, ContentError> {
        let path = self.store.path(&digest);
        if digest.algorithm() != Algorithm::Sha256 {
            make_directory(&self.store.algorithm_directory(digest.algorithm()), 0o755)?;
        }
        self.store.hold(&digest)?;
        self.file.set_destination(&path);
        self.file.commit()?;
        Ok(Blob { digest, size: self.size, path })
    }

    /// Appends `length` bytes from `offset` of a file, as cheaply as the file system allows.
    ///
    /// # Errors
    ///
    /// Fails as reading and writing do, and where the file ends before
    /// ([`io::ErrorKind::UnexpectedEof`]).
    pub fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()> {
        let copied = copy_range(source, offset, length, self.file.file())?;
        self.size += copied;
        if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        let path = self.store.directory.clone();
        Ok(self.write_all(bytes).map_err(|error| FsError::new("write a blob to", path, error))?)
    }
}

impl Write for StagedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_file(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile
}

#[cfg(test)]
mod tests {
    use formwork_oci::MediaType;

    use super::*;

    fn store() -> (tempfile::TempDir, ContentStore) {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path().join("store")).unwrap();
        let store = ContentStore::of(&layout);
        (dir, store)
    }

    fn sha512(bytes: &[u8]) -> Digest {
        Algorithm::Sha512.hash(bytes)
    }

    /// Everything below a directory that is not a blob.
    fn unfinished(dir: &Path) -> usize {
        let tmp = fs_err::read_dir(dir.join("store/tmp")).unwrap();
        let scratch = tmp.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        scratch.map(|entry| fs_err::read_dir(entry.unwrap().path()).unwrap().count()).sum()
    }

    #[test]
    fn what_is_inserted_is_read_back() {
        let (_dir, store) = store();
        let blob = store.insert(b"content").unwrap();
        assert_eq!(blob.digest, Digest::of(b"content"));
        assert_eq!(blob.size, 7);
        assert_eq!(store.get(&blob.digest).unwrap(), Some(blob.clone()));
        assert_eq!(store.read(&blob.digest, 7).unwrap(), b"content");
        assert!(blob.path.ends_with(format!("content/blobs/sha256/{}", blob.digest.hex())));
        assert_eq!(store.insert(b"content").unwrap(), blob);
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_dir, store) = store();
        let digest = Digest::of(b"nothing");
        assert!(!store.contains(&digest).unwrap());
        assert_eq!(store.get(&sha512(b"nothing")).unwrap(), None);
        let message = store.read(&digest, 10).unwrap_err().to_string();
        assert!(message.contains(digest.as_str()) && message.contains("missing"), "{message}");
        assert!(!store.remove(&digest).unwrap());
    }

    #[test]
    fn a_writer_hashes_in_either_way() {
        let (_dir, store) = store();
        for (algorithm, digest) in
            [(Algorithm::Sha256, Digest::of(b"ab")), (Algorithm::Sha512, sha512(b"ab"))]
        {
            let mut writer = store.writer_for(algorithm).unwrap();
            writer.write_all(b"a").unwrap();
            writer.write_all(b"b").unwrap();
            assert_eq!(writer.written(), 2);
            let blob = writer.commit(Some((&digest, 2))).unwrap();
            assert_eq!(blob.digest, digest);
            assert_eq!(store.read(&digest, 2).unwrap(), b"ab");
        }
        let digests: Vec<_> = store.list().unwrap().into_iter().map(|blob| blob.digest).collect();
        assert_eq!(digests, [Digest::of(b"ab"), sha512(b"ab")]);
    }

    #[test]
    fn what_is_not_what_was_announced_does_not_enter() {
        let (dir, store) = store();
        let write = |bytes: &[u8], expected: &Digest, size| {
            let mut writer = store.writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer.commit(Some((expected, size))).unwrap_err()
        };
        let expected = Digest::of(b"right");
        let error = write(b"wrong", &expected, 5);
        assert!(matches!(error, ContentError::WrongDigest { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(expected.as_str()), "{message}");
        assert!(message.contains(Digest::of(b"wrong").as_str()), "{message}");
        let error = write(b"righ", &expected, 5);
        assert!(matches!(error, ContentError::WrongLength { actual: 4, .. }), "{error}");
        let error = write(b"right", &sha512(b"right"), 5);
        assert!(matches!(error, ContentError::WrongDigest { .. }), "{error}");
        assert!(store.list().unwrap().is_empty());
        assert_eq!(unfinished(dir.path()), 0);
    }

    #[test]
    fn a_digest_computed_elsewhere_is_taken() {
        let (dir, store) = store();
        let mut staged = store.stage().unwrap();
        staged.write_all(b"layer").unwrap();
        let blob = staged.commit_hashed(Digest::of(b"layer")).unwrap();
        assert_eq!(store.read(&blob.digest, 5).unwrap(), b"layer");
        let mut staged = store.stage().unwrap();
        staged.append_range(&blob.open().unwrap(), 1, 3).unwrap();
        let error = staged.append_range(&blob.open().unwrap(), 4, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let blob = staged.commit_hashed(Digest::of(b"ayer")).unwrap();
        assert_eq!(store.read(&blob.digest, 5).unwrap(), b"ayer");
        drop(store.stage().unwrap());
        assert_eq!(unfinished(dir.path()), 0);
    }

    #[test]
    fn a_blob_of_another_length_is_absent_and_replaced() {
        let (_dir, store) = store();
        let blob = store.insert(b"content").unwrap();
        let descriptor = Descriptor::of(MediaType::OciConfig, b"content");
        assert_eq!(store.find(&descriptor).unwrap(), Some(blob.clone()));
        fs_err::write(&blob.path, b"cont").unwrap();
        assert_eq!(store.find(&descriptor).unwrap(), None);
        store.insert(b"content").unwrap();
        assert_eq!(store.read(&blob.digest, 7).unwrap(), b"content");
    }

    #[test]
    fn a_damaged_blob_is_named_and_replaced() {
        let (_dir, store) = store();
        let blob = store.insert(b"content").unwrap();
        fs_err::write(&blob.path, b"CONTENT").unwrap();
        let error = store.read(&blob.digest, 7).unwrap_err();
        assert!(matches!(error, ContentError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(blob.path.to_str().unwrap()), "{error}");
        store.insert(b"content").unwrap();
        assert_eq!(store.read(&blob.digest, 7).unwrap(), b"content");
        fs_err::write(&blob.path, b"CONTENT").unwrap();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"content").unwrap();
        writer.commit(Some((&blob.digest, 7))).unwrap();
        assert_eq!(store.read(&blob.digest, 7).unwrap(), b"content");
    }

    #[test]
    fn a_blob_that_is_too_large_is_not_read() {
        let (_dir, store) = store();
        let blob = store.insert(b"content").unwrap();
        let error = store.read(&blob.digest, 6).unwrap_err();
        assert!(matches!(error, ContentError::TooLarge { size: 7, limit: 6, .. }), "{error}");
    }

    #[test]
    fn only_files_named_by_a_digest_are_blobs() {
        let (_dir, store) = store();
        let blob = store.insert(b"content").unwrap();
        let directory = blob.path.parent().unwrap();
        fs_err::write(directory.join("README"), "").unwrap();
        let link = directory.join(Digest::of(b"link").hex());
        std::os::unix::fs::symlink(&blob.path, link).unwrap();
        fs_err::create_dir(directory.join(Digest::of(b"directory").hex())).unwrap();
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&blob));
        assert!(!store.contains(&Digest::of(b"link")).unwrap());
        assert!(store.remove(&blob.digest).unwrap());
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn an_empty_blob_is_a_blob() {
        let (_dir, store) = store();
        let blob = store.writer().unwrap().commit(Some((&Digest::of(b""), 0))).unwrap();
        assert_eq!(store.read(&blob.digest, 0).unwrap(), b"");
    }

    #[test]
    fn a_layout_elsewhere_holds_blobs_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::create(dir.path()).unwrap();
        store.insert(b"content").unwrap();
        let again = ContentStore::create(dir.path()).unwrap();
        assert!(again.contains(&Digest::of(b"content")).unwrap());
        let names = fs_err::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 3, "nothing temporary is left");
    }

    /// A store as a process of some boot sees it.
    fn under_boot(dir: &tempfile::TempDir, boot: &str) -> ContentStore {
        let layout = StoreLayout::open(dir.path().join("store")).unwrap();
        ContentStore::of(&layout.under_boot(boot).unwrap())
    }

    /// Changes the bytes of a blob and not its length, as a power loss may; returns the blob.
    fn tear(store: &ContentStore, bytes: &[u8]) -> Blob {
        let blob = store.insert(bytes).unwrap();
        fs_err::write(&blob.path, vec![0; bytes.len()]).unwrap();
        blob
    }

    /// Waits until the clock of files has moved on.
    fn tick() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    #[test]
    fn what_another_boot_has_left_counts_if_it_is_whole() {
        let (dir, _) = store();
        let first = under_boot(&dir, "first");
        let (torn, whole) = (tear(&first, b"torn"), first.insert(b"whole").unwrap());
        tick();
        let second = under_boot(&dir, "second");
        assert_eq!(second.get(&torn.digest).unwrap(), None);
        assert!(!second.contains(&torn.digest).unwrap());
        assert_eq!(second.get(&whole.digest).unwrap(), Some(whole.clone()));
        assert_eq!(second.list().unwrap().len(), 2);
        // Written anew, it is there again.
        second.insert(b"torn").unwrap();
        assert_eq!(second.read(&torn.digest, 9).unwrap(), b"torn");
        // Examined once, it is not read again.
        tick();
        assert!(under_boot(&dir, "second").get(&whole.digest).unwrap().is_some());
    }

    #[test]
    fn a_blob_is_examined_once_in_a_boot() {
        let (dir, _) = store();
        let blob = under_boot(&dir, "first").insert(b"whole").unwrap();
        tick();
        let second = under_boot(&dir, "second");
        assert!(second.get(&blob.digest).unwrap().is_some());
        // A change that only a look at the bytes could find.
        tear(&second, b"whole");
        assert!(second.get(&blob.digest).unwrap().is_some());
        tick();
        assert!(under_boot(&dir, "third").get(&blob.digest).unwrap().is_none());
    }

    #[test]
    fn nothing_is_trusted_when_the_clock_has_gone_back() {
        let (dir, _) = store();
        let first = under_boot(&dir, "first");
        let torn = tear(&first, b"torn");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9999);
        let blobs = torn.path.parent().unwrap();
        fs_err::File::open(blobs).unwrap().file().set_modified(later).unwrap();
        for _ in 0..2 {
            assert_eq!(under_boot(&dir, "second").get(&torn.digest).unwrap(), None);
        }
    }
}
