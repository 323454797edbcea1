//! Cache mounts in places elsewhere (`--cache-mounts-to`, `--cache-mounts-from`, `formwork mounts
//! export --to` and `import --from`).
//!
//! Each id has a manifest of its own, with the artifact type
//! `application/vnd.formwork.cache-mount.v1` and one layer, the files as a tar archive packed with
//! Zstandard, with times to the nanosecond. Its annotations say whose it is ([`ID`]) and what the
//! files are ([`FILES`]), so that a mount that has not changed is not even packed.
//!
//! Of two machines that export the same mount the later one counts: the files of a cache mount
//! belong together, and nobody can tell what a mixture would mean to the program that uses them.

use std::collections::BTreeSet;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_graph::{Graph, MountKind, Op, OpId};
use formwork_layer::{Compression, PackOptions, pack};
use formwork_oci::{Descriptor, Digest, Manifest, MediaType};
use formwork_solver::Cancel;
use formwork_worker::{LayerStore, cache_mount_files, is_cache_mount_empty, replace_cache_mount};

use super::bundle::{EMPTY_BYTES, created, empty, manifest_with, read_manifest};
use super::export::{open_blob, open_bytes};
use super::place::{Place, PlaceError};
use super::watch::watched;
use super::{CacheFrom, CachePlace, CacheTo};
use crate::step::step;
use crate::{BuildError, BuildRequest, ErrorKind, Host};

/// What the manifest of a mount says that it is.
const ARTIFACT: &str = "application/vnd.formwork.cache-mount.v1";
/// The files.
const ARCHIVE: &str = "application/vnd.formwork.cache-mount.v1.tar+zstd";
/// The annotation with the id of the mount.
const ID: &str = "formwork.cache-mount.id";
/// The annotation with a hash of the files and all about them.
const FILES: &str = "formwork.cache-mount.files";
/// The most that a mount may have, packed.
const LIMIT: u64 = 1 << 40;

