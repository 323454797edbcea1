//! Archives of `docker save`.
//!
//! `manifest.json` lists images, each with its configuration and its layers by their names in the
//! archive. There is no manifest; one is made from that list. The layers of old archives are plain
//! tar archives in directories of their own; those of newer ones are blobs of an image layout,
//! possibly compressed; podman's stand in the archive's top and have links from the old places.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use formwork_fs::RelPath;
use formwork_oci::{
    Annotations, Descriptor, DiffId, Digest, Hasher, ImageConfig, LayerCompression, MediaType,
    Reference, from_json,
};
use serde::Deserialize;

use super::{Found, place, read_small};
use crate::archive::Archive;
use crate::assemble::manifest_of;
use crate::blob::{BUFFER, check_size};
use crate::{BlobBytes, BlobSource, Choice, Family, ImageError, ImageView, Location};

/// The file that makes an archive one of these.
const MANIFEST: &str = "manifest.json";

/// An image from an archive of `docker save` or one of its kin.
///
/// The choice is a name, the digest of a configuration, or nothing if there is only one image.
///
/// # Errors
///
/// Fails where the file is no such archive, has no such image or several, or lacks a part of it.
pub fn docker_archive(location: &Location) -> Result<ImageView, ImageError> {
    let files = Arc::new(Files(Archive::open(&location.path)?));
    let entries = files.entries()?;
    let entry = files.choose(&entries, &location.choice)?;
    files.view(entry)
}

/// All images of an archive.
pub(super) fn all(path: &Path) -> Result<Vec<Found>, ImageError> {
    let files = Arc::new(Files(Archive::open(path)?));
    let found = files.entries()?.into_iter().map(|entry| {
        // A name that makes no sense is none.
        let names = entry.names().filter_map(|name| name.parse().ok()).collect();
        Ok(Found { view: files.view(&entry)?, index: None, names })
    });
    found.collect()
}

/// Whether an archive is one of an OCI image layout, whatever else it is.
pub(super) fn is_layout_too(path: &Path) -> Result<bool, ImageError> {
    Ok(Files(Archive::open(path)?).find("oci-layout").is_some())
}

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Entry {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().flatten().map(String::as_str)
    }

    fn has_name(&self, wanted: &str) -> bool {
        let full = |text: &str| text.parse::<Reference>().map(|name| name.to_string()).ok();
        let wanted = full(wanted);
        wanted.is_some() && self.names().any(|name| full(name) == wanted)
    }
}

/// The files of an archive.
#[derive(Debug)]
struct Files(Archive);

impl Files {
    fn place(&self) -> String {
        place(self.0.path())
    }

    fn find(&self, name: &str) -> Option<BlobBytes> {
        self.0.open_file(&RelPath::new(name).ok()?)
    }

    fn open(&self, name: &str) -> Result<BlobBytes, ImageError> {
        self.find(name)
            .ok_or_else(|| self.unreadable(format!("`{name}` is missing in it; save it again")))
    }

    fn unreadable(&self, reason: String) -> ImageError {
        ImageError::Unreadable { path: self.0.path().to_owned(), reason }
    }

    fn entries(&self) -> Result<Vec<Entry>, ImageError> {
        let Some(file) = self.find(MANIFEST) else {
            let reason = match self.find("oci-layout") {
                Some(_) => "it is an archive of an OCI image layout; read it as one",
                None => "there is no `manifest.json` in it, as in the archives of `docker save`",
            };
            return Err(self.unreadable(reason.to_owned()));
        };
        let bytes = read_small(file, MANIFEST, self.0.path())?;
        self.parse(MANIFEST, "list of images", &bytes)
    }

