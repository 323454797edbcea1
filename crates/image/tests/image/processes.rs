//! Many processes that change the images of one store, and some that are killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use formwork_content::{ContentStore, StoreLayout};
use formwork_image::{LocalImages, StoredImage, export};
use formwork_oci::ANNOTATION_REF_NAME;

use crate::testing::Sample;

/// Tells a child process where the store is, and which of the children it is.
const STORE: &str = "FORMWORK_TEST_STORE";
const NUMBER: &str = "FORMWORK_TEST_NUMBER";
/// How many names each process gives to images, besides one that all of them fight for.
const NAMES: usize = 12;

/// Starts a test of this file once more, as a process that writes.
fn start(test: &str, store: &Path, number: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("processes::{test}")])
        .env(STORE, store)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The part of a process that writes: names for images that it makes, over and over.
fn write(store: &std::ffi::OsStr, rounds: usize) {
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let layout = StoreLayout::open(store).unwrap();
    let images = LocalImages::of(&layout);
    let sample = Sample::in_store(layout, tempfile::tempdir().unwrap());
    for round in 0..rounds {
        let image = stored(&sample, &format!("{number}-{round}"));
        for name in [format!("app-{number}:{}", round % NAMES), "shared:latest".to_owned()] {
            let name = format!("docker.io/library/{name}").parse().unwrap();
            images.put(&StoredImage { name: Some(name), ..image.clone() }).unwrap();
        }
        assert_eq!(images.list().unwrap().damaged.len(), 0);
        images.resolve("shared").unwrap();
    }
}

fn stored(sample: &Sample, content: &str) -> StoredImage {
    let view = sample.usual_image(content);
    export::copy_blobs(&view, &sample.content).unwrap();
    StoredImage::of(&view)
}

/// Every image can be read, and the list for other tools is the same as ours.
fn check(store: &Path) -> usize {
    let layout = StoreLayout::open(store).unwrap();
    let images = LocalImages::of(&layout);
    let listing = images.list().unwrap();
    assert_eq!(listing.damaged.len(), 0);
    for image in &listing.images {
        images.view(image).unwrap().unwrap().validate().unwrap();
    }
    let manifest =
        |image: &StoredImage| (image.title(), image.manifest.as_ref().unwrap().digest.to_string());
    let mut ours: Vec<_> = listing.images.iter().map(manifest).collect();
    let entries = ContentStore::of(&layout).index().unwrap().manifests;
    let mut theirs: Vec<_> = entries
        .iter()
        .map(|entry| (entry.annotations[ANNOTATION_REF_NAME].clone(), entry.digest.to_string()))
        .collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    ours.len()
}

#[test]
fn eight_processes_lose_nothing() {
    if let Some(store) = std::env::var_os(STORE) {
        return write(&store, NAMES);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let children: Vec<Child> =
        (0..8).map(|number| start("eight_processes_lose_nothing", &store, number)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(check(&store), 8 * NAMES + 1);
    assert_eq!(fs_err::read_dir(store.join("tmp")).unwrap().count(), 0);
}

#[test]
fn killed_processes_leave_a_store_that_the_next_one_mends() {
    if let Some(store) = std::env::var_os(STORE) {
        return write(&store, usize::MAX);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for round in 0..15 {
        let test = "killed_processes_leave_a_store_that_the_next_one_mends";
        let mut children = [start(test, &store, 1), start(test, &store, 2)];
        std::thread::sleep(Duration::from_millis(20 + 11 * round));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    let layout = StoreLayout::open(&store).unwrap();
    layout.remove_stale(|| {}).unwrap();
    assert_eq!(fs_err::read_dir(layout.tmp()).unwrap().count(), 0);
    // Killed between a name and the list for others, a process leaves the list one step behind;
    // whoever keeps the name again brings it up to date.
    let images = LocalImages::of(&layout);
    for image in images.list().unwrap().images {
        images.put(&image).unwrap();
    }
    assert!(check(&store) > 1);
}
