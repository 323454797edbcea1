//! Writing an archive.
//!
//! The bytes depend on the names and the contents alone: owner 0, time 0, fixed modes, POSIX
//! headers, and pax records only for what those cannot hold.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use formwork_fs::FsError;
use formwork_oci::Descriptor;

use super::{BLOCK, POSIX_MAGIC, checksum, field};
use crate::copy::copy_bytes;
use crate::{BlobSource, ImageError};

/// The largest size that fits into a header's octal digits.
const SIZE_LIMIT: u64 = 0o777_7777_7777;

/// An archive that is being written to a file or a pipe.
#[derive(Debug)]
pub(crate) struct ArchiveWriter<'a> {
    target: &'a File,
    /// What the target is called in messages.
    path: &'a Path,
    /// Headers, small files and padding that come before the next blob: collected, so that they
    /// cost no system calls of their own.
    pending: Vec<u8>,
}

impl<'a> ArchiveWriter<'a> {
    /// Begins an archive at the file's position.
    pub(crate) fn new(target: &'a File, path: &'a Path) -> Self {
        Self { target, path, pending: Vec::new() }
    }

    /// Adds a directory; its name ends with a slash.
    pub(crate) fn directory(&mut self, name: &str) {
        self.header(name, 0, b'5', 0o755);
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        self.header(name, content.len() as u64, b'0', 0o444);
        self.pending.extend_from_slice(content);
        self.pad(content.len() as u64);
    }

    /// Adds a blob, which is copied at once.
    pub(crate) fn blob(
        &mut self,
        name: &str,
        source: &dyn BlobSource,
        descriptor: &Descriptor,
    ) -> Result<(), ImageError> {
        self.header(name, descriptor.size, b'0', 0o444);
        self.flush()?;
        copy_bytes(source, descriptor, &mut &*self.target, self.path)?;
        self.pad(descriptor.size);
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<(), ImageError> {
        self.pending.resize(self.pending.len() + 2 * BLOCK, 0);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        self.target
            .write_all(&self.pending)
            .map_err(|error| FsError::new("write", self.path, error))?;
        self.pending.clear();
        Ok(())
    }

    fn pad(&mut self, size: u64) {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        if over > 0 {
            self.pending.resize(self.pending.len() + BLOCK - over, 0);
        }
    }

    fn header(&mut self, name: &str, size: u64, kind: u8, mode: u64) {
        let mut records = Vec::new();
        if name.len() > field::NAME.len() {
            pax_record(&mut records, "path", name);
        }
        if size > SIZE_LIMIT {
            pax_record(&mut records, "size", &size.to_string());
        }
        if !records.is_empty() {
            let length = records.len() as u64;
            self.pending.extend(header_block("pax-header", length, b'x', 0o444));
            self.pending.extend(&records);
            self.pad(length);
        }
        self.pending.extend(header_block(name, size.min(SIZE_LIMIT), kind, mode));
    }
}

fn header_block(name: &str, size: u64, kind: u8, mode: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let shown = &name.as_bytes()[..name.len().min(field::NAME.len())];
    header[field::NAME][..shown.len()].copy_from_slice(shown);
    octal(&mut header[field::MODE], mode);
    octal(&mut header[field::UID], 0);
    octal(&mut header[field::GID], 0);
    octal(&mut header[field::SIZE], size);
    octal(&mut header[field::MTIME], 0);
    header[field::TYPE] = kind;
    header[field::MAGIC].copy_from_slice(POSIX_MAGIC);
    let sum = checksum(&header);
    header[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Fills a field with octal digits and a NUL.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits too.
fn pax_record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    records.extend(format!("{length}{rest}").bytes());
}

#[cfg(test)]
mod tests {
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
        assert_eq!(file.metadata().unwrap().len() % BLOCK as u64, 0);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 1..1200 {
            let mut record = Vec::new();
            pax_record(&mut record, "path", &"x".repeat(length));
            let text = String::from_utf8(record).unwrap();
            let (stated, _) = text.split_once(' ').unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn a_size_beyond_eight_gigabytes_has_a_record() {
        let file = tempfile::tempfile().unwrap();
        let mut archive = ArchiveWriter::new(&file, Path::new("x"));
        archive.header("large", SIZE_LIMIT + 1, b'0', 0o444);
        let text = String::from_utf8_lossy(&archive.pending).into_owned();
        assert!(text.contains("19 size=8589934592\n"), "{text}");
        assert_eq!(archive.pending.len(), 3 * BLOCK);
    }
}