    fn choose<'a>(&self, entries: &'a [Entry], choice: &Choice) -> Result<&'a Entry, ImageError> {
        let mut candidates = Vec::new();
        for entry in entries {
            let fits = match choice {
                Choice::Only => true,
                Choice::Name(name) => entry.has_name(name),
                Choice::Digest(digest) => Digest::of(&self.config(entry)?) == *digest,
            };
            if fits {
                candidates.push(entry);
            }
        }
        let images: BTreeSet<&str> = candidates.iter().map(|entry| &*entry.config).collect();
        let available =
            || entries.iter().flat_map(Entry::names).map(|n| format!("`{n}`")).collect();
        let (place, wanted) = (self.place(), choice.to_string());
        match candidates.first() {
            None => Err(ImageError::NotFound { place, wanted, available: available() }),
            Some(entry) if images.len() == 1 => Ok(entry),
            Some(_) => Err(ImageError::Ambiguous { place, wanted, available: available() }),
        }
    }

    fn config(&self, entry: &Entry) -> Result<Vec<u8>, ImageError> {
        let name = &entry.config;
        let bytes = read_small(self.open(name)?, name, self.0.path())?;
        let actual = Digest::of(&bytes);
        match claimed_digest(name) {
            Some(digest) if digest != actual => Err(ImageError::Damaged {
                digest,
                place: self.place(),
                reason: format!("its bytes have the digest {actual}"),
            }),
            _ => Ok(bytes),
        }
    }

    fn view(self: &Arc<Self>, entry: &Entry) -> Result<ImageView, ImageError> {
        let config_bytes = self.config(entry)?;
        let config: ImageConfig =
            self.parse(&entry.config, "image configuration", &config_bytes)?;
        let names = entry.layers.as_deref().unwrap_or_default();
        let diff_ids = &config.rootfs.diff_ids;
        if names.len() != diff_ids.len() {
            return Err(ImageError::Invalid {
                image: Digest::of(&config_bytes).to_string(),
                reason: format!(
                    "`{MANIFEST}` has {} layers, the configuration {} diff IDs",
                    names.len(),
                    diff_ids.len()
                ),
            });
        }
        let mut layers = Vec::new();
        let mut files = BTreeMap::new();
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let layer = self.layer(name, diff_id)?;
            files.insert(layer.digest.clone(), name.clone());
            layers.push(layer);
        }
        // Docker has no type for zstd.
        let has_zstd = |layer: &Descriptor| {
            layer.media_type.layer_compression() == Some(LayerCompression::Zstd)
        };
        let family = if layers.iter().any(has_zstd) { Family::Oci } else { Family::Docker };
        let blobs = Arc::new(Layers { files: Arc::clone(self), layers: files });
        let (descriptor, manifest) =
            manifest_of(&config_bytes, layers, family, Annotations::new())?;
        ImageView::new(descriptor, manifest, config_bytes, blobs)
    }

    /// What a layer is, by its first bytes; its digest by its name or, at worst, by all its bytes.
    fn layer(&self, name: &str, diff_id: &DiffId) -> Result<Descriptor, ImageError> {
        let file = self.open(name)?;
        let size = file.left();
        let compression = match self.read(file.take(4), name)?.as_slice() {
            [0x1f, 0x8b, ..] => LayerCompression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => LayerCompression::Zstd,
            _ => LayerCompression::None,
        };
        let digest = match compression {
            LayerCompression::None => diff_id.0.clone(),
            _ => match claimed_digest(name) {
                Some(digest) => digest,
                None => self.hash(name)?,
            },
        };
        Ok(Descriptor::new(MediaType::OciLayer(compression), digest, size))
    }

    fn hash(&self, name: &str) -> Result<Digest, ImageError> {
        let mut file = self.open(name)?;
        let mut hasher = Hasher::default();
        loop {
            let part = self.read(file.by_ref().take(BUFFER as u64), name)?;
            if part.is_empty() {
                return Ok(hasher.finish());
            }
            hasher.update(&part);
        }
    }

    fn read(&self, mut reader: impl Read, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.unreadable(format!("cannot read `{name}` in it: {error}"))),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        document: &'static str,
        bytes: &[u8],
    ) -> Result<T, ImageError> {
        from_json(document, bytes).map_err(|source| ImageError::Document {
            what: format!("the file `{name}`"),
            place: self.place(),
            source,
        })
    }
}

/// The digest in names such as `<hex>.json` and `blobs/sha256/<hex>`, which are those of the
/// file's own bytes.
fn claimed_digest(name: &str) -> Option<Digest> {
    let hex = name.strip_suffix(".json").or_else(|| name.strip_prefix("blobs/sha256/"))?;
    format!("sha256:{hex}").parse().ok()
}

/// The layers of one image in an archive.
#[derive(Debug)]
struct Layers {
    files: Arc<Files>,
    layers: BTreeMap<Digest, String>,
}

impl BlobSource for Layers {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        let name = self.layers.get(&descriptor.digest).ok_or_else(|| ImageError::Missing {
            digest: descriptor.digest.clone(),
            place: self.place(),
        })?;
        let bytes = self.files.open(name)?;
        check_size(self, descriptor, bytes.left())?;
        Ok(bytes)
    }

    fn place(&self) -> String {
        self.files.place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_promise_a_digest_are_held_to_it() {
        let hex = Digest::of(b"").hex().to_owned();
        for name in [format!("{hex}.json"), format!("blobs/sha256/{hex}")] {
            assert_eq!(claimed_digest(&name), Some(Digest::of(b"")), "{name}");
        }
        for name in [format!("{hex}.tar"), format!("{hex}/layer.tar"), "config.json".to_owned()] {
            assert_eq!(claimed_digest(&name), None, "{name}");
        }
    }
}
