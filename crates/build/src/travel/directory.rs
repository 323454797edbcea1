//! A cache in a directory. Everything in it appears by a rename, so any number of processes and
//! machines may use it at the same time.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formwork_fs::{AtomicFile, FsError};
use formwork_oci::{Descriptor, Digest};
use formwork_registry::OpenBlob;

use super::place::{MANIFEST_LIMIT, PlaceError};

/// A directory with the version of its format.
const ROOT: &str = "formwork-cache-v1";

/// A cache in a directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn name(&self, name: &str) -> PathBuf {
        self.path.join(ROOT).join("names").join(name)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.as_str().split(':').next().unwrap_or_default();
        self.path.join(ROOT).join("blobs").join(algorithm).join(digest.hex())
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, PlaceError> {
        let path = self.name(name);
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_foreign() => {
                let path = self.path.display();
                return Err(PlaceError::new(format!(
                    "{path} holds a cache of another program or of another version"
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MANIFEST_LIMIT {
            true => Err(PlaceError::new(format!("{} is too large", path.display()))),
            false => Ok(Some(bytes)),
        }
    }

    /// Whether somebody else has put something there.
    fn is_foreign(&self) -> bool {
        let entries = fs_err::read_dir(&self.path).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        !self.path.join(ROOT).exists()
            && names.any(|name| {
                name == "index.json" || name.to_string_lossy().starts_with("formwork-cache-v")
            })
    }

    pub(crate) fn write(&self, name: &str, manifest: &[u8]) -> Result<(), PlaceError> {
        Ok(write(&self.name(name), |path| AtomicFile::write(path, manifest))?)
    }

    pub(crate) fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), PlaceError> {
        let mut file = fs_err::File::open(self.blob(&blob.digest))?.take(blob.size);
        copy(&mut file, sink, progress)
    }

    pub(crate) fn has(&self, blob: &Descriptor) -> bool {
        let path = self.blob(&blob.digest);
        let is_whole = fs_err::metadata(&path).is_ok_and(|metadata| metadata.len() == blob.size);
        if is_whole && let Ok(file) = fs_err::OpenOptions::new().write(true).open(&path) {
            // Whoever cleans up spares what was wanted just now.
            let _ = file.file().set_modified(SystemTime::now());
        }
        is_whole
    }

    pub(crate) fn put(
        &self,
        blob: &Descriptor,
        open: &OpenBlob<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<bool, PlaceError> {
        if self.has(blob) {
            return Ok(false);
        }
        let path = self.blob(&blob.digest);
        let mut file = write(&path, |path| AtomicFile::create(path))?;
        copy(&mut open()?, &mut file, progress)?;
        file.commit()?;
        Ok(true)
    }
}

impl Directory {
    pub(crate) fn names(&self) -> Result<Vec<String>, PlaceError> {
        let files = files(&self.path.join(ROOT).join("names"))?;
        let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
        // Temporary files of those who are writing begin with a dot, which no name does.
        Ok(files.iter().filter_map(name).filter(|name| !name.starts_with('.')).collect())
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), PlaceError> {
        remove(self.name(name))
    }

    pub(crate) fn sweep(
        &self,
        needed: &BTreeSet<Digest>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<u64, PlaceError> {
        let needed: BTreeSet<PathBuf> = needed.iter().map(|digest| self.blob(digest)).collect();
        let mut freed = 0;
        for path in files(&self.path.join(ROOT).join("blobs/sha256"))? {
            let Ok(metadata) = fs_err::metadata(&path) else { continue };
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            if !needed.contains(&path) && age.is_some_and(|age| age >= grace) {
                freed += metadata.len();
                if !dry_run {
                    remove(path)?;
                }
            }
        }
        Ok(freed)
    }
}

/// Removes a file that somebody else may be removing as well.
fn remove(path: PathBuf) -> Result<(), PlaceError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The files in a directory, which need not exist.
fn files(directory: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    match fs_err::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?),
    }
}

/// Copies everything, and tells after each piece how much that is so far.
fn copy(from: &mut dyn Read, to: &mut dyn Write, progress: &dyn Fn(u64)) -> Result<(), PlaceError> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                done += count as u64;
                progress(done);
            }
        }
    }
}

/// Writes a file, and makes its directory if need be.
fn write<T>(path: &Path, write: impl Fn(&Path) -> Result<T, FsError>) -> Result<T, FsError> {
    match write(path) {
        Err(error) if error.is_not_found() => {
            let parent = path.parent().unwrap_or(path);
            fs_err::create_dir_all(parent)
                .map_err(|error| FsError::new("create the directory", parent, error))?;
            write(path)
        }
        result => result,
    }
}
