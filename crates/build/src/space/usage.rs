//! What is in the store, and what each thing takes on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use formwork_cache::StoredRecord;
use formwork_content::ContentStore;
use formwork_fs::{DiskUsage, FsError};
use formwork_oci::Digest;
use formwork_snapshot::{SnapshotKey, Snapshotter};
use formwork_worker::{blobs_of_layer, stored_cache_mounts};

use super::Needed;
use crate::{BuildError, Host};

/// Everything in the store.
#[derive(Debug)]
pub struct Usage {
    /// All that can be told apart, in no order.
    pub items: Vec<Item>,
}

/// One thing in the store.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// What it is called: the layer's name, the digest, the id.
    pub id: String,
    /// What made it, for people.
    pub description: String,
    /// How many bytes it takes on the disk, without what belongs to other things too.
    pub size: u64,
    /// When it was last used, to the day.
    pub last_used: SystemTime,
    /// Whether it has to stay: an image needs it, a running process, or the store itself.
    pub needed: bool,
    pub(super) place: Place,
}

/// What a thing in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// A layer: its files, and what is known about it.
    Layer,
    /// A packed layer, a manifest or a configuration.
    Blob,
    /// A directory of `RUN --mount=type=cache`.
    CacheMount,
    /// What is known about the files of a build context.
    Context,
    /// Cache records, names of images, and everything else that holds the store together.
    Index,
    /// What running processes have not finished.
    Temporary,
}

/// Where a thing is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A snapshot, with the blobs without which it is nothing.
    Layer(SnapshotKey, Vec<Digest>),
    Blob(Digest),
    Path(PathBuf),
}

impl Usage {
    /// The number of bytes that the store takes on the disk.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|item| item.size).sum()
    }

    /// The number of bytes that could be freed.
    pub fn reclaimable(&self) -> u64 {
        self.items.iter().filter(|item| !item.needed).map(|item| item.size).sum()
    }
}

/// Looks at everything in the store.
///
/// Layers may share files. Such a file counts for one that must stay, else for the one that was
/// used last, so that the size of each is what its removal frees.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn usage(host: &Host) -> Result<Usage, BuildError> {
    usage_for(host, &Needed::of(host, true)?)
}

/// The same, where it is known what is needed.
pub(super) fn usage_for(host: &Host, needed: &Needed) -> Result<Usage, BuildError> {
    let records = host.index.list().map_err(BuildError::store)?;
    let mut items = list(host, needed, &records)?;
    items.sort_by_key(|item| (!item.needed, std::cmp::Reverse(item.last_used)));
    measure(host, &mut items).map_err(BuildError::store)?;
    Ok(Usage { items })
}

fn list(host: &Host, needed: &Needed, records: &[StoredRecord]) -> Result<Vec<Item>, BuildError> {
    let mut items = layers(host, needed, records)?;
    let part_of_layer: BTreeSet<Digest> = items
        .iter()
        .filter_map(|item| match &item.place {
            Place::Layer(_, blobs) => Some(blobs.iter().cloned()),
            _ => None,
        })
        .flatten()
        .collect();
    for blob in host.layers.content().list().map_err(BuildError::store)? {
        if !part_of_layer.contains(&blob.digest) {
            let needed = needed.has_blob(&blob.digest);
            let last_used = modified(&blob.path);
            let place = Place::Blob(blob.digest.clone());
            let id = blob.digest.to_string();
            items.push(Item { last_used, needed, ..Item::new(ItemKind::Blob, id, place) });
        }
    }
    items.extend(cache_mounts(host, needed)?);
    items.extend(contexts(host)?);
    items.extend(partial(host, needed)?);
    let temporary = Place::Path(host.layout.tmp());
    let (id, now) = ("tmp".to_owned(), SystemTime::now());
    let item = Item::new(ItemKind::Temporary, id, temporary);
    items.push(Item { needed: true, last_used: now, ..item });
    Ok(items)
}

impl Item {
    fn new(kind: ItemKind, id: String, place: Place) -> Self {
        let last_used = SystemTime::UNIX_EPOCH;
        Self { kind, id, description: String::new(), size: 0, last_used, needed: false, place }
    }

    /// Whether it has to stay.
    pub(super) fn is_needed(&self, needed: &Needed) -> bool {
        match &self.place {
            Place::Layer(key, blobs) => {
                needed.has_layer(key.as_str()) || blobs.iter().any(|blob| needed.has_blob(blob))
            }
            Place::Blob(digest) => needed.has_blob(digest),
            Place::Path(path) => is_held(path, needed),
        }
    }

    /// The files and directories that it consists of.
    fn paths(&self, host: &Host) -> Vec<PathBuf> {
        let content = host.layers.content();
        match &self.place {
            Place::Layer(key, blobs) => {
                let own = host.layout.snapshots().join(key.as_str());
                let blobs = blobs.iter().filter_map(|digest| blob_path(content, digest));
                std::iter::once(own).chain(blobs).collect()
            }
            Place::Blob(digest) => blob_path(content, digest).into_iter().collect(),
            Place::Path(path) => vec![path.clone()],
        }
    }
}

