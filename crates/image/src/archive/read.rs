//! The index of an archive: which file is where.
//!
//! The archive is walked once, header by header, without reading the data between them; then files
//! are read by position, by several threads if they like. Memory and work are bounded whatever the
//! archive claims.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_fs::{FsError, RelPath};
use formwork_tar::{Entry, Node, Reader, TarError};
use rustix::fs::{CWD, Mode, OFlags};

use crate::{BlobBytes, ImageError};

/// The largest number of entries; an image of a thousand layers has some four thousand.
const ENTRY_LIMIT: usize = 1 << 17;
/// The longest name that is indexed; those in images' archives have some 150 bytes.
const NAME_LIMIT: usize = 512;
/// How many links lead to a file at most.
const LINK_LIMIT: usize = 8;

/// An archive that is open for reading by position.
#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    path: PathBuf,
    entries: BTreeMap<RelPath, Place>,
}

/// Where the content of an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File {
        offset: u64,
        size: u64,
    },
    /// A link of either kind to another entry.
    Link(RelPath),
}

impl Archive {
    /// Opens an archive and indexes it.
    ///
    /// Of several entries with one name the last counts, as it would after unpacking.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let file = open_file(path)?;
        let entries = index(&file, path)?;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), entries })
    }

    /// The archive's file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the archive, through links; `None` where there is none.
    pub(crate) fn open_file(&self, name: &RelPath) -> Option<BlobBytes> {
        let mut name = name;
        for _ in 0..=LINK_LIMIT {
            match self.entries.get(name)? {
                Place::File { offset, size } => {
                    return Some(BlobBytes::range(Arc::clone(&self.file), *offset, *size));
                }
                Place::Link(target) => name = target,
            }
        }
        None
    }
}

/// Opens a regular file without ever waiting for somebody at the other end of a pipe.
fn open_file(path: &Path) -> Result<File, ImageError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| FsError::new("open", path, errno))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(|error| FsError::new("examine", path, error))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(unreadable(
        path,
        if metadata.is_dir() {
            "it is a directory; if it is an image layout, read it as one"
        } else {
            "it is no regular file; save it to one first, since its parts are read in any order"
        },
    ))
}

fn index(file: &File, path: &Path) -> Result<BTreeMap<RelPath, Place>, ImageError> {
    let length = file.metadata().map_err(|error| FsError::new("examine", path, error))?.len();
    let mut reader = Reader::new(file);
    let mut places = BTreeMap::new();
    let mut count = 0;
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) | Err(TarError::Invalid { .. }) if count == 0 => {
                return Err(not_tar(file, path));
            }
            Ok(None) => return Ok(places),
            Err(error) => return Err(damaged(path, error)),
        };
        count += 1;
        if count > ENTRY_LIMIT {
            return Err(unreadable(path, format!("it has more than {ENTRY_LIMIT} entries")));
        }
        let content = reader.content_range();
        if let Some(Range { start, end }) = content.clone().filter(|content| content.end > length) {
            let (size, left) = (end - start, length.saturating_sub(start));
            let reason = format!("it is cut off: an entry needs {size} bytes, {left} are left");
            return Err(unreadable(path, format!("{reason}; copy or save it again")));
        }
        if let Some((name, place)) = place(entry, content) {
            places.insert(name, place);
        }
        reader.seek_past_content().map_err(|error| damaged(path, error))?;
    }
}

/// What to remember of an entry: files and links with names that stay inside the archive.
fn place(entry: Entry<'_>, content: Option<Range<u64>>) -> Option<(RelPath, Place)> {
    if entry.name.len() > NAME_LIMIT || entry.name.ends_with(b"/") {
        return None;
    }
    let name = RelPath::new(&*entry.name).ok().filter(|name| !name.is_root())?;
    let place = match entry.node {
        Node::File { size } => Place::File { offset: content?.start, size },
        Node::HardLink { target } => Place::Link(RelPath::clean(&target).ok()?),
        Node::Symlink { target } => {
            let (directory, _) = name.split_name();
            Place::Link(RelPath::clean([directory, b"/", &target].concat()).ok()?)
        }
        _ => return None,
    };
    Some((name, place))
}

