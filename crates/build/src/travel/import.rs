//! Finding steps in caches elsewhere.
//!
//! The bundle that each place has exported last is read at the beginning, while the images of the
//! build are looked for; others when a key is asked for that no bundle has so far. A place that
//! fails is told once and not asked again; nothing here fails a build.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use formwork_cache::{CacheKey, CacheRecord};
use formwork_content::ContentStore;
use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_fs::{FsError, map_in_parallel};
use formwork_image::{BlobBytes, BlobSource, ImageError};
use formwork_oci::{Descriptor, Digest};
use formwork_snapshot::SnapshotKey;
use formwork_solver::Cancel;
use formwork_worker::{ImportedLayer, ImportedLayers};

use super::bundle::{Bundle, Head, RECORDS_LIMIT, TREE};
use super::inline;
use super::place::{Place, PlaceError, digest_of};
use super::watch::watched;
use super::{BLOB_TIME, CacheFrom};
use crate::step::step;
use crate::{BuildError, Host};

/// The largest list of files that is kept in memory on its way.
const TREE_LIMIT: u64 = 256 << 20;

/// The caches elsewhere that a build looks into.
pub(crate) struct Imports {
    sources: Vec<Source>,
    /// The layers that they have.
    pub(crate) layers: Arc<ImportedLayers>,
    found: Mutex<Found>,
    begun: OnceLock<()>,
    events: Arc<dyn EventSink>,
    cancel: Cancel,
}

/// One cache.
struct Source {
    place: Arc<Place>,
    blobs: Arc<PlaceBlobs>,
    state: Mutex<State>,
}

struct State {
    /// How long the build will wait for it yet; `None` when it is not to be asked any more.
    left: Option<Duration>,
    bundles: BTreeSet<Digest>,
    /// Whether it is an image, which has no further names.
    is_image: bool,
    /// The keys that it has, and when they were exported, in seconds since 1970.
    keys: BTreeMap<CacheKey, i64>,
}

#[derive(Default)]
struct Found {
    records: BTreeMap<CacheKey, CacheRecord>,
    runs: Vec<CacheRecord>,
    /// The keys that no place has.
    missing: BTreeSet<CacheKey>,
}

impl Imports {
    pub(crate) fn new(
        host: &Host,
        from: &[CacheFrom],
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Arc<Self> {
        let source = |from: &CacheFrom| {
            let place = Arc::new(Place::open(host, &from.place));
            let blobs = Arc::new(PlaceBlobs {
                place: Arc::clone(&place),
                content: host.layers.content().clone(),
                events: Arc::clone(events),
                cancel: cancel.clone(),
                small: Mutex::default(),
            });
            let (bundles, keys) = (BTreeSet::new(), BTreeMap::new());
            let state =
                Mutex::new(State { left: Some(from.timeout), bundles, is_image: false, keys });
            Source { place, blobs, state }
        };
        Arc::new(Self {
            sources: from.iter().map(source).collect(),
            layers: Arc::default(),
            found: Mutex::default(),
            begun: OnceLock::new(),
            events: Arc::clone(events),
            cancel: cancel.clone(),
        })
    }

    /// Begins to read, on a thread of its own.
    pub(crate) fn begin(self: &Arc<Self>) {
        if !self.sources.is_empty() {
            let own = Arc::clone(self);
            // Where there is no thread to give, whoever asks first reads.
            let _ = std::thread::Builder::new().spawn(move || own.read_heads());
        }
    }

    /// The record of a key, if a place has it.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<CacheRecord> {
        if self.sources.is_empty() {
            return None;
        }
        self.read_heads();
        let known = |found: &Found| match found.records.get(key) {
            Some(record) => Some(Some(record.clone())),
            None => found.missing.contains(key).then_some(None),
        };
        if let Some(answer) = known(&self.found()) {
            return answer;
        }
        for source in &self.sources {
            if !source.state().is_image {
                self.read_bundle(source, &source.place.name_of(key), false);
            }
            if let Some(Some(record)) = known(&self.found()) {
                return Some(record);
            }
        }
        self.found().missing.insert(*key);
        None
    }

    /// Gives a record up whose layer is of no use.
    pub(crate) fn forget(&self, key: &CacheKey) {
        let mut found = self.found();
        found.records.remove(key);
        found.missing.insert(*key);
    }

