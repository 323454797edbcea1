//! A tree becomes a directory.
//!
//! Files that are unchanged in a directory of another layer may become further names of the file
//! there. All others are copied, as cheaply as the file system allows. Directories are shared out
//! among threads; each is opened beneath the root's descriptor, and only single names are used in
//! it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use formwork_fs::{
    FileKind, FileStat, Follow, FsError, RelPath, RootDir, copy_contents, owners_are_data,
    read_xattrs, remove_tree, stat_with_record,
};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::LayerError;
use crate::disk::{self, Maker, Omitted, Ownership, path_of};
use crate::flow;
use crate::holes::SparseFile;
use crate::tree::{
    Bytes, ContentHash, Entry, File, Metadata, Neighbours, Node, Origin, Tree, Xattrs,
};

/// How a directory is made.
#[derive(Clone, Copy, Debug)]
pub struct MaterializeOptions {
    /// Whose the entries become, and so what kind of directory it is.
    pub ownership: Ownership,
    /// Whether a file whose bytes are in the directory of another layer ([`Origin::layer`]), with
    /// exactly the metadata that is wanted, may become a hard link to it. Only for directories
    /// that nobody will ever write to: what is written to such a file is written to the layer.
    pub hard_links: bool,
    /// Whether the directory holds the layers below already, which the tree then changes: what is
    /// in the way of an entry goes, and so does what a deletion or an opaque directory hides.
    pub over: bool,
    /// How many threads may write at once.
    pub threads: usize,
}

impl Default for MaterializeOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { ownership: Ownership::Exact, hard_links: false, over: false, threads }
    }
}

/// Makes the entries of a tree in a directory.
///
/// With [`Ownership::Exact`] the directory is that of a layer, as overlayfs takes it for a lower
/// one, or has the same files for another purpose. It is empty before; afterwards modes, owners,
/// modification times, extended attributes and hard links are exactly those of the tree.
///
/// With [`Ownership::Caller`] the directory is one of the user's, in which a root file system is
/// put beside or over what is there. What is in the place of an entry is replaced, links as such
/// and never followed; but no directory makes place for something else, and the directory itself
/// stays as it is. Deletions are not written.
///
/// # Errors
///
/// Fails where a file's bytes cannot be read, where a file of a context is no longer what the tree
/// says ([`LayerError::Changed`]), and where the directory cannot be written. The directory then
/// holds part of the tree.
pub fn materialize(
    tree: &Tree,
    directory: &RootDir,
    options: &MaterializeOptions,
) -> Result<Omitted, LayerError> {
    let MaterializeOptions { ownership, hard_links, over, threads } = *options;
    let maker = Maker::new(ownership);
    let over = over && ownership == Ownership::Exact;
    if over {
        make_way_for(tree, directory)?;
    }
    // In a directory of the user's, files are always copies.
    let hard_links = hard_links && ownership == Ownership::Exact;
    let sources = if hard_links { sources_of_several(tree) } else { HashSet::new() };
    Work { tree, root: directory, maker: &maker, hard_links, over, sources }.run(threads.max(1))?;
    Ok(maker.omitted())
}

/// Removes what is in the way of a tree's entries in a directory that holds the layers below.
fn make_way_for(tree: &Tree, root: &RootDir) -> Result<(), LayerError> {
    for entry in tree.entries().iter().filter(|entry| !entry.path.is_root()) {
        let Ok(parent) = root.open_dir(&entry.path.parent().unwrap_or_default(), Follow::Never)
        else {
            // Not there yet, or removed just now.
            continue;
        };
        let keeps = matches!(entry.node, Node::Directory { opaque: false });
        if !keeps || !is_directory(&parent, entry.path.name())? {
            remove_tree(&parent, entry.path.name())?;
        }
    }
    Ok(())
}

/// How many entries, and how many bytes, one thread takes at a time.
const GROUP_ENTRIES: usize = 64;
const GROUP_BYTES: u64 = 4 << 20;

struct Work<'a> {
    tree: &'a Tree,
    root: &'a RootDir,
    maker: &'a Maker,
    hard_links: bool,
    /// See [`MaterializeOptions::over`].
    over: bool,
    /// Files in other layers that several entries are copies of. If more than one became a hard
    /// link, they would be names of one file, which the tree does not say.
    sources: HashSet<Source<'a>>,
}

/// A place in an origin, which is told by its address.
type Source<'a> = (usize, &'a RelPath);

