//! Scanning the upper directory of an overlay.

use std::os::fd::AsFd;
use std::sync::Arc;

use formwork_fs::{
    FileKind, FileStat, Follow, FsError, Record, RelPath, RootDir, Verdict, WalkEntry,
    owners_are_data, read_record, read_xattr_of, walk,
};
use rustix::fs::{Mode, OFlags};

use super::{further_names, hash, is_large, plain_node};
use crate::LayerError;
use crate::flow;
use crate::tree::{Bytes, Entry, File, Metadata, Node, Origin, Tree, Xattrs};

/// The attribute by which an overlay mounted with `userxattr` marks opaque directories.
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";
/// The only attribute that layers keep which are built here.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// The tree of an overlay's upper directory, with up to `threads` threads. The files' bytes stay
/// where they are.
///
/// The root is an entry only if its mode or owner are not those of `root_below`, the root that the
/// process found.
///
/// Of the extended attributes, files keep their capabilities and nothing else, as in the layers of
/// containerd and BuildKit: security labels and access control lists come from the machine that
/// the image is built on, and `user.overlay.*` is the overlay's own. Sockets that stand for devices
/// are those; others are left out: nothing listens on them any more.
///
/// # Errors
///
/// Fails where something cannot be read.
pub fn scan_upper(
    origin: &Arc<Origin>,
    root_below: &Metadata,
    threads: usize,
) -> Result<Tree, LayerError> {
    let directory = origin.directory();
    let entries = walk(directory, &|_: &RelPath, _| Verdict::Keep, threads)?;
    let entries = with_records(directory, entries, threads)?;
    let further_names = further_names(&entries);
    let examined =
        flow::map(&entries, threads, is_large, |entry| match further_names.get(&entry.path) {
            Some(target) => {
                Ok(Some((Node::HardLink { target: (*target).clone() }, Xattrs::default())))
            }
            None => examine(origin, entry),
        })?;
    let examined = entries.into_iter().zip(examined);
    let mut tree: Vec<Entry> = Vec::with_capacity(examined.len() + 1);
    tree.extend(root(origin, root_below)?);
    tree.extend(examined.filter_map(|(entry, examined)| {
        let (node, xattrs) = examined?;
        Some(Entry { path: entry.path, node, metadata: metadata(&entry.stat, xattrs) })
    }));
    Tree::new(tree)
}

/// The entries with what their records say: the devices that they stand for, and where owners are
/// data, their owners.
pub(super) fn with_records(
    directory: &RootDir,
    entries: Vec<WalkEntry>,
    threads: usize,
) -> Result<Vec<WalkEntry>, LayerError> {
    if owners_are_data() {
        return flow::map(
            &entries,
            threads,
            |_| false,
            |entry| with_record(directory, entry.clone()),
        );
    }
    // There are few to ask.
    entries.into_iter().map(|entry| with_record(directory, entry)).collect()
}

pub(super) fn with_record(directory: &RootDir, entry: WalkEntry) -> Result<WalkEntry, LayerError> {
    if !Record::counts_for(entry.stat.kind) {
        return Ok(entry);
    }
    let file = directory.open_raw(&entry.path, OFlags::PATH, Mode::empty(), Follow::Never)?;
    let record = read_record(file.as_fd(), entry.stat.kind)
        .map_err(|errno| FsError::new("examine", directory.path_of(&entry.path), errno))?;
    let stat = record.map_or(entry.stat, |record| record.correct(entry.stat));
    Ok(WalkEntry { stat, ..entry })
}

pub(super) fn examine(
    origin: &Arc<Origin>,
    entry: &WalkEntry,
) -> Result<Option<(Node, Xattrs)>, LayerError> {
    let directory = origin.directory();
    match entry.stat.kind {
        FileKind::Regular => examine_file(origin, entry).map(Some),
        FileKind::Directory => {
            let opaque = is_opaque(origin, &entry.path)?;
            Ok(Some((Node::Directory { opaque }, Xattrs::default())))
        }
        _ => Ok(plain_node(directory, entry)?.map(|node| (node, Xattrs::default()))),
    }
}

fn examine_file(origin: &Arc<Origin>, entry: &WalkEntry) -> Result<(Node, Xattrs), LayerError> {
    let directory = origin.directory();
    let file = directory.open_file(&entry.path, Follow::Never)?;
    let (size, content) =
        hash(&file).map_err(|error| FsError::new("read", directory.path_of(&entry.path), error))?;
    let capability = read_xattr_of(file.as_fd(), CAPABILITY)?;
    let xattrs = capability.map(|value| (CAPABILITY.into(), without_root_id(&value)));
    let bytes = Bytes::At { origin: Arc::clone(origin), path: entry.path.clone() };
    Ok((Node::File(File { size, content, bytes }), xattrs.into_iter().collect()))
}

fn is_opaque(origin: &Origin, path: &RelPath) -> Result<bool, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = origin.directory().open_raw(path, flags, Mode::empty(), Follow::Never)?;
    Ok(read_xattr_of(directory.as_fd(), OPAQUE)?.as_deref() == Some(b"y"))
}

/// File capabilities as they are outside of user namespaces.
///
/// What is set in a namespace has version 3, with the user in the last four bytes who is root in
/// there (`vfs_ns_cap_data` in the kernel's `capability.h`). In an image that means nothing.
fn without_root_id(capability: &[u8]) -> Box<[u8]> {
    match capability {
        [flags, 0, 0, 3, values @ .., _, _, _, _] if values.len() == 16 => {
            [&[*flags, 0, 0, 2], values].concat().into()
        }
        other => other.into(),
    }
}

pub(super) fn root(origin: &Origin, below: &Metadata) -> Result<Option<Entry>, LayerError> {
    let path = RelPath::root();
    let Some(stat) = origin.directory().stat(&path, Follow::Never)? else { return Ok(None) };
    let stat = with_record(origin.directory(), WalkEntry { path: path.clone(), stat })?.stat;
    if (stat.mode, stat.uid, stat.gid) == (below.mode, below.uid, below.gid) {
        return Ok(None);
    }
    let node = Node::Directory { opaque: false };
    Ok(Some(Entry { path, node, metadata: metadata(&stat, Xattrs::default()) }))
}

pub(super) fn metadata(stat: &FileStat, xattrs: Xattrs) -> Metadata {
    Metadata { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, xattrs }
}

#[cfg(test)]
mod tests {
    use super::without_root_id;

    #[test]
    fn capabilities_lose_the_root_of_their_namespace() {
        let values = [7; 16];
        let version_3 = [&[1, 0, 0, 3][..], &values, &[0xa0, 0x86, 1, 0]].concat();
        let version_2 = [&[1, 0, 0, 2][..], &values].concat();
        assert_eq!(*without_root_id(&version_3), version_2);
        assert_eq!(*without_root_id(&version_2), version_2);
        assert_eq!(*without_root_id(b""), *b"");
        assert_eq!(*without_root_id(&version_3[..20]), version_3[..20]);
    }
}
