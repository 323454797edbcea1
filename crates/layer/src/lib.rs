//! Layers: trees, tar archives, directories, and the ways between them.
//!
//! A layer has three forms, each made from another only when somebody needs it:
//!
//! - a [`Tree`]: what it holds, as data;
//! - a directory: a lower directory of an overlay file system mounted with `userxattr`, where a
//!   whiteout is a character device 0/0 and an opaque directory has the attribute
//!   `user.overlay.opaque`;
//! - a blob: a tar archive as the OCI image specification has it (`layer.md`), usually compressed.
//!
//! This crate mounts nothing, knows nothing of images, registries or Dockerfiles, and never opens
//! a path of a layer other than beneath a descriptor.

mod apply;
pub mod archive;
pub mod compose;
pub mod compression;
mod disk;
mod error;
mod flow;
mod holes;
mod materialize;
mod pack;
mod scan;
mod times;
pub mod tree;

pub use apply::{Applied, ApplyOptions, Whiteouts, adopt_implied, apply, index};
pub use compression::Compression;
pub use disk::{Omitted, Ownership};
pub use error::LayerError;
pub use materialize::{MaterializeOptions, materialize};
pub use pack::{PackOptions, Packed, pack, recompress};
pub use scan::{
    Census, Listener, Reading, StatCache, is_intact, scan_changes, scan_context, scan_upper,
};
pub use times::{is_packed_form, set_times};
pub use tree::{Stack, Tree, TreeDigest};
