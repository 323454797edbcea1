//! Why something that lies elsewhere cannot be had.

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_layer::LayerError;
use formwork_oci::Digest;
use formwork_registry::DownloadError;

/// Why something that lies elsewhere cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address, the server or the way to it.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The file is not the one that the user wants.
    #[error("`{url}` has the digest {found}, not {wanted}; somebody may have replaced the file")]
    Checksum {
        /// The address without what may be secret in it.
        url: String,
        /// What was fetched.
        found: Digest,
        /// What was asked for.
        wanted: Digest,
    },
    /// A git repository, or the program.
    #[error("the git repository `{url}` cannot be used: {problem}")]
    Git {
        /// The address without what may be secret in it.
        url: String,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// What was fetched cannot be kept.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A file of the store.
    #[error(transparent)]
    File(#[from] FsError),
    /// What was fetched makes no tree.
    #[error(transparent)]
    Layer(#[from] LayerError),
}
