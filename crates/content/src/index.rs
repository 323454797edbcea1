//! The list of images in an image layout: `index.json`.
//!
//! Image specification, `image-layout.md`. Writers take the lock on the file `oci-layout`, which
//! is the same in every layout and never replaced, and then rename a new list over the old one, so
//! that readers need no lock. Entries that formwork does not understand are kept as they are.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use formwork_fs::{FileLock, FsError};
use formwork_oci::{
    Annotations, Descriptor, IMAGE_LAYOUT, Index, MediaType, OciError, from_json, to_json,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ContentError, ContentStore};

/// The name of the file that makes a directory an image layout.
const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
/// The largest list that is read: some 100,000 images.
const INDEX_LIMIT: u64 = 64 << 20;

/// An [`Index`] with its entries as they are written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIndex {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<MediaType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    manifests: Vec<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

impl ContentStore {
    /// The list of images.
    ///
    /// # Errors
    ///
    /// [`ContentError::Index`] where the file is no list of images.
    pub fn index(&self) -> Result<Index, ContentError> {
        self.parse_index(&self.read_index()?)
    }

    /// Takes images off the list and puts others at its end; the rest stays as it is.
    ///
    /// `is_dropped` is asked about each entry on the list.
    ///
    /// # Errors
    ///
    /// [`ContentError::Index`] where the file is no list of images; it is then left alone.
    pub fn update_index(
        &self,
        is_dropped: impl Fn(&Descriptor) -> bool,
        add: &[Descriptor],
    ) -> Result<(), ContentError> {
        let _lock = FileLock::exclusive(self.layout_file())?;
        let old = self.read_index()?;
        let mut index: RawIndex = self.parse_index(&old)?;
        let parse = |entry: &RawValue| serde_json::from_str::<Descriptor>(entry.get()).ok();
        index.manifests.retain(|entry| !parse(entry).is_some_and(|entry| is_dropped(&entry)));
        for entry in add {
            let raw = serde_json::value::to_raw_value(entry).map_err(|source| {
                self.broken_index(OciError::Json { document: "entry", source })
            })?;
            index.manifests.push(raw);
        }
        let new = to_json(&index);
        if new == old { Ok(()) } else { self.write_index(&new) }
    }

    /// Puts a new list in place of whatever is there.
    ///
    /// # Errors
    ///
    /// Fails where the layout cannot be written.
    pub fn replace_index(&self, entries: Vec<Descriptor>) -> Result<(), ContentError> {
        let _lock = FileLock::exclusive(self.layout_file())?;
        self.write_index(&to_json(&Index::oci(entries)))
    }

    /// Makes the directory an image layout without images unless it is an image layout.
    pub(crate) fn create_index(&self) -> Result<(), ContentError> {
        let (layout, index) = (self.layout_file(), self.index_file());
        if has_content(&layout)? && has_content(&index)? {
            return Ok(());
        }
        // Locking makes the file if need be; it is filled in its place because the lock is on it.
        let _lock = FileLock::exclusive(&layout)?;
        if !has_content(&layout)? {
            write_in_place(&layout, IMAGE_LAYOUT.as_bytes())?;
        }
        if !has_content(&index)? {
            self.write_index(&to_json(&Index::oci(Vec::new())))?;
        }
        Ok(())
    }

    fn layout_file(&self) -> PathBuf {
        self.directory().join(LAYOUT_FILE)
    }

    fn index_file(&self) -> PathBuf {
        self.directory().join(INDEX_FILE)
    }

