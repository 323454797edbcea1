//! Cache mounts as the user sees them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use formwork_diagnostics::Diagnostic;
use formwork_fs::RootDir;
use formwork_layer::tree::{Metadata, Origin};
use formwork_layer::{
    Compression, LayerError, MaterializeOptions, Ownership, PackOptions, materialize, pack,
    scan_upper,
};
use formwork_worker::{
    StoredCacheMount, cache_mount_files, replace_cache_mount, stored_cache_mounts,
};

use crate::output::archive;
use crate::space::{Item, ItemKind, Limits, prune};
use crate::{BuildError, Destination, ErrorKind, Host};

/// Writes the files of a cache mount as a tar archive, with times to the nanosecond, since make and
/// cargo go by them.
///
/// # Errors
///
/// Fails where there is no such mount, and where a file changes meanwhile or cannot be read.
pub fn export_cache_mount(
    host: &Host,
    id: &str,
    compression: Compression,
    destination: &Destination,
) -> Result<(), BuildError> {
    let told = |error| BuildError::worker(&error);
    let files = cache_mount_files(&host.layers, id).map_err(told)?;
    let files = files.ok_or_else(|| no_such_mount(host, id))?;
    let threads = host.layers.threads();
    let options = PackOptions { compression, nanoseconds: true, threads, ..PackOptions::default() };
    archive(&files.tree, &options, destination).map_err(told)
}

/// Copies the files of a cache mount into a directory of the user's, which is made if it is missing.
///
/// # Errors
///
/// Fails where there is no such mount, and where the directory cannot be written.
pub fn export_cache_mount_files(host: &Host, id: &str, place: &Path) -> Result<(), BuildError> {
    let told = |error| BuildError::worker(&error);
    let files = cache_mount_files(&host.layers, id).map_err(told)?;
    let files = files.ok_or_else(|| no_such_mount(host, id))?;
    fs_err::create_dir_all(place).map_err(BuildError::store)?;
    let directory = RootDir::open(place).map_err(BuildError::store)?;
    let (ownership, threads) = (Ownership::Caller, host.layers.threads());
    let options = MaterializeOptions { ownership, threads, ..MaterializeOptions::default() };
    materialize(&files.tree, &directory, &options).map_err(|error| told(error.into()))?;
    Ok(())
}

/// Puts copies of the files in a directory of the user's in the place of a cache mount's.
///
/// # Errors
///
/// Fails where the directory cannot be read, while a step uses the mount, and where the store
/// cannot be written; the mount is then as it was.
pub fn import_cache_mount_files(host: &Host, id: &str, place: &Path) -> Result<(), BuildError> {
    let told = |error: LayerError| BuildError::worker(&error.into());
    let directory = RootDir::open(place).map_err(BuildError::input_error)?;
    // No directory has this mode, so its own is always among the entries.
    let none = Metadata { mode: u32::MAX, ..Metadata::default() };
    let threads = host.layers.threads();
    let tree = scan_upper(&Origin::context(directory), &none, threads).map_err(told)?;
    let (archive, sink) = std::io::pipe().map_err(BuildError::store)?;
    let compression = Compression::None;
    let options = PackOptions { compression, nanoseconds: true, threads, ..PackOptions::default() };
    std::thread::scope(|scope| {
        let packing = std::thread::Builder::new()
            .spawn_scoped(scope, || pack(&tree, &options, sink))
            .map_err(BuildError::store)?;
        let imported = import_cache_mount(host, id, archive);
        match packing.join() {
            Ok(Err(error)) if imported.is_ok() => Err(told(error)),
            _ => imported,
        }
    })
}

/// Puts the files of a tar archive, compressed or not, in the place of a cache mount's.
///
/// # Errors
///
/// Fails where the archive cannot be read, while a step uses the mount, and where the store cannot
/// be written; the mount is then as it was.
pub fn import_cache_mount(
    host: &Host,
    id: &str,
    archive: impl Read + Send,
) -> Result<(), BuildError> {
    let is_done = replace_cache_mount(&host.layers, id, archive);
    match is_done.map_err(|error| BuildError::worker(&error))? {
        true => Ok(()),
        false => Err(in_use(id)),
    }
}

/// Empties cache mounts, so that the next step fills each as if it were new.
///
/// # Errors
///
/// Fails while a step uses one of them, and where the store cannot be written.
pub(crate) fn empty_mounts(host: &Host, ids: &BTreeSet<String>) -> Result<(), BuildError> {
    if ids.is_empty() {
        return Ok(());
    }
    let selected = |item: &Item| item.kind == ItemKind::CacheMount && ids.contains(&item.id);
    prune(host, &selected, false, Limits::default(), false)?;
    let left = stored_cache_mounts(&host.layout.cache_mounts()).map_err(BuildError::store)?;
    match left.iter().find(|mount| ids.contains(&mount.id)) {
        Some(used) => Err(in_use(&used.id)),
        None => Ok(()),
    }
}

fn in_use(id: &str) -> BuildError {
    let error = Diagnostic::error("in-use", format!("a step is using the cache mount `{id}`"));
    BuildError::new(ErrorKind::Machine, error.with_help("try again when the build has ended"))
}

/// That no cache mount has an id.
///
/// # Errors
///
/// Always.
pub fn no_such_mount(host: &Host, id: &str) -> BuildError {
    let error = Diagnostic::error("no-mount", format!("there is no cache mount `{id}`"));
    let mounts = stored_cache_mounts(&host.layout.cache_mounts()).unwrap_or_default();
    let ids: Vec<String> =
        mounts.iter().map(|StoredCacheMount { id, .. }| format!("`{id}`")).collect();
    let help = match ids.is_empty() {
        true => "there are none in this store".to_owned(),
        false => format!("there are {}", ids.join(", ")),
    };
    BuildError::new(ErrorKind::Input, error.with_help(help))
}
