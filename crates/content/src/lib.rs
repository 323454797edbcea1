//! The store's names, and its blobs by digest.
//!
//! [`StoreLayout`] is the one place that knows what the store's directories are called.
//! [`ContentStore`] keeps blobs in an OCI image layout, the store's own or any other.
//! [`Temporary`] is a place for what is not finished, which disappears with its process.
//!
//! Processes meet here only through atomic renames and file locks. Nothing is synced to the disk:
//! a process that is killed leaves the store valid; what a power loss may have left half-written
//! is found by its length or its digest, which is looked at once after each boot.
//!
//! This crate knows nothing of tar archives, registries or what an image means.

mod blob;
mod boot;
mod error;
mod index;
mod layout;
mod partial;
mod temporary;

pub use blob::{Blob, BlobWriter, ContentStore, StagedBlob};
pub use error::ContentError;
pub use layout::StoreLayout;
pub use partial::PartialBlob;
pub use temporary::Temporary;
