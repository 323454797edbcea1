//! Moving entries from one tree to a place in another.

use std::collections::{HashMap, HashSet};

use formwork_fs::RelPath;
use formwork_pattern::{Ignore, PathPattern};

use super::{Composer, CopyOptions, in_the_way};
use crate::LayerError;
use crate::scan::CAPABILITY;
use crate::tree::{Entry, Metadata, Node};

/// How some entries are moved.
pub(super) struct Transfer<'a> {
    pub(super) options: &'a CopyOptions<'a>,
    /// What is copied; `None` for everything.
    pub(super) include: Option<&'a PathPattern>,
    pub(super) conflict: Conflict<'a>,
}

/// What happens when something else is in the place of an entry.
#[derive(Clone, Copy)]
pub(super) enum Conflict<'a> {
    /// The copy fails if one of the two is a directory.
    Refuse,
    /// The new entry replaces it. Implied directories stand for whatever directory is there.
    Replace { implied: &'a [RelPath] },
}

/// What is to be done about an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Copy,
    /// Copy the directory only if something in it is copied.
    IfUsed,
    LeaveOut,
}

/// A directory whose entries are being moved.
struct Open {
    source: RelPath,
    target: RelPath,
    /// The directory itself, until something in it is copied.
    unused: Option<Entry>,
}

/// What is known of files that have further names.
#[derive(Default)]
struct Links {
    /// Files that hard links lead to.
    wanted: HashSet<RelPath>,
    /// Where such files have gone.
    placed: HashMap<RelPath, RelPath>,
    /// Such files that were left out.
    left_out: HashMap<RelPath, Node>,
}

