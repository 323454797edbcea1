//! Images for the tests, and a registry that has one.

use formwork_oci::{
    Descriptor, Digest, ImageConfig, Index, Manifest, MediaType, Platform, Reference, to_json,
};
use formwork_registry::{RegistryClient, RegistryConfig, Retries, Timeouts};

use crate::server::{Received, Reply};
use std::time::Duration;

/// An image with one layer.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    /// An image whose layer has so many bytes, which do not repeat themselves.
    pub(crate) fn of_size(size: usize) -> Self {
        Self::on("linux/amd64", bytes(size))
    }

    pub(crate) fn on(platform: &str, layer: Vec<u8>) -> Self {
        let config = to_json(&ImageConfig::for_platform(&platform.parse().unwrap()));
        let layer_type = MediaType::from("application/vnd.oci.image.layer.v1.tar+gzip");
        let manifest = Manifest::oci(
            Descriptor::of(MediaType::OciConfig, &config),
            vec![Descriptor::of(layer_type, &layer)],
        );
        Self { layer, config, manifest: to_json(&manifest) }
    }

    pub(crate) fn layer_descriptor(&self) -> Descriptor {
        Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip".into(), &self.layer)
    }

    pub(crate) fn manifest_descriptor(&self, platform: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::OciManifest, &self.manifest);
        descriptor.platform = Some(platform.parse().unwrap());
        descriptor
    }

    /// What a registry with this image under every tag answers.
    pub(crate) fn reply(&self, request: &Received) -> Reply {
        let name = request.path().rsplit('/').next().unwrap();
        let has = |bytes: &[u8]| name == Digest::of(bytes).as_str();
        let manifest_type = MediaType::OciManifest.to_string();
        if request.path() == "/v2/" {
            Reply::ok("")
        } else if request.path().contains("/manifests/")
            && (!name.contains(':') || has(&self.manifest))
        {
            let digest = Digest::of(&self.manifest).to_string();
            Reply::ok(self.manifest.clone())
                .header("Content-Type", manifest_type)
                .header("Docker-Content-Digest", digest)
        } else if has(&self.config) {
            Reply::ok(self.config.clone())
        } else if has(&self.layer) {
            match range(request) {
                Some(from) => Reply::part(&self.layer, from),
                None => Reply::ok(self.layer.clone()),
            }
        } else {
            Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            )
        }
    }

    /// Whether a request is for the layer.
    pub(crate) fn is_layer(&self, request: &Received) -> bool {
        request.path().ends_with(Digest::of(&self.layer).as_str())
    }
}

/// An index of images.
pub(crate) fn index(entries: Vec<Descriptor>) -> Vec<u8> {
    to_json(&Index::oci(entries))
}

/// The first byte that a request with `Range` asks for.
pub(crate) fn range(request: &Received) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Bytes that do not repeat themselves within 16 MiB.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    (0..size.div_ceil(4))
        .flat_map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes())
        .take(size)
        .collect()
}

/// A configuration that does not wait long.
pub(crate) fn impatient() -> RegistryConfig {
    RegistryConfig {
        retries: Retries {
            attempts: 4,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(4),
            longest_wait: Duration::from_secs(5),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            commit: Duration::from_secs(10),
        },
        ..RegistryConfig::default()
    }
}

pub(crate) fn client(config: RegistryConfig) -> RegistryClient {
    RegistryClient::new(config).unwrap()
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(crate) fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}
