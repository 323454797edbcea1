//! What the store takes on the disk, and making room in it.
//!
//! [`usage`] adds up every file of the store once, as `du(1)` does. [`prune`] removes what no image
//! of the store and no running process needs, the least recently used first.
//! [`Keeper`] does so before a build and before each of its steps, where limits ask for it.
//!
//! Nothing here removes an image: that is for `formwork rm`.

mod needed;
mod prune;
mod room;
mod usage;

pub(crate) use needed::{Needed, blobs};
pub use prune::{Limits, Pruned, prune};
pub(crate) use room::Keeper;
pub use usage::{Item, ItemKind, Usage, usage};
