//! An image as a view: its documents in memory, its layers where they are.

use std::sync::Arc;

use formwork_oci::{
    Annotations, Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform, from_json,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blob::read_document;
use crate::{BlobSource, ImageError, VerifiedBytes};

/// The largest manifest that is read; registries refuse larger ones.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest configuration that is read.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;

/// One image for one platform: immutable, cheap to clone, its layers not yet opened.
///
/// The manifest and the configuration have been verified and fit together; whether the layers are
/// what they should be turns out when they are read, or by [`ImageView::validate`].
#[derive(Clone, Debug)]
pub struct ImageView {
    descriptor: Descriptor,
    manifest: Arc<Manifest>,
    manifest_bytes: Arc<[u8]>,
    config: Arc<ImageConfig>,
    config_bytes: Arc<[u8]>,
    blobs: Arc<dyn BlobSource>,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer<'a> {
    /// The digest of the uncompressed layer.
    pub diff_id: &'a DiffId,
    /// The layer as it is stored.
    pub descriptor: &'a Descriptor,
}

impl ImageView {
    /// Reads the manifest and the configuration of an image.
    ///
    /// # Errors
    ///
    /// Fails where one of them is missing, damaged, or no document of an image.
    pub fn open(descriptor: Descriptor, blobs: Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        check_manifest_type(&descriptor.media_type)?;
        let manifest_bytes = read_document(&*blobs, &descriptor, MANIFEST_LIMIT)?;
        let manifest = parse_manifest(&descriptor, &manifest_bytes, &blobs.place())?;
        let config_bytes = read_document(&*blobs, &manifest.config, CONFIG_LIMIT)?;
        Self::from_parts(descriptor, manifest, manifest_bytes, config_bytes, blobs)
    }

    /// An image whose documents were already fetched; `blobs` has at least the layers.
    ///
    /// # Errors
    ///
    /// Fails where the documents are not those that their descriptors announce.
    pub fn new(
        descriptor: Descriptor,
        manifest_bytes: Vec<u8>,
        config_bytes: Vec<u8>,
        blobs: Arc<dyn BlobSource>,
    ) -> Result<Self, ImageError> {
        check_manifest_type(&descriptor.media_type)?;
        check_bytes(&descriptor, &manifest_bytes, &*blobs)?;
        let manifest = parse_manifest(&descriptor, &manifest_bytes, &blobs.place())?;
        check_bytes(&manifest.config, &config_bytes, &*blobs)?;
        Self::from_parts(descriptor, manifest, manifest_bytes, config_bytes, blobs)
    }

    fn from_parts(
        descriptor: Descriptor,
        manifest: Manifest,
        manifest_bytes: Vec<u8>,
        config_bytes: Vec<u8>,
        blobs: Arc<dyn BlobSource>,
    ) -> Result<Self, ImageError> {
        let config: ImageConfig =
            from_json("image configuration", &config_bytes).map_err(|source| {
                let what = format!("the configuration {}", manifest.config.digest);
                ImageError::Document { what, place: blobs.place(), source }
            })?;
        let (diff_ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
        if diff_ids != layers {
            return Err(ImageError::Invalid {
                image: descriptor.digest.to_string(),
                reason: format!(
                    "the manifest has {layers} layers, the configuration {diff_ids} diff IDs"
                ),
            });
        }
        Ok(Self {
            descriptor,
            manifest: Arc::new(manifest),
            manifest_bytes: manifest_bytes.into(),
            config: Arc::new(config),
            config_bytes: config_bytes.into(),
            blobs,
        })
    }

    /// The descriptor of the manifest, as it was found.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The same image under a descriptor with other annotations.
    #[must_use]
    pub fn annotated(self, annotations: Annotations) -> Self {
        Self { descriptor: Descriptor { annotations, ..self.descriptor }, ..self }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, byte for byte.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The configuration, byte for byte.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// The digest of the configuration, by which docker and podman know an image.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer<'_>> {
        let diff_ids = self.config.rootfs.diff_ids.iter();
        diff_ids
            .zip(&self.manifest.layers)
            .map(|(diff_id, descriptor)| Layer { diff_id, descriptor })
    }

    /// Where the layers are.
    pub fn blobs(&self) -> &Arc<dyn BlobSource> {
        &self.blobs
    }

    /// Opens a layer as it is stored, verified while it is read.
    ///
    /// # Errors
    ///
    /// Fails where the layer is missing.
    pub fn open_layer(&self, layer: Layer<'_>) -> Result<VerifiedBytes, ImageError> {
        VerifiedBytes::open(&*self.blobs, layer.descriptor)
    }
}

fn check_manifest_type(media_type: &MediaType) -> Result<(), ImageError> {
    if media_type.is_manifest() {
        return Ok(());
    }
    let reason = match media_type.as_str() {
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            "this form of images (schema 1) was retired in 2019; push the image again with a \
             current tool"
        }
        _ => "an image manifest of OCI or of Docker (schema 2) is expected",
    };
    Err(ImageError::Unsupported {
        what: format!("the media type `{media_type}`"),
        reason: reason.to_owned(),
    })
}

fn check_bytes(
    descriptor: &Descriptor,
    bytes: &[u8],
    blobs: &dyn BlobSource,
) -> Result<(), ImageError> {
    crate::blob::check_size(blobs, descriptor, bytes.len() as u64)?;
    crate::blob::check_digest(blobs, descriptor, bytes)
}

/// What a document says about itself. One that is an index and a manifest at once could be read
/// as two different images (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Refuses a document that is not what its descriptor says.
pub(crate) fn check_document(
    descriptor: &Descriptor,
    bytes: &[u8],
    place: &str,
) -> Result<(), ImageError> {
    let probe: Probe = from_json("manifest", bytes).map_err(|source| ImageError::Document {
        what: format!("the manifest {}", descriptor.digest),
        place: place.to_owned(),
        source,
    })?;
    let contradiction = match probe {
        Probe { schema_version: Some(version), .. } if version != 2 => {
            Some(format!("its schema version is {version} instead of 2"))
        }
        Probe { media_type: Some(own), .. } if own != descriptor.media_type => {
            Some(format!("it calls itself `{own}`, its descriptor `{}`", descriptor.media_type))
        }
        Probe { manifests: Some(_), config, layers, .. }
            if config.is_some() || layers.is_some() =>
        {
            Some("it is an index and a manifest at once".to_owned())
        }
        _ => None,
    };
    contradiction.map_or(Ok(()), |reason| {
        Err(ImageError::Invalid { image: descriptor.digest.to_string(), reason })
    })
}

fn parse_manifest(
    descriptor: &Descriptor,
    bytes: &[u8],
    place: &str,
) -> Result<Manifest, ImageError> {
    check_document(descriptor, bytes, place)?;
    let manifest: Manifest =
        from_json("manifest", bytes).map_err(|source| ImageError::Document {
            what: format!("the manifest {}", descriptor.digest),
            place: place.to_owned(),
            source,
        })?;
    match &manifest.config.media_type {
        MediaType::OciConfig | MediaType::DockerConfig => Ok(manifest),
        other => Err(ImageError::Unsupported {
            what: format!("the configuration of type `{other}`"),
            reason: format!("{} is an artifact, not a container image", descriptor.digest),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sample;

    /// Opens the usual image with a part of its manifest replaced.
    fn open_edited(old: &str, new: &str) -> Result<ImageView, ImageError> {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        sample.content.insert(image.config_bytes()).unwrap();
        let text = str::from_utf8(image.manifest_bytes()).unwrap();
        assert!(text.contains(old), "{text}");
        let text = text.replacen(old, new, 1);
        sample.content.insert(text.as_bytes()).unwrap();
        let descriptor = Descriptor::of(MediaType::OciManifest, text.as_bytes());
        ImageView::open(descriptor, Arc::new(sample.content))
    }

    #[test]
    fn an_image_is_opened_without_its_layers() {
        let image = open_edited("", "").unwrap();
        assert_eq!(image.layers().len(), 2);
        assert_eq!(image.platform().to_string(), "linux/amd64");
        assert_eq!(*image.id(), Digest::of(image.config_bytes()));
        assert_eq!(image.descriptor().digest, Digest::of(image.manifest_bytes()));
    }

    #[test]
    fn a_manifest_that_could_mean_something_else_is_refused() {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let config_type = "application/vnd.oci.image.config.v1+json";
        for (old, new, expected) in [
            (r#"{"schema"#, r#"{"manifests":[],"schema"#, "an index and a manifest at once"),
            (media_type, "application/vnd.oci.image.index.v1+json", "it calls itself"),
            (r#"Version":2"#, r#"Version":1"#, "schema version is 1"),
            (config_type, "application/vnd.cncf.helm.config.v1+json", "an artifact"),
            (r#""layers":["#, r#""layers":[],"x":["#, "0 layers, the configuration 2 diff IDs"),
            (r#""layers":"#, r#""layers":1,"x":"#, "line 1"),
            (r#"}]}"#, "", "line 1"),
            (r#""sha256:"#, r#""sha256:../../etc/"#, "is not a digest"),
        ] {
            let message = open_edited(old, new).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(open_edited(&format!(r#""mediaType":"{media_type}","#), "").is_ok());
    }

    #[test]
    fn only_manifests_are_opened() {
        for (media_type, expected) in [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
            ("application/vnd.oci.image.index.v1+json", "an image manifest"),
        ] {
            let descriptor = Descriptor::of(media_type.into(), b"{}");
            let blobs = Arc::new(Sample::new().content);
            let message = ImageView::open(descriptor, blobs).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn documents_that_were_fetched_must_be_those_announced() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let other = sample.usual_image("other");
        let new = |manifest: &ImageView, config: &ImageView| {
            let blobs = Arc::clone(image.blobs());
            let (manifest, config) = (manifest.manifest_bytes(), config.config_bytes());
            ImageView::new(image.descriptor().clone(), manifest.to_vec(), config.to_vec(), blobs)
        };
        assert!(new(&image, &image).is_ok());
        for result in [new(&other, &image), new(&image, &other)] {
            assert!(matches!(result, Err(ImageError::Damaged { .. })));
        }
    }

    #[test]
    fn documents_have_a_size_limit() {
        let sample = Sample::new();
        let large = vec![b' '; usize::try_from(MANIFEST_LIMIT).unwrap() + 1];
        sample.content.insert(&large).unwrap();
        let descriptor = Descriptor::of(MediaType::OciManifest, &large);
        let error = ImageView::open(descriptor, Arc::new(sample.content)).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    }
}
