//! Where the bytes of files are, and how they are read.

use std::io::Read;
use std::sync::Arc;

use formwork_fs::{Follow, FsError, RelPath, RootDir};

use super::{ContentHash, File};
use crate::LayerError;

/// Where the bytes of a file are.
#[derive(Clone, Debug, Default)]
pub enum Bytes {
    /// Not known: the tree has been read from a file or was made without unpacking anything.
    #[default]
    Missing,
    /// In a file.
    At {
        /// The directory that confines the file.
        origin: Arc<Origin>,
        /// The file's path in that directory, through no symbolic link.
        path: RelPath,
    },
    /// In memory.
    Inline(Arc<[u8]>),
}

/// A directory that holds the bytes of files.
#[derive(Debug)]
pub struct Origin {
    directory: RootDir,
    immutable: bool,
}

impl Origin {
    /// The directory of a layer, in which nobody changes anything any more. Its files may become
    /// parts of other layers by hard links.
    pub fn layer(directory: RootDir) -> Arc<Self> {
        Arc::new(Self { directory, immutable: true })
    }

    /// A directory of the user's. Its files may change at any time, so whoever reads them must
    /// compare what was read with the hash in the tree.
    pub fn context(directory: RootDir) -> Arc<Self> {
        Arc::new(Self { directory, immutable: false })
    }

    /// The directory.
    pub fn directory(&self) -> &RootDir {
        &self.directory
    }

    /// Whether nobody changes the directory any more.
    pub fn is_immutable(&self) -> bool {
        self.immutable
    }
}

/// The directory that a file was last looked for in; the next one is mostly beside it.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    last: Option<(Arc<Origin>, RelPath, RootDir)>,
}

impl Neighbours {
    /// Opens the file that holds a file's bytes.
    ///
    /// # Errors
    ///
    /// Fails as [`File::open`] does.
    pub(crate) fn open(&mut self, file: &File) -> Result<std::fs::File, FsError> {
        let Bytes::At { origin, path } = &file.bytes else { return file.open() };
        let directory = self.directory_of(origin, path)?;
        let name = RelPath::root().join(path.name());
        directory.open_file(&name, Follow::Never)
    }

    /// The directory in an origin that a path's last component is in.
    pub(crate) fn directory_of(
        &mut self,
        origin: &Arc<Origin>,
        path: &RelPath,
    ) -> Result<&RootDir, FsError> {
        let (parent, _) = path.split_name();
        let is_there =
            |(at, last, _): &_| Arc::ptr_eq(at, origin) && RelPath::as_bytes(last) == parent;
        let last = match self.last.take().filter(is_there) {
            Some(last) => last,
            None => {
                let parent = path.parent().unwrap_or_default();
                let directory = origin.directory().open_dir(&parent, Follow::Never)?;
                (Arc::clone(origin), parent, directory)
            }
        };
        Ok(&self.last.insert(last).2)
    }
}

impl Bytes {
    /// Whether nobody knows where the bytes are.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl PartialEq for File {
    /// Whether both hold the same; where the bytes are makes no difference.
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.content) == (other.size, other.content)
    }
}

impl Eq for File {}

impl File {
    /// The content, if it is at most `limit` bytes long; `None` where it is longer.
    ///
    /// # Errors
    ///
    /// Fails where the bytes are missing, cannot be read, or are not those of the content hash.
    pub fn read(&self, limit: u64) -> Result<Option<Vec<u8>>, LayerError> {
        if self.size > limit {
            return Ok(None);
        }
        let content = match &self.bytes {
            Bytes::Inline(bytes) => bytes.to_vec(),
            Bytes::At { .. } => {
                let mut content = Vec::new();
                let file = self.open()?;
                let read = file.take(limit.saturating_add(1)).read_to_end(&mut content);
                read.map_err(|error| FsError::new("read", self.display_path(), error))?;
                content
            }
            Bytes::Missing => return Err(missing().into()),
        };
        if ContentHash::of(&content) == self.content {
            Ok(Some(content))
        } else {
            Err(LayerError::Changed { path: self.display_path() })
        }
    }

    /// Opens the file that holds the bytes.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be opened, and for bytes that are in no file.
    pub fn open(&self) -> Result<std::fs::File, FsError> {
        match &self.bytes {
            Bytes::At { origin, path } => origin.directory.open_file(path, Follow::Never),
            Bytes::Inline(_) | Bytes::Missing => Err(missing()),
        }
    }

    /// Where the bytes are, for messages.
    pub(crate) fn display_path(&self) -> String {
        match &self.bytes {
            Bytes::At { origin, path } => origin.directory.path_of(path).display().to_string(),
            Bytes::Inline(_) => "a file given in the Dockerfile".to_owned(),
            Bytes::Missing => "a file of a layer".to_owned(),
        }
    }
}

/// A layer's bytes are wanted before anybody has unpacked it.
fn missing() -> FsError {
    let reason = std::io::Error::other("the layer has not been unpacked");
    FsError::new("read", "a file of a layer", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_verified() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("a"), "content").unwrap();
        let origin = Origin::layer(RootDir::open(dir.path()).unwrap());
        let path = RelPath::new("a").unwrap();
        let bytes = Bytes::At { origin, path };
        let mut file = File { size: 7, content: ContentHash::of(b"content"), bytes };
        assert_eq!(file.read(7).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(file.read(6).unwrap(), None);
        file.content = ContentHash::of(b"something else");
        assert!(matches!(file.read(7), Err(LayerError::Changed { .. })));
        file.bytes = Bytes::Missing;
        let error = file.read(7).unwrap_err();
        assert!(error.to_string().contains("not been unpacked"), "{error}");
    }

    #[test]
    fn inline_files_are_read_from_memory() {
        let file = File::inline(*b"text");
        assert_eq!(file.size, 4);
        assert_eq!(file.read(100).unwrap().as_deref(), Some(&b"text"[..]));
    }
}
