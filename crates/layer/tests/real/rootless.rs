//! Layers in the user namespace of an ordinary user with subordinate ids.

use std::path::{Path, PathBuf};
use std::process::Command;

use formwork_fs::RootDir;
use formwork_layer::tree::{Entry, Node};
use formwork_layer::{
    ApplyOptions, LayerError, MaterializeOptions, PackOptions, apply, materialize, pack,
};
use rustix::fs::{Gid, Uid};

use crate::support::{dir, entry, file, has_program, is_root, layer, scan, tree};

/// Where the part of the test that runs inside finds its directory.
const INSIDE: &str = "FORMWORK_LAYER_TEST_INSIDE";

#[test]
fn a_layer_fits_into_a_user_namespace() {
    if let Some(directory) = std::env::var_os(INSIDE) {
        return inside(Path::new(&directory));
    }
    if !is_root("a user namespace") || !has_program("setpriv") || !has_program("unshare") {
        return;
    }
    let Some((uid, gid)) = user_with_subordinate_ids() else {
        formwork_testing::skipped("no user has subordinate ids in /etc/subuid");
        return;
    };
    // The user may not be allowed where this program and its files lie.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let program = place.path().join("test");
    formwork_testing::copy_program(&std::env::current_exe().unwrap(), &program);
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chown(place.path(), Some(owner), Some(group)).unwrap();
    let status = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()])
        .args(["unshare", "--user", "--map-root-user", "--map-auto"])
        .arg(program)
        .args(["--exact", "rootless::a_layer_fits_into_a_user_namespace", "--nocapture"])
        .env(INSIDE, place.path())
        .status()
        .unwrap();
    assert!(status.success());
}

fn user_with_subordinate_ids() -> Option<(u32, u32)> {
    let subordinate = fs_err::read_to_string("/etc/subuid").ok()?;
    let users = fs_err::read_to_string("/etc/passwd").ok()?;
    let name = subordinate.lines().next()?.split(':').next()?;
    let user = users.lines().find(|user| user.split(':').next() == Some(name))?;
    let mut fields = user.split(':').skip(2).map(|id| id.parse().ok());
    Some((fields.next()??, fields.next()??))
}

fn new_directory(place: &Path, name: &str) -> (PathBuf, RootDir) {
    let path = place.join(name);
    fs_err::create_dir(&path).unwrap();
    let root = RootDir::open(&path).unwrap();
    (path, root)
}

fn inside(place: &Path) {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut owned = file("d/owned", "content");
    (owned.metadata.uid, owned.metadata.gid, owned.metadata.mode) = (1000, 65_000, 0o4755);
    owned.metadata.xattrs = vec![(b"security.capability"[..].into(), capability[..].into())].into();
    let whole = [
        dir("d"),
        entry("d/gone", Node::Whiteout),
        entry("opaque", Node::Directory { opaque: true }),
        entry("fifo", Node::Fifo),
        owned,
    ];
    let mut device = entry("null", Node::CharDevice { major: 1, minor: 3 });
    (device.metadata.uid, device.metadata.mode) = (7, 0o640);
    let whole = whole.into_iter().chain([device]);
    let mut blob = Vec::new();
    pack(&tree(whole.clone()), &PackOptions::default(), &mut blob).unwrap();

    let (path, root) = new_directory(place, "applied");
    let applied = apply(&*blob, &root, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.tree, tree(whole.clone()));
    assert_eq!((applied.omitted.devices, applied.omitted.xattrs), (0, 0));
    assert_eq!(scan(&path), tree(whole.clone()));

    // From there to another layer, by hard links.
    let (copy, root) = new_directory(place, "copy");
    let wanted = tree(whole).with_bytes(&layer(&path));
    let options = MaterializeOptions { hard_links: true, ..MaterializeOptions::default() };
    materialize(&wanted, &root, &options).unwrap();
    assert_eq!(scan(&copy), wanted);
    let inode = |at: &Path| {
        std::os::unix::fs::MetadataExt::ino(&fs_err::metadata(at.join("d/owned")).unwrap())
    };
    assert_eq!(inode(&path), inode(&copy));

    let foreign: Entry = {
        let mut entry = file("a", "");
        entry.metadata.uid = 3_000_000_000;
        entry
    };
    let (_, root) = new_directory(place, "foreign");
    let error = materialize(&tree([foreign]), &root, &MaterializeOptions::default()).unwrap_err();
    assert!(matches!(error, LayerError::Entry { .. }), "{error}");
    assert!(error.to_string().contains("/etc/subuid"), "{error}");
}
