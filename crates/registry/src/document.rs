//! Manifests and indexes: which of both a document is, and that it is not something else.

use formwork_oci::{Descriptor, Digest, Index, Manifest, MediaType, Platform, from_json};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::session::Session;
use crate::{RegistryError, text};

/// A manifest or an index, verified by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is, its digest and its size.
    pub descriptor: Descriptor,
    /// Its bytes, as the registry has them.
    pub bytes: Vec<u8>,
}

/// What a document says.
#[derive(Debug)]
pub(crate) enum Parsed {
    Index(Index),
    Manifest(Box<Manifest>),
}

/// What tells documents from each other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Finds out what a document is, for which the server's word is the last resort: the digest covers
/// the document and not the header.
pub(crate) fn read(
    session: &Session<'_>,
    bytes: Vec<u8>,
    digest: Digest,
    said: Option<MediaType>,
) -> Result<Document, RegistryError> {
    let outline: Outline = json(session, "manifest", &bytes)?;
    if outline.schema_version == 1 || outline.fs_layers.is_some() {
        return Err(session.unsupported(
            "an image in the old format (schema 1), which cannot be verified; whoever owns it has \
             to push it again with a current tool"
                .to_owned(),
        ));
    }
    let is_index = outline.manifests.is_some();
    let is_manifest = outline.config.is_some() || outline.layers.is_some();
    if is_index && is_manifest {
        return Err(session.invalid("a manifest that could also be read as an index"));
    }
    let fits =
        |kind: &MediaType| (is_index && kind.is_index()) || (is_manifest && kind.is_manifest());
    let own = outline.media_type.map(MediaType::from);
    let media_type = match (own, said) {
        (Some(own), _) if fits(&own) => own,
        (None, Some(said)) if fits(&said) => said,
        (None, _) if is_index => MediaType::OciIndex,
        (None, _) if is_manifest => MediaType::OciManifest,
        (own, said) => {
            let kind = own.or(said).map_or("unknown".to_owned(), String::from);
            let kind = text::printable(&kind);
            return Err(session.unsupported(format!(
                "no image under this name but a document of the type `{kind}`: check the name"
            )));
        }
    };
    let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
    Ok(Document { descriptor, bytes })
}

/// Reads a document as what it is.
pub(crate) fn parse(session: &Session<'_>, document: &Document) -> Result<Parsed, RegistryError> {
    match document.descriptor.media_type.is_index() {
        true => json(session, "image index", &document.bytes).map(Parsed::Index),
        false => {
            json(session, "image manifest", &document.bytes).map(Box::new).map(Parsed::Manifest)
        }
    }
}

/// Reads JSON that a registry sent.
pub(crate) fn json<T: DeserializeOwned>(
    session: &Session<'_>,
    name: &'static str,
    bytes: &[u8],
) -> Result<T, RegistryError> {
    // The parser's message repeats what it stumbled over.
    from_json(name, bytes)
        .map_err(|error| session.invalid(text::printable(&format!("what is {error}"))))
}

/// The platforms of an index, each once, in the index's order, without what is no image.
pub(crate) fn platforms(index: &Index) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in index.manifests.iter().filter_map(|entry| entry.platform.clone()) {
        if platform.os != "unknown" && !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}