    fn read_index(&self) -> Result<Vec<u8>, ContentError> {
        let path = self.index_file();
        let failed = |error: std::io::Error| FsError::new("read", &path, error);
        let file = rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(INDEX_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn parse_index<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ContentError> {
        from_json("image index", bytes).map_err(|source| self.broken_index(source))
    }

    fn broken_index(&self, source: OciError) -> ContentError {
        ContentError::Index { path: self.index_file(), source }
    }

    fn write_index(&self, bytes: &[u8]) -> Result<(), ContentError> {
        let path = self.index_file();
        let mut file = self.stage_file(&path)?;
        file.write_all(bytes).map_err(|error| FsError::new("write", &path, error))?;
        Ok(file.commit()?)
    }
}

/// Whether a file exists and is not empty, as a power loss may have left it.
fn has_content(path: &Path) -> Result<bool, FsError> {
    match rustix::fs::statat(CWD, path, AtFlags::empty()) {
        Ok(stat) => Ok(stat.st_size > 0),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(FsError::new("examine", path, errno)),
    }
}

fn write_in_place(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let failed = |error| FsError::new("write", path, error);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    std::fs::File::from(file).write_all(bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use formwork_oci::ANNOTATION_REF_NAME;

    use super::*;

    fn layout() -> (tempfile::TempDir, ContentStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::create(dir.path().join("layout")).unwrap();
        (dir, store)
    }

    fn entry(name: &str, content: &[u8]) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::OciManifest, content);
        descriptor.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
        descriptor
    }

    fn is_named(name: &str) -> impl Fn(&Descriptor) -> bool {
        move |entry| entry.annotations.get(ANNOTATION_REF_NAME).is_some_and(|own| own == name)
    }

    #[test]
    fn a_new_layout_is_that_of_the_specification() {
        let (_dir, store) = layout();
        let read = |name| fs_err::read_to_string(store.directory().join(name)).unwrap();
        assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        assert_eq!(
            read("index.json"),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }

    #[test]
    fn an_entry_takes_the_place_of_its_predecessor() {
        let (_dir, store) = layout();
        store.update_index(is_named("a"), &[entry("a", b"1")]).unwrap();
        store.update_index(is_named("b"), &[entry("b", b"2")]).unwrap();
        store.update_index(is_named("a"), &[entry("a", b"3")]).unwrap();
        assert_eq!(store.index().unwrap().manifests, [entry("b", b"2"), entry("a", b"3")]);
        store.update_index(|_| true, &[]).unwrap();
        assert!(store.index().unwrap().manifests.is_empty());
    }

    #[test]
    fn what_others_wrote_is_kept_to_the_byte() {
        let (_dir, store) = layout();
        let foreign = r#"{"mediaType":"application/x", "size": 1,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","data":"e30=","platform":{"os":"windows","architecture":"amd64","os.features":["win32k"]}}"#;
        let nonsense = r#"{"size":"many"}"#;
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{foreign},{nonsense}]}}"#);
        fs_err::write(store.index_file(), text).unwrap();
        store.update_index(is_named("a"), &[entry("a", b"1")]).unwrap();
        let text = fs_err::read_to_string(store.index_file()).unwrap();
        assert!(text.contains(foreign) && text.contains(nonsense), "{text}");
    }

    #[test]
    fn a_broken_list_is_reported_and_left_alone() {
        let (_dir, store) = layout();
        for broken in ["{\"schemaVersion\":2", "[]", "{\"schemaVersion\":2,\"manifests\":{}}"] {
            fs_err::write(store.index_file(), broken).unwrap();
            let error = store.update_index(|_| true, &[entry("a", b"1")]).unwrap_err();
            assert!(matches!(error, ContentError::Index { .. }), "{error}");
            assert!(error.to_string().contains("index.json"), "{error}");
            assert_eq!(fs_err::read_to_string(store.index_file()).unwrap(), broken);
        }
        store.replace_index(vec![entry("a", b"1")]).unwrap();
        assert_eq!(store.index().unwrap().manifests, [entry("a", b"1")]);
    }

    #[test]
    fn nothing_is_lost_when_many_write() {
        let (_dir, store) = layout();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for i in 0..20 {
                        let name = format!("{writer}-{i}");
                        store.update_index(is_named(&name), &[entry(&name, b"")]).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.index().unwrap().manifests.len(), 160);
    }
}
