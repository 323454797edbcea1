//! The threads that hash files and write them to a directory.

use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use formwork_fs::{FsError, RelPath, RootDir};

use crate::LayerError;
use crate::disk::{Maker, path_of};
use crate::flow::Buffer;
use crate::holes::SparseFile;
use crate::tree::{ContentHash, Metadata, Node};

/// Something to be made, and where: `None` if nothing is written and only hashes are wanted.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: RelPath,
    pub(super) directory: Option<Arc<RootDir>>,
    pub(super) metadata: Metadata,
}

/// What a thread does at a time.
#[derive(Debug)]
pub(super) enum Job {
    /// Many small things, with the content of the files in one buffer.
    Batch { items: Vec<(Item, Small)>, data: Buffer },
    /// A large file, whose content comes while it is written.
    Large { item: Item, pieces: Receiver<Buffer> },
}

#[derive(Debug)]
pub(super) enum Small {
    /// A file, and where in the buffer its content is.
    File(Range<usize>),
    /// Neither a file nor a directory.
    Node(Node),
}

/// What a job yields: the hashes of the files' contents.
pub(super) type Hashes = Result<Vec<(RelPath, ContentHash)>, LayerError>;

/// Does jobs until there are no more, or one fails.
pub(super) fn work(jobs: Receiver<Job>, results: Sender<Hashes>, maker: &Maker) {
    let results = Results(results);
    for job in jobs {
        let result = match job {
            Job::Batch { items, data } => write_batch(items, &data, maker),
            Job::Large { item, pieces } => write_large(item, pieces, maker).map(|hash| vec![hash]),
        };
        let failed = result.is_err();
        if results.0.send(result).is_err() || failed {
            break;
        }
    }
}

/// A way back that tells of a panic, too: nobody must wait for the result of a job that has none.
struct Results(Sender<Hashes>);

impl Drop for Results {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let stopped = LayerError::Write(io::ErrorKind::BrokenPipe.into());
            let _ = self.0.send(Err(stopped));
        }
    }
}

fn write_batch(items: Vec<(Item, Small)>, data: &[u8], maker: &Maker) -> Hashes {
    let mut hashes = Vec::with_capacity(items.len());
    for (item, small) in items {
        match small {
            Small::File(range) => {
                let content = &data[range];
                if let Some(directory) = &item.directory {
                    write_small(directory, &item, content, maker)?;
                }
                hashes.push((item.path, ContentHash::of(content)));
            }
            Small::Node(node) => {
                if let Some(directory) = &item.directory {
                    maker.make_node(directory, item.path.name(), &node, &item.metadata)?;
                }
            }
        }
    }
    Ok(hashes)
}

fn write_small(
    directory: &RootDir,
    item: &Item,
    content: &[u8],
    maker: &Maker,
) -> Result<(), LayerError> {
    let path = || path_of(directory, item.path.name());
    let mut file = Maker::create(directory, item.path.name())?;
    file.write_all(content).map_err(|error| FsError::new("write", path(), error))?;
    maker.finish(file.as_fd(), &item.metadata, path)
}

fn write_large(
    item: Item,
    pieces: Receiver<Buffer>,
    maker: &Maker,
) -> Result<(RelPath, ContentHash), LayerError> {
    let mut hasher = blake3::Hasher::new();
    match &item.directory {
        None => {
            for piece in pieces {
                hasher.update(&piece);
            }
        }
        Some(directory) => {
            let path = || path_of(directory, item.path.name());
            let failed = |error| FsError::new("write", path(), error);
            let mut file = SparseFile::new(Maker::create(directory, item.path.name())?);
            for piece in pieces {
                hasher.update(&piece);
                file.write(&piece).map_err(failed)?;
            }
            let file = file.finish().map_err(failed)?;
            maker.finish(file.as_fd(), &item.metadata, path)?;
        }
    }
    Ok((item.path, ContentHash(hasher.finalize().into())))
}
