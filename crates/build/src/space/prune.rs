//! Making room in the store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formwork_cache::CacheIndex;
use formwork_fs::{ClosedGate, FsError, RootDir, free_space, remove_tree};
use formwork_image::StoredLayer;
use formwork_oci::Digest;
use formwork_snapshot::Active;

use super::usage::{Place, blob_path, usage_for};
use super::{Item, ItemKind, Needed, Usage};
use crate::{BuildError, Host};

/// How long the record of a step that changed nothing is kept after its last use. Such records
/// have no layer that they could go with.
const EMPTY_RECORDS: Duration = Duration::from_secs(90 * 86400);

/// How much is to stay. Without any of these, nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The number of bytes that the store may keep in any case.
    pub reserved: Option<u64>,
    /// The number of bytes that the store may take.
    pub max_used: Option<u64>,
    /// The number of bytes that are to be free on the disk.
    pub min_free: Option<u64>,
}

/// What was removed.
#[derive(Debug)]
pub struct Pruned {
    /// The things, the least recently used first.
    pub items: Vec<Item>,
}

impl Pruned {
    /// The number of bytes that were freed.
    pub fn freed(&self) -> u64 {
        self.items.iter().map(|item| item.size).sum()
    }
}

impl Limits {
    /// The number of bytes that have to go, of a store that takes `used` on a disk that has
    /// `free`; `None` if everything should.
    fn excess(self, used: u64, free: u64) -> Option<u64> {
        if self == Self::default() {
            return None;
        }
        let Self { reserved, max_used, min_free } = self;
        let over = max_used.map(|max| used.saturating_sub(max));
        let lacking = min_free.map(|min| min.saturating_sub(free));
        let above = used.saturating_sub(reserved.unwrap_or(0));
        // All that is above the reserve may go, and goes unless another limit says how much.
        Some(over.max(lacking).map_or(above, |excess| excess.min(above)))
    }
}

/// Removes what no image needs and what is `selected`, the least recently used first, until the
/// limits hold. With `all`, also images without a name, and what only makes builds of the other ones
/// fast: the records of their steps, and what is known about the files of contexts.
///
/// With `dry_run` nothing is removed.
///
/// # Errors
///
/// Fails where the store cannot be written.
pub fn prune(
    host: &Host,
    selected: &dyn Fn(&Item) -> bool,
    all: bool,
    limits: Limits,
    dry_run: bool,
) -> Result<Pruned, BuildError> {
    let items = chosen(host, selected, all, limits)?;
    if dry_run {
        return Ok(Pruned { items });
    }
    let mut removal = Removal { host, away: Vec::new(), layers: Vec::new() };
    let items = removal.set_unneeded_aside(items, all)?;
    removal.forget_records(all && limits == Limits::default())?;
    if all {
        removal.forget_images()?;
    }
    // What is set aside is in nobody's way while it is removed.
    removal.finish().map_err(BuildError::store)?;
    Ok(Pruned { items })
}

/// What has to go.
fn chosen(
    host: &Host,
    selected: &dyn Fn(&Item) -> bool,
    all: bool,
    limits: Limits,
) -> Result<Vec<Item>, BuildError> {
    let usage = usage_for(host, &Needed::of(host, !all)?)?;
    let may_go = |item: &Item| all || item.kind != ItemKind::Context;
    let free = free_space(host.layout.root()).map_err(BuildError::store)?;
    let goal = limits.excess(usage.total(), free);
    Ok(choose(usage, goal, &|item| may_go(item) && selected(item)))
}

/// The least recently used, until they add up to a number of bytes.
fn choose(usage: Usage, goal: Option<u64>, selected: &dyn Fn(&Item) -> bool) -> Vec<Item> {
    let mut items = usage.items;
    items.retain(|item| !item.needed && selected(item));
    items.sort_by_key(|item| item.last_used);
    let Some(goal) = goal else { return items };
    let mut sum = 0;
    let chosen = items.into_iter().take_while(|item| {
        let goes = sum < goal;
        sum += item.size;
        goes
    });
    chosen.collect()
}

/// Takes things out of the store.
struct Removal<'a> {
    host: &'a Host,
    away: Vec<PathBuf>,
    layers: Vec<Active>,
}

