//! Putting an image together.
//!
//! The same parts always give the same bytes.

use std::sync::Arc;

use formwork_oci::{
    Annotations, Descriptor, Digest, ImageConfig, LayerCompression, Manifest, MediaType, to_json,
};

use crate::{BlobSource, ImageError, ImageView};

/// Whose media types an image uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Those of the Open Container Initiative.
    #[default]
    Oci,
    /// Those of Docker's Image Manifest V2, Schema 2.
    Docker,
}

/// The parts of an image.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// The configuration, which has one diff ID for each layer.
    pub config: &'a ImageConfig,
    /// The layers, lowest first, with media types of either family.
    pub layers: Vec<Descriptor>,
    /// The media types that the image shall have.
    pub family: Family,
    /// The annotations of the manifest.
    pub annotations: Annotations,
}

/// Makes an image of its parts; `blobs` has the layers, the documents are in the view.
///
/// # Errors
///
/// [`ImageError::Unsupported`] for a layer that the family has no type for, and
/// [`ImageError::Invalid`] where the numbers of layers and diff IDs differ.
pub fn assemble(
    assembly: Assembly<'_>,
    blobs: Arc<dyn BlobSource>,
) -> Result<ImageView, ImageError> {
    let Assembly { config, layers, family, annotations } = assembly;
    let config_bytes = to_json(config);
    let (descriptor, manifest_bytes) = manifest_of(&config_bytes, layers, family, annotations)?;
    ImageView::new(descriptor, manifest_bytes, config_bytes, blobs)
}

impl ImageView {
    /// Whose media types the image uses, by its manifest.
    pub fn family(&self) -> Family {
        match self.descriptor().media_type {
            MediaType::DockerManifest => Family::Docker,
            _ => Family::Oci,
        }
    }

    /// The same image with the media types of a family; the very same view where it has them.
    ///
    /// The configuration keeps its bytes, and so the image its id.
    ///
    /// # Errors
    ///
    /// Fails where [`assemble`] does.
    pub fn in_family(&self, family: Family) -> Result<Self, ImageError> {
        if self.family() == family {
            return Ok(self.clone());
        }
        self.made_of(self.manifest().layers.clone(), family, Arc::clone(self.blobs()))
    }

    /// The same image with other blobs for its layers, which hold the same archives. Where its
    /// family has no type for one of them, it becomes one of OCI's.
    ///
    /// The configuration keeps its bytes, and so the image its id.
    ///
    /// # Errors
    ///
    /// Fails where [`assemble`] does.
    pub fn with_layers(
        &self,
        layers: Vec<Descriptor>,
        blobs: Arc<dyn BlobSource>,
    ) -> Result<Self, ImageError> {
        if layers == self.manifest().layers {
            return Ok(self.clone());
        }
        let is_zstd = |layer: &Descriptor| {
            layer.media_type.layer_compression() == Some(LayerCompression::Zstd)
        };
        let family = if layers.iter().any(is_zstd) { Family::Oci } else { self.family() };
        self.made_of(layers, family, blobs)
    }

    fn made_of(
        &self,
        layers: Vec<Descriptor>,
        family: Family,
        blobs: Arc<dyn BlobSource>,
    ) -> Result<Self, ImageError> {
        let (config, annotations) = (self.config_bytes(), self.manifest().annotations.clone());
        let (descriptor, manifest) = manifest_of(config, layers, family, annotations)?;
        Self::new(descriptor, manifest, config.to_vec(), blobs)
    }
}

/// The manifest of an image, with its descriptor.
pub(crate) fn manifest_of(
    config_bytes: &[u8],
    layers: Vec<Descriptor>,
    family: Family,
    annotations: Annotations,
) -> Result<(Descriptor, Vec<u8>), ImageError> {
    let layers = layers
        .into_iter()
        .map(|layer| convert(layer, family))
        .collect::<Result<Vec<_>, ImageError>>()?;
    let (manifest, media_type) = match family {
        Family::Oci => {
            let config = Descriptor::of(MediaType::OciConfig, config_bytes);
            let manifest = Manifest { annotations, ..Manifest::oci(config, layers) };
            (manifest, MediaType::OciManifest)
        }
        // Docker's manifests have no annotations.
        Family::Docker => {
            let config = Descriptor::of(MediaType::DockerConfig, config_bytes);
            (Manifest::docker(config, layers), MediaType::DockerManifest)
        }
    };
    let bytes = to_json(&manifest);
    Ok((Descriptor::of(media_type, &bytes), bytes))
}