/// Entries of one directory.
struct Group<'a> {
    parent: RelPath,
    entries: Vec<&'a Entry>,
    bytes: u64,
}

fn source(file: &File) -> Option<Source<'_>> {
    match &file.bytes {
        Bytes::At { origin, path } => Some((address(origin), path)),
        Bytes::Inline(_) | Bytes::Missing => None,
    }
}

fn address(origin: &Arc<Origin>) -> usize {
    Arc::as_ptr(origin).addr()
}

fn sources_of_several(tree: &Tree) -> HashSet<Source<'_>> {
    let mut seen = HashSet::new();
    let sources = tree.entries().iter().filter_map(|entry| match &entry.node {
        Node::File(file) => source(file),
        _ => None,
    });
    sources.filter(|source| !seen.insert(*source)).collect()
}

impl<'a> Work<'a> {
    fn run(&self, threads: usize) -> Result<(), LayerError> {
        for entry in self.tree.entries().iter().filter(|entry| entry.node.is_directory()) {
            self.make_directory(&entry.path)?;
        }
        flow::map(
            &self.groups(),
            threads,
            |group| group.bytes >= GROUP_BYTES,
            |group| self.fill(group),
        )?;
        for entry in self.tree.entries() {
            if let Node::HardLink { target } = &entry.node {
                self.link(&entry.path, target)?;
            }
        }
        self.maker.finish_directories(self.root, self.tree, threads, !self.over)
    }

    /// Everything but directories and hard links, shared out.
    fn groups(&self) -> Vec<Group<'a>> {
        let mut full = Vec::new();
        let mut open = BTreeMap::<&[u8], Group<'a>>::new();
        for entry in self.tree.entries() {
            let size = match &entry.node {
                Node::Directory { .. } | Node::HardLink { .. } => continue,
                Node::File(file) => file.size,
                _ => 0,
            };
            let (parent, _) = entry.path.split_name();
            let new = || Group {
                parent: entry.path.parent().unwrap_or_default(),
                entries: Vec::new(),
                bytes: 0,
            };
            let group = open.entry(parent).or_insert_with(new);
            group.entries.push(entry);
            group.bytes += size;
            if group.entries.len() >= GROUP_ENTRIES || group.bytes >= GROUP_BYTES {
                full.extend(open.remove(parent));
            }
        }
        full.extend(open.into_values());
        full
    }

    fn make_directory(&self, path: &RelPath) -> Result<(), LayerError> {
        if path.is_root() {
            return Ok(());
        }
        let parent = self.parent_of(path)?;
        let is_empty = self.maker.ownership() == Ownership::Exact && !self.over;
        if is_empty || !is_directory(&parent, path.name())? {
            self.make_way(&parent, path.name())?;
            Maker::create_directory(&parent, path.name())?;
        }
        Ok(())
    }

    fn parent_of(&self, path: &RelPath) -> Result<RootDir, LayerError> {
        Ok(self.root.open_dir(&path.parent().unwrap_or_default(), Follow::Never)?)
    }

    /// Removes what is in the place of an entry in a directory of the user's. In the directory of
    /// a layer there is nothing.
    fn make_way(&self, directory: &RootDir, name: &[u8]) -> Result<(), LayerError> {
        if self.maker.ownership() == Ownership::Exact {
            return Ok(());
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(disk::failed("replace", directory, name, errno)),
        }
    }

    fn link(&self, path: &RelPath, target: &RelPath) -> Result<(), LayerError> {
        let directory = self.parent_of(path)?;
        self.make_way(&directory, path.name())?;
        let from = self.parent_of(target)?;
        let entry = self.tree.get(target);
        Maker::link_entry(entry, (&from, target.name()), (&directory, path.name()))
            .map_err(|errno| disk::failed("link", &directory, path.name(), errno))
    }

    fn fill(&self, group: &Group<'_>) -> Result<(), LayerError> {
        let directory = self.root.open_dir(&group.parent, Follow::Never)?;
        let mut neighbours = Neighbours::default();
        for entry in &group.entries {
            let name = entry.path.name();
            self.make_way(&directory, name)?;
            match &entry.node {
                Node::Whiteout if self.over || self.maker.ownership() == Ownership::Caller => {}
                Node::File(file) if self.adopt(file, &mut neighbours, &directory, entry)? => {}
                Node::File(file) => self.write(file, &directory, entry)?,
                node => self.maker.make_node(&directory, name, node, &entry.metadata)?,
            }
        }
        Ok(())
    }

    /// Makes a file of another layer appear here, if it is exactly what is wanted.
    fn adopt(
        &self,
        file: &File,
        neighbours: &mut Neighbours,
        directory: &RootDir,
        entry: &Entry,
    ) -> Result<bool, LayerError> {
        let Bytes::At { origin, path } = &file.bytes else { return Ok(false) };
        let is_shared = source(file).is_some_and(|source| self.sources.contains(&source));
        if !self.hard_links || !origin.is_immutable() || is_shared {
            return Ok(false);
        }
        let from = neighbours.directory_of(origin, path)?;
        if !is_same(from, path.name(), file.size, &entry.metadata)? {
            return Ok(false);
        }
        match Maker::link((from, path.name()), (directory, entry.path.name())) {
            Ok(()) => Ok(true),
            // Another file system, too many links, or a rule against links to others' files.
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                Ok(false)
            }
            Err(errno) => Err(disk::failed("link", directory, entry.path.name(), errno)),
        }
    }

    fn write(&self, file: &File, directory: &RootDir, entry: &Entry) -> Result<(), LayerError> {
        let name = entry.path.name();
        let path = || path_of(directory, name);
        let mut target = Maker::create(directory, name)?;
        match &file.bytes {
            Bytes::Inline(bytes) => {
                target.write_all(bytes).map_err(|error| FsError::new("write", path(), error))?;
            }
            Bytes::At { origin, .. } if origin.is_immutable() => {
                let copied = copy_contents(&file.open()?, &target)
                    .map_err(|error| FsError::new("copy to", path(), error))?;
                if copied != file.size {
                    return Err(LayerError::Changed { path: file.display_path() });
                }
            }
            Bytes::At { .. } | Bytes::Missing => target = copy_verified(file, target, path)?,
        }
        self.maker.finish(target.as_fd(), &entry.metadata, path)
    }
}

