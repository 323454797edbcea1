//! Reading an archive entry by entry.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use formwork_fs::Timestamp;

use crate::header::{Block, InvalidNumber, text};
use crate::pax::Records;
use crate::sparse::{self, MapLines, Run, SparseMap};
use crate::{BLOCK, Entry, MAX_DESCRIPTION, Node, TarError};

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
    pub fn next_entry(&mut self) -> Result<Option<Entry<'static>>, TarError> {
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
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
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
    ///
    /// # Errors
    ///
    /// Fails as [`Reader::read_content`] does.
    pub fn read_content_fully(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        loop {
            match self.read_content(&mut buffer[filled..])? {
                0 => return Ok(filled),
                count => filled += count,
            }
        }
    }

    /// Where in the archive the content of the current entry lies, before any of it has been read;
    /// `None` for a sparse file, whose content lies in pieces.
    pub fn content_range(&self) -> Option<Range<u64>> {
        let end = self.offset.checked_add(self.stored)?;
        self.sparse.is_none().then_some(self.offset..end)
    }

    /// Reads what comes after the end of the archive, so that all of the input has been seen.
    ///
    /// # Errors
    ///
    /// Fails where the input does.
    pub fn finish(mut self) -> Result<R, TarError> {
        let mut buffer = vec![0; SKIP_BUFFER];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(self.input)
    }

    fn entry(
        &mut self,
        header: &Block<'_>,
        extensions: Extensions,
    ) -> Result<Entry<'static>, TarError> {
        let Extensions { mut pax, gnu_name, gnu_link_name } = extensions;
        let name = gnu_name.or(pax.path.take()).unwrap_or_else(|| header.name());
        let link_name = gnu_link_name.or(pax.link_path.take());
        let link_name = link_name.unwrap_or_else(|| header.link_name().to_vec());
        let (name, node) = match header.kind() {
            b'1' => (name, Node::HardLink { target: link_name.into() }),
            b'2' => (name, Node::Symlink { target: link_name.into() }),
            b'3' | b'4' => (name, self.device(header)?),
            b'5' => (name, Node::Directory),
            b'6' => (name, Node::Fifo),
            // Before ustar, a slash at the end was what made a directory.
            0 if name.ends_with(b"/") => (name, Node::Directory),
            0 | b'0' | b'7' | b'S' => {
                let sparse_name = self.start_content(header, &pax)?;
                (sparse_name.unwrap_or(name), Node::File { size: self.size })
            }
            kind => {
                self.set_stored(self.stored_size(header, &pax)?);
                (name, Node::Other { kind })
            }
        };
        Ok(Entry {
            name: name.into(),
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

    fn device(&self, header: &Block<'_>) -> Result<Node<'static>, TarError> {
        let (major, minor) = self.field(header.device())?;
        let (Ok(major), Ok(minor)) = (u32::try_from(major), u32::try_from(minor)) else {
            return Err(self.invalid("a device number is out of range"));
        };
        Ok(match header.kind() {
            b'3' => Node::CharDevice { major, minor },
            _ => Node::BlockDevice { major, minor },
        })
    }

    /// Makes the content of a regular file what comes next; returns the name that the records of
    /// a sparse file give.
    fn start_content(
        &mut self,
        header: &Block<'_>,
        pax: &Records,
    ) -> Result<Option<Vec<u8>>, TarError> {
        let stored = self.stored_size(header, pax)?;
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

    fn stored_size(&self, header: &Block<'_>, pax: &Records) -> Result<u64, TarError> {
        self.size_field(pax.size.map_or_else(|| header.size(), Ok))
    }

    /// The map of the old format: in the header, then in blocks before the data that the size
    /// field does not count.
    fn read_old_map(&mut self, header: &Block<'_>) -> Result<(), TarError> {
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
    fn read_map(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
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

    fn set_sparse(&mut self, pieces: Vec<(u64, u64)>, real_size: u64) -> Result<(), TarError> {
        let map = SparseMap::new(pieces, real_size, self.stored);
        self.sparse = Some(map.ok_or_else(|| self.invalid(BAD_MAP))?);
        self.size = real_size;
        Ok(())
    }

    /// The data of an entry that describes the next one.
    fn description(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_DESCRIPTION {
            return Err(self.invalid(TOO_LARGE));
        }
        self.set_stored(size);
        let mut data = vec![0; clamp(size, usize::MAX)];
        self.read_exact(&mut data)?;
        self.stored = 0;
        Ok(data)
    }

    fn gnu_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        Ok(text(&self.description(size)?).to_vec())
    }

    fn set_stored(&mut self, size: u64) {
        self.stored = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Passes over what is left of the current entry.
    fn skip_rest(&mut self) -> Result<(), TarError> {
        // Sizes come from signed numbers, so the sum is far from overflowing.
        let mut left = self.stored + self.padding;
        let mut buffer = [0; SKIP_BUFFER];
        while left > 0 {
            let count = clamp(left, buffer.len());
            self.read_exact(&mut buffer[..count])?;
            left -= count as u64;
        }
        self.end_content();
        Ok(())
    }

    fn end_content(&mut self) {
        (self.stored, self.padding, self.position, self.size) = (0, 0, 0, 0);
        self.sparse = None;
    }

    /// The next block; `None` at the end of the archive, which two blocks of zeros or just the
    /// end of the input mark.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
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
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let count = self.read_some(&mut block)?;
        if count == 0 {
            return Ok(None);
        }
        self.read_exact(&mut block[count..])?;
        Ok(Some(block))
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), TarError> {
        while !buffer.is_empty() {
            let count = self.read_some(buffer)?;
            if count == 0 {
                return Err(self.invalid("it breaks off"));
            }
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.input.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
    }

    fn field<T>(&self, field: Result<T, InvalidNumber>) -> Result<T, TarError> {
        field.map_err(|InvalidNumber| self.invalid("a number in a header is none"))
    }

    fn size_field(&self, field: Result<i64, InvalidNumber>) -> Result<u64, TarError> {
        u64::try_from(self.field(field)?).map_err(|_| self.invalid("a size is negative"))
    }

    fn id_field(
        &self,
        pax: Option<i64>,
        field: Result<i64, InvalidNumber>,
    ) -> Result<u32, TarError> {
        let id = pax.map_or_else(|| self.field(field), Ok)?;
        u32::try_from(id).map_err(|_| self.invalid("an owner's number is out of range"))
    }

    fn invalid(&self, problem: &'static str) -> TarError {
        TarError::Invalid { offset: self.offset, problem }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over what is left of the current entry without reading it, so that an archive is
    /// listed at the cost of its headers. What lies beyond the end of the input is not missed.
    ///
    /// # Errors
    ///
    /// Fails where the input does.
    pub fn seek_past_content(&mut self) -> Result<(), TarError> {
        let left = self.stored + self.padding;
        let distance = i64::try_from(left).map_err(|_| self.invalid("an entry is too large"))?;
        self.input.seek(SeekFrom::Current(distance)).map_err(TarError::Read)?;
        self.offset = self.offset.saturating_add(left);
        self.end_content();
        Ok(())
    }
}

const SKIP_BUFFER: usize = 16 << 10;
const BAD_MAP: &str = "the map of a sparse file does not fit the file";
const TOO_LARGE: &str = "what describes an entry is larger than one megabyte";

fn clamp(length: u64, limit: usize) -> usize {
    usize::try_from(length).map_or(limit, |length| length.min(limit))
}
