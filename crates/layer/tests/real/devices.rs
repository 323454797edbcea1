//! What stands for devices in the directories of layers.

use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;

use formwork_fs::{FileKind, Record, RootDir};
use formwork_layer::tree::Node;
use formwork_layer::{MaterializeOptions, Omitted, materialize};
use rustix::fs::{Mode, OFlags};

use crate::support::{dir, entry, is_root, path, scan, temporary, tree};

#[test]
fn what_stands_for_a_device_is_one_and_no_other_socket_is() {
    if !is_root("records of devices") {
        return;
    }
    let directory = temporary();
    let root = RootDir::open(directory.path()).unwrap();
    let mut disk = entry("dir/disk", Node::BlockDevice { major: 254, minor: 0xf_ffff });
    (disk.metadata.uid, disk.metadata.gid, disk.metadata.mode) = (5, 6, 0o640);
    // An attribute of an archive is no record, and takes none away.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut null = entry("null", Node::CharDevice { major: 1, minor: 3 });
    null.metadata.xattrs = vec![(b"security.capability"[..].into(), capability[..].into())].into();
    let link = entry("same", Node::HardLink { target: path("dir/disk") });
    let wanted = tree([dir("dir"), disk, null, link]);
    assert_eq!(
        materialize(&wanted, &root, &MaterializeOptions::default()).unwrap(),
        Omitted::default()
    );
    let at = |name: &str| directory.path().join(name);
    for name in ["dir/disk", "null"] {
        assert!(fs_err::symlink_metadata(at(name)).unwrap().file_type().is_socket(), "{name}");
        assert!(fs_err::File::open(at(name)).is_err());
    }
    let _listener = UnixListener::bind(at("socket")).unwrap();
    for (name, record) in [
        // Only the numbers count of what somebody plants, and none that mean another thing.
        ("planted", Record { uid: 7, gid: 8, ..Record::of_device(false, 10, 200) }),
        ("whiteout", Record::of_device(false, 0, 0)),
        ("owner", Record { uid: 7, ..Record::default() }),
    ] {
        let _listener = UnixListener::bind(at(name)).unwrap();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let file = rustix::fs::open(at(name), flags, Mode::empty()).unwrap();
        formwork_fs::write_record(file.as_fd(), FileKind::Socket, &record).unwrap();
    }
    let found = scan(directory.path());
    let paths: Vec<_> = found.entries().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, ["/dir", "/dir/disk", "/null", "/planted", "/same"]);
    for entry in wanted.entries() {
        let (found, wanted) = (found.get(&entry.path).unwrap(), &entry.metadata);
        assert_eq!((&found.node, found.metadata.mode), (&entry.node, wanted.mode));
        assert_eq!((found.metadata.uid, found.metadata.gid), (wanted.uid, wanted.gid));
    }
    let planted = found.get(&path("planted")).unwrap();
    assert_eq!(planted.node, Node::CharDevice { major: 10, minor: 200 });
    assert_eq!((planted.metadata.uid, planted.metadata.gid), (0, 0));
    assert!(found.has_devices());
}