impl Removal<'_> {
    /// Moves things to where nobody looks for them, as far as they are not needed; returns which.
    fn set_unneeded_aside(
        &mut self,
        mut items: Vec<Item>,
        all: bool,
    ) -> Result<Vec<Item>, BuildError> {
        // Looked at again while nobody can begin to use anything: what was free to go when it was
        // measured, somebody may use by now.
        let _gate = ClosedGate::close(self.host.layout.locks()).map_err(BuildError::store)?;
        let needed = Needed::of(self.host, !all)?;
        items.retain(|item| !item.is_needed(&needed));
        items.iter().try_for_each(|item| self.set_aside(item))?;
        Ok(items)
    }

    /// Moves a thing to where nobody looks for it.
    fn set_aside(&mut self, item: &Item) -> Result<(), BuildError> {
        let snapshots = self.host.layers.snapshots();
        match &item.place {
            Place::Layer(key, blobs) => {
                self.layers.push(snapshots.set_aside(key).map_err(BuildError::store)?);
                blobs.iter().try_for_each(|digest| self.move_blob(digest))
            }
            Place::Blob(digest) => self.move_blob(digest),
            Place::Path(path) => self.move_away(path),
        }
    }

    fn move_blob(&mut self, digest: &Digest) -> Result<(), BuildError> {
        match blob_path(self.host.layers.content(), digest) {
            Some(path) => self.move_away(&path),
            None => Ok(()),
        }
    }

    /// Renames, which takes no time however large something is; what is gone already is gone.
    fn move_away(&mut self, path: &Path) -> Result<(), BuildError> {
        let scratch = self.host.layout.scratch().map_err(BuildError::store)?;
        let away = scratch.join(format!("pruned-{}", self.away.len()));
        match fs_err::rename(path, &away) {
            Ok(()) => self.away.push(away),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(BuildError::store(FsError::new("move", path, error))),
        }
        Ok(())
    }

    /// Removes records whose layers are gone, and those that nobody has used for long; all of
    /// them if everything should go.
    fn forget_records(&self, all: bool) -> Result<(), BuildError> {
        let now = SystemTime::now();
        let snapshots = self.host.layers.snapshots();
        let is_there = |layer: &str| layer.parse().is_ok_and(|key| snapshots.peek(&key).is_some());
        for stored in self.host.index.list().map_err(BuildError::store)? {
            let age = now.duration_since(stored.last_used).unwrap_or_default();
            let is_useful = match stored.record.layer.as_str() {
                "" => age < EMPTY_RECORDS,
                layer => is_there(layer),
            };
            if all || !is_useful {
                self.host.index.forget(&stored.key).map_err(BuildError::store)?;
            }
        }
        let age = if all { Duration::ZERO } else { EMPTY_RECORDS };
        self.host.index.forget_runs(age).map_err(BuildError::store)
    }

    /// Removes the images without a name that have lost something.
    fn forget_images(&self) -> Result<(), BuildError> {
        let (snapshots, content) = (self.host.layers.snapshots(), self.host.layers.content());
        let content = content.unheld();
        let has = |layer: &StoredLayer| match &layer.snapshot {
            Some(key) => key.parse().is_ok_and(|key| snapshots.peek(&key).is_some()),
            None => true,
        };
        let images = self.host.images.list().map_err(BuildError::store)?.images;
        for image in images.iter().filter(|image| image.name.is_none()) {
            let mut is_whole = true;
            for part in image.platforms() {
                let has_config = content.contains(&part.config).map_err(BuildError::store)?;
                is_whole = is_whole && has_config && part.layers.iter().all(has);
            }
            if !is_whole {
                self.host.images.remove(image).map_err(BuildError::store)?;
            }
        }
        Ok(())
    }

    /// Removes what was set aside.
    fn finish(self) -> Result<(), FsError> {
        drop(self.layers);
        for path in self.away {
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                remove_tree(&RootDir::open(parent)?, name.as_encoded_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(reserved: Option<u64>, max_used: Option<u64>, min_free: Option<u64>) -> Option<u64> {
        Limits { reserved, max_used, min_free }.excess(100, 10)
    }

    #[test]
    fn limits_say_how_much_goes() {
        assert_eq!(excess(None, None, None), None);
        assert_eq!(excess(Some(30), None, None), Some(70));
        assert_eq!(excess(Some(300), None, None), Some(0));
        assert_eq!(excess(None, Some(80), None), Some(20));
        assert_eq!(excess(None, Some(200), None), Some(0));
        assert_eq!(excess(None, None, Some(5)), Some(0));
        assert_eq!(excess(None, None, Some(35)), Some(25));
        assert_eq!(excess(None, Some(80), Some(35)), Some(25));
        assert_eq!(excess(Some(90), Some(80), Some(35)), Some(10));
    }
}
