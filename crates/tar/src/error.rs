//! What can go wrong with an archive.

use std::io;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream that it is read from failed.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// Bytes that are no tar archive.
    #[error("not a valid tar archive: {problem} (byte {offset}); fetch or make it again")]
    Invalid {
        /// Where in the archive.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
}
