//! A store on a file system that is full.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use formwork_content::{ContentError, ContentStore, StoreLayout};
use formwork_fs::FsError;

/// A small file system in a directory, unmounted when it is dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// `None` after noting that the running test is skipped.
    fn mount(path: &'a Path) -> Option<Self> {
        let options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs"];
        let output = Command::new("mount").args(options).arg(path).output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        formwork_testing::skipped("this user may not mount");
        None
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_with_the_way_out_and_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(dir.path()) else { return };
    let layout = StoreLayout::open(dir.path()).unwrap();
    let content = ContentStore::of(&layout);
    let kept = content.insert(b"kept").unwrap();
    let mut writer = content.writer().unwrap();
    let error = writer.write_all(&[7; 1 << 20]).unwrap_err();
    let error: ContentError = FsError::new("write a blob to", dir.path(), error).into();
    assert!(matches!(error, ContentError::Full(_)), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    drop(writer);
    let error = content.insert(&[8; 1 << 20]).unwrap_err();
    assert!(matches!(error, ContentError::Full(_)), "{error}");
    assert_eq!(content.list().unwrap(), [kept]);
    content.insert(&[9; 1 << 10]).unwrap();
}

#[test]
fn a_store_that_does_not_fit_is_told_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(dir.path()) else { return };
    let filler = fs_err::write(dir.path().join("lost+found"), [0; 1 << 20]);
    assert!(filler.is_err());
    let message = StoreLayout::open(dir.path().join("store")).unwrap_err().to_string();
    assert!(message.contains("store") && message.contains("free some space"), "{message}");
}
