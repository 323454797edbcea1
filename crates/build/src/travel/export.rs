//! Sending the steps of a build to a cache elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use formwork_cache::{CacheKey, CacheRecord};
use formwork_content::{Blob, ContentStore};
use formwork_diagnostics::{Diagnostic, Event, EventSink, StepId};
use formwork_graph::OpId;
use formwork_image::{BlobSource, VerifiedBytes};
use formwork_layer::{Compression, compression};
use formwork_oci::{Descriptor, MediaType};
use formwork_solver::Cancel;
use formwork_worker::{ImportedBlob, Layer, Output as OpOutput, PackForm, Root};

use super::bundle::{
    BlobRecord, EMPTY_BYTES, Head, LayerRecord, Record, Records, Run, TREE, TreeRecord, empty,
};
use super::import::{Imports, read_blob};
use super::index::{TravelIndex, Used};
use super::place::{MANIFEST_LIMIT, Place, PlaceError};
use super::watch::watched;
use super::{CacheMode, CachePlace, CacheTo, in_parallel};
use crate::step::step;
use crate::{BuildError, BuildRequest, Host, Output};

/// Up to which size a list of files stands in the records.
const INLINE: usize = 16 << 10;
/// Up to which size a packed layer stands in the records.
const SMALL: usize = 2 << 10;
/// How large all layers together may be that stand in the records.
const ALL_SMALL: usize = 1 << 20;
/// How old a name may be before it is written anew, so that it is seen to be used.
const FRESH: i64 = 24 * 3600;

/// What there is to send.
pub(crate) struct Export<'a> {
    pub(crate) host: &'a Host,
    pub(crate) request: &'a BuildRequest,
    pub(crate) imports: &'a Arc<Imports>,
    pub(crate) index: &'a TravelIndex,
    pub(crate) outputs: &'a BTreeMap<OpId, OpOutput>,
    /// The targets.
    pub(crate) roots: Vec<&'a Root>,
}

/// Sends the steps of a build to all caches that are to get them. What goes wrong is told, and
/// fails the build only where that is asked for.
///
/// # Errors
///
/// Fails where somebody asks to stop, and where a cache must not be left out.
pub(crate) fn export(
    what: &Export<'_>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for (number, to) in what.request.cache_to.iter().enumerate() {
        what.index.uploads.finish(number, to.timeout, cancel);
        let place = Arc::new(Place::open(what.host, &to.place));
        let title = format!("export cache to {}", place.title());
        let sent = step(title, events, cancel, |step| {
            let shipment = Shipment::new(what, to, &place, step, events, cancel);
            watched(to.timeout, cancel, move || shipment.ship())
                .map_err(|error| failed(&place, &to.place, &error))
        });
        match sent {
            Ok(()) => {}
            Err(_) if cancel.is_canceled() => return Err(BuildError::canceled()),
            Err(error) if !to.ignore_error => return Err(error),
            Err(error) => {
                for told in error.diagnostics {
                    let warning = Diagnostic::warning("cache-export", told.message)
                        .with_help("the image is complete; `ignore-error=false` makes this fatal");
                    events.emit(Event::Message(Box::new(warning)));
                }
            }
        }
    }
    Ok(())
}

fn failed(place: &Place, kind: &CachePlace, error: &PlaceError) -> BuildError {
    let message = format!("the cache could not be sent to {}: {error}", place.title());
    BuildError::new(kind.kind_of_failure(), Diagnostic::error("cache-export", message))
}

/// How layers are packed for a place: as the image is, so that they are packed once.
pub(crate) fn form_of(request: &BuildRequest, to: &CacheTo) -> PackForm {
    let of_output = request.outputs.iter().find_map(Output::form);
    let compression = to.compression.or(of_output.map(|form| form.compression));
    PackForm { compression: compression.unwrap_or(Compression::ZSTD), epoch: request.epoch }
}

/// Whether a layer is so small that it may stand in the records.
pub(crate) fn is_small(blob: &Descriptor) -> bool {
    blob.size <= SMALL as u64
}

