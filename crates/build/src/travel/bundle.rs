//! A bundle: the records of a build, and how they are written down. Pure.
//!
//! What comes from elsewhere is taken apart here; what is not as it should be is left out and
//! counted, so that nobody further on has to doubt a name, a size or a reference.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use formwork_cache::{CacheKey, CacheRecord, Component};
use formwork_layer::compression;
use formwork_oci::{Descriptor, DiffId, Manifest, MediaType, from_json, to_json};
use formwork_snapshot::SnapshotKey;
use formwork_worker::{ImportedBlob, ImportedTree, is_of_image};
use serde::{Deserialize, Serialize};

use super::place::PlaceError;

/// What a bundle's manifest says that it is.
pub(crate) const ARTIFACT: &str = "application/vnd.formwork.cache.v1";
/// The records.
pub(crate) const RECORDS: &str = "application/vnd.formwork.cache.records.v1+zstd";
/// The list of a layer's files.
pub(crate) const TREE: &str = "application/vnd.formwork.cache.tree.v1+zstd";
/// The configuration of what is no image (image specification, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The bytes of that configuration.
pub(crate) const EMPTY_BYTES: &[u8] = b"{}";
/// The annotation with the time of an export.
const CREATED: &str = "org.opencontainers.image.created";
/// The annotation with the name of the cache.
const NAME: &str = "formwork.cache.name";
/// The number of the format.
const VERSION: u32 = 1;
/// The most that the records may have, packed.
pub(crate) const RECORDS_LIMIT: u64 = 64 << 20;
/// The most that they may have unpacked.
const UNPACKED_LIMIT: u64 = 256 << 20;
/// The largest blob that anybody fetches.
const BLOB_LIMIT: u64 = 1 << 40;

/// The records of a build, as they are written down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) version: u32,
    pub(crate) records: Vec<Record>,
    /// What steps were made of when they ran last, for explanations.
    #[serde(default)]
    pub(crate) runs: Vec<Run>,
    /// The layers of the records, by their names.
    pub(crate) layers: BTreeMap<String, LayerRecord>,
}

/// What a step yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: String,
    /// Empty for a step that changes nothing.
    pub(crate) layer: String,
    pub(crate) created: i64,
    /// When the step ran, in seconds since 1970; 0 where that is not known.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub(crate) ran: i64,
    pub(crate) step: String,
    pub(crate) milliseconds: u64,
}

fn is_unknown(time: &i64) -> bool {
    *time == 0
}

/// What a step was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) step: String,
    pub(crate) layer: String,
    pub(crate) created: i64,
    pub(crate) milliseconds: u64,
    pub(crate) components: Vec<Component>,
}

/// A layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<TreeRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobRecord>,
}

/// The list of a layer's files, packed with Zstandard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TreeRecord {
    /// In base64.
    Inline(String),
    /// A blob.
    Blob(Descriptor),
}

/// A packed layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
    /// What formwork calls the form in which it is packed.
    pub(crate) form: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<i64>,
    /// The blob itself in base64, if it is so small that a request of its own would cost more. It
    /// is then not among the blobs of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<String>,
}

/// A bundle that was read.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    pub(crate) records: Vec<(CacheKey, CacheRecord)>,
    pub(crate) runs: Vec<CacheRecord>,
    pub(crate) layers: Vec<(SnapshotKey, Part)>,
    /// How many records and layers were left out.
    pub(crate) dropped: usize,
}

