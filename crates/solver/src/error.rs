//! Why a graph could not be worked through.

use formwork_cache::CacheError;
use formwork_graph::OpId;

/// Why a graph could not be worked through.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// An op failed.
    #[error("{error}")]
    Op {
        /// The op.
        op: OpId,
        /// What its runner says.
        #[source]
        error: E,
    },
    /// The cache index is unusable.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Somebody asked to stop.
    #[error("the build was stopped")]
    Canceled,
}
