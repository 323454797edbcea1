//! Images for tests; those in `tests/` include this file, too.

use std::io::Write;
use std::sync::Arc;

use formwork_content::{ContentStore, StoreLayout};
use formwork_image::{Assembly, BlobBytes, BlobSource, Family, ImageError, ImageView, assemble};
use formwork_oci::{
    Annotations, Descriptor, DiffId, Digest, History, ImageConfig, LayerCompression, MediaType,
};

/// A store with images, gone when it is dropped.
pub(crate) struct Sample {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) layout: StoreLayout,
    pub(crate) content: ContentStore,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path().join("store")).unwrap();
        Self::in_store(layout, dir)
    }

    /// Images in a store that others use, too; the directory is for anything else.
    pub(crate) fn in_store(layout: StoreLayout, dir: tempfile::TempDir) -> Self {
        let content = ContentStore::of(&layout);
        Self { dir, layout, content }
    }

    /// An image whose layers have one file each, with the given content.
    pub(crate) fn image(&self, family: Family, layers: &[(LayerCompression, &str)]) -> ImageView {
        let mut config = config();
        let mut descriptors = Vec::new();
        for (number, (compression, content)) in layers.iter().enumerate() {
            let plain = tar(&[(&format!("layer-{number}"), content.as_bytes())]);
            let blob = self.content.insert(&compress(*compression, &plain)).unwrap();
            config.rootfs.diff_ids.push(DiffId(Digest::of(&plain)));
            config.history.push(History { created_by: Some("COPY".into()), ..History::default() });
            let media_type = MediaType::OciLayer(*compression);
            descriptors.push(Descriptor::new(media_type, blob.digest, blob.size));
        }
        let assembly = Assembly {
            config: &config,
            layers: descriptors,
            family,
            annotations: Annotations::new(),
        };
        assemble(assembly, Arc::new(self.content.clone())).unwrap()
    }

    /// An image of the most usual kind.
    pub(crate) fn usual_image(&self, content: &str) -> ImageView {
        let gzip = LayerCompression::Gzip;
        self.image(Family::Oci, &[(gzip, "base"), (gzip, content)])
    }
}

/// A place whose only blob has these bytes, whatever it should have.
#[derive(Debug)]
pub(crate) struct Fake(pub(crate) &'static [u8]);

impl BlobSource for Fake {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        Ok(BlobBytes::stream(Box::new(self.0), descriptor.size))
    }

    fn place(&self) -> String {
        "a fake".to_owned()
    }
}

fn config() -> ImageConfig {
    let mut config = ImageConfig::for_platform(&"linux/amd64".parse().unwrap());
    config.created = Some("2026-01-02T03:04:05Z".into());
    config.config.cmd = Some(vec!["/layer-0".into()]);
    config
}

/// A tar archive whose bytes depend on nothing else.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn compress(compression: LayerCompression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        LayerCompression::None => bytes.to_vec(),
        LayerCompression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        LayerCompression::Zstd => zstd::encode_all(bytes, 3).unwrap(),
    }
}