/// What a bundle has of a layer.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) created: i64,
    pub(crate) tree: Option<ImportedTree>,
    pub(crate) blob: Option<ImportedBlob>,
    /// The blob itself, not verified.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// The manifest of a bundle.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) records: Descriptor,
    /// When it was exported, in seconds since 1970; the beginning of time where that is not said.
    pub(crate) created: i64,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { version: VERSION, records: Vec::new(), runs: Vec::new(), layers: BTreeMap::new() }
    }

    /// The bytes, packed.
    pub(crate) fn pack(&self) -> Result<Vec<u8>, PlaceError> {
        Ok(compression::zstd(&to_json(self))?)
    }

    /// The manifest of a cache of some name, which names everything that the records need.
    pub(crate) fn manifest(&self, packed: &[u8], created: i64, name: &str) -> Vec<u8> {
        let records = Descriptor::of(MediaType::Other(RECORDS.to_owned()), packed);
        let parts = self.layers.values().flat_map(|layer| {
            let tree = layer.tree.as_ref().and_then(|tree| match tree {
                TreeRecord::Blob(blob) => Some(blob.clone()),
                TreeRecord::Inline(_) => None,
            });
            let blob = layer.blob.as_ref().filter(|blob| blob.bytes.is_none());
            tree.into_iter().chain(blob.map(|blob| blob.descriptor.clone()))
        });
        let mut seen = BTreeSet::new();
        let parts = parts.filter(|part| seen.insert(part.digest.clone()));
        manifest(ARTIFACT, std::iter::once(records).chain(parts).collect(), created, name)
    }
}

/// A manifest of something that is no image, in a cache of some name. That is in it, so that no two
/// caches ever share a manifest: registries remove one with all names that lead to it.
pub(crate) fn manifest(
    artifact: &str,
    layers: Vec<Descriptor>,
    created: i64,
    name: &str,
) -> Vec<u8> {
    manifest_with(artifact, layers, created, name, [])
}

/// The same with more annotations.
pub(crate) fn manifest_with(
    artifact: &str,
    layers: Vec<Descriptor>,
    created: i64,
    name: &str,
    more: impl IntoIterator<Item = (String, String)>,
) -> Vec<u8> {
    let mut manifest = Manifest::oci(empty(), layers);
    manifest.artifact_type = Some(artifact.to_owned());
    manifest.annotations.extend(more);
    let time = jiff::Timestamp::from_second(created).unwrap_or_default();
    manifest.annotations.insert(CREATED.to_owned(), time.to_string());
    manifest.annotations.insert(NAME.to_owned(), name.to_owned());
    to_json(&manifest)
}

/// The configuration of a bundle.
pub(crate) fn empty() -> Descriptor {
    Descriptor::of(MediaType::Other(EMPTY.to_owned()), EMPTY_BYTES)
}

/// Reads a manifest of an artifact type.
pub(crate) fn read_manifest(bytes: &[u8], artifact: &str) -> Result<Manifest, PlaceError> {
    let manifest: Manifest = from_json("cache manifest", bytes)
        .map_err(|_| PlaceError::new("what it has is no cache of formwork"))?;
    match manifest.artifact_type.as_deref() {
        Some(kind) if kind == artifact => Ok(manifest),
        Some(kind) if kind.starts_with("application/vnd.formwork.cache.") => Err(PlaceError::new(
            "its cache was written by another version of formwork, which this one does not read",
        )),
        _ => Err(PlaceError::new("what it has is no cache of formwork")),
    }
}

/// When a manifest was made, in seconds since 1970.
pub(crate) fn created(manifest: &Manifest) -> i64 {
    let text = manifest.annotations.get(CREATED);
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(0, jiff::Timestamp::as_second)
}

impl Head {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, PlaceError> {
        let manifest = read_manifest(bytes, ARTIFACT)?;
        let records = manifest.layers.iter().find(|layer| layer.media_type.as_str() == RECORDS);
        match records {
            Some(records) if records.size <= RECORDS_LIMIT => {
                Ok(Self { records: records.clone(), created: created(&manifest) })
            }
            Some(_) => Err(PlaceError::new("the records of its cache are too large")),
            None => Err(PlaceError::new("its cache has no records")),
        }
    }
}

impl Bundle {
    /// Adds all that another one has.
    pub(crate) fn append(&mut self, other: Self) {
        self.records.extend(other.records);
        self.runs.extend(other.runs);
        self.layers.extend(other.layers);
        self.dropped += other.dropped;
    }

