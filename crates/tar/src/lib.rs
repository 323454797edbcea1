//! The tar format: POSIX `pax(1)`, with what GNU tar, star and Go add to it.
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
//! This crate touches no file system, and knows nothing of layers or images: that some names in a
//! layer's archive mean deletions is said in `formwork-layer`.

mod entry;
mod error;
mod header;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

pub use entry::{Entry, Node};
pub use error::TarError;
pub use reader::Reader;
pub use writer::{END, padding, put_header};

/// The unit of the format: headers have this size, and content is padded to it.
pub const BLOCK: usize = 512;
/// The limit for what describes an entry (PAX records, long names, sparse maps), as in Go.
const MAX_DESCRIPTION: u64 = 1 << 20;
