//! Scanning a directory of the user's.

use std::sync::Arc;
use std::time::Instant;

use formwork_fs::{FileKind, Follow, FsError, RelPath, Timestamp, WalkEntry, WalkFilter, walk};

use super::pace::{Listener, Pace};
use super::stat_cache::{StatCache, keeps_change_times, now};
use super::{further_names, hash_telling, is_large, plain_node};
use crate::LayerError;
use crate::flow;
use crate::tree::{Bytes, ContentHash, Entry, File, Metadata, Node, Origin, Tree, Xattrs};

/// What was found out about an entry.
struct Examined {
    /// `None` for what a context cannot hold, and for what has gone meanwhile.
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
/// With a cache, only files that are new or have changed are read; see [`StatCache`]. If that takes
/// longer than a second, `listener` is told how far it is.
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
    listener: &Listener<'_>,
) -> Result<Tree, LayerError> {
    scan(origin, filter, cache, threads, listener, now())
}

/// The scan, which began at some time: by that, the cache decides what to remember.
fn scan(
    origin: &Arc<Origin>,
    filter: &dyn WalkFilter,
    cache: Option<&mut StatCache>,
    threads: usize,
    listener: &Listener<'_>,
    started: Timestamp,
) -> Result<Tree, LayerError> {
    let begun = Instant::now();
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
    let count = || {
        let is_read = |entry: &&WalkEntry| {
            entry.stat.kind == FileKind::Regular
                && known(entry).is_none()
                && !further_names.contains_key(&entry.path)
        };
        let sizes = entries.iter().filter(is_read).map(|entry| entry.stat.size);
        sizes.fold((0, 0_u64), |(files, bytes), size| (files + 1, bytes.saturating_add(size)))
    };
    let pace = Pace::new(listener, begun, &count);
    let examined = flow::map(&entries, threads, is_large, |entry| {
        match (further_names.get(&entry.path), entry.stat.kind) {
            (Some(first), _) => Ok(Examined::new(Node::HardLink { target: (*first).clone() })),
            (None, FileKind::Regular) => examine_file(origin, entry, known(entry), &pace),
            (None, kind) => examine_other(origin, entry, kind),
        }
    })?;
    pace.finish();
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

impl Examined {
    fn new(node: Node) -> Self {
        Self { node: Some(node), was_read: false }
    }

    /// What has gone since the walk saw it.
    const GONE: Self = Self { node: None, was_read: false };
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

fn examine_other(
    origin: &Origin,
    entry: &WalkEntry,
    kind: FileKind,
) -> Result<Examined, LayerError> {
    match kind {
        FileKind::Directory => Ok(Examined::new(Node::Directory { opaque: false })),
        FileKind::Socket => Ok(Examined::new(Node::File(File::inline([])))),
        _ => match plain_node(origin.directory(), entry) {
            Ok(node) => Ok(Examined { node, was_read: false }),
            Err(error) if is_gone(&error) => Ok(Examined::GONE),
            Err(error) => Err(error),
        },
    }
}

fn examine_file(
    origin: &Arc<Origin>,
    entry: &WalkEntry,
    known: Option<ContentHash>,
    pace: &Pace<'_>,
) -> Result<Examined, LayerError> {
    let (size, content, was_read) = match known {
        Some(content) => (entry.stat.size, content, false),
        None => match read_file(origin, entry, pace) {
            Ok(read) => read,
            Err(error) if is_gone(&error) => return Ok(Examined::GONE),
            Err(error) => return Err(error),
        },
    };
    let bytes = Bytes::At { origin: Arc::clone(origin), path: entry.path.clone() };
    let node = Node::File(File { size, content, bytes });
    Ok(Examined { node: Some(node), was_read })
}

/// Whether something is no longer there: then it is left out, as if the walk had come later.
fn is_gone(error: &LayerError) -> bool {
    matches!(error, LayerError::Fs(error) if error.is_not_found())
}

/// Size and hash of what a file holds, and whether it is still the file that the walk saw.
fn read_file(
    origin: &Origin,
    entry: &WalkEntry,
    pace: &Pace<'_>,
) -> Result<(u64, ContentHash, bool), LayerError> {
    let directory = origin.directory();
    let failed = |operation, error| FsError::new(operation, directory.path_of(&entry.path), error);
    let file = directory.open_file(&entry.path, Follow::Never)?;
    let (size, content) =
        hash_telling(&file, &|bytes| pace.add(bytes)).map_err(|error| failed("read", error))?;
    let after = rustix::fs::fstat(&file).map_err(|errno| failed("examine", errno.into()))?;
    Ok((size, content, entry.stat == after.into() && size == entry.stat.size))
}

#[cfg(test)]
mod tests {
    use formwork_fs::{RootDir, Timestamp, Verdict};

    use super::*;

    /// A context with a cache beside it.
    struct Cached {
        directory: tempfile::TempDir,
    }

    impl Cached {
        fn new() -> Self {
            let directory = crate::tree::testing::temporary();
            fs_err::create_dir(directory.path().join("context")).unwrap();
            Self { directory }
        }

        /// Whether anything is remembered here; says what is left out if not.
        fn is_reliable(&self) -> bool {
            let reliable = keeps_change_times(&RootDir::open(self.at("")).unwrap());
            if !reliable {
                formwork_testing::skipped("stat cache (needs ext4, xfs, btrfs, f2fs or bcachefs)");
            }
            reliable
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join("context").join(name)
        }

        fn cache(&self) -> StatCache {
            StatCache::load(self.directory.path().join("cache"))
        }

        fn stat(&self, name: &str) -> formwork_fs::FileStat {
            let root = RootDir::open(self.at("")).unwrap();
            root.stat(&RelPath::new(name).unwrap(), Follow::Never).unwrap().unwrap()
        }

        /// Scans at a time when everything has long been settled.
        fn scan(&self) -> Tree {
            let origin = Origin::context(RootDir::open(self.at("")).unwrap());
            let keep = |_: &RelPath, _: bool| Verdict::Keep;
            scan(&origin, &keep, Some(&mut self.cache()), 2, &|_| {}, later()).unwrap()
        }

        fn hash(&self, name: &str) -> ContentHash {
            match &self.scan().get(&RelPath::new(name).unwrap()).unwrap().node {
                Node::File(file) => file.content,
                other => panic!("{other:?}"),
            }
        }
    }

    fn later() -> Timestamp {
        Timestamp { seconds: now().seconds + 1000, nanoseconds: 0 }
    }

    /// No program can make a file change without a trace, so the test lies to the cache.
    #[test]
    fn what_is_known_is_not_read() {
        let cached = Cached::new();
        if !cached.is_reliable() {
            return;
        }
        fs_err::write(cached.at("known"), "content").unwrap();
        fs_err::write(cached.at("new"), "content").unwrap();
        let lie = ContentHash::of(b"something else");
        let known = cached.stat("known");
        cached.cache().update([(known, lie)], [known], later()).unwrap();
        assert_eq!(cached.hash("known"), lie);
        assert_eq!(cached.hash("new"), ContentHash::of(b"content"));
    }

    #[test]
    fn files_that_change_places_are_not_mixed_up() {
        let cached = Cached::new();
        if !cached.is_reliable() {
            return;
        }
        fs_err::write(cached.at("a"), "aaa").unwrap();
        fs_err::write(cached.at("b"), "bbb").unwrap();
        cached.scan();
        assert!(cached.cache().content(&cached.stat("a")).is_some());
        for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
            fs_err::rename(cached.at(from), cached.at(to)).unwrap();
        }
        assert_eq!(cached.hash("a"), ContentHash::of(b"bbb"));
        assert_eq!(cached.hash("b"), ContentHash::of(b"aaa"));
    }

    #[test]
    fn only_what_nobody_wrote_to_meanwhile_is_remembered() {
        let cached = Cached::new();
        fs_err::write(cached.at("a"), "a").unwrap();
        let keep = |_: &RelPath, _: bool| Verdict::Keep;
        let origin = Origin::context(RootDir::open(cached.at("")).unwrap());
        scan(&origin, &keep, Some(&mut cached.cache()), 1, &|_| {}, now()).unwrap();
        assert_eq!(cached.cache().content(&cached.stat("a")), None);
    }
}
