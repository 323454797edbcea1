//! Blobs of which a part has come.
//!
//! What is fetched is written where a later process finds it, so that it goes on where this one was
//! stopped. The part is no blob: nobody looks for blobs there, and whoever goes on hashes all of it.
//! It belongs to whoever holds its lock, and goes after a day in which nobody went on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use formwork_fs::{FileLock, FsError, RootDir};
use formwork_oci::{Algorithm, Digest};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::layout::make_directory;
use crate::temporary::names;
use crate::{Blob, ContentError, ContentStore, StoreLayout};

/// How long a part is kept that nobody goes on with.
const KEPT: Duration = Duration::from_secs(86400);
/// A smaller part is fetched again as fast as it is gone on with.
const WORTH_KEEPING: u64 = 1 << 20;

/// A blob of which a part is there, and which nobody else is fetching.
///
/// Dropped without [`PartialBlob::commit_hashed`], it stays for the next who fetches it, if it is
/// worth that.
#[derive(Debug)]
pub struct PartialBlob {
    file: File,
    path: PathBuf,
    store: ContentStore,
    size: u64,
    /// Held until the file has its place.
    _lock: FileLock,
}

impl PartialBlob {
    /// Begins a blob, or goes on with it; `None` while somebody else does.
    pub(crate) fn open(
        store: &ContentStore,
        layout: &StoreLayout,
        digest: &Digest,
    ) -> Result<Option<Self>, ContentError> {
        let name = name(digest);
        let Some(lock) = FileLock::try_transient(lock_path(layout, &name))? else {
            return Ok(None);
        };
        // Nobody makes room with it meanwhile.
        layout.lease().hold(&name)?;
        let path = layout.partial().join(&name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| FsError::new("create", &path, errno))?;
        let mut file = File::from(file);
        let failed = |error| FsError::new("examine", &path, error);
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Some(Self { file, path, store: store.clone(), size, _lock: lock }))
    }

    /// How many bytes are there.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes that are there, for whoever hashes them.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be opened once more.
    pub fn reader(&self) -> Result<impl Read + use<>, ContentError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::empty())
            .map_err(|errno| FsError::new("open", &self.path, errno))?;
        Ok(File::from(file).take(self.size))
    }

    /// Forgets the bytes that are there.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be written.
    pub fn clear(&mut self) -> Result<(), ContentError> {
        let failed = |error| FsError::new("write", &self.path, error);
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.size = 0;
        Ok(())
    }

    /// Says that what is there is of no use to anybody.
    pub fn discard(mut self) {
        self.size = 0;
    }

    /// Puts the blob into the store, in place of one with the same digest.
    ///
    /// The caller answers for the digest: it is not checked.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn commit_hashed(self, digest: Digest) -> Result<Blob, ContentError> {
        let path = self.store.path(&digest);
        if digest.algorithm() != Algorithm::Sha256 {
            make_directory(&self.store.algorithm_directory(digest.algorithm()), 0o755)?;
        }
        self.store.hold(&digest)?;
        rustix::fs::renameat(CWD, &self.path, CWD, &path)
            .map_err(|errno| FsError::new("move a file to", &path, errno))?;
        Ok(Blob { digest, size: self.size, path })
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        if self.size < WORTH_KEEPING {
            // A blob that has its place is no longer here, and nobody else's part is as long as the
            // lock is held. What is left all the same goes after a day.
            let _ = rustix::fs::unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

/// Removes the parts that nobody has gone on with for a day.
pub(crate) fn remove_stale(layout: &StoreLayout) -> Result<(), ContentError> {
    let directory = RootDir::open(layout.partial())?;
    for name in names(&directory)? {
        let Ok(name) = str::from_utf8(&name) else { continue };
        let path = layout.partial().join(name);
        let modified = fs_err::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_none_or(|age| age < KEPT) {
            continue;
        }
        if let Some(_lock) = FileLock::try_transient(lock_path(layout, name))? {
            match rustix::fs::unlinkat(CWD, &path, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(FsError::new("remove", path, errno).into()),
            }
        }
    }
    Ok(())
}

/// What the part of a blob is called.
fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn lock_path(layout: &StoreLayout, name: &str) -> PathBuf {
    layout.lock(&format!("step-partial-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, StoreLayout, ContentStore) {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path().join("store")).unwrap();
        let content = ContentStore::of(&layout);
        (dir, layout, content)
    }

    #[test]
    fn a_part_stays_until_it_is_whole() {
        let (_dir, layout, content) = store();
        let bytes = vec![7; 3 << 20];
        let digest = Digest::of(&bytes);
        let mut part = content.resume(&digest).unwrap().unwrap();
        assert!(content.resume(&digest).unwrap().is_none(), "one at a time");
        part.write_all(&bytes[..2 << 20]).unwrap();
        drop(part);
        remove_stale(&layout).unwrap();
        let mut part = content.resume(&digest).unwrap().unwrap();
        let mut there = Vec::new();
        part.reader().unwrap().read_to_end(&mut there).unwrap();
        assert_eq!(there, bytes[..2 << 20]);
        part.write_all(&bytes[2 << 20..]).unwrap();
        let blob = part.commit_hashed(digest.clone()).unwrap();
        assert_eq!(content.read(&digest, blob.size).unwrap(), bytes);
        assert_eq!(fs_err::read_dir(layout.partial()).unwrap().count(), 0);
    }

    #[test]
    fn a_part_goes_that_is_of_no_use() {
        let (_dir, layout, content) = store();
        let digest = Digest::of(b"");
        let begin = |count: usize| {
            let mut part = content.resume(&digest).unwrap().unwrap();
            part.write_all(&vec![7; count]).unwrap();
            part
        };
        let count = || fs_err::read_dir(layout.partial()).unwrap().count();
        drop(begin(1000));
        assert_eq!(count(), 0, "it is small");
        begin(2 << 20).discard();
        assert_eq!(count(), 0, "somebody says so");
        drop(begin(2 << 20));
        let path = layout.partial().join(name(&digest));
        let old = SystemTime::now() - KEPT - Duration::from_secs(1);
        fs_err::File::open(&path).unwrap().set_modified(old).unwrap();
        let held = content.resume(&digest).unwrap().unwrap();
        remove_stale(&layout).unwrap();
        assert_eq!(count(), 1, "somebody goes on with it");
        drop(held);
        remove_stale(&layout).unwrap();
        assert_eq!(count(), 0, "it is old");
        let mut part = begin(2 << 20);
        part.clear().unwrap();
        assert_eq!(part.size(), 0);
    }
}