    /// Takes packed records apart.
    pub(crate) fn read(packed: &[u8]) -> Result<Self, PlaceError> {
        let unreadable = || PlaceError::new("the records of its cache cannot be read");
        let reader = compression::reader(packed).map_err(|_| unreadable())?;
        let mut json = Vec::new();
        reader.take(UNPACKED_LIMIT).read_to_end(&mut json).map_err(|_| unreadable())?;
        let records: Records = from_json("cache records", &json).map_err(|_| unreadable())?;
        if records.version != VERSION {
            return Err(unreadable());
        }
        let mut bundle = Self::default();
        let mut names = BTreeSet::new();
        for (name, layer) in records.layers {
            match part(&name, layer) {
                Some(part) => {
                    names.insert(name);
                    bundle.layers.push(part);
                }
                None => bundle.dropped += 1,
            }
        }
        for record in records.records {
            match record.key.parse() {
                Ok(key) if record.layer.is_empty() || names.contains(&record.layer) => {
                    bundle.records.push((key, record.into()));
                }
                _ => bundle.dropped += 1,
            }
        }
        bundle.runs = records.runs.into_iter().map(CacheRecord::from).collect();
        Ok(bundle)
    }
}

/// What is said about a layer, if it can be true.
fn part(name: &str, layer: LayerRecord) -> Option<(SnapshotKey, Part)> {
    let name: SnapshotKey = name.parse().ok().filter(|name| !is_of_image(name))?;
    let is_sane = |blob: &Descriptor| blob.size <= BLOB_LIMIT && blob.urls.is_empty();
    let tree = match layer.tree {
        None => None,
        Some(TreeRecord::Inline(text)) => {
            Some(ImportedTree::Inline(BASE64_STANDARD.decode(text).ok()?))
        }
        Some(TreeRecord::Blob(blob)) if is_sane(&blob) && blob.media_type.as_str() == TREE => {
            Some(ImportedTree::Blob(Box::new(blob)))
        }
        Some(TreeRecord::Blob(_)) => return None,
    };
    let mut small = None;
    let blob = match layer.blob {
        None => None,
        Some(BlobRecord { diff_id, descriptor, form, epoch, bytes }) => {
            let is_layer = matches!(descriptor.media_type, MediaType::OciLayer(_));
            let is_plain = |form: &str| form.len() < 64 && !form.contains(['/', '\0']);
            if !is_layer || !is_sane(&descriptor) || !is_plain(&form) {
                return None;
            }
            small = bytes.map(|bytes| BASE64_STANDARD.decode(bytes)).transpose().ok()?;
            Some(ImportedBlob { diff_id, descriptor, form, epoch })
        }
    };
    (tree.is_some() || blob.is_some())
        .then_some((name, Part { created: layer.created, tree, blob, bytes: small }))
}

impl From<Record> for CacheRecord {
    fn from(record: Record) -> Self {
        Self {
            layer: record.layer,
            created: record.created,
            step: record.step,
            milliseconds: record.milliseconds,
            ran: record.ran,
            components: Vec::new(),
        }
    }
}

impl From<Run> for CacheRecord {
    fn from(run: Run) -> Self {
        Self {
            layer: run.layer,
            created: run.created,
            step: run.step,
            milliseconds: run.milliseconds,
            ran: 0,
            components: run.components,
        }
    }
}

#[cfg(test)]
mod tests {
    use formwork_oci::{Digest, LayerCompression};
    use serde_json::{Value, json};

    use super::*;

    const LAYER: &str = "0000000000000000000000000000000000000000000000000000000000000000-\
                         00000000000000000000000000000000";
    const KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

    fn records() -> Records {
        let mut records = Records::new();
        records.records.push(Record {
            key: KEY.to_owned(),
            layer: LAYER.to_owned(),
            created: 5,
            ran: 0,
            step: "RUN make".to_owned(),
            milliseconds: 7,
        });
        let component = Component { name: "user".to_owned(), value: "app".to_owned() };
        records.runs.push(Run {
            step: "RUN make".to_owned(),
            layer: LAYER.to_owned(),
            created: 5,
            milliseconds: 7,
            components: vec![component],
        });
        let kind = MediaType::OciLayer(LayerCompression::Gzip);
        let blob = BlobRecord {
            diff_id: DiffId(Digest::of(b"archive")),
            descriptor: Descriptor::of(kind, b"blob"),
            form: "gzip-2".to_owned(),
            epoch: Some(9),
            bytes: None,
        };
        let tree = Some(TreeRecord::Inline(BASE64_STANDARD.encode(b"tree")));
        let layer = LayerRecord { created: 5, tree, blob: Some(blob) };
        records.layers.insert(LAYER.to_owned(), layer);
        records
    }

