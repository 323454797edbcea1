//! Clearing a cache elsewhere of what nobody has used for some time (`formwork cache gc`).
//!
//! Every export writes the names of all steps that it used and whose bundles are older than a day
//! anew, so the age of a name's bundle says when the step was last used, to the day. Names with old
//! bundles go; blobs that no bundle needs any more go, too, where formwork has to see to that: in a
//! directory and in a bucket. Registries do that themselves. A blob that was sent or wanted within
//! the last hour stays, since whoever sends it may just be about to write its bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use formwork_diagnostics::{Diagnostic, EventSink};
use formwork_oci::{Digest, Manifest, from_json};
use formwork_solver::Cancel;

use super::bundle::created;
use super::place::{Place, PlaceError, digest_of};
use super::watch::watched;
use super::{BLOB_TIME, CachePlace, in_parallel};
use crate::step::step;
use crate::{BuildError, ErrorKind, Host};

/// How old a blob must be that goes.
const GRACE: Duration = Duration::from_secs(3600);

/// What was removed from a cache elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The names that there were.
    pub names: usize,
    /// Those of them that went.
    pub removed: usize,
    /// The number of bytes of the blobs that went; `None` where the place sees to that itself.
    pub freed: Option<u64>,
}

/// Removes what nobody has used for so long from a cache elsewhere; with `dry_run` it only tells
/// what that would be.
///
/// # Errors
///
/// Fails where the place cannot be read or does not let anything be removed.
pub fn clear_cache(
    host: &Host,
    place: &CachePlace,
    keep: Duration,
    dry_run: bool,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Cleared, BuildError> {
    let place = Place::open(host, place);
    let title = place.title().to_owned();
    step(format!("clear the cache {title}"), events, cancel, |_| {
        let now = jiff::Timestamp::now().as_second();
        let oldest = now.saturating_sub(i64::try_from(keep.as_secs()).unwrap_or(i64::MAX));
        watched(BLOB_TIME, cancel, move || clear(&place, oldest, dry_run)).map_err(|error| {
            let message = format!("the cache {title} cannot be cleared: {error}");
            BuildError::new(ErrorKind::Registry, Diagnostic::error("cache-gc", message))
        })
    })
}

/// A manifest under some names.
struct Bundle {
    manifest: Manifest,
    names: Vec<String>,
    is_own: bool,
}

fn clear(place: &Place, oldest: i64, dry_run: bool) -> Result<Cleared, PlaceError> {
    let bundles = bundles(place)?;
    let (old, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = bundles
        .into_iter()
        .partition(|(_, bundle)| bundle.is_own && created(&bundle.manifest) <= oldest);
    let count = |bundles: &BTreeMap<Digest, Bundle>| {
        let own = bundles.values().filter(|bundle| bundle.is_own);
        own.map(|bundle| bundle.names.len()).sum::<usize>()
    };
    let removed = count(&old);
    let names = removed + count(&kept);
    if !dry_run {
        for (digest, bundle) in &old {
            place.remove(digest, &bundle.names)?;
        }
    }
    let needed: BTreeSet<Digest> = kept
        .values()
        .flat_map(|bundle| bundle.manifest.layers.iter().chain([&bundle.manifest.config]))
        .map(|blob| blob.digest.clone())
        .collect();
    let freed = place.sweep(&needed, GRACE, dry_run)?;
    Ok(Cleared { names, removed, freed })
}

/// All manifests of a place, of this cache and, where blobs are shared, of others.
fn bundles(place: &Place) -> Result<BTreeMap<Digest, Bundle>, PlaceError> {
    let names = place.names()?;
    let found: Mutex<BTreeMap<Digest, Bundle>> = Mutex::default();
    in_parallel(&names, |name| {
        let Some(bytes) = place.read(name)? else { return Ok(()) };
        let digest = digest_of(&bytes);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = found.get_mut(&digest) {
            known.names.push(name.clone());
            return Ok(());
        }
        // What is something else is left alone, with all that it may need.
        let Ok(manifest) = from_json::<Manifest>("cache manifest", &bytes) else {
            return Err(PlaceError::new(format!("`{name}` is no cache of formwork")));
        };
        let artifact = manifest.artifact_type.as_deref().unwrap_or_default();
        let is_own = artifact.starts_with("application/vnd.formwork.cache") && place.is_own(name);
        found.insert(digest, Bundle { manifest, names: vec![name.clone()], is_own });
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}
