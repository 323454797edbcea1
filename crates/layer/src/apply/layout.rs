//! Where the entries of an archive belong.
//!
//! Names are resolved against the entries that came before, never against a file system: a
//! directory on the way that the same layer has made a symbolic link leads to where the link
//! points, inside the layer, as it does in containerd. What nothing has been said about is a
//! directory that the layer merely implies.

use std::collections::BTreeSet;

use formwork_fs::{RelPath, RelPathError};
use formwork_tar as tar;

use super::Whiteouts;
use crate::LayerError;
use crate::archive::{OPAQUE_MARKER, WHITEOUT_META_PREFIX, WHITEOUT_PREFIX};
use crate::tree::{
    Bytes, ContentHash, Entry, File, Last, Metadata, Node, Step, TreeBuilder, Xattrs, check_entry,
    resolve_links,
};

/// The entries so far.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) tree: TreeBuilder,
    /// The directories that no entry has described.
    pub(super) implied: BTreeSet<RelPath>,
    whiteouts: Whiteouts,
}

/// What an entry of an archive asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To put something in its place. The content of a file is not known yet.
    Put(Entry),
    /// To delete what layers below have at a path.
    Hide(RelPath),
    /// To delete all that layers below have in a directory.
    HideContents(RelPath),
    /// Nothing.
    Ignore,
}

/// The mode of directories that are only implied, as containerd makes them.
const IMPLIED_MODE: u32 = 0o755;

impl Layout {
    pub(super) fn new(whiteouts: Whiteouts) -> Self {
        Self { tree: TreeBuilder::new(), implied: BTreeSet::new(), whiteouts }
    }

