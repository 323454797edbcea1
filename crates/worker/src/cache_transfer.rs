//! Cache mounts on their way to other machines: their files as a tree, and an archive's files in
//! their place. Never touches a mount that a step is using in another way.

use std::io::Read;
use std::path::PathBuf;

use formwork_fs::{AtomicFile, FileLock, FsError, RootDir};
use formwork_layer::tree::{Metadata, Origin};
use formwork_layer::{ApplyOptions, Tree, Whiteouts, apply, scan_upper};
use formwork_snapshot::Snapshotter;

use crate::cache_mount::{create_directory, hold};
use crate::{LayerStore, WorkerError};

/// The files of a cache mount, as long as this is held.
#[derive(Debug)]
pub struct CacheMountFiles {
    /// The files, with the places of their bytes.
    pub tree: Tree,
    _lock: FileLock,
}

/// The directory that all steps share which use the cache mount of an id. Nobody removes it as long
/// as this process lives.
fn shared_directory(store: &LayerStore, id: &str) -> Result<PathBuf, FsError> {
    Ok(hold(&store.layout.cache_mounts(), store.layout.lease(), id)?.join("0"))
}

/// Whether a cache mount has nothing in it, or does not exist.
pub fn is_cache_mount_empty(store: &LayerStore, id: &str) -> bool {
    let Ok(directory) = shared_directory(store, id) else { return true };
    fs_err::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Looks at the files of a cache mount; `None` where there is no such mount. Waits for a step that
/// has the mount to itself.
///
/// # Errors
///
/// Fails where a file cannot be read.
pub fn cache_mount_files(
    store: &LayerStore,
    id: &str,
) -> Result<Option<CacheMountFiles>, WorkerError> {
    let directory = shared_directory(store, id)?;
    if !directory.is_dir() {
        return Ok(None);
    }
    let lock = FileLock::shared(directory.with_extension("lock"))?;
    // Steps that share the mount may still write, so nobody may rely on its files.
    let origin = Origin::context(RootDir::open(&directory)?);
    // No directory has this mode, so the mount's own is always among the entries.
    let none = Metadata { mode: u32::MAX, ..Metadata::default() };
    let tree = scan_upper(&origin, &none, store.threads())?;
    Ok(Some(CacheMountFiles { tree, _lock: lock }))
}

/// Puts the files of an archive, compressed or not, in the place of a cache mount's, which need
/// not exist yet; `false` while a step uses it.
///
/// # Errors
///
/// Fails where the archive cannot be read, and where the store cannot be written; the mount is then
/// as it was.
pub fn replace_cache_mount(
    store: &LayerStore,
    id: &str,
    archive: impl Read + Send,
) -> Result<bool, WorkerError> {
    let directory = shared_directory(store, id)?;
    let own = directory.with_file_name("");
    create_directory(&own)?;
    let active = store.snapshots.prepare()?;
    let (threads, whiteouts) = (store.threads(), Whiteouts::Literal);
    let options = ApplyOptions { threads, whiteouts, ..ApplyOptions::default() };
    apply(archive, &RootDir::open(active.upper())?, &options)?;
    let Some(_lock) = FileLock::try_exclusive(directory.with_extension("lock"))? else {
        return Ok(false);
    };
    AtomicFile::write(own.join("id"), id.as_bytes())?;
    let failed = |error| FsError::new("replace", &directory, error);
    match fs_err::rename(&directory, active.upper().with_file_name("replaced")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(error).into());
        }
        _ => {}
    }
    fs_err::rename(active.upper(), &directory).map_err(failed)?;
    Ok(true)
}