/// Whether a running process holds something that is known by the name of its file.
fn is_held(path: &Path, needed: &Needed) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| needed.is_held(name))
}

pub(super) fn blob_path(content: &ContentStore, digest: &Digest) -> Option<PathBuf> {
    content.unheld().get(digest).ok().flatten().map(|blob| blob.path)
}

fn layers(host: &Host, needed: &Needed, records: &[StoredRecord]) -> Result<Vec<Item>, BuildError> {
    let mut by_layer: BTreeMap<&str, &StoredRecord> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.record.step.is_empty()) {
        let latest = by_layer.entry(&record.record.layer).or_insert(record);
        if latest.last_used < record.last_used {
            *latest = record;
        }
    }
    let snapshots = host.layers.snapshots();
    let mut items = Vec::new();
    for key in snapshots.list().map_err(BuildError::store)? {
        let Some(snapshot) = snapshots.peek(&key) else { continue };
        let mut blobs = match snapshot.layer() {
            Some(_) => Vec::new(),
            None => blobs_of_layer(&host.layers, &snapshot)
                .map_err(|error| BuildError::worker(&error))?,
        };
        blobs.retain(|digest| !needed.has_blob(digest));
        let record = by_layer.get(key.as_str());
        let last_used = snapshot.last_used();
        let item = Item::new(ItemKind::Layer, key.to_string(), Place::Layer(key.clone(), blobs));
        items.push(Item {
            description: record.map(|record| record.record.step.clone()).unwrap_or_default(),
            last_used: record.map_or(last_used, |record| last_used.max(record.last_used)),
            needed: needed.has_layer(key.as_str()),
            ..item
        });
    }
    Ok(items)
}

fn cache_mounts(host: &Host, needed: &Needed) -> Result<Vec<Item>, BuildError> {
    let mounts = stored_cache_mounts(&host.layout.cache_mounts()).map_err(BuildError::store)?;
    let item = |mount: formwork_worker::StoredCacheMount| Item {
        last_used: mount.last_used,
        description: "RUN --mount=type=cache".to_owned(),
        needed: is_held(&mount.path, needed),
        ..Item::new(ItemKind::CacheMount, mount.id, Place::Path(mount.path))
    };
    Ok(mounts.into_iter().map(item).collect())
}

fn contexts(host: &Host) -> Result<Vec<Item>, BuildError> {
    let items = files_in(&host.layout.contexts(), ItemKind::Context)?.into_iter();
    let description = "hashes of a context";
    Ok(items.map(|item| Item { description: description.to_owned(), ..item }).collect())
}

/// Blobs of which a part has come.
fn partial(host: &Host, needed: &Needed) -> Result<Vec<Item>, BuildError> {
    let item = |item: Item| Item {
        description: "part of a download".to_owned(),
        needed: needed.is_held(&item.id),
        id: item.id.replacen('-', ":", 1),
        ..item
    };
    Ok(files_in(&host.layout.partial(), ItemKind::Blob)?.into_iter().map(item).collect())
}

fn files_in(directory: &Path, kind: ItemKind) -> Result<Vec<Item>, BuildError> {
    let failed = |error| BuildError::store(FsError::new("list the directory", directory, error));
    let mut items = Vec::new();
    for entry in fs_err::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let last_used = modified(&path);
        items.push(Item { last_used, ..Item::new(kind, id, Place::Path(path)) });
    }
    Ok(items)
}

fn modified(path: &Path) -> SystemTime {
    let metadata = fs_err::symlink_metadata(path);
    metadata.and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Measures the items in their order, then adds one for everything that is none of them.
fn measure(host: &Host, items: &mut Vec<Item>) -> Result<(), FsError> {
    let threads = host.layers.threads();
    let mut disk = DiskUsage::default();
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    for item in &mut *items {
        for path in item.paths(host) {
            // A blob may belong to several layers.
            if known.insert(path.clone()) {
                item.size += disk.add(path, threads)?;
            }
        }
    }
    let root = host.layout.root();
    let index = Place::Path(host.layout.index());
    let size = rest(&mut disk, root, &known, threads)?;
    let item = Item::new(ItemKind::Index, "index".to_owned(), index);
    items.push(Item { size, needed: true, last_used: SystemTime::now(), ..item });
    Ok(())
}

/// What is in a directory, without what is known by its path.
fn rest(
    disk: &mut DiskUsage,
    directory: &Path,
    known: &BTreeSet<PathBuf>,
    threads: usize,
) -> Result<u64, FsError> {
    let mut sum = disk.add_alone(directory)?;
    let failed = |error| FsError::new("list the directory", directory, error);
    for entry in fs_err::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // The paths are sorted: if one begins with this one, the next does.
        let next = known.range(path.clone()..).next();
        sum += match next {
            Some(next) if *next == path => 0,
            Some(next) if next.starts_with(&path) => rest(disk, &path, known, threads)?,
            _ => disk.add(&path, threads)?,
        };
    }
    Ok(sum)
}
