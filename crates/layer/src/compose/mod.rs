//! What `COPY`, `ADD` and `WORKDIR` do, as arithmetic on trees.
//!
//! A [`Composer`] makes the tree of one layer on top of others from parts of other trees. Nothing
//! is read or written: files stay where they are until somebody packs or materializes the tree. So
//! the result of a copy is known, and can be compared with an earlier one, before any byte moves.
//!
//! The rules are those that BuildKit follows:
//!
//! - A directory's contents are copied, not the directory itself. What is in the destination
//!   already stays; directories in it that the source has, too, take over the source's metadata.
//!   The destination itself keeps its own.
//! - Anything else goes into the destination if that is a directory, or was asked for as one, and
//!   otherwise takes its name.
//! - No directory takes the place of anything else, and nothing else that of a directory.
//! - Symbolic links in the destination are followed, inside the root; those in what is copied are
//!   copied. A source that is itself a link stands for what it leads to ([`select()`]).
//! - Directories that are missing on the way are made with mode 0755 and belong to root, unless
//!   the copy has an owner and an octal mode of its own.
//! - Of the extended attributes, copies keep file capabilities.
//! - Names of one file that are copied together stay names of one file.
//!
//! Several sources are copied one after the other, as if each had its own instruction.

mod mode;
mod select;
mod transfer;

use std::sync::Arc;

use formwork_fs::{RelPath, Timestamp};
use formwork_pattern::IgnorePatterns;

pub use mode::ModeChange;
pub use select::{Selected, select};

use crate::LayerError;
use crate::tree::{
    Entry, File, Last, Metadata, Node, Stack, Step, Tree, TreeBuilder, resolve_links,
};
use transfer::{Conflict, Transfer};

/// Makes the tree of one layer.
#[derive(Clone, Debug)]
pub struct Composer<'a> {
    below: Stack<'a>,
    tree: TreeBuilder,
    /// The directory that something was put into last, in which the next is likely to go, too.
    last: Option<Opened>,
}

/// A directory of the layer.
#[derive(Clone, Debug)]
struct Opened {
    path: RelPath,
    /// Whether the layers below have no such directory, so nothing in it, either.
    is_new: bool,
}

/// How to copy.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions<'a> {
    /// Whether the destination is a directory even if it does not exist: it was written with a
    /// slash at its end.
    pub into_directory: bool,
    /// Whom the copies belong to, and the directories that are made for them (`--chown`).
    pub owner: Option<Owner>,
    /// What becomes of the modes of the copies, and if it is octal, of the directories that are
    /// made for them (`--chmod`).
    pub mode: Option<ModeChange>,
    /// What is left out (`--exclude`), by its path in the directory that is copied, or by its name
    /// if it is no directory.
    pub exclude: Option<&'a IgnorePatterns>,
    /// The modification time of directories that are made, and of files that have none.
    pub created: Timestamp,
}

