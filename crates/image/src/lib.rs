//! Images as lazy, immutable views: where they come from, what they are called, where they go.
//!
//! An [`ImageView`] is a manifest, a configuration and a [`BlobSource`] that opens the layers when
//! somebody wants them. Views come from an OCI image layout or an archive ([`source`]), from the
//! names of the local store ([`LocalImages`]), or are put together from layers ([`assemble`]); they
//! go to directories, archives and registries ([`export`]).
//!
//! What comes from outside is verified by its digest when it is read. This crate never unpacks a
//! layer, and knows nothing of Dockerfiles or caches.

// The images for tests are shared with `tests/`, where the crate has this name.
#[cfg(test)]
extern crate self as formwork_image;

mod archive;
mod assemble;
mod blob;
mod copy;
mod error;
pub mod export;
mod fetch;
mod index;
mod local;
mod select;
pub mod source;

#[cfg(test)]
mod testing;
mod validate;
mod view;

pub use assemble::{Assembly, Family, assemble};
pub use blob::{BlobBytes, BlobSource, VerifiedBytes};
pub use copy::copy_blob;
pub use error::ImageError;
pub use fetch::{FetchedBlobs, fetch};
pub use index::{Artifact, Entry, ImageIndex, Member};
pub use local::{Listing, LocalImages, StoredImage, StoredIndex, StoredLayer};
pub use select::{Choice, Location};
pub use view::{ImageView, Layer};
