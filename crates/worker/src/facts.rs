//! The facts that are kept beside a layer's directory: their names and forms, and whether they are
//! still true of it.
//!
//! Makes no layer and changes none.

use formwork_fs::RootDir;
use formwork_layer::compression::Format;
use formwork_layer::{Compression, Packed, Tree, is_intact};
use formwork_oci::{Descriptor, DiffId, Digest, MediaType};
use formwork_snapshot::Committed;
use serde::{Deserialize, Serialize};

use crate::{LayerStore, PackedLayer, WorkerError};

/// The fact that lists the layer's files.
pub(crate) const TREE: &str = "tree";
/// How the names of facts about packed forms begin. The number is that of the formats that
/// [`formwork_layer`] writes, which its digest tests pin.
pub(crate) const PACKED: &str = "packed-v1-";
/// The fact that says when the layer was made, in seconds since 1970.
pub(crate) const CREATED: &str = "created";

/// The fact that a layer has devices outside of `/dev`, and its directory what stands for them; who
/// has none has no such fact. Layers of earlier versions have none either, and real devices.
pub(crate) const DEVICES: &str = "devices";

/// The fact about the blob in which the layer came from a cache elsewhere. It may have lost
/// modification times, which the list of files has.
pub(crate) const IMPORTED: &str = "imported";

/// The list of a layer's files, encoded, with what it says that is to be known sooner.
pub(crate) fn facts_of<'a>(tree: &Tree, encoded: &'a [u8]) -> Vec<(&'a str, &'a [u8])> {
    let devices: Option<(&str, &[u8])> = tree.has_devices().then_some((DEVICES, b""));
    [(TREE, encoded)].into_iter().chain(devices).collect()
}

/// In which form a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackForm {
    /// How it is compressed.
    pub compression: Compression,
    /// The latest modification time, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
}

/// The fact about a packed form of a layer.
#[derive(Serialize, Deserialize)]
pub(crate) struct PackedFact {
    pub(crate) diff_id: DiffId,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl PackForm {
    /// The name of the fact.
    pub(crate) fn fact(self) -> String {
        format!("{PACKED}{}", self.name())
    }

    /// What the form is called.
    pub fn name(self) -> String {
        let compression = match self.compression {
            Compression::None => "none".to_owned(),
            Compression::Gzip { level } => format!("gzip-{level}"),
            Compression::Zstd { level } => format!("zstd-{level}"),
        };
        let epoch = self.epoch.map(|epoch| format!("-until{epoch}")).unwrap_or_default();
        format!("{compression}{epoch}")
    }
}

impl PackedFact {
    /// Reads a fact; a damaged one is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The layer with its blob, which is in the content store.
    pub(crate) fn into_layer(self, compression: Compression) -> PackedLayer {
        let media_type = MediaType::OciLayer(compression.format());
        let blob = Descriptor::new(media_type, self.digest, self.size);
        PackedLayer { diff_id: self.diff_id, blob: Some(blob) }
    }
}

impl From<Packed> for PackedFact {
    fn from(packed: Packed) -> Self {
        Self { diff_id: packed.diff_id, digest: packed.digest, size: packed.size }
    }
}

/// Whether a form that somebody else names can be that of a blob with times up to some second, and
/// of a compression.
pub(crate) fn is_form(name: &str, epoch: Option<i64>, format: Format) -> bool {
    let compression = match epoch {
        Some(epoch) => name.strip_suffix(&format!("-until{epoch}")),
        None => Some(name),
    };
    let is_level = |level: &str| level.parse::<i32>().is_ok();
    match (compression, format) {
        (Some("none"), Format::Plain) => true,
        (Some(text), Format::Gzip) => text.strip_prefix("gzip-").is_some_and(is_level),
        (Some(text), Format::Zstd) => text.strip_prefix("zstd-").is_some_and(is_level),
        _ => false,
    }
}

/// The names of the facts about packed forms that a layer can be made from again: those whose
/// modification times were not changed, and the one that it came in.
pub(crate) fn whole_forms() -> impl Iterator<Item = String> {
    let compressions = [Compression::default(), Compression::ZSTD, Compression::None];
    let forms = compressions.into_iter();
    forms
        .map(|compression| PackForm { compression, epoch: None }.fact())
        .chain([IMPORTED.to_owned()])
}

/// The blobs that a layer of the store can be made from again, of those that are there.
///
/// # Errors
///
/// Fails where the store cannot be read.
pub fn blobs_of_layer(store: &LayerStore, layer: &Committed) -> Result<Vec<Digest>, WorkerError> {
    let mut blobs = Vec::new();
    for name in whole_forms() {
        let packed = layer.fact(&name)?.and_then(|fact| PackedFact::decode(&fact));
        blobs.extend(packed.map(|packed| packed.digest));
    }
    // Who asks only looks, and uses none of them.
    let content = store.content.unheld();
    blobs.retain(|digest| matches!(content.get(digest), Ok(Some(_))));
    Ok(blobs)
}

/// Whether a layer that another boot has left is whole: its list of files, which has a check sum,
/// and their bytes. What cannot be read counts as lost.
pub(crate) fn survived(snapshot: &Committed) -> bool {
    let tree = snapshot.fact(TREE).ok().flatten().and_then(|tree| Tree::decode(&tree).ok());
    match (tree, snapshot.layer()) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(tree), Some(layer)) => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            RootDir::open(layer)
                .is_ok_and(|layer| is_intact(&tree, &layer, threads).unwrap_or(false))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_others_name_fits_its_blob() {
        for (compression, format) in [
            (Compression::None, Format::Plain),
            (Compression::default(), Format::Gzip),
            (Compression::ZSTD, Format::Zstd),
        ] {
            for epoch in [None, Some(-5), Some(1_700_000_000)] {
                let name = PackForm { compression, epoch }.name();
                assert!(is_form(&name, epoch, format), "{name}");
                assert!(!is_form(&name, Some(6), format), "{name}");
                assert!(!is_form(&name, epoch, Format::Xz), "{name}");
            }
        }
        assert!(!is_form("gzip-2-until7", None, Format::Gzip));
        assert!(!is_form("../gzip-2", None, Format::Gzip));
    }
}