    fn read(json: &Value) -> Result<Bundle, PlaceError> {
        Bundle::read(&compression::zstd(json.to_string().as_bytes()).unwrap())
    }

    fn json() -> Value {
        serde_json::to_value(records()).unwrap()
    }

    #[test]
    fn the_format_is_stable() {
        let records = records();
        let digest = Digest::of(&to_json(&records));
        assert_eq!(
            digest.as_str(),
            "sha256:35c879012d09c4ae037cc88fd632564af468b6fce70b577cc63054a6cc1e7658"
        );
        let manifest = Digest::of(&records.manifest(b"packed", 1_700_000_000, "main"));
        assert_eq!(
            manifest.as_str(),
            "sha256:bbdc89dfd539293fb0bbdb1c2668360eeae07d20b151764ef93419365b9f8751"
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let records = records();
        let packed = records.pack().unwrap();
        let head = Head::read(&records.manifest(&packed, 1_700_000_000, "main")).unwrap();
        assert_eq!(head.records.digest, Digest::of(&packed));
        assert_eq!(head.created, 1_700_000_000);
        let bundle = Bundle::read(&packed).unwrap();
        assert_eq!((bundle.records.len(), bundle.layers.len(), bundle.runs.len()), (1, 1, 1));
        assert_eq!(bundle.records[0].0.to_string(), KEY);
        assert_eq!(bundle.records[0].1.layer, LAYER);
        assert_eq!(bundle.dropped, 0);
    }

    #[test]
    fn what_lies_is_left_out() {
        let change = |path: &str, value: Value| {
            let mut json = json();
            *json.pointer_mut(path).unwrap() = value;
            read(&json).unwrap()
        };
        let layer = format!("/layers/{LAYER}");
        let at = |rest: &str| format!("{layer}/blob/{rest}");
        for (path, value, dropped) in [
            ("/records/0/key".to_owned(), json!("../../etc"), 1),
            ("/records/0/layer".to_owned(), json!("../../etc/passwd"), 1),
            (at("form"), json!("../../boot"), 2),
            (at("descriptor/size"), json!(u64::MAX), 2),
            (at("descriptor/urls"), json!(["http://elsewhere"]), 2),
            (at("descriptor/mediaType"), json!("text/html"), 2),
            (format!("{layer}/tree"), json!({"inline": "no base64!"}), 2),
        ] {
            let mut json = json();
            // Absent where it is empty.
            json.pointer_mut(&at("descriptor")).unwrap()["urls"] = json!([]);
            *json.pointer_mut(&path).unwrap() = value;
            let bundle = read(&json).unwrap();
            assert_eq!((bundle.dropped, bundle.records.len()), (dropped, 0), "{path}");
        }
        let mut named = json();
        let own = named["layers"].as_object_mut().unwrap().remove(LAYER).unwrap();
        named["layers"]["../../../etc"] = own;
        named["records"][0]["layer"] = json!("../../../etc");
        assert_eq!(read(&named).unwrap().dropped, 2);
        assert_eq!(change("/records/0/layer", json!("")).dropped, 0);
    }

    #[test]
    fn other_formats_and_versions_are_told() {
        let mut json = json();
        json["version"] = json!(2);
        assert!(read(&json).is_err());
        assert!(Bundle::read(b"").is_err());
        assert!(Bundle::read(&compression::zstd(b"{}").unwrap()).is_err());
        let said = |artifact: &str| {
            let bytes = manifest(artifact, Vec::new(), 0, "main");
            Head::read(&bytes).unwrap_err().to_string()
        };
        assert!(said("application/vnd.formwork.cache.v2").contains("another version"));
        assert!(said("application/vnd.buildkit.cacheconfig.v0").contains("no cache of formwork"));
        assert!(said(ARTIFACT).contains("no records"));
        assert!(Head::read(b"[]").is_err());
    }
}
