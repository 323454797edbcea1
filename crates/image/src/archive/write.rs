//! Writing an archive.
//!
//! The bytes depend on the names and the contents alone: owner 0, time 0, fixed modes.

use std::path::Path;

use formwork_fs::FsError;
use formwork_oci::Descriptor;
use formwork_tar::{END, Entry, Node, padding, put_header};

use crate::copy::{RangeSink, copy_bytes};
use crate::{BlobSource, ImageError};

/// An archive that is being written to a file or a pipe, or compared with one.
#[derive(Debug)]
pub(crate) struct ArchiveWriter<'a, S> {
    target: S,
    /// What the target is called in messages.
    path: &'a Path,
    /// Headers, small files and padding that come before the next blob: collected, so that they
    /// cost no system calls of their own.
    pending: Vec<u8>,
}

impl<'a, S: RangeSink> ArchiveWriter<'a, S> {
    /// Begins an archive where the target is.
    pub(crate) fn new(target: S, path: &'a Path) -> Self {
        Self { target, path, pending: Vec::new() }
    }

    /// Adds a directory; its name ends with a slash.
    pub(crate) fn directory(&mut self, name: &str) {
        put_header(&mut self.pending, &Entry::new(name.as_bytes(), Node::Directory, 0o755));
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        let size = content.len() as u64;
        self.file_header(name, size);
        self.pending.extend_from_slice(content);
        self.pad(size);
    }

    /// Adds a blob, which is copied at once.
    pub(crate) fn blob(
        &mut self,
        name: &str,
        source: &dyn BlobSource,
        descriptor: &Descriptor,
    ) -> Result<(), ImageError> {
        self.file_header(name, descriptor.size);
        self.flush()?;
        copy_bytes(source, descriptor, &mut self.target, self.path)?;
        self.pad(descriptor.size);
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<(), ImageError> {
        self.pending.extend(END);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        self.target
            .write_all(&self.pending)
            .map_err(|error| FsError::new("write", self.path, error))?;
        self.pending.clear();
        Ok(())
    }

    fn file_header(&mut self, name: &str, size: u64) {
        put_header(&mut self.pending, &Entry::new(name.as_bytes(), Node::File { size }, 0o444));
    }

    fn pad(&mut self, size: u64) {
        self.pending.extend_from_slice(&END[..padding(size)]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use super::*;

    /// What the `tar` crate reads in an archive: names, kinds, sizes and contents.
    fn read_back(file: &mut File) -> Vec<(String, tar::EntryType, String)> {
        file.rewind().unwrap();
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            let kind = header.entry_type();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (name, kind, content)
        });
        entries.collect()
    }

    #[test]
    fn others_read_what_is_written() {
        let sample = crate::testing::Sample::new();
        let blob = sample.content.insert(b"a blob").unwrap();
        let media_type = formwork_oci::MediaType::OciConfig;
        let descriptor = Descriptor::new(media_type, blob.digest, blob.size);
        let long = format!("blobs/sha512/{}", "0".repeat(128));
        let mut file = tempfile::tempfile().unwrap();
        let mut archive = ArchiveWriter::new(&file, Path::new("x"));
        archive.directory("d/");
        archive.file("d/a", b"one");
        archive.file(&long, b"two");
        archive.blob("d/b", &sample.content, &descriptor).unwrap();
        archive.file("d/c", &[b'x'; 512]);
        archive.finish().unwrap();
        let (dir, regular) = (tar::EntryType::Directory, tar::EntryType::Regular);
        let x = "x".repeat(512);
        assert_eq!(
            read_back(&mut file),
            [
                ("d/", dir, ""),
                ("d/a", regular, "one"),
                (&*long, regular, "two"),
                ("d/b", regular, "a blob"),
                ("d/c", regular, &x)
            ]
            .map(|(name, kind, content)| (name.to_owned(), kind, content.to_owned()))
        );
        assert_eq!(file.metadata().unwrap().len() % 512, 0);
    }
}