impl Transfer<'_> {
    /// Moves what is in a directory to another one, which exists.
    pub(super) fn contents(
        &self,
        composer: &mut Composer<'_>,
        entries: Vec<Entry>,
        source: &RelPath,
        target: &RelPath,
    ) -> Result<(), LayerError> {
        let mut links = Links::of(&entries);
        let mut open = vec![Open { source: source.clone(), target: target.clone(), unused: None }];
        for entry in entries.into_iter().filter(|entry| entry.path != *source) {
            let verdict = self.judge(&entry, source);
            while open.pop_if(|open| !entry.path.starts_with(&open.source)).is_some() {}
            let (parent, name) = entry.path.split_name();
            let Some(directory) = open.last().filter(|open| open.source.as_bytes() == parent)
            else {
                // What it lies in was left out, and so is this.
                links.leave_out(entry);
                continue;
            };
            match verdict {
                Verdict::LeaveOut => links.leave_out(entry),
                Verdict::IfUsed => {
                    let target = directory.target.join(name);
                    open.push(Open { source: entry.path.clone(), target, unused: Some(entry) });
                }
                Verdict::Copy => {
                    let target = self.use_directories(composer, &mut open)?.join(name);
                    let source = entry.path.clone();
                    if entry.node.is_directory() {
                        let target = self.directory(composer, entry, target)?;
                        open.push(Open { source, target, unused: None });
                    } else {
                        let entry = links.resolve(entry, &target);
                        self.single(composer, entry, target)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts something that is not a directory in a place.
    pub(super) fn single(
        &self,
        composer: &mut Composer<'_>,
        entry: Entry,
        target: RelPath,
    ) -> Result<(), LayerError> {
        if let Conflict::Refuse = self.conflict
            && composer.look(&target).is_some_and(Node::is_directory)
        {
            return Err(in_the_way(&target, "a directory is there, and a file cannot replace it"));
        }
        let metadata = adjusted(entry.metadata, &entry.node, self.options);
        composer.put(Entry { path: target, node: entry.node, metadata }, self.options)
    }

    /// Puts a directory in a place; returns where what is in it goes.
    fn directory(
        &self,
        composer: &mut Composer<'_>,
        entry: Entry,
        target: RelPath,
    ) -> Result<RelPath, LayerError> {
        let is_implied = match self.conflict {
            Conflict::Refuse => false,
            Conflict::Replace { implied } => implied.binary_search(&entry.path).is_ok(),
        };
        let mut opaque = false;
        match composer.look(&target) {
            None => {}
            Some(Node::Directory { .. }) if is_implied => return Ok(target),
            Some(Node::Directory { .. }) => {}
            Some(_) if matches!(self.conflict, Conflict::Refuse) => {
                let problem = "something that is not a directory is there, and a directory cannot \
                               replace it";
                return Err(in_the_way(&target, problem));
            }
            Some(Node::Symlink { .. }) if is_implied => {
                let resolved = composer.resolve(&target)?;
                if composer.look(&resolved).is_some_and(Node::is_directory) {
                    return Ok(resolved);
                }
            }
            // What hid a directory of a layer below must go on hiding what was in it.
            Some(_) => {
                let below = composer.below.lookup(&target);
                opaque = below.is_some_and(|found| found.node().is_directory());
            }
        }
        let node = Node::Directory { opaque };
        let metadata = adjusted(entry.metadata, &node, self.options);
        composer.put(Entry { path: target.clone(), node, metadata }, self.options)?;
        Ok(target)
    }

    /// Puts directories in their places that something is copied into now; returns the place of
    /// the innermost.
    fn use_directories(
        &self,
        composer: &mut Composer<'_>,
        open: &mut [Open],
    ) -> Result<RelPath, LayerError> {
        let mut parent = RelPath::root();
        for directory in open {
            if let Some(entry) = directory.unused.take() {
                let target = parent.join(directory.source.name());
                directory.target = self.directory(composer, entry, target)?;
            }
            parent = directory.target.clone();
        }
        Ok(parent)
    }

    /// Whether anything at all is copied.
    pub(super) fn has_any(&self, entries: &[Entry], source: &RelPath) -> bool {
        let mut below = entries.iter().filter(|entry| entry.path != *source);
        below.any(|entry| self.judge(entry, source) == Verdict::Copy)
    }

    /// Whether something that is copied by its name is left out.
    pub(super) fn is_excluded(&self, name: &[u8]) -> bool {
        self.options.exclude.is_some_and(|exclude| exclude.judge(name, false) != Ignore::Keep)
    }

    fn judge(&self, entry: &Entry, source: &RelPath) -> Verdict {
        let path = entry.path.strip_prefix(source).unwrap_or_default();
        let (path, is_directory) = (path.as_bytes(), entry.node.is_directory());
        match self.options.exclude.map_or(Ignore::Keep, |rules| rules.judge(path, is_directory)) {
            Ignore::Exclude => Verdict::LeaveOut,
            Ignore::ExcludeButDescend => Verdict::IfUsed,
            Ignore::Keep => match self.include {
                None => Verdict::Copy,
                Some(include) if include.matches_or_parent(path) => Verdict::Copy,
                Some(include) if is_directory && include.may_match_below(path) => Verdict::IfUsed,
                Some(_) => Verdict::LeaveOut,
            },
        }
    }
}

impl Links {
    fn of(entries: &[Entry]) -> Self {
        let targets = entries.iter().filter_map(|entry| match &entry.node {
            Node::HardLink { target } => Some(target.clone()),
            _ => None,
        });
        Self { wanted: targets.collect(), ..Self::default() }
    }

    fn leave_out(&mut self, entry: Entry) {
        if self.wanted.contains(&entry.path) {
            self.left_out.insert(entry.path, entry.node);
        }
    }

    /// An entry with its hard link leading to where the file is now. If the file itself was left
    /// out, its first name that is not becomes the file.
    fn resolve(&mut self, mut entry: Entry, target: &RelPath) -> Entry {
        if let Node::HardLink { target: file } = &entry.node {
            let file = file.clone();
            if let Some(placed) = self.placed.get(&file) {
                entry.node = Node::HardLink { target: placed.clone() };
            } else if let Some(node) = self.left_out.remove(&file) {
                entry.node = node;
                self.placed.insert(file, target.clone());
            }
        } else if self.wanted.contains(&entry.path) {
            self.placed.insert(entry.path.clone(), target.clone());
        }
        entry
    }
}

/// The metadata that a copy has.
pub(super) fn adjusted(mut metadata: Metadata, node: &Node, options: &CopyOptions<'_>) -> Metadata {
    if let Some(owner) = options.owner {
        (metadata.uid, metadata.gid) = (owner.uid, owner.gid);
    }
    if let Some(mode) = &options.mode
        && !matches!(node, Node::Symlink { .. })
    {
        metadata.mode = mode.apply(metadata.mode, node.is_directory());
    }
    metadata.xattrs = metadata.xattrs.filtered(|name| name == CAPABILITY);
    metadata
}
