//! Descriptors, manifests and indexes.
//!
//! Image specification `descriptor.md`, `manifest.md` and `image-index.md`; Docker's schema 2
//! documents have the same shape. Fields are written in the specification's order.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Digest, MediaType, OciError, Platform};

/// Free-form keys and values, sorted by key.
pub type Annotations = BTreeMap<String, String>;

/// A pointer to some bytes: what they are, which they are, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: MediaType,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
    /// Other places where the bytes may be had; used by foreign layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What an image in an index runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of artifact that a manifest holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// One image: its configuration and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own type; older OCI images leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The kind of artifact, if this is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// Several images, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own type; older OCI indexes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The kind of artifact, if this is not a set of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// Free-form keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// A descriptor with nothing but the necessary.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: Annotations::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of a document's bytes.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

impl Manifest {
    /// An image manifest of the OCI family.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Annotations::new(),
        }
    }

    /// An image manifest of Docker's family.
    pub fn docker(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { media_type: Some(MediaType::DockerManifest), ..Self::oci(config, layers) }
    }
}

impl Index {
    /// An index of the OCI family.
    pub fn oci(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests,
            annotations: Annotations::new(),
        }
    }

    /// The image that serves a platform best: the fittest, and among equals the first.
    ///
    /// Attestations, which have the platform `unknown/unknown`, never match. An entry without a
    /// platform is taken where nothing else matches.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| entry.artifact_type.is_none());
        let fit = |entry: &Descriptor| entry.platform.as_ref().and_then(|p| p.fitness(wanted));
        images()
            .filter_map(|entry| Some((fit(entry)?, entry)))
            .min_by_key(|(fitness, _)| *fitness)
            .map(|(_, entry)| entry)
            .or_else(|| images().find(|entry| entry.platform.is_none()))
    }
}

/// Reads a document.
///
/// # Errors
///
/// [`OciError::Json`] with the position where the bytes stop being that document.
pub fn from_json<T: DeserializeOwned>(document: &'static str, bytes: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|source| OciError::Json { document, source })
}

/// A document's bytes, without white space: the same value always has the same bytes.
pub fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    // Serialising into memory fails only for maps whose keys are no strings, and for types whose
    // `Serialize` fails by itself; the documents of this crate have neither.
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: Option<&str>, content: &[u8]) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::OciManifest, content);
        descriptor.platform = platform.map(|text| text.parse().unwrap());
        descriptor
    }

    #[test]
    fn an_index_gives_the_fittest_image() {
        let index = Index::oci(vec![
            entry(Some("unknown/unknown"), b"attestation"),
            entry(Some("linux/arm/v6"), b"v6"),
            entry(Some("linux/arm/v7"), b"v7"),
        ]);
        let select = |text: &str| index.select(&text.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(select("linux/arm64"), Some(Digest::of(b"v7")));
        assert_eq!(select("linux/arm/v6"), Some(Digest::of(b"v6")));
        assert_eq!(select("linux/amd64"), None);
    }

    #[test]
    fn an_entry_without_platform_is_the_last_resort() {
        let index = Index::oci(vec![entry(None, b"any"), entry(Some("linux/arm64"), b"arm")]);
        let select = |text: &str| index.select(&text.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(select("linux/amd64"), Some(Digest::of(b"any")));
        assert_eq!(select("linux/arm64"), Some(Digest::of(b"arm")));
    }

    #[test]
    fn documents_keep_their_bytes() {
        let manifest = Manifest::oci(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
        let text = String::from_utf8(to_json(&manifest)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""size":2},"layers":[]}"#,
            )
        );
        assert_eq!(from_json::<Manifest>("manifest", text.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn broken_documents_say_where() {
        let error = from_json::<Manifest>("manifest", b"{\n\"schemaVersion\": two}").unwrap_err();
        assert!(error.to_string().contains("not a valid manifest"), "{error}");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
