//! The file system as the rest of formwork may use it.
//!
//! Paths that come from an image, an archive or a build context are [`RelPath`]s and are opened
//! beneath a [`RootDir`], by the kernel (`openat2`), never by joining strings. Files that others
//! may read at any time are written as [`AtomicFile`]s; processes agree through [`FileLock`]s
//! and [`Lease`]s; owners that the machine cannot give are kept as data ([`Record`]); trees are
//! listed by [`walk()`], and what they take on the disk is added up by [`DiskUsage`]. Threads share
//! work by [`map_in_parallel`].
//!
//! This crate knows nothing of images, layers or the store's layout.

mod atomic;
mod copy;
mod error;
mod lease;
mod lock;
mod owner;
mod parallel;
mod relpath;
mod remove;
mod root;
mod stat;
mod target;
mod usage;
mod walk;
mod xattr;

pub use atomic::AtomicFile;
pub use copy::{copy_contents, copy_range};
pub use error::FsError;
pub use lease::{ClosedGate, Lease, held_by_anybody, keep_gate_open};
pub use lock::FileLock;
pub use owner::{
    OWNER_ATTRIBUTE, Record, as_seen, attribute_as_seen, attribute_on_disk, device_stand_in, give,
    give_mode, is_in_times, keep_owners_as_data, keep_owners_as_data_alone, lone_ids, mode_on_disk,
    owner_of_time, owners_are_data, read_record, stat_with_record, time_of_owner, write_record,
};
pub use parallel::map_in_parallel;
pub use relpath::{RelPath, RelPathError};
pub use remove::remove_tree;
pub use root::{Follow, RootDir};
pub use stat::{FileKind, FileStat, Timestamp};
pub use target::Target;
pub use usage::{DiskUsage, free_space};
pub use walk::{Verdict, WalkEntry, WalkFilter, walk};
pub use xattr::{Xattr, Xattrs, read_xattr_of, read_xattrs, write_xattr, write_xattr_of};
