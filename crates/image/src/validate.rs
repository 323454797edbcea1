//! Whether an image is all that it claims.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use formwork_oci::{Digest, Hasher, LayerCompression};

use crate::blob::{BUFFER, image_error};
use crate::{ImageError, ImageView, Layer, VerifiedBytes};

impl ImageView {
    /// Reads the whole image and checks everything: sizes and digests of all blobs, the layers'
    /// media types, diff IDs, and that the documents agree.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ImageError> {
        self.check_documents()?;
        self.layers().try_for_each(|layer| self.check_layer(layer))
    }

    fn check_documents(&self) -> Result<(), ImageError> {
        let config = self.config();
        let of_layers = config.history.iter().filter(|entry| !entry.empty_layer).count();
        let layers = self.manifest().layers.len();
        let contradiction = if config.rootfs.kind != "layers" {
            Some(format!("its root file system is of type `{}`", config.rootfs.kind))
        } else if config.os.is_empty() || config.architecture.is_empty() {
            Some("its configuration names no platform".to_owned())
        } else if !config.history.is_empty() && of_layers != layers {
            Some(format!("its history tells of {of_layers} layers, the manifest has {layers}"))
        } else {
            None
        };
        contradiction.map_or(Ok(()), |reason| Err(self.invalid(reason)))
    }

    fn check_layer(&self, layer: Layer<'_>) -> Result<(), ImageError> {
        let descriptor = layer.descriptor;
        let compression = descriptor.media_type.layer_compression().ok_or_else(|| {
            self.invalid(format!(
                "the layer {} has the media type `{}`",
                descriptor.digest, descriptor.media_type
            ))
        })?;
        let bytes = self.open_layer(layer)?;
        let actual = uncompressed_digest(bytes, compression, layer).map_err(|error| {
            image_error(error, |error| ImageError::Damaged {
                digest: descriptor.digest.clone(),
                place: self.blobs().place(),
                reason: error.to_string(),
            })
        })?;
        if actual == layer.diff_id.0 {
            return Ok(());
        }
        Err(self.invalid(format!(
            "the layer {} has the diff ID {actual}, the configuration says {}",
            descriptor.digest, layer.diff_id
        )))
    }

    fn invalid(&self, reason: String) -> ImageError {
        ImageError::Invalid { image: self.descriptor().digest.to_string(), reason }
    }
}

fn uncompressed_digest(
    bytes: VerifiedBytes,
    compression: LayerCompression,
    layer: Layer<'_>,
) -> io::Result<Digest> {
    let mut hasher = Hasher::new(layer.diff_id.0.algorithm());
    let compressed = BufReader::with_capacity(BUFFER, bytes);
    let compressed = match compression {
        LayerCompression::None => {
            let mut plain = compressed;
            hash(&mut plain, &mut hasher)?;
            plain
        }
        LayerCompression::Gzip => {
            let mut decoder = MultiGzDecoder::new(compressed);
            hash(&mut decoder, &mut hasher)?;
            decoder.into_inner()
        }
        LayerCompression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(compressed)?;
            hash(&mut decoder, &mut hasher)?;
            decoder.finish()
        }
    };
    compressed.into_inner().finish()?;
    Ok(hasher.finish())
}

fn hash(reader: &mut impl Read, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use formwork_oci::{
        Annotations, Descriptor, DiffId, Digest, History, ImageConfig, LayerCompression, MediaType,
    };

    use crate::testing::{Sample, compress, tar};
    use crate::{Assembly, Family, ImageError, ImageView, assemble};

    const GZIP: LayerCompression = LayerCompression::Gzip;

    /// An image with one layer, and the sample that has it.
    fn image_of(
        blob: &[u8],
        compression: LayerCompression,
        diff_id: Digest,
    ) -> (Sample, ImageView) {
        let sample = Sample::new();
        sample.content.insert(blob).unwrap();
        let mut config = ImageConfig::for_platform(&"linux/amd64".parse().unwrap());
        config.rootfs.diff_ids.push(DiffId(diff_id));
        let layers = vec![Descriptor::of(MediaType::OciLayer(compression), blob)];
        let annotations = Annotations::new();
        let assembly = Assembly { config: &config, layers, family: Family::Oci, annotations };
        let image = assemble(assembly, Arc::new(sample.content.clone())).unwrap();
        (sample, image)
    }

    #[test]
    fn images_of_every_kind_are_valid() {
        let sample = Sample::new();
        let (none, zstd) = (LayerCompression::None, LayerCompression::Zstd);
        for (family, layers) in [
            (Family::Oci, &[(none, "a"), (GZIP, "b"), (zstd, "c"), (GZIP, "b")][..]),
            (Family::Docker, &[(GZIP, "a"), (none, "b")]),
            (Family::Oci, &[]),
        ] {
            sample.image(family, layers).validate().unwrap();
        }
    }

    #[test]
    fn a_layer_of_several_gzip_members_is_valid() {
        let plain = tar(&[("a", &[7; 5000])]);
        let blob: Vec<u8> = plain.chunks(1000).flat_map(|part| compress(GZIP, part)).collect();
        image_of(&blob, GZIP, Digest::of(&plain)).1.validate().unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_layer_is_found() {
        let plain = tar(&[("a", b"content")]);
        let gzip = compress(GZIP, &plain);
        let trailing = [&gzip[..], b"garbage"].concat();
        for (blob, diff_id, expected) in [
            (&gzip, Digest::of(b"other"), "the configuration says"),
            (&plain, Digest::of(&plain), "gzip"),
            (&gzip[..gzip.len() / 2].to_vec(), Digest::of(&plain), "damaged"),
            (&trailing, Digest::of(&plain), "damaged"),
        ] {
            let message = image_of(blob, GZIP, diff_id).1.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_blob_that_changed_or_disappeared_is_found() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let blob = sample.content.get(&image.manifest().layers[1].digest).unwrap().unwrap();
        let bytes = fs_err::read(&blob.path).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        fs_err::write(&blob.path, &changed).unwrap();
        assert!(matches!(image.validate(), Err(ImageError::Damaged { .. })));
        fs_err::write(&blob.path, &bytes[1..]).unwrap();
        let message = image.validate().unwrap_err().to_string();
        assert!(message.contains(&format!("instead of {}", bytes.len())), "{message}");
        sample.content.remove(&blob.digest).unwrap();
        assert!(matches!(image.validate(), Err(ImageError::Missing { .. })));
    }

    #[test]
    fn documents_that_disagree_are_found() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        type Edit = fn(&mut ImageConfig);
        let edits: [(Edit, &str); 3] = [
            (|config| config.os.clear(), "names no platform"),
            (|config| config.rootfs.kind = "other".into(), "of type `other`"),
            (|config| config.history.push(History::default()), "its history tells of 3 layers"),
        ];
        for (edit, expected) in edits {
            let mut config = image.config().clone();
            edit(&mut config);
            let layers = image.manifest().layers.clone();
            let (family, annotations) = (Family::Oci, Annotations::new());
            let assembly = Assembly { config: &config, layers, family, annotations };
            let image = assemble(assembly, Arc::clone(image.blobs())).unwrap();
            let message = image.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