/// Sends a blob of the content store, unless it is there.
pub(crate) fn put(
    place: &Place,
    content: &ContentStore,
    descriptor: &Descriptor,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<bool, PlaceError> {
    let open = |from| {
        let blob = content.find(descriptor).map_err(std::io::Error::other)?;
        open_blob(&blob.ok_or_else(|| std::io::Error::other("the blob is gone"))?, from)
    };
    place.put(descriptor, &open, progress)
}

/// The bytes of a blob of the content store from a position on.
pub(crate) fn open_blob(blob: &Blob, from: u64) -> std::io::Result<Box<dyn Read + Send>> {
    let mut file = blob.open().map_err(std::io::Error::other)?;
    file.seek(SeekFrom::Start(from))?;
    Ok(Box::new(file))
}

/// Bytes from a position on.
pub(crate) fn open_bytes(bytes: &[u8], from: u64) -> std::io::Result<Box<dyn Read + Send>> {
    let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    Ok(Box::new(Cursor::new(rest.to_vec())))
}

/// What goes to one place.
struct Shipment {
    place: Arc<Place>,
    content: ContentStore,
    used: Used,
    runs: Vec<CacheRecord>,
    /// The layers of all steps, by their names.
    layers: BTreeMap<String, Arc<Layer>>,
    /// The names of those that are packed.
    packed: BTreeSet<String>,
    form: PackForm,
    /// What the place was found to have.
    known: Option<BTreeMap<CacheKey, i64>>,
    /// How many bytes of small layers are in the records.
    small: AtomicUsize,
    step: StepId,
    events: Arc<dyn EventSink>,
    cancel: Cancel,
}

impl Shipment {
    fn new(
        what: &Export<'_>,
        to: &CacheTo,
        place: &Arc<Place>,
        step: StepId,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Self {
        let own = |root: &Root| -> Vec<Arc<Layer>> {
            let layers = root.layers().iter();
            let is_whole = |layer: &&Arc<Layer>| {
                layer.base_descriptor().is_none()
                    && (layer.imported().is_some() || !layer.has_no_files())
            };
            layers.filter(is_whole).cloned().collect()
        };
        let roots = what.outputs.values().filter_map(|output| output.root().ok());
        let layers: BTreeMap<String, Arc<Layer>> =
            roots.flat_map(own).map(|layer| (layer.name().to_string(), layer)).collect();
        let of_image = what.roots.iter().flat_map(|root| own(root));
        let packed = match to.mode {
            CacheMode::Max => layers.keys().cloned().collect(),
            CacheMode::Min => of_image.map(|layer| layer.name().to_string()).collect(),
        };
        let mut used = what.index.used();
        let others = what.imports.others_like(&used.records.values().collect::<Vec<_>>());
        others.into_iter().for_each(|(key, record)| {
            used.records.entry(key).or_insert(record);
        });
        Self {
            place: Arc::clone(place),
            content: what.host.layers.content().clone(),
            used,
            runs: what.imports.runs(),
            layers,
            packed,
            form: form_of(what.request, to),
            known: what.imports.keys_at(place),
            small: AtomicUsize::new(0),
            step,
            events: Arc::clone(events),
            cancel: cancel.clone(),
        }
    }

    fn ship(self) -> Result<(), PlaceError> {
        let head = self.place.read(self.place.head())?;
        let known = match &self.known {
            Some(known) => known.clone(),
            None => head.as_deref().map(|head| self.keys_of(head)).unwrap_or_default(),
        };
        let now = jiff::Timestamp::now().as_second();
        let is_fresh = |key: &CacheKey| known.get(key).is_some_and(|at| now - at < FRESH);
        let records: Vec<(&CacheKey, &CacheRecord)> = self.used.records.iter().collect();
        let new: Vec<&CacheKey> =
            records.iter().map(|(key, _)| *key).filter(|key| !is_fresh(key)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let bundle = self.bundle(&records)?;
        let packed = bundle.pack()?;
        let manifest = bundle.manifest(&packed, now, self.place.head());
        if manifest.len() as u64 > MANIFEST_LIMIT {
            return Err(PlaceError::new("the build has too many steps for one manifest"));
        }
        self.put_bytes(&empty(), EMPTY_BYTES)?;
        self.put_bytes(
            &Descriptor::of(MediaType::Other(super::bundle::RECORDS.into()), &packed),
            &packed,
        )?;
        in_parallel(&new, |key| self.place.write(&self.place.name_of(key), &manifest))?;
        // Last, since whoever finds nothing under this name asks for no other.
        self.place.write(self.place.head(), &manifest)
    }

    /// The keys in the bundle that was exported last; none where it cannot be read.
    fn keys_of(&self, head: &[u8]) -> BTreeMap<CacheKey, i64> {
        let read = || {
            let head = Head::read(head)?;
            let packed = read_blob(&self.place, &head.records, super::bundle::RECORDS_LIMIT)?;
            let bundle = super::bundle::Bundle::read(&packed)?;
            Ok(bundle.records.into_iter().map(|(key, _)| (key, head.created)).collect())
        };
        read().unwrap_or_else(|_: PlaceError| BTreeMap::new())
    }

    /// Sends all layers and puts the records together.
    fn bundle(&self, records: &[(&CacheKey, &CacheRecord)]) -> Result<Records, PlaceError> {
        let names: BTreeSet<&String> = records.iter().map(|(_, record)| &record.layer).collect();
        let layers: Vec<(&String, &Arc<Layer>)> =
            names.into_iter().filter_map(|name| Some((name, self.layers.get(name)?))).collect();
        let parts = Mutex::new(BTreeMap::new());
        in_parallel(&layers, |(name, layer)| {
            let part = self.layer(name, layer)?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).insert((*name).clone(), part);
            Ok(())
        })?;
        let mut bundle = Records::new();
        bundle.layers = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_whole = |record: &CacheRecord| {
            record.layer.is_empty() || bundle.layers.contains_key(&record.layer)
        };
        let whole = records.iter().filter(|(_, record)| is_whole(record));
        bundle.records = whole.map(|(key, record)| record_of(key, record)).collect();
        bundle.runs = self.runs();
        Ok(bundle)
    }

    /// The last run of each step, those of this build before others.
    fn runs(&self) -> Vec<Run> {
        let mut runs: BTreeMap<String, CacheRecord> = BTreeMap::new();
        for run in &self.runs {
            runs.entry(run.step.clone()).or_insert_with(|| run.clone());
        }
        runs.extend(self.used.runs.clone());
        runs.into_values().map(run_of).collect()
    }

    /// Sends a layer, as far as it goes there, and says where it is.
    fn layer(&self, name: &str, layer: &Layer) -> Result<LayerRecord, PlaceError> {
        let told = |error: formwork_worker::WorkerError| PlaceError::new(error.to_string());
        let imported = layer.imported();
        let created = match imported {
            Some(imported) => imported.created,
            None => layer.created().map_err(told)?.unwrap_or_default(),
        };
        let tree = self.tree(&layer.tree().map_err(told)?.encode())?;
        if !self.packed.contains(name) {
            return Ok(LayerRecord { created, tree: Some(tree), blob: None });
        }
        if let Some(imported) = imported
            && let Some(blob) = &imported.blob
        {
            let there = self.record(blob, &*imported.blobs)?;
            if there.bytes.is_some() || self.place.has(&blob.descriptor)? {
                return Ok(LayerRecord { created, tree: Some(tree), blob: Some(there) });
            }
        }
        layer.fetch().map_err(told)?;
        let packed = layer.pack(self.form, &self.cancel).map_err(told)?;
        let Some(descriptor) = packed.blob else {
            return Ok(LayerRecord { created, tree: Some(tree), blob: None });
        };
        let (form, epoch) = (self.form.name(), self.form.epoch);
        let blob = ImportedBlob { diff_id: packed.diff_id, descriptor, form, epoch };
        let record = self.record(&blob, &self.content)?;
        if record.bytes.is_none() {
            self.put(&blob.descriptor)?;
        }
        Ok(LayerRecord { created, tree: Some(tree), blob: Some(record) })
    }

    /// What is written down about a packed layer: all of it, if it is small.
    fn record(
        &self,
        blob: &ImportedBlob,
        blobs: &dyn BlobSource,
    ) -> Result<BlobRecord, PlaceError> {
        let size = usize::try_from(blob.descriptor.size).unwrap_or(usize::MAX);
        let is_small = size <= SMALL && self.small.fetch_add(size, Ordering::Relaxed) <= ALL_SMALL;
        let read = || {
            let mut bytes = Vec::new();
            let mut reader = VerifiedBytes::open(blobs, &blob.descriptor)
                .map_err(|error| PlaceError::new(error.to_string()))?;
            reader.read_to_end(&mut bytes)?;
            Ok::<_, PlaceError>(BASE64_STANDARD.encode(bytes))
        };
        Ok(BlobRecord {
            diff_id: blob.diff_id.clone(),
            descriptor: blob.descriptor.clone(),
            form: blob.form.clone(),
            epoch: blob.epoch,
            bytes: is_small.then(read).transpose()?,
        })
    }

    fn tree(&self, encoded: &[u8]) -> Result<TreeRecord, PlaceError> {
        let packed = compression::zstd(encoded)?;
        if packed.len() <= INLINE {
            return Ok(TreeRecord::Inline(BASE64_STANDARD.encode(packed)));
        }
        let blob = Descriptor::of(MediaType::Other(TREE.to_owned()), &packed);
        self.put_bytes(&blob, &packed)?;
        Ok(TreeRecord::Blob(blob))
    }

    /// Sends a blob of the content store, unless it is there.
    fn put(&self, descriptor: &Descriptor) -> Result<(), PlaceError> {
        let progress = |current| {
            self.events.emit(Event::StepProgress {
                step: self.step,
                label: descriptor.digest.short().into(),
                current,
                total: Some(descriptor.size),
            });
        };
        put(&self.place, &self.content, descriptor, &progress).map(drop)
    }

    fn put_bytes(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PlaceError> {
        let open = |from| open_bytes(bytes, from);
        self.place.put(descriptor, &open, &|_| {}).map(drop)
    }
}

fn record_of(key: &CacheKey, record: &CacheRecord) -> Record {
    Record {
        key: key.to_string(),
        layer: record.layer.clone(),
        created: record.created,
        ran: record.ran,
        step: record.step.clone(),
        milliseconds: record.milliseconds,
    }
}

fn run_of(run: CacheRecord) -> Run {
    Run {
        step: run.step,
        layer: run.layer,
        created: run.created,
        milliseconds: run.milliseconds,
        components: run.components,
    }
}