/// Copies a file that somebody may be writing to, and makes sure that it is what was wanted.
fn copy_verified(
    file: &File,
    target: fs::File,
    target_path: impl Fn() -> std::path::PathBuf,
) -> Result<fs::File, LayerError> {
    let source = file.open()?;
    let failed = |error| FsError::new("write", target_path(), error);
    let mut target = SparseFile::new(target);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::with_capacity(PIECE);
    let mut left = file.size;
    while left > 0 {
        buffer.clear();
        let count = retry_on_intr(|| rustix::io::read(&source, spare_capacity(&mut buffer)))
            .map_err(|errno| FsError::new("read", file.display_path(), errno))?;
        // What was added since does not belong to the file that was looked at.
        buffer.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        if count == 0 {
            break;
        }
        hasher.update(&buffer);
        target.write(&buffer).map_err(failed)?;
        left -= buffer.len() as u64;
    }
    match left == 0 && ContentHash(hasher.finalize().into()) == file.content {
        true => Ok(target.finish().map_err(failed)?),
        false => Err(LayerError::Changed { path: file.display_path() }),
    }
}

const PIECE: usize = 128 << 10;

/// Whether a file is in every way what an entry wants.
fn is_same(
    directory: &RootDir,
    name: &[u8],
    size: u64,
    wanted: &Metadata,
) -> Result<bool, LayerError> {
    let Some(stat) = stat_with_owner(directory, name)? else { return Ok(false) };
    let Metadata { mode, uid, gid, mtime, xattrs } = wanted;
    if stat.kind != FileKind::Regular
        || (stat.size, stat.mode, stat.uid, stat.gid) != (size, *mode, *uid, *gid)
        || stat.mtime != *mtime
    {
        return Ok(false);
    }
    let found = Xattrs::from(read_xattrs(directory.as_fd(), name)?);
    Ok(found.filtered(|name| !name.starts_with(b"user.overlay.")) == *xattrs)
}

/// What is known of an entry, with the owner that it has as data.
fn stat_with_owner(directory: &RootDir, name: &[u8]) -> Result<Option<FileStat>, LayerError> {
    if !owners_are_data() {
        return stat(directory, name);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => stat_with_record(file.as_fd())
            .map(Some)
            .map_err(|errno| disk::failed("examine", directory, name, errno)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(disk::failed("examine", directory, name, errno)),
    }
}

fn is_directory(directory: &RootDir, name: &[u8]) -> Result<bool, LayerError> {
    Ok(stat(directory, name)?.is_some_and(|stat| stat.is_dir()))
}

fn stat(directory: &RootDir, name: &[u8]) -> Result<Option<FileStat>, LayerError> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(disk::failed("examine", directory, name, errno)),
    }
}
