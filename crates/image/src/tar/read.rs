//! The index of an archive: which file is where.
//!
//! The archive is walked once, header by header, without reading the data between them; then files
//! are read by position, by several threads if they like. Memory and work are bounded whatever the
//! archive claims.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_fs::{FsError, RelPath};
use rustix::fs::{CWD, Mode, OFlags};

use super::{BLOCK, POSIX_MAGIC, checksum, field};
use crate::{BlobBytes, ImageError};

/// The largest number of headers; an image of a thousand layers has some four thousand.
const HEADER_LIMIT: usize = 1 << 17;
/// The longest name that is indexed; those in images' archives have some 150 bytes.
const NAME_LIMIT: usize = 512;
/// The largest extended header.
const EXTENSION_LIMIT: u64 = 1 << 20;
/// How many links lead to a file at most.
const LINK_LIMIT: usize = 8;

/// An archive that is open for reading by position.
#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    path: PathBuf,
    entries: BTreeMap<RelPath, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
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
        let length = file.metadata().map_err(|error| FsError::new("examine", path, error))?.len();
        let mut walk = Walk { file: &file, path, length, position: 0, next: Overrides::default() };
        let mut entries = BTreeMap::new();
        let mut headers = 0;
        while let Some(found) = walk.step()? {
            headers += 1;
            if headers > HEADER_LIMIT {
                return Err(walk.wrong(format!("it has more than {HEADER_LIMIT} entries")));
            }
            if let Some((name, entry)) = found {
                entries.insert(name, entry);
            }
        }
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
                Entry::File { offset, size } => {
                    return Some(BlobBytes::range(Arc::clone(&self.file), *offset, *size));
                }
                Entry::Link(target) => name = target,
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
    let reason = if metadata.is_dir() {
        "it is a directory; if it is an image layout, read it as one"
    } else {
        "it is no regular file; save it to one first, since its parts are read in any order"
    };
    Err(ImageError::Unreadable { path: path.to_owned(), reason: reason.to_owned() })
}

/// Goes from header to header.
struct Walk<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
    position: u64,
    /// What extended headers said about the entry that comes next.
    next: Overrides,
}

#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// An entry that is worth remembering.
type Found = Option<(RelPath, Entry)>;

impl Walk<'_> {
    /// Takes the next header; `None` at the archive's end.
    fn step(&mut self) -> Result<Option<Found>, ImageError> {
        let Some(header) = self.header()? else { return Ok(None) };
        let kind = header[field::TYPE];
        let stated = number(&header[field::SIZE])
            .ok_or_else(|| self.wrong("an entry's size is no number".to_owned()))?;
        let is_extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
        let overrides =
            if is_extension { Overrides::default() } else { std::mem::take(&mut self.next) };
        let size = match kind {
            // Links, devices and directories have no data, whatever their headers say.
            b'1'..=b'6' => 0,
            _ => overrides.size.unwrap_or(stated),
        };
        let offset = self.position + BLOCK as u64;
        let end = offset.checked_add(size).filter(|end| *end <= self.length).ok_or_else(|| {
            self.wrong(format!(
                "it is cut off: an entry needs {size} bytes, {} are left",
                self.length - offset
            ))
        })?;
        if is_extension {
            self.extend(kind, offset, size)?;
        }
        self.position = end.next_multiple_of(BLOCK as u64);
        let name = overrides.name.clone().unwrap_or_else(|| full_name(&header));
        Ok(Some(entry(kind, &name, &header, overrides, offset, size)))
    }

    fn header(&self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let is_first = self.position == 0;
        let mut header = [0; BLOCK];
        let left = self.length.saturating_sub(self.position);
        let there = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        self.read_at(&mut header[..there], self.position)?;
        let is_valid = number(&header[field::CHECKSUM]) == Some(checksum(&header).into());
        match there {
            _ if is_first && !is_valid => Err(self.not_tar(&header)),
            // Two blocks of zeros end an archive; many writers forget about them.
            _ if header == [0; BLOCK] => Ok(None),
            BLOCK if is_valid => Ok(Some(header)),
            BLOCK => Err(self.wrong("a header is damaged: its checksum is wrong".to_owned())),
            _ => Err(self.wrong("it is cut off in the middle of a header".to_owned())),
        }
    }

    /// Takes in what an extended header says about the entry that comes next.
    fn extend(&mut self, kind: u8, offset: u64, size: u64) -> Result<(), ImageError> {
        if size > EXTENSION_LIMIT {
            return Err(self.wrong(format!("an extended header has {size} bytes")));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_at(&mut data, offset)?;
        match kind {
            b'L' => self.next.name = Some(until_nul(&data).to_vec()),
            b'K' => self.next.link = Some(until_nul(&data).to_vec()),
            b'x' => pax_records(&data, &mut self.next)
                .ok_or_else(|| self.wrong("an extended header is damaged".to_owned()))?,
            // A global header is about the archive: a comment, mostly.
            _ => {}
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<(), ImageError> {
        self.file.read_exact_at(buffer, position).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.wrong("it became shorter meanwhile".to_owned()),
            _ => FsError::new("read", self.path, error).into(),
        })
    }

    fn wrong(&self, reason: String) -> ImageError {
        let reason = format!("{reason} (at byte {}); copy or save it again", self.position);
        ImageError::Unreadable { path: self.path.to_owned(), reason }
    }

    /// The first bytes of other things that users take for archives.
    fn not_tar(&self, header: &[u8; BLOCK]) -> ImageError {
        let reason = match header {
            [0x1f, 0x8b, ..] => "it is compressed; decompress it first with `gunzip`",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed; decompress it first with `unzstd`",
            [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                "it is compressed; decompress it first with `unxz`"
            }
            [b'B', b'Z', b'h', ..] => "it is compressed; decompress it first with `bunzip2`",
            _ => "it is no tar archive",
        };
        ImageError::Unreadable { path: self.path.to_owned(), reason: reason.to_owned() }
    }
}

