//! Tar archives as containers of an image's files: an index to read by position, and a writer.
//!
//! Layers' own archives are none of this module's business.

mod read;
mod write;

pub(crate) use read::Archive;
pub(crate) use write::ArchiveWriter;
