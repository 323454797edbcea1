//! The names and documents of the OCI specifications, validated on the way in.
//!
//! A value of one of these types is well-formed: a [`Digest`] can be used as a file name, a
//! [`Reference`] can be sent to a registry. Documents keep the order of their fields, so the same
//! value always has the same bytes and so the same digest.
//!
//! This crate does no I/O, reads no clock and knows nothing of files, tar archives or registries'
//! protocols.

mod config;
mod digest;
mod document;
mod error;
mod media_type;
mod platform;
mod reference;

pub use config::{Healthcheck, History, ImageConfig, RootFs, RuntimeConfig};
pub use digest::{Algorithm, ChainId, DiffId, Digest, Hasher};
pub use document::{Annotations, Descriptor, Index, Manifest, from_json, to_json};
pub use error::OciError;
pub use media_type::{LayerCompression, MediaType};
pub use platform::Platform;
pub use reference::{Reference, Repository};

/// The annotation that names an image within an OCI image layout.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation under which containerd and BuildKit keep an image's full reference.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// What the file `oci-layout` of an OCI image layout says.
pub const IMAGE_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