impl CopyOptions<'_> {
    /// The same for directories that are made on the way: a symbolic mode changes what is copied,
    /// and these have nothing that it could change.
    fn for_made_directories(&self) -> Self {
        let mode = self.mode.clone().filter(ModeChange::is_octal);
        Self { mode, ..self.clone() }
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The mode of directories that nobody described.
const DIRECTORY_MODE: u32 = 0o755;
/// The mode of files that nobody described, such as heredocs.
const FILE_MODE: u32 = 0o644;

impl<'a> Composer<'a> {
    /// A layer on top of others. With nothing below, the layer depends on nothing (`--link`):
    /// then no link is followed, and every directory on the way is made.
    pub fn new(below: Stack<'a>) -> Self {
        Self { below, tree: TreeBuilder::new(), last: None }
    }

    /// Copies something that a source names; see the rules of the module.
    ///
    /// # Errors
    ///
    /// Fails where the destination is in the way.
    pub fn copy(
        &mut self,
        source: &Stack<'_>,
        selected: &Selected,
        destination: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<(), LayerError> {
        let mut entries = source.merge_at(&selected.path);
        let transfer = Transfer { options, include: None, conflict: Conflict::Refuse };
        if selected.path.is_root() || entries.first().is_some_and(|e| e.node.is_directory()) {
            let target = self.directory_for_contents(destination, options)?;
            let own = entries.first().filter(|entry| entry.path == selected.path);
            let mtime = own.map(|directory| directory.metadata.mtime);
            transfer.contents(self, entries, &selected.path, &target)?;
            // Of the directory itself only the time goes over, as with BuildKit.
            if let (Some(mtime), Some((_, metadata))) = (mtime, self.tree.get_mut(&target)) {
                metadata.mtime = mtime;
            }
            return Ok(());
        }
        if transfer.is_excluded(&selected.name) {
            return Ok(());
        }
        let target = self.place_for_file(destination, &selected.name, options)?;
        entries.truncate(1);
        entries.into_iter().try_for_each(|entry| transfer.single(self, entry, target.clone()))
    }

    /// Copies what a pattern matches with the directories that lead there (`--parents`).
    ///
    /// In the pattern, `**` spans directories. What is before the first `/./` is where the copied
    /// directories begin; otherwise they begin at the root. Symbolic links behind that point are
    /// not followed. The destination becomes a directory even if nothing matches, as in BuildKit;
    /// whether something does is returned.
    ///
    /// # Errors
    ///
    /// Fails where the pattern is malformed, where a path without wildcards leads to nothing, and
    /// where the destination is in the way.
    pub fn copy_with_parents(
        &mut self,
        source: &Stack<'_>,
        pattern: &[u8],
        destination: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<bool, LayerError> {
        let (start, include) = select::select_with_parents(source, pattern)?;
        let entries = source.merge_at(&start);
        let include = Some(&include);
        let transfer = Transfer { options, include, conflict: Conflict::Refuse };
        let has_any = transfer.has_any(&entries, &start);
        let target = self.directory_for_contents(destination, options)?;
        transfer.contents(self, entries, &start, &target)?;
        Ok(has_any)
    }

    /// Copies a file that is given by its content, such as a heredoc: mode 0644, root's.
    ///
    /// # Errors
    ///
    /// Fails where the destination is in the way.
    pub fn copy_file(
        &mut self,
        name: &[u8],
        content: impl Into<Arc<[u8]>>,
        destination: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<(), LayerError> {
        let node = Node::File(File::inline(content));
        let metadata = Metadata { mtime: options.created, ..Metadata::root_owned(FILE_MODE) };
        let target = self.place_for_file(destination, name, options)?;
        let entry = Entry { path: target.clone(), node, metadata };
        let transfer = Transfer { options, include: None, conflict: Conflict::Refuse };
        transfer.single(self, entry, target)
    }

    /// Unpacks an archive (`ADD`): its tree, and the directories that it merely implies, in order.
    ///
    /// Unlike a copy, what is unpacked replaces whatever is in its place, and directories that are
    /// only implied may be symbolic links to directories, which stay. `--chmod` means nothing here:
    /// an archive's modes are its own, as with BuildKit.
    ///
    /// # Errors
    ///
    /// Fails where the destination is in the way.
    pub fn unpack(
        &mut self,
        archive: &Tree,
        implied: &[RelPath],
        destination: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<(), LayerError> {
        let options = CopyOptions { mode: None, ..options.clone() };
        let target = self.directory_for_contents(destination, &options)?;
        let conflict = Conflict::Replace { implied };
        let transfer = Transfer { options: &options, include: None, conflict };
        transfer.contents(self, archive.entries().to_vec(), &RelPath::root(), &target)
    }

    /// Makes a directory and those above it, as far as they are missing (`WORKDIR`). Symbolic
    /// links are followed.
    ///
    /// # Errors
    ///
    /// Fails where something else is in the way.
    pub fn make_directory(
        &mut self,
        path: &RelPath,
        owner: Owner,
        created: Timestamp,
    ) -> Result<(), LayerError> {
        let options = CopyOptions { owner: Some(owner), created, ..CopyOptions::default() };
        self.directory_for_contents(path, &options).map(drop)
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// Fails where what was put together is no layer: see [`Tree::new`].
    pub fn finish(self) -> Result<Tree, LayerError> {
        self.tree.finish()
    }
}

impl Composer<'_> {
    /// The directory that a destination is, made if it is missing.
    fn directory_for_contents(
        &mut self,
        destination: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<RelPath, LayerError> {
        let path = self.resolve(destination)?;
        match self.look(&path) {
            Some(node) if node.is_directory() => {}
            Some(_) => return Err(in_the_way(&path, "something that is not a directory is there")),
            None => self.open_directory(&path, options)?,
        }
        Ok(path)
    }

    /// Where something goes that is not a directory.
    fn place_for_file(
        &mut self,
        destination: &RelPath,
        name: &[u8],
        options: &CopyOptions<'_>,
    ) -> Result<RelPath, LayerError> {
        if options.into_directory {
            return Ok(self.directory_for_contents(destination, options)?.join(name));
        }
        let path = self.resolve(destination)?;
        if self.look(&path).is_some_and(Node::is_directory) || path.is_root() {
            return Ok(path.join(name));
        }
        Ok(path)
    }

    /// What is at a path, which leads over no symbolic links.
    fn look(&self, path: &RelPath) -> Option<&Node> {
        match self.tree.get(path) {
            Some((node, _)) => Some(node),
            None if self.opened(path).is_some_and(|directory| directory.is_new) => None,
            None => self.below.lookup(path).map(|found| found.node()),
        }
    }

    /// The directory that a path is in, if it is that of the entry before.
    fn opened(&self, path: &RelPath) -> Option<&Opened> {
        self.last.as_ref().filter(|last| last.path.as_bytes() == path.split_name().0)
    }

    /// Where a path leads.
    fn resolve(&self, path: &RelPath) -> Result<RelPath, LayerError> {
        let resolved = resolve_links(path, Last::Follow, |path| {
            self.look(path).map_or(Step::Missing, Step::of)
        });
        resolved.map_err(|error| match error {
            LayerError::Lookup { path, problem } => in_the_way(&path, problem),
            other => other,
        })
    }

    /// Makes a directory part of the layer, with those above it: as they are below, or new.
    fn open_directory(
        &mut self,
        path: &RelPath,
        options: &CopyOptions<'_>,
    ) -> Result<(), LayerError> {
        if path.is_root() || self.tree.get(path).is_some_and(|(node, _)| node.is_directory()) {
            return Ok(());
        }
        self.open_directory(&path.parent().unwrap_or_default(), options)?;
        let metadata = match self.below.lookup(path) {
            Some(found) if found.node().is_directory() => found.metadata().clone(),
            Some(_) => return Err(in_the_way(path, "something that is not a directory is there")),
            None => transfer::adjusted(
                Metadata { mtime: options.created, ..Metadata::root_owned(DIRECTORY_MODE) },
                &Node::Directory { opaque: false },
                &options.for_made_directories(),
            ),
        };
        let node = Node::Directory { opaque: false };
        self.tree.insert(Entry { path: path.clone(), node, metadata });
        Ok(())
    }

    /// Puts an entry in its place, and the directories above it into the layer.
    fn put(&mut self, entry: Entry, options: &CopyOptions<'_>) -> Result<(), LayerError> {
        if self.opened(&entry.path).is_none() {
            let path = entry.path.parent().unwrap_or_default();
            self.open_directory(&path, options)?;
            // Layers need not mention the root.
            let is_new = !path.is_root() && self.below.lookup(&path).is_none();
            self.last = Some(Opened { path, is_new });
        }
        self.tree.insert(entry);
        Ok(())
    }
}

fn in_the_way(path: &RelPath, problem: &'static str) -> LayerError {
    LayerError::Copy { action: format!("write to {path}"), problem }
}

#[cfg(test)]
mod tests;
