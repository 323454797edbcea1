//! Layers as tar archives: what a name means in them.
//!
//! The format itself is in `formwork-tar`; deletions are files with names of their own (OCI
//! `layer.md`, "Whiteouts").

mod probe;
mod writer;

pub use probe::is_archive;
pub(crate) use writer::{Times, put_entry};

/// Names in a layer's archive that begin so are no files.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Names that begin so are AUFS's own and mean nothing, except for [`OPAQUE_MARKER`].
pub(crate) const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// The file in a directory that makes it opaque.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

#[cfg(test)]
mod tests;
