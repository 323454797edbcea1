//! The tar format of layers: POSIX `pax(1)`, with what GNU tar, star and Go add to it.
//!
//! The reader takes what Go's `archive/tar` takes, since that is what defines a layer's content in
//! practice: a reader that saw something else in the same bytes would be fooled where the images
//! run. So global PAX headers are passed over (GNU tar and Python apply them), of two records with
//! one key the last counts, a header of a link, a directory or a device has no data whatever its
//! size field says, and GNU long names win over PAX paths. What Go refuses is refused.
//!
//! The writer makes plain ustar headers and adds PAX records for exactly what these cannot hold.
//! The same entries give the same bytes.
//!
//! Nothing in here touches a file system.

mod header;
#[cfg(test)]
pub(crate) mod made;
mod pax;
mod probe;
mod reader;
mod sparse;
mod writer;

pub use probe::is_archive;
pub use reader::{ArchiveEntry, ArchiveNode, Reader};
pub(crate) use writer::{END, Times, padding, put_entry};

/// The unit of the format.
pub(crate) const BLOCK: usize = 512;
/// The limit for what describes an entry (PAX records, long names, sparse maps), as in Go.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// Names in a layer's archive that begin so are no files (OCI `layer.md`, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Names that begin so are AUFS's own and mean nothing, except for [`OPAQUE_MARKER`].
pub(crate) const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// The file in a directory that makes it opaque.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

#[cfg(test)]
mod tests;
