//! Reading an archive entry by entry.

use std::io::{self, Read};

use formwork_fs::Timestamp;

use super::header::{Block, InvalidNumber, text};
use super::pax::Records;
use super::sparse::{self, MapLines, Run, SparseMap};
use super::{BLOCK, MAX_DESCRIPTION};
use crate::LayerError;
use crate::tree::Xattrs;

/// An entry as the archive describes it. Nothing about names has been checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// The name, without NUL bytes, otherwise anything.
    pub name: Vec<u8>,
    /// What the entry is.
    pub node: ArchiveNode,
    /// The permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// The extended attributes.
    pub xattrs: Xattrs,
}

/// What an entry of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveNode {
    /// A regular file, whose content the reader yields next.
    File {
        /// The number of bytes, holes included.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The text of the link, without NUL bytes.
        target: Vec<u8>,
    },
    /// One more name of another entry.
    HardLink {
        /// The other entry's name, without NUL bytes.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Reads an archive from a stream.
///
/// Uses memory only for what describes one entry, at most some megabytes.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// How far the input has been read.
    offset: u64,
    /// What is left of the current entry's data in the archive, without padding.
    stored: u64,
    /// The zeros between the entry's data and the next header.
    padding: u64,
    /// How far the current entry's content has been read, and how long it is.
    position: u64,
    size: u64,
    sparse: Option<SparseMap>,
    ended: bool,
}

