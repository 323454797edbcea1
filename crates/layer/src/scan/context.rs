//! Scanning a directory of the user's.

use std::sync::Arc;

use formwork_fs::{FileKind, Follow, FsError, RelPath, WalkEntry, WalkFilter, walk};

use super::stat_cache::{StatCache, keeps_change_times, now};
use super::{further_names, hash, is_large, plain_node};
use crate::LayerError;
use crate::flow;
use crate::tree::{Bytes, ContentHash, Entry, File, Metadata, Node, Origin, Tree, Xattrs};

/// What was found out about an entry.
struct Examined {
    /// `None` for what a context cannot hold.
    node: Option<Node>,
    /// Whether the content was read and nobody wrote to the file meanwhile.
    was_read: bool,
}

/// The tree of a build context, with up to `threads` threads. The files' bytes stay where they
/// are.
///
/// As in BuildKit, everything belongs to root whoever owns it outside, extended attributes are
/// left out, and a socket is an empty file. Names of one file are hard links, as far as the filter
/// lists them.
///
/// With a cache, only files that are new or have changed are read; see [`StatCache`].
///
/// # Errors
///
/// Fails where something that the filter lists cannot be read, and where the cache cannot be
/// written.
pub fn scan_context(
    origin: &Arc<Origin>,
    filter: &dyn WalkFilter,
    cache: Option<&mut StatCache>,
    threads: usize,
) -> Result<Tree, LayerError> {
    let started = now();
    let directory = origin.directory();
    let entries = walk(directory, filter, threads)?;
    let further_names = further_names(&entries);
    // What is mounted in the context may be of any kind.
    let root = directory.stat(&RelPath::root(), Follow::Never)?;
    let device = root.map(|root| root.device).filter(|_| keeps_change_times(directory));
    let cache = cache.zip(device);
    let known = |entry: &WalkEntry| match &cache {
        Some((cache, device)) if entry.stat.device == *device => cache.content(&entry.stat),
        _ => None,
    };
    let examined = flow::map(&entries, threads, is_large, |entry| match entry.stat.kind {
        _ if further_names.contains_key(&entry.path) => {
            let target = further_names[&entry.path].clone();
            Ok(Examined { node: Some(Node::HardLink { target }), was_read: false })
        }
        FileKind::Regular => examine_file(origin, entry, known(entry)),
        kind => Ok(Examined { node: other_node(origin, entry, kind)?, was_read: false }),
    })?;
    if let Some((cache, device)) = cache {
        let files = entries.iter().zip(&examined).filter(|(entry, _)| entry.stat.device == device);
        let read = files.clone().filter_map(|(entry, examined)| match &examined.node {
            Some(Node::File(file)) if examined.was_read => Some((entry.stat, file.content)),
            _ => None,
        });
        cache.update(read, files.map(|(entry, _)| entry.stat), started)?;
    }
    let entries = entries.into_iter().zip(examined);
    Tree::new(entries.filter_map(|(entry, examined)| to_entry(entry, examined.node?)).collect())
}

fn to_entry(entry: WalkEntry, node: Node) -> Option<Entry> {
    // A device 0/0 would delete what is below; nobody means that by what lies in a context.
    if node == Node::Whiteout {
        return None;
    }
    let WalkEntry { path, stat } = entry;
    let (mode, mtime) = (stat.mode, stat.mtime);
    Some(Entry {
        path,
        node,
        metadata: Metadata { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::default() },
    })
}

fn other_node(
    origin: &Origin,
    entry: &WalkEntry,
    kind: FileKind,
) -> Result<Option<Node>, LayerError> {
    match kind {
        FileKind::Directory => Ok(Some(Node::Directory { opaque: false })),
        FileKind::Socket => Ok(Some(Node::File(File::inline([])))),
        _ => plain_node(origin.directory(), entry),
    }
}

fn examine_file(
    origin: &Arc<Origin>,
    entry: &WalkEntry,
    known: Option<ContentHash>,
) -> Result<Examined, LayerError> {
    let (size, content, was_read) = match known {
        Some(content) => (entry.stat.size, content, false),
        None => read_file(origin, entry)?,
    };
    let bytes = Bytes::At { origin: Arc::clone(origin), path: entry.path.clone() };
    Ok(Examined { node: Some(Node::File(File { size, content, bytes })), was_read })
}

/// Size and hash of what a file holds, and whether it is still the file that the walk saw.
fn read_file(origin: &Origin, entry: &WalkEntry) -> Result<(u64, ContentHash, bool), LayerError> {
    let directory = origin.directory();
    let failed = |operation, error| FsError::new(operation, directory.path_of(&entry.path), error);
    let file = directory.open_file(&entry.path, Follow::Never)?;
    let (size, content) = hash(&file).map_err(|error| failed("read", error))?;
    let after = rustix::fs::fstat(&file).map_err(|errno| failed("examine", errno.into()))?;
    Ok((size, content, entry.stat == after.into() && size == entry.stat.size))
}

#[cfg(test)]
mod tests {
    use formwork_fs::{RootDir, Timestamp, Verdict};

    use super::*;

    /// No program can make a file change without a trace, so the test lies to the cache.
    #[test]
    fn what_is_known_is_not_read() {
        let directory = crate::tree::testing::temporary();
        let context = directory.path().join("context");
        fs_err::create_dir(&context).unwrap();
        fs_err::write(context.join("known"), "content").unwrap();
        fs_err::write(context.join("new"), "content").unwrap();
        let origin = Origin::context(RootDir::open(&context).unwrap());
        let stat = |name: &str| {
            let path = RelPath::new(name).unwrap();
            origin.directory().stat(&path, Follow::Never).unwrap().unwrap()
        };
        let mut cache = StatCache::load(directory.path().join("cache"));
        let later = Timestamp { seconds: now().seconds + 1000, nanoseconds: 0 };
        let lie = ContentHash::of(b"something else");
        cache.update([(stat("known"), lie)], [stat("known")], later).unwrap();

        let keep = |_: &RelPath, _: bool| Verdict::Keep;
        let tree = scan_context(&origin, &keep, Some(&mut cache), 2).unwrap();
        let hash = |name: &str| match &tree.get(&RelPath::new(name).unwrap()).unwrap().node {
            Node::File(file) => file.content,
            other => panic!("{other:?}"),
        };
        assert_eq!(hash("known"), lie);
        assert_eq!(hash("new"), ContentHash::of(b"content"));
    }
}
