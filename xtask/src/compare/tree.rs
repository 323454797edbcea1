//! A root file system as a table, modification times aside.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::Result;

/// All files below a directory, by their paths.
pub(super) struct Tree(BTreeMap<String, Entry>);

#[derive(PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// The size and a hash of the content, or the target of a link.
    content: String,
}

impl Tree {
    /// Reads a directory.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self(BTreeMap::new());
        tree.add(root, "")?;
        Ok(tree)
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is not the same in another tree, as lines that begin with the path.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, own) in &self.0 {
            match other.0.get(path) {
                None => found.push(format!("{path} only formwork has it")),
                Some(theirs) => found.extend(own.difference(theirs).map(|d| format!("{path} {d}"))),
            }
        }
        let theirs = other.0.keys().filter(|path| !self.0.contains_key(*path));
        found.extend(theirs.map(|path| format!("{path} only buildah has it")));
        found
    }

    fn add(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        for entry in fs_err::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let shown = format!("{prefix}/{}", entry.file_name().to_string_lossy());
            let read = Entry::read(&path)?;
            if read.kind == "directory" {
                self.add(&path, &shown)?;
            }
            self.0.insert(shown, read);
        }
        Ok(())
    }
}

impl Entry {
    fn read(path: &Path) -> Result<Self> {
        let metadata = fs_err::symlink_metadata(path)?;
        let file_type = metadata.file_type();
        let (kind, content) = if file_type.is_dir() {
            ("directory", String::new())
        } else if file_type.is_symlink() {
            ("link", fs_err::read_link(path)?.display().to_string())
        } else if file_type.is_file() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&fs_err::read(path)?);
            ("file", format!("{} bytes, {:x}", metadata.len(), hasher.finish()))
        } else if file_type.is_fifo() {
            ("pipe", String::new())
        } else {
            ("device", metadata.rdev().to_string())
        };
        let owner = (metadata.uid(), metadata.gid());
        Ok(Self { kind, mode: metadata.mode() & 0o7777, owner, content })
    }

    fn difference(&self, other: &Self) -> Option<String> {
        let differs = |what, own: &str, theirs: &str| {
            Some(format!("{what}: formwork {own}, buildah {theirs}"))
        };
        if self.kind != other.kind {
            differs("kind", self.kind, other.kind)
        } else if self.mode != other.mode {
            differs("mode", &format!("{:o}", self.mode), &format!("{:o}", other.mode))
        } else if self.owner != other.owner {
            differs("owner", &format!("{:?}", self.owner), &format!("{:?}", other.owner))
        } else if self.content != other.content {
            differs("content", &self.content, &other.content)
        } else {
            None
        }
    }
}
