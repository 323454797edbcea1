//! Keeping limits before a build writes.

use std::path::Path;
use std::time::SystemTime;

use formwork_fs::{AtomicFile, free_space};

use super::{Limits, prune, usage};
use crate::{BuildError, Host};

/// The file with the number of bytes that the store took when it was last measured.
const MEASURED: &str = "measured";

/// Removes what no image and no running process needs and was not used for longest, where a limit
/// does not hold.
///
/// Costs nothing without limits, and little as long as nothing was added to the store.
///
/// # Errors
///
/// Fails where the store cannot be read or written.
pub(crate) fn make_room(host: &Host, limits: Limits) -> Result<(), BuildError> {
    let root = host.layout.root();
    let lacks = match limits.min_free {
        Some(min) => free_space(root).map_err(BuildError::store)? < min,
        None => false,
    };
    let is_over = match limits.max_used {
        Some(max) => used(host)? > max,
        None => false,
    };
    if lacks || is_over {
        // What is measured next is measured anew, since this changes the directories.
        prune(host, &|_| true, false, limits, false)?;
    }
    Ok(())
}

/// The number of bytes that the store takes, as it was last measured if nothing was added since.
fn used(host: &Host) -> Result<u64, BuildError> {
    let path = host.layout.locks().join(MEASURED);
    let known = modified(&path).filter(|at| watched(host).all(|changed| changed < *at));
    if known.is_some()
        && let Ok(text) = fs_err::read_to_string(&path)
        && let Ok(bytes) = text.parse()
    {
        return Ok(bytes);
    }
    let bytes = usage(host)?.total();
    AtomicFile::write(&path, bytes.to_string().as_bytes()).map_err(BuildError::store)?;
    Ok(bytes)
}

/// When something was last added to the directories that grow.
fn watched(host: &Host) -> impl Iterator<Item = SystemTime> {
    let layout = &host.layout;
    let blobs = layout.content().join("blobs/sha256");
    // The runs of steps are noted whatever a step changes, such as a cache mount.
    let grow = [layout.snapshots(), blobs, layout.runs()];
    grow.into_iter().filter_map(|path| modified(&path))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs_err::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