    /// Gives a layer up that is of no use, and tells it; that a cache has no files of it is as it
    /// should be.
    pub(crate) fn give_up(&self, layer: &SnapshotKey, reason: &str) {
        // What only the store was asked for may be elsewhere.
        self.read_heads();
        if self.layers.is_lost(layer) {
            return self.layers.recover();
        }
        let has_blob = self.layers.get(layer).is_some_and(|layer| layer.blob.is_some());
        self.layers.forget(layer);
        if has_blob {
            let message = format!("a layer of an imported cache is not used: {reason}");
            self.tell(message, "the step that makes it runs again");
        }
    }

    /// What steps were made of when somebody else ran them.
    pub(crate) fn runs(&self) -> Vec<CacheRecord> {
        self.found().runs.clone()
    }

    /// The records of the same steps and layers under further keys, which nobody had to ask for.
    pub(crate) fn others_like(&self, used: &[&CacheRecord]) -> Vec<(CacheKey, CacheRecord)> {
        let known: BTreeSet<(&str, &str)> =
            used.iter().map(|record| (&*record.step, &*record.layer)).collect();
        let found = self.found();
        let like = |record: &CacheRecord| known.contains(&(&*record.step, &*record.layer));
        let others = found.records.iter().filter(|(_, record)| like(record));
        others.map(|(key, record)| (*key, record.clone())).collect()
    }

    /// The keys that a place was found to have, and when they were exported.
    pub(crate) fn keys_at(&self, place: &Place) -> Option<BTreeMap<CacheKey, i64>> {
        let source = self.sources.iter().find(|source| source.place.is_same(place))?;
        Some(source.state().keys.clone())
    }

    fn read_heads(&self) {
        self.begun.get_or_init(|| {
            let read = |source: &Source| {
                self.read_bundle(source, source.place.head(), true);
                Ok::<_, Infallible>(())
            };
            let Ok(_) = map_in_parallel(&self.sources, self.sources.len(), read);
        });
    }

    /// Reads the bundle under a name, if there is one that is not known.
    fn read_bundle(&self, source: &Source, name: &str, is_head: bool) {
        let Some(left) = source.state().left else { return };
        let start = Instant::now();
        let (place, name) = (Arc::clone(&source.place), name.to_owned());
        let known = source.state().bundles.clone();
        let read = watched(left, &self.cancel, move || read(&place, &name, &known));
        let mut state = source.state();
        // Several keys may be asked for at the same time; that counts as often.
        state.left = state.left.map(|left| left.saturating_sub(start.elapsed()));
        match read {
            Ok(Read::New { digest, created, bundle }) => {
                state.bundles.insert(digest);
                state.is_image = created.is_none();
                drop(state);
                self.take(source, created.unwrap_or_default(), bundle);
            }
            Ok(Read::Known) => {}
            // Whoever exports writes this name last, so there is no other.
            Ok(Read::Nothing) if is_head => state.left = None,
            Ok(Read::Nothing) => {}
            Err(error) => {
                state.left = None;
                drop(state);
                if !self.cancel.is_canceled() {
                    let title = source.place.title();
                    let message = format!("the cache {title} is not used: {error}");
                    self.tell(message, "the build goes on without it");
                }
            }
        }
    }