/// A layer with the media type of a family.
fn convert(layer: Descriptor, family: Family) -> Result<Descriptor, ImageError> {
    let unsupported = |digest: &Digest, what: &str, reason: &str| ImageError::Unsupported {
        what: format!("{what} (the layer {digest})"),
        reason: reason.to_owned(),
    };
    let media_type = match (layer.media_type.layer_compression(), family) {
        (None, _) => {
            let what = format!("the media type `{}`", layer.media_type);
            return Err(unsupported(&layer.digest, &what, "a tar archive is expected"));
        }
        (Some(LayerCompression::Zstd), Family::Docker) => {
            return Err(unsupported(
                &layer.digest,
                "zstd with Docker's media types",
                "Docker never gave it a type, and other tools could not pull the image; choose \
                 the media types of OCI, or compress with gzip",
            ));
        }
        // Foreign layers are not ours to rename.
        (Some(_), _) if matches!(layer.media_type, MediaType::Other(_)) => layer.media_type.clone(),
        (Some(compression), Family::Oci) => MediaType::OciLayer(compression),
        (Some(compression), Family::Docker) => MediaType::DockerLayer(compression),
    };
    let annotations = match family {
        Family::Oci => layer.annotations,
        Family::Docker => Annotations::new(),
    };
    Ok(Descriptor { media_type, annotations, ..layer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sample;

    const GZIP: LayerCompression = LayerCompression::Gzip;
    const ZSTD: LayerCompression = LayerCompression::Zstd;

    /// Changing these means that images get other digests than with the version before.
    #[test]
    fn the_same_parts_give_the_same_bytes() {
        let sample = Sample::new();
        for (family, digest) in [
            (
                Family::Oci,
                "sha256:aa5372fef45fc2ac1c5e7437d66c45d0ee59187d031e209a11507f18c94b8eff",
            ),
            (
                Family::Docker,
                "sha256:07688d2cbc335b1eb6b91b275c8a3bc915524d0d7bc37eefd054e989c38b75a1",
            ),
        ] {
            let image = sample.image(family, &[(LayerCompression::None, "content")]);
            assert_eq!(image.descriptor().digest.as_str(), digest);
        }
    }

    #[test]
    fn an_image_keeps_its_id_in_another_family() {
        let sample = Sample::new();
        let oci = sample.usual_image("top");
        let docker = oci.in_family(Family::Docker).unwrap();
        assert_eq!(docker.family(), Family::Docker);
        assert_eq!(docker.id(), oci.id());
        assert_eq!(docker.manifest().layers[0].media_type, MediaType::DockerLayer(GZIP));
        assert_eq!(docker.manifest().config.media_type, MediaType::DockerConfig);
        docker.validate().unwrap();
        let back = docker.in_family(Family::Oci).unwrap();
        assert_eq!(back.manifest_bytes(), oci.manifest_bytes());
    }

    #[test]
    fn zstd_is_refused_where_no_type_exists() {
        let image = Sample::new().image(Family::Oci, &[(ZSTD, "a")]);
        let message = image.in_family(Family::Docker).unwrap_err().to_string();
        assert!(message.contains("zstd") && message.contains("gzip"), "{message}");
    }

    #[test]
    fn annotations_stay_with_oci() {
        let image = Sample::new().usual_image("top");
        let annotations = Annotations::from([("a".to_owned(), "b".to_owned())]);
        let mut layers = image.manifest().layers.clone();
        layers[0].annotations = annotations.clone();
        let assemble = |family| {
            let (layers, annotations) = (layers.clone(), annotations.clone());
            let assembly = Assembly { config: image.config(), layers, family, annotations };
            assemble(assembly, Arc::clone(image.blobs())).unwrap().manifest().clone()
        };
        let oci = assemble(Family::Oci);
        assert_eq!((&oci.annotations, &oci.layers[0].annotations), (&annotations, &annotations));
        let docker = assemble(Family::Docker);
        assert!(docker.annotations.is_empty() && docker.layers[0].annotations.is_empty());
    }

    #[test]
    fn what_is_no_layer_is_refused_and_foreign_layers_stay() {
        let convert = |media_type: &str, family| {
            convert(Descriptor::of(media_type.into(), b""), family).map(|layer| layer.media_type)
        };
        for wrong in ["application/vnd.oci.image.config.v1+json", "application/x-tar"] {
            let message = convert(wrong, Family::Oci).unwrap_err().to_string();
            assert!(message.contains(wrong), "{message}");
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(convert(foreign, Family::Docker).unwrap(), foreign.into());
    }
}
