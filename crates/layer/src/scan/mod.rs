//! A directory becomes a tree.
//!
//! There are three kinds of directories to look at: a context, which belongs to the user and is read
//! in place ([`scan_context`]); the upper directory of an overlay, in which a process has left
//! what it changed ([`scan_upper`]); and a root file system without an overlay, before and after a
//! process ([`scan_changes`]). Both are walked through descriptors, and every file's content
//! is hashed, with several threads.

mod changes;
mod context;
mod intact;
mod pace;
mod stat_cache;
mod upper;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fs::File;
use std::io;

use formwork_fs::{FileKind, RelPath, RootDir, WalkEntry};
use rustix::buffer::spare_capacity;
use rustix::io::retry_on_intr;

pub use changes::{Census, scan_changes};
pub use context::scan_context;
pub use intact::is_intact;
pub use pace::{Listener, Reading};
pub use stat_cache::StatCache;
pub use upper::scan_upper;
pub(crate) use upper::{CAPABILITY, OPAQUE};

use crate::LayerError;
use crate::tree::{ContentHash, Node};

/// Files from this size on are hashed first.
const LARGE: u64 = 1 << 20;

fn is_large(entry: &WalkEntry) -> bool {
    entry.stat.kind == FileKind::Regular && entry.stat.size >= LARGE
}

/// The content of an open file: how many bytes there were, and their hash.
fn hash(file: &File) -> io::Result<(u64, ContentHash)> {
    hash_telling(file, &|_| {})
}

/// The same, telling somebody of each piece how many bytes it has.
fn hash_telling(file: &File, told: &dyn Fn(u64)) -> io::Result<(u64, ContentHash)> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(256 << 10));
    }
    BUFFER.with_borrow_mut(|buffer| {
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        loop {
            buffer.clear();
            if retry_on_intr(|| rustix::io::read(file, spare_capacity(buffer)))? == 0 {
                return Ok((size, ContentHash(hasher.finalize().into())));
            }
            hasher.update(buffer);
            size += buffer.len() as u64;
            told(buffer.len() as u64);
        }
    })
}

/// What an entry is that holds nothing to be read, and is no directory.
fn plain_node(directory: &RootDir, entry: &WalkEntry) -> Result<Option<Node>, LayerError> {
    let (major, minor) = entry.stat.rdev;
    Ok(match entry.stat.kind {
        FileKind::Symlink => {
            Some(Node::Symlink { target: directory.read_link(&entry.path)?.into() })
        }
        FileKind::CharDevice => Some(Node::char_device(major, minor)),
        FileKind::BlockDevice => Some(Node::BlockDevice { major, minor }),
        FileKind::Fifo => Some(Node::Fifo),
        FileKind::Regular | FileKind::Directory | FileKind::Socket => None,
    })
}

/// The names of files that have several, but for the first of each: by the path, the first name.
///
/// Whiteouts are no files: overlayfs makes them as links to one and the same device.
fn further_names(entries: &[WalkEntry]) -> HashMap<&RelPath, &RelPath> {
    let mut first = HashMap::new();
    let mut further = HashMap::new();
    let has_several = |entry: &&WalkEntry| {
        let is_whiteout = entry.stat.kind == FileKind::CharDevice && entry.stat.rdev == (0, 0);
        entry.stat.links > 1 && !entry.stat.is_dir() && !is_whiteout
    };
    for entry in entries.iter().filter(has_several) {
        // Numbers of files are only unique within a device.
        match first.entry((entry.stat.device, entry.stat.inode)) {
            Vacant(vacant) => drop(vacant.insert(&entry.path)),
            Occupied(first) => drop(further.insert(&entry.path, *first.get())),
        }
    }
    further
}
