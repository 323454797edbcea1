//! The blob of a layer becomes a directory and a tree.
//!
//! Threads hand data to each other: one decompresses (several, where the blob is of our own
//! making), one computes the digest of the archive, one reads the archive and says what is to be
//! made, and several hash the files and write them. Memory is bounded by the number of buffers.
//!
//! Whatever an archive says, nothing outside of the directory is touched: names are resolved in
//! the tree that is being built, and what results is opened beneath the directory's descriptor
//! with symbolic links refused.

mod implied;
mod layout;
mod unpack;
mod writers;

use std::io::{self, Read};

use crossbeam_channel::{Receiver, bounded, unbounded};
use formwork_fs::{RelPath, RootDir};
use formwork_oci::DiffId;

pub use implied::adopt_implied;

use crate::LayerError;
use crate::compression::decode::{self, decode};
use crate::disk::{Maker, Omitted, Ownership};
use crate::flow::{Block, Pool, Stopped, Unfinished, digest_of, join, start, start_some};
use crate::tree::Tree;
use layout::Layout;
use unpack::{Target, Unpacker, Writers};

/// How an archive is read.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// What names mean that begin with `.wh.`.
    pub whiteouts: Whiteouts,
    /// How many bytes all files together may have. A sparse file can claim any size in a few
    /// bytes; by default the limit is a tebibyte, far beyond any layer.
    pub max_size: u64,
    /// How many threads may write, and how many may decompress, at once.
    pub threads: usize,
}

/// What names mean that begin with `.wh.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Deletions, as in the layers of images (OCI `layer.md`, "Whiteouts").
    Interpret,
    /// Nothing: they are the names of files, as in any other archive.
    Literal,
}

/// A layer that has been unpacked.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What it holds. Where the bytes of the files are is not said: see [`Tree::with_bytes`].
    pub tree: Tree,
    /// The digest of the archive.
    pub diff_id: DiffId,
    /// The size of the archive in bytes.
    pub uncompressed_size: u64,
    /// The directories that the archive does not describe although something lies in them. See
    /// [`adopt_implied`].
    pub implied: Vec<RelPath>,
    /// What the tree holds and the directory could not take.
    pub omitted: Omitted,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { whiteouts: Whiteouts::Interpret, max_size: 1 << 40, threads }
    }
}

/// How many blocks of the archive, and how many jobs, may wait.
const QUEUED: usize = 4;

/// Unpacks a layer into an empty directory, as overlayfs takes it for a lower one.
///
/// The format is recognised by its first bytes: gzip, zstd, bzip2, xz, or a plain archive. The
/// caller compares the diff ID with the one that it expects.
///
/// Where an archive says something twice, the later entry counts. An entry in a directory that the
/// same archive has made a symbolic link goes where the link points, as in containerd, but always
/// inside the layer. Deletions apply to layers below only, wherever in the archive they stand.
/// `user.overlay.*` attributes are left out: they would make the directory mean something else.
///
/// # Errors
///
/// Fails where the blob cannot be read or decompressed, where it is not an archive, where an entry
/// leads out of the layer or contradicts another, and where the directory cannot be written. The
/// directory then holds part of the layer.
pub fn apply(
    blob: impl Read + Send,
    directory: &RootDir,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    run(blob, Some(directory), options)
}

/// Reads a layer and writes nothing: what [`apply`] does, without a directory.
///
/// # Errors
///
/// Fails as [`apply`] does.
pub fn index(blob: impl Read + Send, options: &ApplyOptions) -> Result<Applied, LayerError> {
    run(blob, None, options)
}

fn run(
    blob: impl Read + Send,
    directory: Option<&RootDir>,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    let threads = options.threads.max(1);
    let maker = &Maker::new(Ownership::Exact);
    let contents = Pool::new(unpack::buffers(QUEUED + threads));
    let blocks = &Pool::new(decode::buffers(threads) + 2 * QUEUED);
    std::thread::scope(|scope| {
        let (give_digest, to_digest) = bounded::<Block>(QUEUED);
        let digest = start(scope, || digest_of(to_digest)).map_err(LayerError::Read)?;
        let (give_archive, archive) = bounded(QUEUED);
        let read = move || {
            let mut send = |block: Block| {
                give_digest.send(Block::clone(&block)).map_err(|_| Stopped)?;
                give_archive.send(Ok(block)).map_err(|_| Stopped)
            };
            if let Err(Unfinished::Failed(error)) = decode(blob, threads, blocks, &mut send) {
                // If nobody wants to know, something else has failed before.
                let _ = give_archive.send(Err(error));
            }
        };
        start(scope, read).map_err(LayerError::Read)?;
        let (give_jobs, jobs) = bounded(QUEUED);
        let (give_results, results) = unbounded();
        let writer = || {
            let (jobs, results) = (jobs.clone(), give_results.clone());
            move || writers::work(jobs, results, maker)
        };
        start_some(scope, threads, writer).map_err(LayerError::Read)?;
        drop((jobs, give_results));
        let unpacker = Unpacker {
            layout: Layout::new(options.whiteouts),
            target: directory.map(|root| Target::new(root, maker)),
            writers: Writers::new(give_jobs, results, &contents),
            size_left: options.max_size,
        };
        let (tree, implied) = unpacker.run(Blocks { archive, block: None }, threads)?;
        let (digest, uncompressed_size) = join(digest);
        let (diff_id, implied) = (DiffId(digest), implied.into_iter().collect());
        Ok(Applied { tree, diff_id, uncompressed_size, implied, omitted: maker.omitted() })
    })
}

/// The archive as a stream.
struct Blocks {
    archive: Receiver<Result<Block, LayerError>>,
    /// The current block, and how much of it has been read.
    block: Option<(Block, usize)>,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((block, position)) = &mut self.block {
                let rest = &block[*position..];
                if !rest.is_empty() {
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    *position += count;
                    return Ok(count);
                }
            }
            // The block goes back to its pool before the next one is waited for.
            self.block = None;
            match self.archive.recv() {
                Ok(Ok(block)) => self.block = Some((block, 0)),
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(_) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
