//! What a process that is killed in the middle of its work leaves behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use formwork_content::{ContentStore, StoreLayout, Temporary};
use formwork_oci::{ANNOTATION_REF_NAME, Descriptor, MediaType};

/// Tells the child process where the store is.
const STORE: &str = "FORMWORK_TEST_STORE";

/// Starts this test once more, as the process that will be killed.
fn start_writer(store: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_a_valid_store"])
        .env(STORE, store)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes blobs, temporary files and lists of images until somebody ends it.
fn write_for_ever(store: &OsString) -> ! {
    let layout = StoreLayout::open(store).unwrap();
    let content = ContentStore::of(&layout);
    for i in 0_u64.. {
        let temporary = Temporary::create(&layout).unwrap();
        fs_err::create_dir(temporary.path().join("directory")).unwrap();
        let bytes = i.to_le_bytes().repeat(10_000);
        let mut writer = content.writer().unwrap();
        for chunk in bytes.chunks(4096) {
            writer.write_all(chunk).unwrap();
        }
        let blob = writer.commit(None).unwrap();
        let mut entry = Descriptor::new(MediaType::OciManifest, blob.digest, blob.size);
        entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), i.to_string());
        content.update_index(|old| old.digest == entry.digest, &[entry.clone()]).unwrap();
    }
    unreachable!("there are enough numbers")
}

#[test]
fn a_killed_process_leaves_a_valid_store() {
    if let Some(store) = std::env::var_os(STORE) {
        write_for_ever(&store);
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    for round in 0..20 {
        let mut writers = [start_writer(&root), start_writer(&root)];
        std::thread::sleep(Duration::from_millis(5 + 7 * round));
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
    }
    let layout = StoreLayout::open(&root).unwrap();
    let content = ContentStore::of(&layout);
    let blobs = content.list().unwrap();
    assert!(!blobs.is_empty(), "nobody came to write anything");
    for blob in &blobs {
        content.read(&blob.digest, blob.size).unwrap();
    }
    for entry in content.index().unwrap().manifests {
        assert!(content.find(&entry).unwrap().is_some(), "{entry:?} is listed and missing");
    }
    layout.remove_stale(|| {}).unwrap();
    assert_eq!(fs_err::read_dir(layout.tmp()).unwrap().count(), 0);
}
