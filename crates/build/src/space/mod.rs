//! What the store takes on the disk, and making room in it.
//!
//! [`usage`] adds up every file of the store once, as `du(1)` does. [`prune`] removes what no image
//! of the store needs, the least recently used first, while no other process uses the store.
//!
//! Nothing here removes an image: that is for `formwork rm`.

mod needed;
mod prune;
mod usage;

pub(crate) use needed::{Needed, blobs};
pub use prune::{Limits, Pruned, prune};
pub use usage::{Item, ItemKind, Usage, usage};
