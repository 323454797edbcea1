//! The thread that reads an archive and says what is to be made.
//!
//! Directories are made here, at once, and get their metadata at the end. Everything else is made
//! by the writers, except for hard links and deletions, which are made at the end: by then all
//! that links lead to is there. If an entry takes the place of an earlier one, which is rare, all
//! that has been begun is finished first.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use formwork_fs::{Follow, RelPath, RootDir};
use formwork_tar::Reader;

use super::layout::{Layout, Request};
use super::writers::{Hashes, Item, Job, Small};
use crate::LayerError;
use crate::disk::{self, Maker};
use crate::flow::{Buffer, Pool};
use crate::tree::{Entry, Metadata, Node, Tree};

/// Files up to this size are handed to the writers together with others.
const SMALL: u64 = 128 << 10;
/// How much content and how many things make a batch.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ITEMS: usize = 32;
/// How large the pieces are in which larger files are handed over, and how many of them may wait.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;
/// How many directories are kept open.
const OPEN_DIRECTORIES: usize = 64;

/// How many buffers are needed for some jobs to be under way.
pub(super) fn buffers(jobs: usize) -> usize {
    // Beside them, there are the batch that is being filled and the pieces of a large file.
    jobs + 2 + PIECES
}

/// An archive on its way to a directory, or just to a tree.
pub(super) struct Unpacker<'a> {
    pub(super) layout: Layout,
    pub(super) target: Option<Target<'a>>,
    pub(super) writers: Writers<'a>,
    /// How many more bytes all files together may have.
    pub(super) size_left: u64,
}

/// The directory of the layer, and those in it that are open.
pub(super) struct Target<'a> {
    root: &'a RootDir,
    maker: &'a Maker,
    open: HashMap<RelPath, Arc<RootDir>>,
}

/// The threads that do the jobs.
pub(super) struct Writers<'a> {
    jobs: Sender<Job>,
    results: Receiver<Hashes>,
    /// How many jobs there are whose results have not come yet.
    under_way: usize,
    pool: &'a Pool,
    batch: Vec<(Item, Small)>,
    data: Buffer,
}

