//! Tar archives as containers of an image's files: an index to read by position, and a writer.
//!
//! Layers' own archives are none of this module's business.

mod read;
mod same;
mod write;

pub(crate) use read::Archive;
pub(crate) use same::Comparison;
#[cfg(test)]
pub(crate) use same::tests::is_told_here;
pub(crate) use write::ArchiveWriter;