    fn take(&self, source: &Source, created: i64, bundle: Bundle) {
        let mut small = source.blobs.small.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, part) in bundle.layers {
            if let (Some(blob), Some(bytes)) = (&part.blob, part.bytes) {
                small.insert(blob.descriptor.digest.clone(), bytes);
            }
            let blobs = Arc::clone(&source.blobs) as Arc<dyn BlobSource>;
            let (created, tree, blob) = (part.created, part.tree, part.blob);
            self.layers.add(name, ImportedLayer { created, tree, blob, blobs });
        }
        drop(small);
        let mut state = source.state();
        state.keys.extend(bundle.records.iter().map(|(key, _)| (*key, created)));
        drop(state);
        let mut found = self.found();
        for (key, record) in bundle.records {
            if !found.missing.contains(&key) {
                found.records.entry(key).or_insert(record);
            }
        }
        found.runs.extend(bundle.runs);
        drop(found);
        if bundle.dropped > 0 {
            let (count, title) = (bundle.dropped, source.place.title());
            let message = format!("{count} records of the cache {title} make no sense");
            self.tell(message, "the build goes on without them");
        }
    }

    fn tell(&self, message: String, help: &str) {
        let warning = Diagnostic::warning("cache-import", message).with_help(help.to_owned());
        self.events.emit(Event::Message(Box::new(warning)));
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was under a name.
enum Read {
    Nothing,
    Known,
    /// With the time of its export; an image has all that there is of its cache.
    New {
        digest: Digest,
        created: Option<i64>,
        bundle: Bundle,
    },
}

fn read(place: &Place, name: &str, known: &BTreeSet<Digest>) -> Result<Read, PlaceError> {
    let mut found = place.read(name)?;
    if let (None, Some(image)) = (&found, place.image().filter(|_| name == place.head())) {
        found = place.read(image)?;
    }
    let Some(manifest) = found else { return Ok(Read::Nothing) };
    let digest = digest_of(&manifest);
    if known.contains(&digest) {
        return Ok(Read::Known);
    }
    let head = match Head::read(&manifest) {
        Ok(head) => head,
        Err(error) => match inline::read_image(place, &manifest)? {
            Some(bundle) => return Ok(Read::New { digest, created: None, bundle }),
            None => return Err(error),
        },
    };
    let packed = read_blob(place, &head.records, RECORDS_LIMIT)?;
    let bundle = Bundle::read(&packed)?;
    Ok(Read::New { digest, created: Some(head.created), bundle })
}

/// A whole blob in memory, verified.
pub(crate) fn read_blob(
    place: &Place,
    blob: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, PlaceError> {
    if blob.size > limit {
        return Err(PlaceError::new(format!("{} is too large", blob.digest.short())));
    }
    let mut bytes = Vec::new();
    place.fetch(blob, &mut bytes, &|_| {})?;
    match blob.digest.algorithm().hash(&bytes) == blob.digest && bytes.len() as u64 == blob.size {
        true => Ok(bytes),
        false => Err(PlaceError::new(format!("{} has other bytes", blob.digest.short()))),
    }
}

/// The content store, completed from a place.
struct PlaceBlobs {
    place: Arc<Place>,
    content: ContentStore,
    events: Arc<dyn EventSink>,
    cancel: Cancel,
    /// Blobs that came with the records, not verified.
    small: Mutex<BTreeMap<Digest, Vec<u8>>>,
}

impl PlaceBlobs {
    /// Puts a blob into the content store that came with the records, if it did.
    fn keep_small(&self, blob: &Descriptor) -> Result<bool, ImageError> {
        let small = self.small.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bytes) = small.get(&blob.digest) else { return Ok(false) };
        let mut writer = self.content.writer_for(blob.digest.algorithm())?;
        writer.write_all(bytes).map_err(|error| self.failed(&error.to_string()))?;
        writer.commit(Some((&blob.digest, blob.size)))?;
        Ok(true)
    }

    /// Fetches a blob into the content store, which verifies it.
    fn pull(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let name = format!("fetch {} from {}", blob.digest.short(), self.place.title());
        let fetched = step(name, &self.events, &self.cancel, |step| {
            let (place, content, blob) =
                (Arc::clone(&self.place), self.content.clone(), blob.clone());
            let (events, total) = (Arc::clone(&self.events), Some(blob.size));
            let label: Arc<str> = blob.digest.short().into();
            let work = move || {
                let writer = content.writer_for(blob.digest.algorithm());
                let mut writer = writer.map_err(|error| PlaceError::new(error.to_string()))?;
                place.fetch(&blob, &mut writer, &|current| {
                    let label = Arc::clone(&label);
                    events.emit(Event::StepProgress { step, label, current, total });
                })?;
                let kept = writer.commit(Some((&blob.digest, blob.size)));
                kept.map(drop).map_err(|error| PlaceError::new(error.to_string()))
            };
            watched(BLOB_TIME, &self.cancel, work)
                .map_err(|error| BuildError::input_error(error.to_string()))
        });
        fetched.map_err(|error| self.failed(&error.to_string()))
    }

    fn failed(&self, problem: &str) -> ImageError {
        let error = std::io::Error::other(problem.to_owned());
        FsError::new("fetch a blob into", self.content.directory(), error).into()
    }
}

impl BlobSource for PlaceBlobs {
    fn open(&self, blob: &Descriptor) -> Result<BlobBytes, ImageError> {
        if blob.media_type.as_str() == TREE {
            let (place, blob) = (Arc::clone(&self.place), blob.clone());
            let (size, read) = (blob.size, move || read_blob(&place, &blob, TREE_LIMIT));
            let bytes = watched(BLOB_TIME, &self.cancel, read);
            let bytes = bytes.map_err(|error| self.failed(&error.to_string()))?;
            return Ok(BlobBytes::stream(Box::new(std::io::Cursor::new(bytes)), size));
        }
        if self.content.find(blob)?.is_none() && !self.keep_small(blob)? {
            self.pull(blob)?;
        }
        self.content.open(blob)
    }

    fn place(&self) -> String {
        self.place.title().to_owned()
    }
}

impl fmt::Debug for PlaceBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlaceBlobs").field(&self.place).finish()
    }
}
