//! What a run may leave behind, and what it must not.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use formwork_layer::Tree;
use formwork_oci::Digest;
use serde_json::Value;

use crate::arena::{Arena, wait_until};

impl Arena {
    /// No process works here any more and nothing is mounted. The kernel ends what belongs to a
    /// killed process a moment later.
    pub(crate) fn assert_nothing_runs(&self) {
        let place = self.path("");
        let place = place.to_str().unwrap().trim_end_matches('/');
        wait_until(&format!("the end of {:?}", processes(place)), || processes(place).is_empty());
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| is_overlay_of(line, place)).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// No process, no mount, no temporary file, no lock of a step, no lease.
    pub(crate) fn assert_nothing_is_left(&self) {
        self.assert_nothing_runs();
        let left: Vec<PathBuf> = files(&self.store())
            .into_iter()
            .filter(|path| {
                let name = path.file_name().unwrap().as_bytes();
                name.starts_with(b".tmp-")
                    || name.starts_with(b"step-")
                    || name.starts_with(b"lease-")
                    || path.starts_with(self.store().join("tmp"))
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Every blob has its digest, every image of the layout its blobs, and every record of the
    /// cache a layer that can be read.
    pub(crate) fn assert_store_is_sound(&self) {
        let store = self.store();
        for path in files(&store.join("content/blobs/sha256")) {
            let actual = Digest::of(&fs_err::read(&path).unwrap());
            assert_eq!(actual.hex(), path.file_name().unwrap().to_str().unwrap());
        }
        let index = json(&store.join("content/index.json"));
        for manifest in index["manifests"].as_array().unwrap() {
            let manifest = json(&blob(&store, &manifest["digest"]));
            let layers = manifest["layers"].as_array().unwrap();
            for part in layers.iter().chain([&manifest["config"]]) {
                assert!(blob(&store, &part["digest"]).exists(), "{part}");
            }
        }
        // Records lie in directories of two digits; beside these lies what explains builds.
        let is_record = |file: &PathBuf| {
            let directory = file.parent().and_then(Path::file_name);
            directory.is_some_and(|name| name.len() == 2)
        };
        for record in files(&store.join("index-v1")).into_iter().filter(is_record) {
            let content = json(&record);
            let layer = content["layer"].as_str();
            let layer = layer.unwrap_or_else(|| panic!("{}: {content}", record.display()));
            if !layer.is_empty() {
                let snapshot = store.join("snapshots-v1").join(layer);
                Tree::decode(&fs_err::read(snapshot.join("tree")).unwrap()).unwrap();
            }
        }
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn blob(store: &Path, digest: &Value) -> PathBuf {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    store.join("content/blobs/sha256").join(hex)
}

/// The files of the store below a directory, without those in layers and cache mounts, which are
/// not formwork's.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let foreign = |path: &PathBuf| {
        path.components()
            .any(|part| part.as_os_str() == "fs" || part.as_os_str() == "cache-mounts-v1")
    };
    all_files(directory).into_iter().filter(|path| !foreign(path)).collect()
}

/// All that is below a directory and not a directory itself.
pub(crate) fn all_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        // What is removed meanwhile is not there.
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files
}

/// The processes that work in a directory, or on a root file system that lies there.
fn processes(place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let name = process.file_name().unwrap().to_string_lossy().into_owned();
        let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || name == std::process::id().to_string() {
            continue;
        }
        let read = |file: &str| fs_err::read(process.join(file)).unwrap_or_default();
        let works_here = fs_err::read_link(process.join("cwd"))
            .is_ok_and(|directory| directory.starts_with(place));
        let mounts = read("mountinfo");
        let mounts = String::from_utf8_lossy(&mounts);
        if works_here || mounts.lines().any(|line| is_overlay_of(line, place)) {
            found.push(format!("{name} {}", String::from_utf8_lossy(&read("cmdline"))));
        }
    }
    found
}

fn is_overlay_of(mount: &str, place: &str) -> bool {
    mount.contains(" - overlay ") && mount.contains(place)
}
