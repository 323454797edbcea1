//! The threads between an archive and its blob.
//!
//! ```text
//! archive ──┬─ digest of the archive
//!           └─ compression (several) ── caller: in order ──┬─ sink
//!                                                          └─ digest of the blob
//! ```
//!
//! If the sink fails, the channels close one after the other and all threads end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use formwork_oci::DiffId;
use zstd::zstd_safe::CParameter;

use super::contents::Blocks;
use super::{Compression, Packed};
use crate::LayerError;
use crate::compression::gzip::{MemberWriter, ZeroMember};
use crate::flow::{Block, Pool, Stopped, Unfinished, digest_of, join, start, start_some};

/// How many blocks may be under way beside those that the threads work on.
const QUEUED: usize = 4;
/// How much of an archive one zstd worker takes at a time. Each worker holds some buffers of this
/// size; with the 8 MiB that libzstd would choose, the result would be one percent smaller.
const ZSTD_JOB: u32 = 2 << 20;

/// Packs the archive that `produce` makes.
pub(super) fn run(
    produce: impl FnOnce(Blocks<'_>) -> Result<(), Unfinished> + Send,
    compression: Compression,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, LayerError> {
    let pool = Pool::new(threads + QUEUED);
    std::thread::scope(|scope| {
        let (give_archive, archive) = bounded(QUEUED);
        let (give_to_digest, to_digest) = bounded(QUEUED);
        let archive_digest = start(scope, || digest_of(to_digest)).map_err(LayerError::Write)?;
        let producer = start(scope, || {
            let (archive, digest) = (give_archive, give_to_digest);
            let mut numbers = 0..;
            let mut send = |block: Block| {
                let number = numbers.next().unwrap_or(usize::MAX);
                let sent = digest.send(Arc::clone(&block)).is_ok();
                if sent && archive.send((number, block)).is_ok() { Ok(()) } else { Err(Stopped) }
            };
            produce(Blocks::new(&pool, &mut send))
        })
        .map_err(LayerError::Write)?;
        let (digest, to_digest) = bounded::<Vec<u8>>(QUEUED);
        let blob_digest = start(scope, || digest_of(to_digest)).map_err(LayerError::Write)?;
        let mut blob = Blob { sink, digest };
        let written = match compression {
            Compression::None => write_plain(archive, &mut blob),
            Compression::Gzip { level } => write_gzip(archive, level, threads, &mut blob),
            Compression::Zstd { level } => write_zstd(archive, level, threads, &mut blob),
        };
        drop(blob);
        let produced = join(producer);
        let (diff_id, uncompressed_size) = join(archive_digest);
        let (mut digest, mut size) = join(blob_digest);
        match (produced, written) {
            (Err(Unfinished::Failed(error)), _) | (_, Err(error)) => return Err(error),
            // Only a failure of the sink stops the archive.
            (Ok(()) | Err(Unfinished::Stopped), Ok(())) => {}
        }
        if compression == Compression::None {
            (digest, size) = (diff_id.clone(), uncompressed_size);
        }
        Ok(Packed { diff_id: DiffId(diff_id), digest, size, uncompressed_size })
    })
}

/// A block of the archive with its number.
type Numbered = (usize, Block);

fn write_plain(archive: Receiver<Numbered>, blob: &mut Blob<impl Write>) -> Result<(), LayerError> {
    let write = |(_, block): Numbered| blob.sink.write_all(&block);
    archive.into_iter().try_for_each(write).map_err(LayerError::Write)
}

fn write_gzip(
    archive: Receiver<Numbered>,
    level: u32,
    threads: usize,
    blob: &mut Blob<impl Write>,
) -> Result<(), LayerError> {
    let zeros = ZeroMember::default();
    std::thread::scope(|scope| {
        let (give, members) = unbounded();
        let writer = || {
            let (archive, give, zeros) = (archive.clone(), give.clone(), &zeros);
            move || write_members(archive, level, zeros, give)
        };
        start_some(scope, threads, writer).map_err(LayerError::Write)?;
        drop((archive, give));
        write_in_order(members, blob)
    })
}

fn write_members(
    archive: Receiver<Numbered>,
    level: u32,
    zeros: &ZeroMember,
    members: Sender<(Numbered, Vec<u8>)>,
) {
    let mut writer = MemberWriter::new(level);
    for (number, block) in archive {
        let member = writer.member(&block, zeros);
        if members.send(((number, block), member)).is_err() {
            break;
        }
    }
}

/// Writes members in the order of their numbers. Each comes with its block, which is kept until
/// the member is written: so the size of the pool bounds what waits for its turn, too.
fn write_in_order(
    members: Receiver<(Numbered, Vec<u8>)>,
    blob: &mut Blob<impl Write>,
) -> Result<(), LayerError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for ((number, block), member) in members {
        early.insert(number, (block, member));
        while let Some((_, member)) = early.remove(&next) {
            blob.put(member).map_err(LayerError::Write)?;
            next += 1;
        }
    }
    Ok(())
}

fn write_zstd(
    archive: Receiver<Numbered>,
    level: i32,
    threads: usize,
    blob: &mut Blob<impl Write>,
) -> Result<(), LayerError> {
    let write = || -> io::Result<()> {
        let mut encoder = zstd::stream::write::Encoder::new(blob, level.clamp(1, 22))?;
        // Never zero: without workers libzstd gives other bytes.
        encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
        encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
        for (_, block) in archive {
            encoder.write_all(&block)?;
        }
        encoder.finish().map(drop)
    };
    write().map_err(LayerError::Write)
}

/// The sink, and the thread that computes the digest of what goes there.
struct Blob<W> {
    sink: W,
    digest: Sender<Vec<u8>>,
}

impl<W: Write> Blob<W> {
    fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.sink.write_all(&bytes)?;
        // The other end goes away only by a panic, which is passed on when the thread is joined.
        let _ = self.digest.send(bytes);
        Ok(())
    }
}

impl<W: Write> Write for Blob<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes.to_vec())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