/// What came before a header to complete it.
#[derive(Default)]
struct Extensions {
    pax: Records,
    gnu_name: Option<Vec<u8>>,
    gnu_link_name: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an archive.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            stored: 0,
            padding: 0,
            position: 0,
            size: 0,
            sparse: None,
            ended: false,
        }
    }

    /// The next entry; `None` at the end of the archive. What has not been read of the content of
    /// the entry before is passed over.
    ///
    /// # Errors
    ///
    /// Fails where the input does, and where Go's reader would.
    pub fn next_entry(&mut self) -> Result<Option<ArchiveEntry>, LayerError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let Some(header) = Block::new(&block) else {
                return Err(self.invalid("a header's check sum is wrong"));
            };
            let size = self.size_field(header.size())?;
            match header.kind() {
                b'x' => {
                    let data = self.description(size)?;
                    extensions.pax = Records::parse(&data).map_err(|what| self.invalid(what))?;
                }
                b'g' => {
                    // Read for the sake of its form; see the module's text.
                    let data = self.description(size)?;
                    Records::parse(&data).map_err(|what| self.invalid(what))?;
                }
                b'L' => extensions.gnu_name = Some(self.gnu_name(size)?),
                b'K' => extensions.gnu_link_name = Some(self.gnu_name(size)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Reads some of the content of the current entry; zero at its end.
    ///
    /// # Errors
    ///
    /// Fails where the input does or ends too early.
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let left = self.size - self.position;
        let run = match &mut self.sparse {
            _ if left == 0 => return Ok(0),
            None => Run::Data(left),
            Some(map) => map.run_at(self.position, self.size),
        };
        let count = match run {
            Run::Hole(length) => {
                let count = clamp(length, buffer.len());
                buffer[..count].fill(0);
                count
            }
            Run::Data(length) => {
                let count = clamp(length, buffer.len());
                self.read_exact(&mut buffer[..count])?;
                self.stored -= count as u64;
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }

    /// Reads content until the buffer is full or the content ends; returns how much there was.
    pub(crate) fn read_content_fully(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        loop {
            match self.read_content(&mut buffer[filled..])? {
                0 => return Ok(filled),
                count => filled += count,
            }
        }
    }

    /// Reads what comes after the end of the archive, so that all of the input has been seen.
    ///
    /// # Errors
    ///
    /// Fails where the input does.
    pub fn finish(mut self) -> Result<R, LayerError> {
        let mut buffer = vec![0; SKIP_BUFFER];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(self.input)
    }

    fn entry(
        &mut self,
        header: &Block<'_>,
        extensions: Extensions,
    ) -> Result<ArchiveEntry, LayerError> {
        let Extensions { mut pax, gnu_name, gnu_link_name } = extensions;
        let name = gnu_name.or(pax.path.take()).unwrap_or_else(|| header.name());
        let link_name = gnu_link_name.or(pax.link_path.take());
        let link_name = link_name.unwrap_or_else(|| header.link_name().to_vec());
        let (name, node) = match header.kind() {
            b'1' => (name, ArchiveNode::HardLink { target: link_name }),
            b'2' => (name, ArchiveNode::Symlink { target: link_name }),
            b'3' | b'4' => (name, self.device(header)?),
            b'5' => (name, ArchiveNode::Directory),
            b'6' => (name, ArchiveNode::Fifo),
            // Before ustar, a slash at the end was what made a directory.
            0 if name.ends_with(b"/") => (name, ArchiveNode::Directory),
            0 | b'0' | b'7' | b'S' => {
                let sparse_name = self.start_content(header, &pax)?;
                (sparse_name.unwrap_or(name), ArchiveNode::File { size: self.size })
            }
            _ => {
                let name = String::from_utf8_lossy(&name).into_owned();
                let problem = "is of a kind that layers do not have";
                return Err(LayerError::Entry { name, problem });
            }
        };
        Ok(ArchiveEntry {
            name,
            node,
            mode: (self.field(header.mode())? & 0o7777) as u32,
            uid: self.id_field(pax.uid, header.uid())?,
            gid: self.id_field(pax.gid, header.gid())?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp { seconds: self.field(header.mtime())?, nanoseconds: 0 },
            },
            xattrs: pax.xattrs.into(),
        })
    }

    fn device(&self, header: &Block<'_>) -> Result<ArchiveNode, LayerError> {
        let (major, minor) = self.field(header.device())?;
        let (Ok(major), Ok(minor)) = (u32::try_from(major), u32::try_from(minor)) else {
            return Err(self.invalid("a device number is out of range"));
        };
        Ok(match header.kind() {
            b'3' => ArchiveNode::CharDevice { major, minor },
            _ => ArchiveNode::BlockDevice { major, minor },
        })
    }

    /// Makes the content of a regular file what comes next; returns the name that the records of
    /// a sparse file give.
    fn start_content(
        &mut self,
        header: &Block<'_>,
        pax: &Records,
    ) -> Result<Option<Vec<u8>>, LayerError> {
        let stored = match pax.size {
            Some(size) => self.size_field(Ok(size))?,
            None => self.size_field(header.size())?,
        };
        self.set_stored(stored);
        self.size = stored;
        if header.kind() == b'S' {
            self.read_old_map(header)?;
            return Ok(None);
        }
        let sparse = &pax.sparse;
        let before_data = match (&*sparse.major, &*sparse.minor) {
            (b"1", b"0") => true,
            (b"0", b"0" | b"1") => false,
            (b"", b"") if !sparse.map.is_empty() => false,
            // No sparse file, or one of a version that nobody knows, which is taken as it is.
            _ => return Ok(None),
        };
        let pieces = match before_data {
            true => self.read_map()?,
            false => sparse::parse_list(&sparse.map).ok_or_else(|| self.invalid(BAD_MAP))?,
        };
        let real_size = sparse.real_size.map_or(Ok(stored), |size| self.size_field(Ok(size)))?;
        self.set_sparse(pieces, real_size)?;
        Ok((!sparse.name.is_empty()).then(|| sparse.name.clone()))
    }

    /// The map of the old format: in the header, then in blocks before the data that the size
    /// field does not count.
    fn read_old_map(&mut self, header: &Block<'_>) -> Result<(), LayerError> {
        let bad = |_| self.invalid(BAD_MAP);
        let Some((entries, mut more, real_size)) = header.gnu_sparse() else {
            return Err(self.invalid(BAD_MAP));
        };
        let mut pieces = Vec::new();
        sparse::parse_old(entries, &mut pieces).map_err(bad)?;
        let real_size = self.size_field(real_size)?;
        let mut budget = MAX_DESCRIPTION;
        while more {
            budget = budget.checked_sub(BLOCK as u64).ok_or_else(|| self.invalid(TOO_LARGE))?;
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            sparse::parse_old(&block[..504], &mut pieces).map_err(|_| self.invalid(BAD_MAP))?;
            more = block[504] != 0;
        }
        self.set_sparse(pieces, real_size)
    }

    /// The map of PAX 1.0: the first blocks of the data.
    fn read_map(&mut self) -> Result<Vec<(u64, u64)>, LayerError> {
        let mut lines = MapLines::default();
        let mut budget = MAX_DESCRIPTION;
        loop {
            budget = budget.checked_sub(BLOCK as u64).ok_or_else(|| self.invalid(TOO_LARGE))?;
            let left = self.stored.checked_sub(BLOCK as u64);
            let left = left.ok_or_else(|| self.invalid(BAD_MAP))?;
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            self.stored = left;
            if lines.add(&block).ok_or_else(|| self.invalid(BAD_MAP))? {
                return Ok(lines.pieces());
            }
        }
    }

    fn set_sparse(&mut self, pieces: Vec<(u64, u64)>, real_size: u64) -> Result<(), LayerError> {
        let map = SparseMap::new(pieces, real_size, self.stored);
        self.sparse = Some(map.ok_or_else(|| self.invalid(BAD_MAP))?);
        self.size = real_size;
        Ok(())
    }

    /// The data of an entry that describes the next one.
    fn description(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_DESCRIPTION {
            return Err(self.invalid(TOO_LARGE));
        }
        self.set_stored(size);
        let mut data = vec![0; clamp(size, usize::MAX)];
        self.read_exact(&mut data)?;
        self.stored = 0;
        Ok(data)
    }

    fn gnu_name(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        Ok(text(&self.description(size)?).to_vec())
    }

    fn set_stored(&mut self, size: u64) {
        self.stored = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Passes over what is left of the current entry.
    fn skip_rest(&mut self) -> Result<(), LayerError> {
        // Sizes come from signed numbers, so the sum is far from overflowing.
        let mut left = self.stored + self.padding;
        let mut buffer = [0; SKIP_BUFFER];
        while left > 0 {
            let count = clamp(left, buffer.len());
            self.read_exact(&mut buffer[..count])?;
            left -= count as u64;
        }
        (self.stored, self.padding, self.position, self.size) = (0, 0, 0, 0);
        self.sparse = None;
        Ok(())
    }

    /// The next block; `None` at the end of the archive, which two blocks of zeros or just the
    /// end of the input mark.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        let block = self.block()?;
        if let Some(block) = block
            && block != [0; BLOCK]
        {
            return Ok(Some(block));
        }
        // GNU tar reads on after a single block of zeros, Go does not.
        if block.is_some() && self.block()?.is_some_and(|next| next != [0; BLOCK]) {
            return Err(self.invalid("it goes on after a block of zeros"));
        }
        self.ended = true;
        Ok(None)
    }

    /// The next block, whatever it is; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let count = self.read_some(&mut block)?;
        if count == 0 {
            return Ok(None);
        }
        self.read_exact(&mut block[count..])?;
        Ok(Some(block))
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), LayerError> {
        while !buffer.is_empty() {
            let count = self.read_some(buffer)?;
            if count == 0 {
                return Err(self.invalid("it breaks off"));
            }
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            match self.input.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::from_read(error)),
            }
        }
    }

    fn field<T>(&self, field: Result<T, InvalidNumber>) -> Result<T, LayerError> {
        field.map_err(|InvalidNumber| self.invalid("a number in a header is none"))
    }

    fn size_field(&self, field: Result<i64, InvalidNumber>) -> Result<u64, LayerError> {
        u64::try_from(self.field(field)?).map_err(|_| self.invalid("a size is negative"))
    }

    fn id_field(
        &self,
        pax: Option<i64>,
        field: Result<i64, InvalidNumber>,
    ) -> Result<u32, LayerError> {
        let id = pax.map_or_else(|| self.field(field), Ok)?;
        u32::try_from(id).map_err(|_| self.invalid("an owner's number is out of range"))
    }

    fn invalid(&self, problem: &'static str) -> LayerError {
        LayerError::Archive { offset: self.offset, problem }
    }
}

const SKIP_BUFFER: usize = 16 << 10;
const BAD_MAP: &str = "the map of a sparse file does not fit the file";
const TOO_LARGE: &str = "what describes an entry is larger than one megabyte";

fn clamp(length: u64, limit: usize) -> usize {
    usize::try_from(length).map_or(limit, |length| length.min(limit))
}