/// What to remember of an entry: files and links with names that stay inside the archive.
fn entry(
    kind: u8,
    name: &[u8],
    header: &[u8; BLOCK],
    overrides: Overrides,
    offset: u64,
    size: u64,
) -> Found {
    if name.len() > NAME_LIMIT || name.ends_with(b"/") {
        return None;
    }
    let name = RelPath::new(name).ok().filter(|name| !name.is_root())?;
    let link = || overrides.link.unwrap_or_else(|| until_nul(&header[field::LINK]).to_vec());
    let entry = match kind {
        b'0' | 0 | b'7' => Entry::File { offset, size },
        b'1' => Entry::Link(RelPath::clean(link()).ok()?),
        b'2' => {
            let (directory, _) = name.split_name();
            Entry::Link(RelPath::clean([directory, b"/", &link()].concat()).ok()?)
        }
        _ => return None,
    };
    Some((name, entry))
}

fn full_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[field::NAME]);
    let prefix = until_nul(&header[field::PREFIX]);
    if header[field::MAGIC] == *POSIX_MAGIC && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in GNU's binary form for those that are too large for digits.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        return high
            .iter()
            .all(|byte| *byte == 0)
            .then_some(u64::from_be_bytes(low.try_into().ok()?));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let digits = str::from_utf8(&digits[..end]).ok()?;
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// Reads records of the form `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn pax_records(mut data: &[u8], overrides: &mut Overrides) -> Option<()> {
    while !data.is_empty() && data != [0] {
        let space = data.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => overrides.name = Some(value.to_vec()),
            b"linkpath" => overrides.link = Some(value.to_vec()),
            b"size" => overrides.size = Some(str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
        data = &data[length..];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

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
        builder.append_pax_extensions([("path", &b"nul\0name"[..])]).unwrap();
        append(&mut builder, "n", "");
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
            let mut bytes = vec![];
            let mut lying = header(tar::EntryType::XHeader, 1 << 40);
            lying.set_cksum();
            bytes.extend(lying.as_bytes());
            bytes.resize(3 * BLOCK, 0);
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
            (&damaged, "checksum is wrong (at byte 1024)"),
            (&huge, "an entry needs 99999999999999 bytes"),
            (&extended, "an entry needs 1099511627776 bytes"),
            (&whole[..1500], "an entry needs 2000 bytes, 988 are left"),
            (&[&whole[..BLOCK * 5], b"garbage"].concat(), "in the middle of a header"),
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
        let bytes = header.as_bytes().repeat(HEADER_LIMIT + 1);
        let message = open(&bytes).unwrap_err().to_string();
        assert!(message.contains("entries"), "{message}");
    }

    #[test]
    fn numbers_are_read_in_both_forms() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"99999999", None),
            (b"12 34\0", Some(0o12)),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
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