impl Unpacker<'_> {
    /// Unpacks everything; returns the tree and the directories that the archive only implied.
    pub(super) fn run(
        mut self,
        archive: impl Read,
        threads: usize,
    ) -> Result<(Tree, BTreeSet<RelPath>), LayerError> {
        let mut reader = Reader::new(archive);
        while let Some(entry) = reader.next_entry()? {
            let (request, implied) = self.layout.read(entry)?;
            for path in &implied {
                self.make_directory(path)?;
            }
            match request {
                Request::Put(entry) => self.put(entry, &mut reader)?,
                Request::Hide(path) => self.layout.hide(path),
                Request::HideContents(path) => self.layout.hide_contents(path)?,
                Request::Ignore => {}
            }
        }
        reader.finish()?;
        self.settle()?;
        let Self { layout, target, .. } = self;
        let links = layout.tree.links();
        let tree = layout.tree.finish()?;
        if let Some(mut target) = target {
            for (link, file) in &links {
                target.link(tree.get(file), file, link)?;
            }
            target.finish(&tree, threads)?;
        }
        Ok((tree, layout.implied))
    }

    fn put(&mut self, entry: Entry, reader: &mut Reader<impl Read>) -> Result<(), LayerError> {
        if self.layout.is_taken(&entry.path, &entry.node) {
            self.settle()?;
            self.remove(&entry.path)?;
        }
        match &entry.node {
            Node::Directory { .. } => {
                let exists = self.layout.tree.get(&entry.path);
                if !exists.is_some_and(|(node, _)| node.is_directory()) {
                    self.make_directory(&entry.path)?;
                }
            }
            // The tree remembers it; the file may not be there yet.
            Node::HardLink { .. } => {}
            Node::File(file) => {
                self.size_left = self.size_left.checked_sub(file.size).ok_or_else(|| {
                    let problem = "is larger than a layer may be here";
                    LayerError::Entry { name: entry.path.to_string(), problem }
                })?;
                let item = self.item(&entry)?;
                self.write_file(item, file.size, reader)?;
            }
            node => {
                let small = Small::Node(node.clone());
                let item = self.item(&entry)?;
                self.writers.add(item, small)?;
            }
        }
        self.layout.insert(entry);
        self.take_results(false)
    }

    fn item(&mut self, entry: &Entry) -> Result<Item, LayerError> {
        let (path, metadata) = (entry.path.clone(), entry.metadata.clone());
        let directory = match &mut self.target {
            Some(target) => Some(target.directory_of(&path)?),
            None => None,
        };
        Ok(Item { path, directory, metadata })
    }

    fn write_file(
        &mut self,
        item: Item,
        size: u64,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), LayerError> {
        if size <= SMALL {
            return self.writers.add_file(item, size as usize, reader);
        }
        let (give, pieces) = bounded(PIECES);
        self.writers.send(Job::Large { item, pieces })?;
        loop {
            let mut piece = self.writers.pool.take();
            piece.resize(PIECE, 0);
            let count = reader.read_content_fully(&mut piece)?;
            piece.truncate(count);
            if count == 0 {
                return Ok(());
            }
            give.send(piece).map_err(|_| self.writers.failure())?;
        }
    }

    /// Waits until all that has been begun is done.
    fn settle(&mut self) -> Result<(), LayerError> {
        self.writers.flush()?;
        self.take_results(true)
    }

    /// Takes the results that have come, or all.
    fn take_results(&mut self, all: bool) -> Result<(), LayerError> {
        while self.writers.under_way > 0 {
            let result = match all {
                true => self.writers.results.recv().map_err(drop),
                false => self.writers.results.try_recv().map_err(drop),
            };
            let Ok(result) = result else { break };
            self.writers.under_way -= 1;
            for (path, hash) in result? {
                if let Some((Node::File(file), _)) = self.layout.tree.get_mut(&path) {
                    file.content = hash;
                }
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &RelPath) -> Result<(), LayerError> {
        match &mut self.target {
            // The root is there.
            Some(target) if !path.is_root() => {
                Maker::create_directory(&*target.directory_of(path)?, path.name())
            }
            _ => Ok(()),
        }
    }

    /// Removes what is at a path, with all that is below; nothing may be under way.
    fn remove(&mut self, path: &RelPath) -> Result<(), LayerError> {
        let removed = self.layout.tree.remove(path);
        let Some(target) = &mut self.target else { return Ok(()) };
        for (from, to) in &removed.moved {
            target.link(None, from, to)?;
        }
        target.remove(&removed.entries)
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(root: &'a RootDir, maker: &'a Maker) -> Self {
        Self { root, maker, open: HashMap::new() }
    }

    /// The directory that a path lies in.
    fn directory_of(&mut self, path: &RelPath) -> Result<Arc<RootDir>, LayerError> {
        let parent = path.parent().unwrap_or_default();
        if let Some(open) = self.open.get(&parent) {
            return Ok(Arc::clone(open));
        }
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        let directory = Arc::new(self.root.open_dir(&parent, Follow::Never)?);
        self.open.insert(parent, Arc::clone(&directory));
        Ok(directory)
    }

    fn link(
        &mut self,
        entry: Option<&Entry>,
        from: &RelPath,
        to: &RelPath,
    ) -> Result<(), LayerError> {
        let directory = self.directory_of(to)?;
        let from = (&*self.directory_of(from)?, from.name());
        Maker::link_entry(entry, from, (&*directory, to.name()))
            .map_err(|errno| disk::failed("link", &directory, to.name(), errno))
    }

    /// Removes entries, which are in order.
    fn remove(&mut self, gone: &[Entry]) -> Result<(), LayerError> {
        for entry in gone.iter().rev().filter(|entry| entry.node != Node::Whiteout) {
            disk::remove(&*self.directory_of(&entry.path)?, entry.path.name(), &entry.node)?;
        }
        self.open.clear();
        Ok(())
    }

    /// Makes what is left: deletions, and the metadata of directories, which nothing changes now.
    fn finish(mut self, tree: &Tree, threads: usize) -> Result<(), LayerError> {
        for entry in tree.entries().iter().filter(|entry| entry.node == Node::Whiteout) {
            let directory = self.directory_of(&entry.path)?;
            let metadata = Metadata::default();
            self.maker.make_node(&directory, entry.path.name(), &entry.node, &metadata)?;
        }
        self.maker.finish_directories(self.root, tree, threads, true)
    }
}

impl<'a> Writers<'a> {
    pub(super) fn new(jobs: Sender<Job>, results: Receiver<Hashes>, pool: &'a Pool) -> Self {
        Self { jobs, results, under_way: 0, pool, batch: Vec::new(), data: new_batch(pool) }
    }

    /// Adds something without content to the batch.
    fn add(&mut self, item: Item, small: Small) -> Result<(), LayerError> {
        self.make_room(0)?;
        self.batch.push((item, small));
        Ok(())
    }

    /// Adds a small file with its content to the batch.
    fn add_file(
        &mut self,
        item: Item,
        size: usize,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), LayerError> {
        self.make_room(size)?;
        let start = self.data.len();
        self.data.resize(start + size, 0);
        reader.read_content_fully(&mut self.data[start..])?;
        self.batch.push((item, Small::File(start..start + size)));
        Ok(())
    }

    fn make_room(&mut self, size: usize) -> Result<(), LayerError> {
        let is_full = self.batch.len() >= BATCH_ITEMS || self.data.len() + size > BATCH_BYTES;
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Hands the batch over.
    fn flush(&mut self) -> Result<(), LayerError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut self.batch);
        let data = std::mem::replace(&mut self.data, new_batch(self.pool));
        self.send(Job::Batch { items, data })
    }

    fn send(&mut self, job: Job) -> Result<(), LayerError> {
        // Threads go away only after they have failed.
        self.jobs.send(job).map_err(|_| self.failure())?;
        self.under_way += 1;
        Ok(())
    }

    /// Why a thread has stopped.
    fn failure(&self) -> LayerError {
        let failure = self.results.iter().find_map(Result::err);
        failure.unwrap_or_else(|| LayerError::Write(io::ErrorKind::BrokenPipe.into()))
    }
}

fn new_batch(pool: &Pool) -> Buffer {
    let mut data = pool.take();
    data.clear();
    data
}
