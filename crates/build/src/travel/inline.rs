//! The cache in an image itself (`--cache-to type=inline`): the records of the steps whose layers
//! the image has, in a field of its configuration, which `--cache-from` finds under the image's name.
//!
//! # The format, version 1
//!
//! The field `formwork.cache.v1` of the configuration holds an [`Inline`] as JSON, packed with
//! Zstandard, in base64. A record names its layer by its position in the image; the blob is the one
//! that the manifest has there. There is no list of its files but a digest of it, which proves the
//! blob when that is unpacked. Nothing in it depends on how long a step took or, with
//! `SOURCE_DATE_EPOCH`, when it ran, so that equal builds make equal images.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use formwork_cache::CacheRecord;
use formwork_layer::compression;
use formwork_oci::{
    Descriptor, DiffId, ImageConfig, Index, Manifest, MediaType, from_json, to_json,
};
use formwork_worker::{ImportedBlob, Root};
use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, Part};
use super::import::read_blob;
use super::index::Used;
use super::place::{Place, PlaceError};

/// The number of the format.
const VERSION: u32 = 1;
/// The largest configuration that is read.
const CONFIG_LIMIT: u64 = 8 << 20;
/// The most that the records may have unpacked.
const UNPACKED_LIMIT: u64 = 64 << 20;
/// For how many platforms an image is looked into.
const PLATFORMS: usize = 16;
/// How many digits of a blob's digest are in the name of a layer of which there is no list of files.
const BLOB_DIGITS: usize = 32;

/// The records in an image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inline {
    version: u32,
    records: Vec<InlineRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InlineRecord {
    key: String,
    created: i64,
    step: String,
    /// None for a step that changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<InlineLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InlineLayer {
    position: usize,
    /// The digest of the layer's files, with which its name in the store begins.
    files: String,
}

/// The value of the field for an image: the records of those of its layers that were built here.
pub(crate) fn field(used: &Used, root: &Root, epoch: Option<i64>) -> Option<String> {
    let layers = root.layers().iter().enumerate();
    let own = layers.filter(|(_, layer)| layer.base_descriptor().is_none());
    let positions: BTreeMap<String, usize> =
        own.map(|(position, layer)| (layer.name().to_string(), position)).collect();
    let layer = |record: &CacheRecord| match record.layer.as_str() {
        "" => Some(None),
        name => {
            let (files, _) = name.split_once('-')?;
            let position = *positions.get(name)?;
            Some(Some(InlineLayer { position, files: files.to_owned() }))
        }
    };
    // A step that runs is recorded under more keys than it is looked up by later; one that comes
    // from the cache has just that one. It is the first.
    let mut seen = BTreeSet::new();
    let named = |record: &CacheRecord| match record.layer.as_str() {
        "" => record.step.clone(),
        layer => layer.to_owned(),
    };
    let ordered = used.order.iter().filter_map(|key| Some((key, used.records.get(key)?)));
    let first: BTreeMap<_, _> = ordered.filter(|(_, record)| seen.insert(named(record))).collect();
    let records = first.into_iter().filter_map(|(key, record)| {
        let (created, step) = (epoch.unwrap_or(record.created), record.step.clone());
        Some(InlineRecord { key: key.to_string(), created, step, layer: layer(record)? })
    });
    let inline = Inline { version: VERSION, records: records.collect() };
    Some(BASE64_STANDARD.encode(compression::zstd(&to_json(&inline)).ok()?))
}

/// What an image has of a cache; `None` for what is no image or has none.
pub(crate) fn read_image(place: &Place, bytes: &[u8]) -> Result<Option<Bundle>, PlaceError> {
    if let Ok(index) = from_json::<Index>("image index", bytes) {
        let mut all: Option<Bundle> = None;
        for entry in
            index.manifests.iter().filter(|entry| entry.media_type.is_manifest()).take(PLATFORMS)
        {
            let Some(bytes) = place.read_manifest(&entry.digest)? else { continue };
            let Some(bundle) = read_one(place, &bytes)? else { continue };
            all.get_or_insert_default().append(bundle);
        }
        return Ok(all);
    }
    read_one(place, bytes)
}