fn damaged(path: &Path, error: TarError) -> ImageError {
    match error {
        TarError::Read(error) => FsError::new("read", path, error).into(),
        TarError::Invalid { offset, problem } => {
            unreadable(path, format!("{problem} (byte {offset}); copy or save it again"))
        }
    }
}

/// By their first bytes, other things that users take for archives.
fn not_tar(file: &File, path: &Path) -> ImageError {
    let mut start = [0; 5];
    let reason = match file.read_at(&mut start, 0).map(|length| &start[..length]) {
        Ok([0x1f, 0x8b, ..]) => "it is compressed; decompress it first with `gunzip`",
        Ok([0x28, 0xb5, 0x2f, 0xfd, ..]) => "it is compressed; decompress it first with `unzstd`",
        Ok([0xfd, b'7', b'z', b'X', b'Z']) => "it is compressed; decompress it first with `unxz`",
        Ok([b'B', b'Z', b'h', ..]) => "it is compressed; decompress it first with `bunzip2`",
        _ => "it is no tar archive",
    };
    unreadable(path, reason)
}

fn unreadable(path: &Path, reason: impl Into<String>) -> ImageError {
    ImageError::Unreadable { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use formwork_tar::BLOCK;
    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<Archive, ImageError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Archive::open(file.path())
    }

    fn read(archive: &Archive, name: &str) -> Option<String> {
        let mut text = String::new();
        archive.open_file(&RelPath::new(name).unwrap())?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &str) {
        let mut header = header(tar::EntryType::Regular, content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, target: &str) {
        builder.append_link(&mut header(kind, 0), name, target).unwrap();
    }

    #[test]
    fn files_are_found_by_their_names_however_these_are_written() {
        let long = format!("{}/layer.tar", "d".repeat(150));
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, "./a", "one");
        append(&mut builder, &long, "two");
        builder.append_pax_extensions([("path", &b"pax/name"[..]), ("comment", b"x")]).unwrap();
        append(&mut builder, "ignored", "three");
        let mut posix = tar::Header::new_ustar();
        posix.set_path(format!("{}/{}", "p".repeat(100), "n".repeat(90))).unwrap();
        posix.set_size(4);
        posix.set_cksum();
        builder.append(&posix, &b"four"[..]).unwrap();
        let archive = open(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(read(&archive, "a").as_deref(), Some("one"));
        assert_eq!(read(&archive, &long).as_deref(), Some("two"));
        assert_eq!(read(&archive, "pax/name").as_deref(), Some("three"));
        let posix = format!("{}/{}", "p".repeat(100), "n".repeat(90));
        assert_eq!(read(&archive, &posix).as_deref(), Some("four"));
        assert_eq!(read(&archive, "ignored"), None);
    }

    #[test]
    fn links_lead_to_files_inside_the_archive() {
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, "a/layer.tar", "content");
        link(&mut builder, tar::EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
        link(&mut builder, tar::EntryType::Link, "c", "b/layer.tar");
        link(&mut builder, tar::EntryType::Symlink, "loop", "loop");
        link(&mut builder, tar::EntryType::Symlink, "out", "../../../../etc/passwd");
        let archive = open(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(read(&archive, "b/layer.tar").as_deref(), Some("content"));
        assert_eq!(read(&archive, "c").as_deref(), Some("content"));
        assert_eq!(read(&archive, "loop"), None);
        assert_eq!(read(&archive, "out"), None);
    }

    #[test]
    fn the_last_of_several_entries_counts() {
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, "a", "old");
        append(&mut builder, "a", "new");
        let archive = open(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(read(&archive, "a").as_deref(), Some("new"));
    }

    #[test]
    fn a_pax_size_counts_and_links_have_no_data() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"3"[..])]).unwrap();
        let mut lying = header(tar::EntryType::Regular, 0);
        lying.set_path("a").unwrap();
        lying.set_cksum();
        builder.get_mut().extend(lying.as_bytes());
        builder.get_mut().extend([b"one", &[0; BLOCK - 3][..]].concat());
        let mut lying = header(tar::EntryType::Symlink, 1 << 30);
        lying.set_path("b").unwrap();
        lying.set_link_name("a").unwrap();
        lying.set_cksum();
        builder.get_mut().extend(lying.as_bytes());
        append(&mut builder, "c", "three");
        let archive = open(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(read(&archive, "a").as_deref(), Some("one"));
        assert_eq!(read(&archive, "b").as_deref(), Some("one"));
        assert_eq!(read(&archive, "c").as_deref(), Some("three"));
    }

    #[test]
    fn names_that_lead_out_are_passed_over() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut raw = header(tar::EntryType::Regular, 0);
        raw.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../x/..");
        raw.set_cksum();
        builder.append(&raw, &b""[..]).unwrap();
        builder.append_pax_extensions([("path", "long".repeat(200).as_bytes())]).unwrap();
        append(&mut builder, "l", "");
        append(&mut builder, "kept", "");
        let archive = open(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(archive.entries.len(), 1);
    }

    #[test]
    fn what_is_no_archive_says_what_it_is() {
        let damaged = {
            let mut bytes = crate::testing::tar(&[("a", b"one"), ("b", b"two")]);
            bytes[2 * BLOCK + 5] ^= 1;
            bytes
        };
        let huge = {
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_pax_extensions([("size", &b"99999999999999"[..])]).unwrap();
            append(&mut builder, "a", "");
            builder.into_inner().unwrap()
        };
        let extended = {
            let mut bytes = crate::testing::tar(&[("a", b"one")]);
            bytes.truncate(2 * BLOCK);
            let mut lying = header(tar::EntryType::XHeader, 1 << 40);
            lying.set_cksum();
            bytes.extend(lying.as_bytes());
            bytes.resize(5 * BLOCK, 0);
            bytes
        };
        let whole = crate::testing::tar(&[("a", &[7; 2000])]);
        for (bytes, expected) in [
            (&b""[..], "no tar archive"),
            (b"hello", "no tar archive"),
            (&[0; 10240], "no tar archive"),
            (b"\x1f\x8b\x08", "gunzip"),
            (b"\x28\xb5\x2f\xfd.....", "unzstd"),
            (b"\xfd7zXZ\0", "unxz"),
            (b"BZh91AY", "bunzip2"),
            (&damaged, "check sum is wrong (byte 1536); copy"),
            (&huge, "an entry needs 99999999999999 bytes"),
            (&extended, "larger than one megabyte (byte 1536)"),
            (&whole[..1500], "an entry needs 2000 bytes, 988 are left"),
            (&[&whole[..BLOCK * 5], b"garbage"].concat(), "it breaks off"),
        ] {
            let message = open(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = Archive::open(Path::new("/")).unwrap_err().to_string();
        assert!(message.contains("directory"), "{message}");
    }

    #[test]
    fn a_pipe_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let message = Archive::open(&pipe).unwrap_err().to_string();
        assert!(message.contains("no regular file"), "{message}");
    }

    #[test]
    fn an_archive_without_an_end_is_read() {
        let whole = crate::testing::tar(&[("a", b"one")]);
        let archive = open(&whole[..BLOCK + 3]).unwrap();
        assert_eq!(read(&archive, "a").as_deref(), Some("one"));
    }

    #[test]
    fn endless_archives_end() {
        let mut header = header(tar::EntryType::Directory, 0);
        header.set_path("d/").unwrap();
        header.set_cksum();
        let bytes = header.as_bytes().repeat(ENTRY_LIMIT + 1);
        let message = open(&bytes).unwrap_err().to_string();
        assert!(message.contains("entries"), "{message}");
    }

    proptest! {
        #[test]
        fn damaged_archives_do_no_harm(
            at in 0_usize..4096, value: u8, cut in 0_usize..8192, pax in "[0-9 a-z=\n]{0,40}"
        ) {
            let mut builder = tar::Builder::new(Vec::new());
            let _ = builder.append_pax_extensions([("path", &b"a"[..])]);
            builder.get_mut()[BLOCK..BLOCK + pax.len()].copy_from_slice(pax.as_bytes());
            append(&mut builder, "b", "content");
            append(&mut builder, &"c".repeat(120), "content");
            let mut bytes = builder.into_inner().unwrap();
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Ok(archive) = open(&bytes) {
                for name in archive.entries.keys() {
                    if let Some(mut file) = archive.open_file(name) {
                        file.read_to_end(&mut Vec::new()).unwrap();
                    }
                }
            }
        }
    }
}