    /// Finds out what an entry asks for, and adds the directories that it implies; these are
    /// returned, the outer ones first.
    pub(super) fn read(
        &mut self,
        entry: tar::Entry<'_>,
    ) -> Result<(Request, Vec<RelPath>), LayerError> {
        let about = About(&entry.name);
        let path = about.path(&entry.name)?;
        if self.whiteouts == Whiteouts::Interpret && path.components().any(is_private) {
            return Ok((Request::Ignore, Vec::new()));
        }
        let (path, implied) = self.locate(&path).map_err(|error| about.explain(error))?;
        let name = path.name();
        let request = if self.whiteouts == Whiteouts::Interpret && name == OPAQUE_MARKER {
            Request::HideContents(path.parent().unwrap_or_default())
        } else if self.whiteouts == Whiteouts::Interpret
            && let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX)
        {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(about.error("deletes nothing that could be there"));
            }
            Request::Hide(path.parent().unwrap_or_default().join(hidden))
        } else {
            self.put(path, entry)?
        };
        Ok((request, implied))
    }

    fn put(&self, path: RelPath, entry: tar::Entry<'_>) -> Result<Request, LayerError> {
        let about = About(&entry.name);
        let node = match entry.node {
            tar::Node::File { size } => {
                // The hash is filled in when the content has been read.
                Node::File(File { size, content: ContentHash([0; 32]), bytes: Bytes::Missing })
            }
            tar::Node::Directory => Node::Directory { opaque: false },
            tar::Node::Symlink { target } => Node::Symlink { target: (*target).into() },
            tar::Node::HardLink { target } => {
                let target = about.path(&target)?;
                let target = self.resolve_parent(&target).map_err(|error| about.explain(error))?;
                Node::HardLink { target }
            }
            tar::Node::CharDevice { major, minor } => Node::char_device(major, minor),
            tar::Node::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
            tar::Node::Fifo => Node::Fifo,
            tar::Node::Other { .. } => {
                return Err(about.error("is of a kind that layers do not have"));
            }
        };
        if node == Node::Whiteout {
            // This is how overlayfs writes a deletion, so it would become one.
            return match self.whiteouts {
                Whiteouts::Interpret if path.is_root() => Err(about.error("deletes the root")),
                Whiteouts::Interpret => Ok(Request::Hide(path)),
                Whiteouts::Literal => Ok(Request::Ignore),
            };
        }
        let (mode, uid, gid, mtime) = (entry.mode, entry.uid, entry.gid, entry.mtime);
        let xattrs =
            Xattrs::from(entry.xattrs.into_owned()).filtered(|name| !is_overlays_own(name));
        let metadata = Metadata { mode, uid, gid, mtime, xattrs };
        Ok(Request::Put(checked(Entry { path, node, metadata })?))
    }

    /// Whether something is in the place of a new node that has to be removed first.
    pub(super) fn is_taken(&self, path: &RelPath, node: &Node) -> bool {
        match self.tree.get(path) {
            None | Some((Node::Whiteout, _)) => false,
            Some((old, _)) => !(old.is_directory() && node.is_directory()),
        }
    }

    /// Puts an entry in its place, where nothing is that would have to be removed.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        if let Node::Directory { opaque } = &mut entry.node {
            // A deletion applies to layers below, in whichever order the two come.
            *opaque |= matches!(self.tree.get(&entry.path), Some((Node::Whiteout, _)));
            self.implied.remove(&entry.path);
        }
        self.tree.insert(entry);
    }

    pub(super) fn hide(&mut self, path: RelPath) {
        match self.tree.get_mut(&path) {
            Some((Node::Directory { opaque }, _)) => *opaque = true,
            Some(_) => {}
            None => {
                let (node, metadata) = (Node::Whiteout, Metadata::default());
                self.tree.insert(Entry { path, node, metadata });
            }
        }
    }

    /// Makes a directory opaque; it is there, unless it is the root.
    pub(super) fn hide_contents(&mut self, path: RelPath) -> Result<(), LayerError> {
        if self.tree.get(&path).is_none() {
            self.imply(path.clone())?;
        }
        if let Some((Node::Directory { opaque }, _)) = self.tree.get_mut(&path) {
            *opaque = true;
        }
        Ok(())
    }

    /// The place of a path, and the directories above it that were not there before.
    fn locate(&mut self, path: &RelPath) -> Result<(RelPath, Vec<RelPath>), LayerError> {
        let mut implied = Vec::new();
        if self.has_directory_of(path) {
            return Ok((path.clone(), implied));
        }
        let path = self.resolve_parent(path)?;
        for ancestor in path.ancestors().skip(1) {
            match self.tree.get(&ancestor) {
                Some((Node::Directory { .. }, _)) => {}
                None | Some((Node::Whiteout, _)) => {
                    self.imply(ancestor.clone())?;
                    implied.push(ancestor);
                }
                Some(_) => {
                    let problem = "something on the way is not a directory";
                    return Err(LayerError::Lookup { path: ancestor, problem });
                }
            }
        }
        Ok((path, implied))
    }

    fn imply(&mut self, path: RelPath) -> Result<(), LayerError> {
        let node = Node::Directory { opaque: false };
        let metadata = Metadata::root_owned(IMPLIED_MODE);
        self.insert(checked(Entry { path: path.clone(), node, metadata })?);
        self.implied.insert(path);
        Ok(())
    }

    /// Whether what a path lies in is a directory here; then all above it are, too.
    fn has_directory_of(&self, path: &RelPath) -> bool {
        path.parent().is_none_or(|parent| match self.tree.get(&parent) {
            Some((node, _)) => node.is_directory(),
            None => parent.is_root(),
        })
    }

    /// A path whose directory may be reached over symbolic links, without these.
    fn resolve_parent(&self, path: &RelPath) -> Result<RelPath, LayerError> {
        if self.has_directory_of(path) {
            return Ok(path.clone());
        }
        resolve_links(path, Last::Keep, |path| match self.tree.get(path) {
            Some((node, _)) => Step::of(node),
            None => Step::Missing,
        })
    }
}

fn checked(entry: Entry) -> Result<Entry, LayerError> {
    match check_entry(&entry) {
        Ok(()) => Ok(entry),
        Err(problem) => Err(LayerError::Tree { path: entry.path, problem }),
    }
}

/// Whether a name is one that AUFS uses for itself.
fn is_private(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT_META_PREFIX) && name != OPAQUE_MARKER
}

/// Whether an attribute would make overlayfs see something else than the layer says.
fn is_overlays_own(attribute: &[u8]) -> bool {
    attribute.starts_with(b"user.overlay.") || attribute.starts_with(b"trusted.overlay.")
}

/// The entry that an error is about.
struct About<'a>(&'a [u8]);

impl About<'_> {
    fn path(&self, name: &[u8]) -> Result<RelPath, LayerError> {
        RelPath::new(name).map_err(|error| {
            self.error(match error {
                RelPathError::ParentComponent => "leads out of the layer",
                RelPathError::Nul => "has a NUL byte in its name",
            })
        })
    }

    fn error(&self, problem: &'static str) -> LayerError {
        LayerError::Entry { name: String::from_utf8_lossy(self.0).into_owned(), problem }
    }

    /// An error of the way to the entry as one of the entry.
    fn explain(&self, error: LayerError) -> LayerError {
        match error {
            LayerError::Lookup { .. } => {
                self.error("is not in a directory: a file or a circle of links is on the way")
            }
            other => other,
        }
    }
}
