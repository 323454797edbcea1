//! Media types of the documents and blobs that images consist of.
//!
//! OCI `media-types.md`, and Docker's Image Manifest V2 Schema 2. Unknown types are kept as they
//! are, so that copying an image never changes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type of the OCI or Docker family, or any other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
    /// `application/vnd.oci.image.config.v1+json`
    OciConfig,
    /// `application/vnd.oci.image.layer.v1.tar` with the compression's suffix
    OciLayer(LayerCompression),
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerIndex,
    /// `application/vnd.docker.container.image.v1+json`
    DockerConfig,
    /// `application/vnd.docker.image.rootfs.diff.tar` with the compression's suffix
    DockerLayer(LayerCompression),
    /// Any other type, unchanged.
    Other(String),
}

/// How a layer's tar archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerCompression {
    /// A plain tar archive.
    None,
    /// gzip (RFC 1952), of one member or several.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Each known type beside its name.
const NAMES: [(MediaType, &str); 12] = {
    use LayerCompression::{Gzip, None, Zstd};
    [
        (MediaType::OciManifest, "application/vnd.oci.image.manifest.v1+json"),
        (MediaType::OciIndex, "application/vnd.oci.image.index.v1+json"),
        (MediaType::OciConfig, "application/vnd.oci.image.config.v1+json"),
        (MediaType::OciLayer(None), "application/vnd.oci.image.layer.v1.tar"),
        (MediaType::OciLayer(Gzip), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (MediaType::OciLayer(Zstd), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (MediaType::DockerManifest, "application/vnd.docker.distribution.manifest.v2+json"),
        (MediaType::DockerIndex, "application/vnd.docker.distribution.manifest.list.v2+json"),
        (MediaType::DockerConfig, "application/vnd.docker.container.image.v1+json"),
        (MediaType::DockerLayer(None), "application/vnd.docker.image.rootfs.diff.tar"),
        (MediaType::DockerLayer(Gzip), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (MediaType::DockerLayer(Zstd), "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    ]
};

impl MediaType {
    /// The type as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            known => NAMES.iter().find(|(t, _)| t == known).map_or("", |(_, name)| name),
        }
    }

    /// Whether this is an image manifest of either family.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Whether this is an image index (manifest list) of either family.
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerIndex)
    }

    /// The compression if this is a layer's type.
    ///
    /// Includes the retired non-distributable ("foreign") layer types, which are tar archives like
    /// any other.
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        match self {
            Self::OciLayer(compression) | Self::DockerLayer(compression) => Some(*compression),
            Self::Other(text) => foreign_layer(text),
            _ => None,
        }
    }
}

fn foreign_layer(text: &str) -> Option<LayerCompression> {
    let suffix = text
        .strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
        .or_else(|| text.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"))?;
    match suffix {
        "" => Some(LayerCompression::None),
        "+gzip" | ".gzip" => Some(LayerCompression::Gzip),
        "+zstd" | ".zstd" => Some(LayerCompression::Zstd),
        _ => None,
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> Self {
        match NAMES.iter().find(|(_, name)| *name == text) {
            Some((known, _)) => known.clone(),
            None => Self::Other(text),
        }
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<MediaType> for String {
    fn from(media_type: MediaType) -> Self {
        match media_type {
            MediaType::Other(text) => text,
            known => known.as_str().to_owned(),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_survives_its_text() {
        for (known, name) in NAMES {
            assert_eq!(MediaType::from(name), known);
            assert_eq!(known.as_str(), name);
        }
    }

    #[test]
    fn unknown_types_are_kept() {
        let text = "application/vnd.example+json";
        assert_eq!(MediaType::from(text).to_string(), text);
        assert_eq!(MediaType::from(text).layer_compression(), None);
    }

    #[test]
    fn foreign_layers_are_layers() {
        let text = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(MediaType::from(text).layer_compression(), Some(LayerCompression::Gzip));
    }
}
