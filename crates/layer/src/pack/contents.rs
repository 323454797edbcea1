//! The archive of a tree as a sequence of equal blocks.

use std::io::Read;
use std::sync::Arc;

use formwork_fs::FsError;
use formwork_tar as tar;
use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};

use crate::LayerError;
use crate::archive::{Times, put_entry};
use crate::compression::gzip::MEMBER;
use crate::compression::reader;
use crate::flow::{self, Block, Buffer, Pool, Stopped, Unfinished};
use crate::tree::{Bytes, ContentHash, Entry, File, Neighbours, Node, Tree};

/// Collects an archive in blocks of [`MEMBER`] bytes, the last of which may be shorter.
pub(super) struct Blocks<'a> {
    pool: &'a Pool,
    current: Buffer,
    send: &'a mut dyn FnMut(Block) -> Result<(), Stopped>,
}

/// Larger files are read when it is their turn. Small ones are read ahead by several threads, since
/// opening them takes longer than reading them.
const SMALL: u64 = 128 << 10;
/// From which size on a piece of an archive that is read ahead is large enough.
const PIECE: u64 = 512 << 10;
/// How many threads read ahead at most: together they are faster than the digest is computed.
const READERS: usize = 4;

/// Writes the archive of a tree, with up to `threads` threads that read files.
pub(super) fn write_archive(
    tree: &Tree,
    times: Times,
    threads: usize,
    mut blocks: Blocks<'_>,
) -> Result<(), Unfinished> {
    let read = |piece: &&[Entry], archive: &mut Vec<u8>| {
        let mut neighbours = Neighbours::default();
        for entry in *piece {
            put_entry(archive, entry, times)?;
            if let Some(file) = file_of(entry).filter(|file| file.size <= SMALL) {
                put_content(file, &mut neighbours, archive)?;
                archive.extend_from_slice(&tar::END[..tar::padding(file.size)]);
            }
        }
        Ok(())
    };
    flow::read_ahead(&pieces(tree), threads.min(READERS), read, |piece, archive| {
        blocks.write(archive)?;
        if let Some(file) = piece.last().and_then(file_of).filter(|file| file.size > SMALL) {
            write_content(file, &mut blocks)?;
            blocks.write(&tar::END[..tar::padding(file.size)])?;
        }
        Ok::<_, Unfinished>(())
    })?;
    blocks.write(&tar::END)?;
    blocks.finish()?;
    Ok(())
}

fn file_of(entry: &Entry) -> Option<&File> {
    if let Node::File(file) = &entry.node { Some(file) } else { None }
}

/// The entries in pieces; if one has a file that is not read ahead, that is its last.
fn pieces(tree: &Tree) -> Vec<&[Entry]> {
    let mut size = 0;
    let pieces = tree.entries().split_inclusive(|entry| {
        let content = file_of(entry).map_or(0, |file| file.size);
        size += tar::BLOCK as u64 + content;
        let is_full = content > SMALL || size >= PIECE;
        if is_full {
            size = 0;
        }
        is_full
    });
    pieces.collect()
}

/// Passes the archive in a blob on as it is.
pub(super) fn copy_archive(blob: impl Read, mut blocks: Blocks<'_>) -> Result<(), Unfinished> {
    let mut archive = reader(blob)?;
    loop {
        let read = |block: &mut Vec<u8>| {
            let room = MEMBER.saturating_sub(block.len()) as u64;
            (&mut archive).take(room).read_to_end(block)
        };
        if blocks.fill(u64::MAX, read)?.map_err(LayerError::Read)?.is_empty() {
            break;
        }
    }
    blocks.finish()?;
    Ok(())
}

/// Appends what a small file holds.
fn put_content(
    file: &File,
    neighbours: &mut Neighbours,
    archive: &mut Vec<u8>,
) -> Result<(), LayerError> {
    if let Bytes::Inline(bytes) = &file.bytes {
        archive.extend_from_slice(bytes);
        return Ok(());
    }
    if file.size == 0 {
        return Ok(());
    }
    let source = neighbours.open(file)?;
    let start = archive.len();
    let end = start + usize::try_from(file.size).unwrap_or(usize::MAX);
    archive.reserve(end - start);
    while archive.len() < end {
        let count = retry_on_intr(|| rustix::io::read(&source, spare_capacity(archive)))
            .map_err(|errno| FsError::new("read", file.display_path(), errno))?;
        if count == 0 {
            break;
        }
        // What was added since is not part of the file that was looked at.
        archive.truncate(end);
    }
    match ContentHash::of(&archive[start..]) == file.content {
        true => Ok(()),
        false => Err(LayerError::Changed { path: file.display_path() }),
    }
}

fn write_content(file: &File, blocks: &mut Blocks<'_>) -> Result<(), Unfinished> {
    if file.size == 0 {
        return Ok(());
    }
    if let Bytes::Inline(bytes) = &file.bytes {
        return Ok(blocks.write(bytes)?);
    }
    let changed = || LayerError::Changed { path: file.display_path() };
    let source = file.open().map_err(LayerError::from)?;
    let mut hasher = blake3::Hasher::new();
    let mut position = 0;
    while position < file.size {
        let piece = blocks
            .fill(file.size - position, |block| {
                retry_on_intr(|| pread(&source, spare_capacity(block), position))
            })?
            .map_err(|errno| FsError::new("read", file.display_path(), errno))
            .map_err(LayerError::from)?;
        if piece.is_empty() {
            return Err(changed().into());
        }
        hasher.update(piece);
        position += piece.len() as u64;
    }
    match ContentHash(hasher.finalize().into()) == file.content {
        true => Ok(()),
        false => Err(changed().into()),
    }
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        pool: &'a Pool,
        send: &'a mut dyn FnMut(Block) -> Result<(), Stopped>,
    ) -> Self {
        Self { pool, current: new_block(pool), send }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            self.make_room()?;
            let count = bytes.len().min(MEMBER - self.current.len());
            let (now, later) = bytes.split_at(count);
            self.current.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Lets `read` append to the current block, and keeps at most `limit` bytes of what it
    /// appended, which are returned. What is not kept must be read again.
    fn fill<E>(
        &mut self,
        limit: u64,
        mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<Result<&[u8], E>, Stopped> {
        self.make_room()?;
        let start = self.current.len();
        if let Err(error) = read(&mut self.current) {
            return Ok(Err(error));
        }
        let limit = usize::try_from(limit).unwrap_or(MEMBER).saturating_add(start);
        self.current.truncate(limit.min(MEMBER));
        Ok(Ok(&self.current[start..]))
    }

    /// Hands a full block on and takes an empty one.
    fn make_room(&mut self) -> Result<(), Stopped> {
        if self.current.len() < MEMBER {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.current, new_block(self.pool));
        (self.send)(Arc::new(full))
    }

    fn finish(self) -> Result<(), Stopped> {
        (self.send)(Arc::new(self.current))
    }
}

fn new_block(pool: &Pool) -> Buffer {
    let mut block = pool.take();
    block.clear();
    block.reserve_exact(MEMBER);
    block
}