fn read_one(place: &Place, bytes: &[u8]) -> Result<Option<Bundle>, PlaceError> {
    let Ok(manifest) = from_json::<Manifest>("image manifest", bytes) else { return Ok(None) };
    if !matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
        return Ok(None);
    }
    let config = read_blob(place, &manifest.config, CONFIG_LIMIT)?;
    let Ok(config) = from_json::<ImageConfig>("image configuration", &config) else {
        return Ok(None);
    };
    let Some(field) = &config.inline_cache else { return Ok(None) };
    bundle(field, &manifest.layers, &config.rootfs.diff_ids).map(Some)
}

fn bundle(field: &str, blobs: &[Descriptor], diff_ids: &[DiffId]) -> Result<Bundle, PlaceError> {
    let unreadable = || PlaceError::new("the cache in the image cannot be read");
    let packed = BASE64_STANDARD.decode(field).map_err(|_| unreadable())?;
    let reader = compression::reader(packed.as_slice()).map_err(|_| unreadable())?;
    let mut json = Vec::new();
    reader.take(UNPACKED_LIMIT).read_to_end(&mut json).map_err(|_| unreadable())?;
    let inline: Inline = from_json("cache records", &json).map_err(|_| unreadable())?;
    if inline.version != VERSION {
        return Err(unreadable());
    }
    let mut bundle = Bundle::default();
    for record in inline.records {
        let InlineRecord { key, created, step, layer } = record;
        let part = layer.map(|layer| part(&layer, created, blobs, diff_ids));
        let name = match &part {
            None => String::new(),
            Some(Some((name, _))) => name.to_string(),
            Some(None) => {
                bundle.dropped += 1;
                continue;
            }
        };
        let Ok(key) = key.parse() else {
            bundle.dropped += 1;
            continue;
        };
        let record = CacheRecord {
            layer: name,
            created,
            ran: created,
            step,
            milliseconds: 0,
            components: Vec::new(),
        };
        bundle.records.push((key, record));
        bundle.layers.extend(part.flatten());
    }
    Ok(bundle)
}

/// The layer at a position, if what is said about it can be true.
fn part(
    layer: &InlineLayer,
    created: i64,
    blobs: &[Descriptor],
    diff_ids: &[DiffId],
) -> Option<(formwork_snapshot::SnapshotKey, Part)> {
    let (blob, diff_id) = (blobs.get(layer.position)?, diff_ids.get(layer.position)?);
    let is_digest = layer.files.len() == 64 && layer.files.bytes().all(|c| c.is_ascii_hexdigit());
    let format =
        blob.media_type.layer_compression().filter(|_| is_digest && blob.urls.is_empty())?;
    let name = format!("{}-{}", layer.files, blob.digest.hex().get(..BLOB_DIGITS)?);
    let kind = MediaType::OciLayer(format);
    let blob = ImportedBlob {
        diff_id: diff_id.clone(),
        descriptor: Descriptor::new(kind, blob.digest.clone(), blob.size),
        // Nobody has written down how it was packed.
        form: "inline".to_owned(),
        epoch: None,
    };
    Some((name.parse().ok()?, Part { created, tree: None, blob: Some(blob), bytes: None }))
}

#[cfg(test)]
mod tests {
    use formwork_oci::{Digest, LayerCompression};

    use super::*;

    fn read(position: usize, files: &str, version: u32) -> Result<Bundle, PlaceError> {
        let layer = Some(InlineLayer { position, files: files.to_owned() });
        let (key, step) = ("1".repeat(64), "RUN make".to_owned());
        let records = vec![InlineRecord { key, created: 5, step, layer }];
        let json = to_json(&Inline { version, records });
        let field = BASE64_STANDARD.encode(compression::zstd(&json).unwrap());
        let kind = MediaType::DockerLayer(LayerCompression::Gzip);
        let blobs = [Descriptor::of(kind, b"blob")];
        bundle(&field, &blobs, &[DiffId(Digest::of(b"archive"))])
    }

    #[test]
    fn records_name_layers_by_their_positions() {
        let files = "a".repeat(64);
        let found = read(0, &files, 1).unwrap();
        assert_eq!((found.records.len(), found.layers.len(), found.dropped), (1, 1, 0));
        assert!(found.records[0].1.layer.starts_with(&files));
        assert_eq!(read(1, &files, 1).unwrap().dropped, 1);
        assert_eq!(read(0, "../../etc", 1).unwrap().dropped, 1);
        assert!(read(0, &files, 2).is_err());
        assert!(bundle("no base64!", &[], &[]).is_err());
    }
}
