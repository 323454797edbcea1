//! Images on their ways: from registries and archives into the store, and from the store to
//! registries and archives.
//!
//! What another place has is fetched once and stays; what the store has only as files is packed
//! when somebody needs blobs, and the blobs stay, too.

mod copy;
mod elsewhere;
mod import;
mod index;
mod load;
pub(crate) mod packed;
mod pull;
mod push;
mod recompress;
mod said;
mod save;
mod whole;

pub use copy::{CopyRequest, CopyTarget, copy};
pub use import::{ImportRequest, import};
pub use index::{IndexRequest, IndexSource, Listed, create_index, inspect_index};
pub use load::load;
pub use pull::{pull, pull_whole, tags};
pub use push::push;
pub use recompress::Recompression;
pub use save::{SaveForm, save};
