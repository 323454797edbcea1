//! The archives of trees, as the format's reader sees them.

use formwork_fs::{RelPath, Timestamp};
use formwork_tar as tar;

use super::*;
use crate::LayerError;
use crate::tree::testing::{dir, file, one_of_everything, symlink, tree, whiteout};
use crate::tree::{Node, Tree};

/// All entries of an archive with the content of the files.
fn read(bytes: &[u8]) -> Vec<(tar::Entry<'static>, Vec<u8>)> {
    let mut reader = tar::Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = vec![0; 1 << 10];
        let length = reader.read_content_fully(&mut content).unwrap();
        content.truncate(length);
        entries.push((entry, content));
    }
    entries
}

/// The archive of a tree, with the bytes of its files.
fn write(tree: &Tree, times: Times) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in tree.entries() {
        put_entry(&mut bytes, entry, times).unwrap();
        if let Node::File(file) = &entry.node {
            bytes.extend(file.read(1 << 20).unwrap().unwrap());
            bytes.resize(bytes.len() + tar::padding(file.size), 0);
        }
    }
    bytes.extend(tar::END);
    bytes
}

/// Pins the format: the same tree must give the same layer in every version of the program.
#[test]
fn the_bytes_of_an_archive_are_stable() {
    let digest = |times| formwork_oci::Digest::of(&write(&one_of_everything(), times)).to_string();
    assert_eq!(
        digest(Times::default()),
        "sha256:e7a4aae8293a8d908635667afc2d8084a2f637c661d373f41e58d62a68f3fa64"
    );
    assert_eq!(
        digest(Times { latest: None, nanoseconds: true }),
        "sha256:d3793f7deb89ddb784594f31d24309099c528e778094255f16648d787fb87880"
    );
}

#[test]
fn what_is_written_is_read_back() {
    let entries = read(&write(&one_of_everything(), Times { latest: None, nanoseconds: true }));
    let names: Vec<_> = entries.iter().map(|(e, _)| String::from_utf8_lossy(&e.name)).collect();
    assert_eq!(
        names,
        [
            "./",
            "dev-block",
            "dev-char",
            "dir/",
            "dir/empty",
            "dir/file",
            "dir/link",
            "dir/opaque/",
            "dir/opaque/.wh..wh..opq",
            "dir/symlink",
            "fifo",
            ".wh.gone"
        ]
    );
    let tree = one_of_everything();
    for (read, content) in entries.iter().filter(|(e, _)| !e.name.windows(4).any(|w| w == b".wh."))
    {
        let path = RelPath::new(&*read.name).unwrap();
        let expected = tree.get(&path).unwrap();
        let metadata = &expected.metadata;
        assert_eq!((read.mode, read.uid, read.gid), (metadata.mode, metadata.uid, metadata.gid));
        assert_eq!(read.mtime, metadata.mtime);
        if let Node::File(file) = &expected.node {
            assert_eq!(&*read.xattrs, metadata.xattrs.as_slice());
            assert_eq!(&file.read(100).unwrap().unwrap(), content);
        }
    }
    assert_eq!(entries[6].0.node, tar::Node::HardLink { target: b"dir/file"[..].into() });
    assert_eq!(entries[2].0.node, tar::Node::CharDevice { major: 1, minor: 3 });
}

#[test]
fn pax_is_written_only_where_ustar_cannot_hold_it() {
    let plain = write(&one_of_everything(), Times::default());
    // The file with an extended attribute is the only one that needs records.
    assert_eq!(plain.chunks(512).filter(|block| block.starts_with(b"././@PaxHeader")).count(), 1);
}

#[test]
fn times_are_cut_and_held_back() {
    let mut late = file("a", "");
    late.metadata.mtime = Timestamp { seconds: 1000, nanoseconds: 999_999_999 };
    let of = |times| read(&write(&tree([late.clone()]), times))[0].0.mtime;
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    assert_eq!(of(Times::default()), time(1000, 0));
    assert_eq!(of(Times { latest: None, nanoseconds: true }), late.metadata.mtime);
    assert_eq!(of(Times { latest: Some(1000), nanoseconds: true }), time(1000, 0));
    assert_eq!(of(Times { latest: Some(999), nanoseconds: false }), time(999, 0));
    assert_eq!(of(Times { latest: Some(1001), nanoseconds: true }), late.metadata.mtime);
}

#[test]
fn names_that_mean_deletions_are_not_written() {
    for entry in [file(".wh.a", ""), dir(".wh.d"), symlink(".wh..wh..opq", "x"), whiteout(".wh.x")]
    {
        let error = put_entry(&mut Vec::new(), &entry, Times::default()).unwrap_err();
        assert!(matches!(error, LayerError::ReservedName { .. }), "{error}");
    }
    put_entry(&mut Vec::new(), &file("a.wh.b", ""), Times::default()).unwrap();
}
