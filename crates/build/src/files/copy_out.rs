//! Files out of an image, as `docker cp` takes them out of a container.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_fs::{RelPath, RootDir};
use formwork_image::StoredImage;
use formwork_layer::tree::{Entry, Last, Metadata, Node};
use formwork_layer::{LayerError, MaterializeOptions, Ownership, Stack, Tree, materialize};
use formwork_solver::Cancel;
use formwork_worker::WorkerError;

use super::trees;
use crate::output::{archive_files, tell_of_omitted};
use crate::{BuildError, Destination, Host};

/// Something in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePath {
    /// The path, from the image's root. One that ends with `/.` means what is in the directory.
    pub path: String,
    /// Whether a symbolic link in the last place is followed.
    pub follow: bool,
}

/// Copies a file or a directory out of an image: to a place of the user's, owned by the user, or
/// as a tar archive to standard output.
///
/// A destination that is a directory takes the copy under its own name; one that does not exist
/// becomes the copy.
///
/// # Errors
///
/// Fails where there is no such file in the image, and where it cannot be where it should go.
pub fn copy_out(
    host: &Host,
    image: &StoredImage,
    source: &ImagePath,
    destination: &Destination,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let trees = trees(host, image, true, events, cancel)?;
    let stack = Stack::new(trees.iter().map(|tree| &**tree));
    let found = find(&stack, image, source)?;
    match destination {
        Destination::Stdout => {
            let name = if found.contents_only { b"" } else { found.path.name() };
            let archive = || archive_files(&found.tree(&stack, name)?, None, destination);
            archive().map_err(|error: WorkerError| BuildError::worker(&error))
        }
        Destination::File(target) => {
            let (directory, name) = place(&found, target)?;
            let copy = || -> Result<(), WorkerError> {
                let options = MaterializeOptions {
                    ownership: Ownership::Caller,
                    threads: host.layers.threads(),
                    ..MaterializeOptions::default()
                };
                let tree = found.tree(&stack, &name)?;
                let omitted = materialize(&tree, &RootDir::open(&directory)?, &options)?;
                tell_of_omitted(&directory, omitted, events);
                Ok(())
            };
            copy().map_err(|error| BuildError::worker(&error))
        }
    }
}

/// What is to be copied.
struct Found {
    /// Where it is, behind all links.
    path: RelPath,
    is_directory: bool,
    contents_only: bool,
}

fn find(stack: &Stack<'_>, image: &StoredImage, source: &ImagePath) -> Result<Found, BuildError> {
    let shown = &source.path;
    let missing = || {
        let title = image.title();
        BuildError::input_error(format!("there is no `{shown}` in the image `{title}`"))
    };
    let path = RelPath::clean(shown).map_err(|_| missing())?;
    // A slash at the end wants a directory, and so follows a link to one.
    let contents_only = shown.ends_with("/.") || path.is_root();
    let wants_directory = contents_only || shown.ends_with('/');
    let last = if source.follow || wants_directory { Last::Follow } else { Last::Keep };
    let resolved = stack.resolve(&path, last).map_err(|_| missing())?;
    if resolved.found.is_none() && !resolved.path.is_root() {
        return Err(missing());
    }
    let is_directory = resolved.is_directory();
    if wants_directory && !is_directory {
        return Err(BuildError::input_error(format!("`{shown}` is not a directory in the image")));
    }
    Ok(Found { path: resolved.path, is_directory, contents_only })
}

/// The directory of the user's in which the copy is made, and its name there; no name for what goes
/// straight into the directory.
fn place(found: &Found, target: &Path) -> Result<(PathBuf, Vec<u8>), BuildError> {
    let refuse =
        |what: &str| Err(BuildError::input_error(format!("`{}` {what}", target.display())));
    let names_directory = target.as_os_str().as_bytes().ends_with(b"/");
    if target.is_dir() {
        let name = if found.contents_only { b"" } else { found.path.name() };
        return Ok((target.to_owned(), name.to_vec()));
    }
    if target.symlink_metadata().is_ok() && found.is_directory {
        return refuse("is no directory, and a directory shall go there");
    }
    if names_directory && !found.is_directory {
        return refuse("is not a directory");
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    match (parent.is_dir(), target.file_name()) {
        (true, Some(name)) => Ok((parent.to_owned(), name.as_bytes().to_vec())),
        _ => refuse("cannot be made: the directory above it does not exist"),
    }
}

impl Found {
    /// It and what is below it, under another name.
    fn tree(&self, stack: &Stack<'_>, name: &[u8]) -> Result<Tree, LayerError> {
        let root = RelPath::new(name).unwrap_or_default();
        let moved = |path: &RelPath| Some(root.append(&path.strip_prefix(&self.path)?));
        let entries = stack.merge_at(&self.path).into_iter().filter_map(|entry| {
            let path = moved(&entry.path)?;
            let node = match entry.node {
                Node::HardLink { target } => Node::HardLink { target: moved(&target)? },
                other => other,
            };
            // The directory that takes the contents keeps its own metadata.
            (!path.is_root()).then_some(Entry { path, node, ..entry })
        });
        let mut entries: Vec<Entry> = entries.collect();
        if !root.is_root() && entries.iter().all(|entry| entry.path != root) {
            // The root of an image, which no layer has to describe.
            let node = Node::Directory { opaque: false };
            entries.push(Entry { path: root, node, metadata: Metadata::root_owned(0o755) });
        }
        Tree::new(entries)
    }
}