/// Sends a cache mount to a place; whether it was sent, and not there already.
///
/// # Errors
///
/// Fails where there is no such mount, and where the place does not take it.
pub fn send_cache_mount(
    host: &Host,
    id: &str,
    place: &CachePlace,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<bool, BuildError> {
    if is_cache_mount_empty(&host.layers, id) && !exists(&host.layers, id)? {
        return Err(crate::no_such_mount(host, id));
    }
    send_all(host, &[id.to_owned()], &to(place), events, cancel).map(|sent| sent > 0)
}

/// Puts what a place has of a cache mount in the place of the mount's files; `false` where the place
/// has none of that id.
///
/// # Errors
///
/// Fails where the place cannot be read, and while a step uses the mount, which is then as it was.
pub fn take_cache_mount(
    host: &Host,
    id: &str,
    place: &CachePlace,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<bool, BuildError> {
    let from = CacheFrom { place: place.clone(), timeout: CacheTo::TIMEOUT };
    take(host, id, &from, events, cancel)
}

fn exists(store: &LayerStore, id: &str) -> Result<bool, BuildError> {
    let files = cache_mount_files(store, id).map_err(|error| BuildError::worker(&error))?;
    Ok(files.is_some())
}

fn to(place: &CachePlace) -> CacheTo {
    CacheTo {
        place: place.clone(),
        mode: super::CacheMode::Max,
        compression: None,
        ignore_error: false,
        timeout: CacheTo::TIMEOUT,
    }
}

/// The ids of the cache mounts that some targets use.
pub(crate) fn used_mounts(graph: &Graph, targets: &[OpId]) -> Vec<String> {
    let mounts = graph.needed_for(targets).into_iter().flat_map(|id| match &graph.step(id).op {
        Op::Exec(exec) => exec.mounts.as_slice(),
        Op::Source(_) | Op::File(_) => &[],
    });
    let ids = mounts.filter_map(|mount| match &mount.kind {
        MountKind::Cache { id, .. } => Some(id.clone()),
        _ => None,
    });
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Fills the cache mounts of a build that are empty, each from the first place that has it. What
/// goes wrong is told.
///
/// # Errors
///
/// Fails where somebody asks to stop.
pub(crate) fn fill_mounts(
    host: &Host,
    request: &BuildRequest,
    ids: &[String],
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let mut broken = BTreeSet::new();
    for id in ids.iter().filter(|id| is_cache_mount_empty(&host.layers, id)) {
        for (number, from) in request.mounts_from.iter().enumerate() {
            if broken.contains(&number) {
                continue;
            }
            match take(host, id, from, events, cancel) {
                Ok(true) => break,
                Ok(false) => {}
                Err(_) if cancel.is_canceled() => return Err(BuildError::canceled()),
                Err(error) => {
                    broken.insert(number);
                    warn(events, error, "the step begins with an empty cache mount");
                }
            }
        }
    }
    Ok(())
}

/// Sends the cache mounts of a build to all places that are to get them. What goes wrong is told,
/// and fails the build only where that is asked for.
///
/// # Errors
///
/// Fails where somebody asks to stop, and where a place must not be left out.
pub(crate) fn send_mounts(
    host: &Host,
    request: &BuildRequest,
    ids: &[String],
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for to in request.mounts_to.iter().filter(|_| !ids.is_empty()) {
        match send_all(host, ids, to, events, cancel) {
            Ok(_) => {}
            Err(_) if cancel.is_canceled() => return Err(BuildError::canceled()),
            Err(error) if !to.ignore_error => return Err(error),
            Err(error) => warn(events, error, "the image is complete"),
        }
    }
    Ok(())
}

fn warn(events: &Arc<dyn EventSink>, error: BuildError, help: &str) {
    for told in error.diagnostics {
        let warning = Diagnostic::warning("cache-mounts", told.message).with_help(help.to_owned());
        events.emit(Event::Message(Box::new(warning)));
    }
}

/// Sends mounts to a place, one after another; how many were sent.
fn send_all(
    host: &Host,
    ids: &[String],
    to: &CacheTo,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<usize, BuildError> {
    let place = Arc::new(Place::open(host, &to.place));
    let title = format!("export cache mounts to {}", place.title());
    step(title, events, cancel, |_| {
        let (place, store) = (Arc::clone(&place), Arc::clone(&host.layers));
        let (ids, compression) = (ids.to_vec(), to.compression.unwrap_or(Compression::ZSTD));
        let title = place.title().to_owned();
        let work = move || {
            let mut sent = 0;
            for id in ids {
                sent += usize::from(send(&place, &store, &id, compression)?);
            }
            Ok(sent)
        };
        watched(to.timeout, cancel, work).map_err(|error| {
            let message = format!("cache mounts could not be sent to {title}: {error}");
            BuildError::new(to.place.kind_of_failure(), Diagnostic::error("cache-mounts", message))
        })
    })
}

/// Sends a mount, unless the place has the same files; `false` also if there is no such mount.
fn send(
    place: &Place,
    store: &LayerStore,
    id: &str,
    compression: Compression,
) -> Result<bool, PlaceError> {
    let told = |error: formwork_worker::WorkerError| PlaceError::new(error.to_string());
    let Some(files) = cache_mount_files(store, id).map_err(told)? else { return Ok(false) };
    let hash = Digest::of(&files.tree.encode()).to_string();
    let name = place.name_of_mount(id);
    if let Some(bytes) = place.read(&name)?
        && let Ok(known) = read_manifest(&bytes, ARTIFACT)
        && known.annotations.get(FILES) == Some(&hash)
    {
        return Ok(false);
    }
    let options = PackOptions {
        compression,
        nanoseconds: true,
        threads: store.threads(),
        ..PackOptions::default()
    };
    let failed = |error: &dyn std::fmt::Display| PlaceError::new(error.to_string());
    let mut staged = store.content().stage().map_err(|error| failed(&error))?;
    let packed = pack(&files.tree, &options, &mut staged).map_err(|error| failed(&error))?;
    drop(files);
    let kind = MediaType::Other(ARCHIVE.to_owned());
    let archive = Descriptor::new(kind, packed.digest.clone(), packed.size);
    let blob = staged.commit_hashed(packed.digest.clone()).map_err(|error| failed(&error))?;
    let sent = place.put(&archive, &|from| open_blob(&blob, from), &|_| {});
    // It is of no use here any more.
    let _ = store.content().remove(&packed.digest);
    sent?;
    place.put(&empty(), &|from| open_bytes(EMPTY_BYTES, from), &|_| {})?;
    let more = [(ID.to_owned(), id.to_owned()), (FILES.to_owned(), hash)];
    let now = jiff::Timestamp::now().as_second();
    place.write(&name, &manifest_with(ARTIFACT, vec![archive], now, place.head(), more))?;
    Ok(true)
}

/// Takes a mount from a place, if that has it.
fn take(
    host: &Host,
    id: &str,
    from: &CacheFrom,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<bool, BuildError> {
    let place = Arc::new(Place::open(host, &from.place));
    let title = place.title().to_owned();
    let told = |error: &dyn std::fmt::Display| {
        failed(format!("the cache mount `{id}` could not be taken from {title}: {error}"))
    };
    let (looked_in, name) = (Arc::clone(&place), place.name_of_mount(id));
    let found = watched(from.timeout, cancel, move || looked_in.read(&name));
    let Some(bytes) = found.map_err(|error| told(&error))? else { return Ok(false) };
    let archive = archive_of(&bytes, id).map_err(|error| told(&error))?;
    step(format!("import cache mount {id} from {title}"), events, cancel, |_| {
        let (store, fetched) = (Arc::clone(&host.layers), archive.clone());
        let work = move || {
            let failed = |error: &dyn std::fmt::Display| PlaceError::new(error.to_string());
            let content = store.content();
            let mut writer =
                content.writer_for(fetched.digest.algorithm()).map_err(|error| failed(&error))?;
            place.fetch(&fetched, &mut writer, &|_| {})?;
            let kept = writer.commit(Some((&fetched.digest, fetched.size)));
            kept.map_err(|error| failed(&error))
        };
        let blob = watched(super::BLOB_TIME, cancel, work).map_err(|error| told(&error))?;
        let open = blob.open().map_err(BuildError::store)?;
        let replaced = replace_cache_mount(&host.layers, id, open);
        let _ = host.layers.content().remove(&archive.digest);
        match replaced.map_err(|error| told(&error))? {
            true => Ok(true),
            false => Err(told(&"a step is using it")),
        }
    })
}

/// The archive of a mount, as its manifest has it.
fn archive_of(bytes: &[u8], id: &str) -> Result<Descriptor, PlaceError> {
    let manifest: Manifest = read_manifest(bytes, ARTIFACT)?;
    if manifest.annotations.get(ID).map(String::as_str) != Some(id) || created(&manifest) == 0 {
        return Err(PlaceError::new("what it has is another cache mount"));
    }
    let archive = manifest.layers.into_iter().find(|layer| layer.media_type.as_str() == ARCHIVE);
    let archive = archive.filter(|archive| archive.size <= LIMIT && archive.urls.is_empty());
    archive.ok_or_else(|| PlaceError::new("what it has of it makes no sense"))
}

fn failed(message: String) -> BuildError {
    BuildError::new(ErrorKind::Registry, Diagnostic::error("cache-mounts", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_another_id_or_kind_is_refused() {
        let archive = Descriptor::of(MediaType::Other(ARCHIVE.to_owned()), b"x");
        let of = |artifact: &str, id: &str, archive: &Descriptor| {
            let more = [(ID.to_owned(), id.to_owned())];
            archive_of(&manifest_with(artifact, vec![archive.clone()], 1, "main", more), "apt")
        };
        assert_eq!(of(ARTIFACT, "apt", &archive).unwrap(), archive);
        assert!(of(ARTIFACT, "dnf", &archive).is_err());
        assert!(of("application/vnd.formwork.cache.v1", "apt", &archive).is_err());
        let huge = Descriptor { size: u64::MAX, ..archive.clone() };
        assert!(of(ARTIFACT, "apt", &huge).is_err());
        let elsewhere = Descriptor { urls: vec!["http://x".to_owned()], ..archive };
        assert!(of(ARTIFACT, "apt", &elsewhere).is_err());
    }
}
