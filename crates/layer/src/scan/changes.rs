//! What a process has changed in a directory that holds a whole root file system.
//!
//! Where no overlay collects the changes, they are found by looking at every entry before and
//! after, and at the content of those alone whose metadata differ. Whatever is done to a file sets
//! its `ctime`, which no process can set back; what has replaced a file has another inode.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use formwork_fs::{FileKind, FileStat, Follow, RelPath, RootDir, Verdict, WalkEntry, walk};
use rustix::fs::{AtFlags, StatxFlags};

use super::is_large;
use super::upper::{examine, metadata, root, with_record, with_records};
use crate::LayerError;
use crate::flow;
use crate::tree::{Entry, Metadata, Node, Origin, Tree, Xattrs};

/// What a directory held at one moment: the metadata of all that is in it.
#[derive(Clone, Debug, Default)]
pub struct Census(Vec<Seen>);

#[derive(Clone, Debug)]
struct Seen {
    entry: WalkEntry,
    /// When a directory, or a file with several names, was made, where the file system knows: numbers
    /// of inodes are used again.
    birth: Option<(i64, u32)>,
}

impl Seen {
    fn new(directory: &RootDir, entry: WalkEntry) -> Self {
        let counts = entry.stat.is_dir() || entry.stat.links > 1;
        let birth = counts.then(|| birth(directory, &entry.path)).flatten();
        Self { entry, birth }
    }
}

fn birth(directory: &RootDir, path: &RelPath) -> Option<(i64, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(directory, path.as_path(), flags, StatxFlags::BTIME).ok()?;
    let is_known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    is_known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

impl Census {
    /// Looks at a directory, with up to `threads` threads, but not at some of the paths in it.
    ///
    /// # Errors
    ///
    /// Fails where something cannot be read.
    pub fn take(
        directory: &RootDir,
        ignored: &[RelPath],
        threads: usize,
    ) -> Result<Self, LayerError> {
        let judge = |path: &RelPath, _| match ignored.contains(path) {
            true => Verdict::Prune,
            false => Verdict::Keep,
        };
        let entries = with_records(directory, walk(directory, &judge, threads)?, threads)?;
        Ok(Self(entries.into_iter().map(|entry| Seen::new(directory, entry)).collect()))
    }

    /// Looks again at one path, whose change is nothing to be told of.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be looked at.
    pub fn note(&mut self, directory: &RootDir, path: &RelPath) -> Result<(), LayerError> {
        let stat = match directory.stat(path, Follow::Never)? {
            None => None,
            Some(stat) => {
                Some(with_record(directory, WalkEntry { path: path.clone(), stat })?.stat)
            }
        };
        match (self.position(path), stat) {
            (Ok(at), Some(stat)) => self.0[at].entry.stat = stat,
            (Ok(at), None) => drop(self.0.remove(at)),
            (Err(at), Some(stat)) => {
                let entry = WalkEntry { path: path.clone(), stat };
                self.0.insert(at, Seen::new(directory, entry));
            }
            (Err(_), None) => {}
        }
        Ok(())
    }

    /// Takes what it says of a path and all below it out of it.
    #[must_use]
    pub fn cut(&mut self, path: &RelPath) -> Self {
        let start = self.position(path).unwrap_or_else(|at| at);
        let rest = &self.0[start..];
        let length = rest.partition_point(|seen| seen.entry.path.starts_with(path));
        Self(self.0.drain(start..start + length).collect())
    }

    /// Puts back what was taken out.
    pub fn paste(&mut self, part: Self) {
        let Some(first) = part.0.first() else { return };
        let at = self.position(&first.entry.path).unwrap_or_else(|at| at);
        self.0.splice(at..at, part.0);
    }

    /// The numbers of the files that have several names.
    pub fn linked(&self) -> Vec<u64> {
        let stats = self.0.iter().map(|seen| &seen.entry.stat);
        let linked = stats.filter(|stat| stat.kind == FileKind::Regular && stat.links > 1);
        let mut numbers: Vec<u64> = linked.map(|stat| stat.inode).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// What is known of a path.
    pub fn get(&self, path: &RelPath) -> Option<&FileStat> {
        self.position(path).ok().map(|at| &self.0[at].entry.stat)
    }

    fn position(&self, path: &RelPath) -> Result<usize, usize> {
        self.0.binary_search_by(|seen| seen.entry.path.cmp(path))
    }
}

/// The layer that makes of what a directory held before what it holds after, with up to `threads`
/// threads. The files' bytes stay where they are.
///
/// The rules of [`scan_upper`](crate::scan_upper) hold. As on an overlay, names that a file had
/// before are files of their own once it has changed, and further names that it has got are hard
/// links.
///
/// # Errors
///
/// Fails where something cannot be read.
pub fn scan_changes(
    origin: &Arc<Origin>,
    root_below: &Metadata,
    before: &Census,
    after: &Census,
    threads: usize,
) -> Result<Tree, LayerError> {
    let mut changes = Changes::find(before, after);
    changes.add_ways(after);
    let listed: Vec<(&WalkEntry, bool)> = after
        .0
        .iter()
        .zip(&changes.marks)
        .filter(|(_, mark)| **mark != Mark::Same)
        .map(|(seen, mark)| (&seen.entry, *mark == Mark::Opaque))
        .collect();
    let links = links(&changes, before, after);
    let nodes = flow::map(
        &listed,
        threads,
        |(entry, _)| is_large(entry),
        |(entry, opaque)| match links.get(&entry.path) {
            _ if entry.stat.is_dir() => {
                Ok(Some((Node::Directory { opaque: *opaque }, Xattrs::default())))
            }
            Some(target) => {
                Ok(Some((Node::HardLink { target: (*target).clone() }, Xattrs::default())))
            }
            None => examine(origin, entry),
        },
    )?;
    let mut tree: Vec<Entry> = Vec::with_capacity(listed.len() + changes.removed.len() + 1);
    tree.extend(root(origin, root_below)?);
    tree.extend(listed.iter().zip(nodes).filter_map(|((entry, _), node)| {
        let (node, xattrs) = node?;
        Some(Entry { path: entry.path.clone(), node, metadata: metadata(&entry.stat, xattrs) })
    }));
    tree.extend(changes.removed.into_iter().map(|path| Entry {
        path: path.clone(),
        node: Node::Whiteout,
        metadata: Metadata::default(),
    }));
    Tree::new(tree)
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Same,
    Changed,
    /// A directory in the place of something that was there before.
    Opaque,
}

struct Changes<'a> {
    /// For each entry of the census afterwards.
    marks: Vec<Mark>,
    /// The topmost paths that are gone.
    removed: Vec<&'a RelPath>,
}

impl<'a> Changes<'a> {
    fn find(before: &'a Census, after: &'a Census) -> Self {
        let mut changes = Self { marks: vec![Mark::Same; after.0.len()], removed: Vec::new() };
        // The last path that was replaced or removed: nothing below it is told one by one.
        let mut gone: Option<&RelPath> = None;
        let mut new: Option<&RelPath> = None;
        let (mut b, mut a) = (0, 0);
        while b < before.0.len() || a < after.0.len() {
            let order = match (before.0.get(b), after.0.get(a)) {
                (Some(old), Some(new)) => old.entry.path.cmp(&new.entry.path),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            let is_in = |path: &RelPath, top: Option<&RelPath>| {
                top.is_some_and(|top| path.starts_with(top))
            };
            if order == Ordering::Less {
                let old = &before.0[b].entry;
                if !is_in(&old.path, gone) {
                    changes.removed.push(&old.path);
                    gone = Some(&old.path);
                }
            } else if order == Ordering::Greater {
                changes.marks[a] = Mark::Changed;
            } else {
                let is_replaced = !is_same(&before.0[b], &after.0[a]);
                let (old, found) = (&before.0[b].entry, &after.0[a].entry);
                if is_in(&found.path, new) || is_replaced || has_changed(&old.stat, &found.stat) {
                    changes.marks[a] = Mark::Changed;
                }
                if is_replaced && !is_in(&found.path, new) {
                    gone = Some(&old.path);
                    if found.stat.is_dir() {
                        new = Some(&found.path);
                        changes.marks[a] = Mark::Opaque;
                    }
                }
            }
            b += usize::from(order != Ordering::Greater);
            a += usize::from(order != Ordering::Less);
        }
        changes
    }

    /// The directories that lead to something that has changed belong to the layer, too.
    fn add_ways(&mut self, after: &Census) {
        let listed = after.0.iter().zip(&self.marks).filter(|(_, mark)| **mark != Mark::Same);
        let paths: Vec<&RelPath> =
            listed.map(|(seen, _)| &seen.entry.path).chain(self.removed.iter().copied()).collect();
        for path in paths {
            let mut next = path.parent();
            while let Some(above) = next.filter(|path| !path.is_root()) {
                match after.position(&above) {
                    Ok(at) if self.marks[at] == Mark::Same => self.marks[at] = Mark::Changed,
                    _ => break,
                }
                next = above.parent();
            }
        }
    }
}

fn is_same(old: &Seen, new: &Seen) -> bool {
    let (stat, now) = (&old.entry.stat, &new.entry.stat);
    let is_another = matches!((old.birth, new.birth), (Some(old), Some(new)) if old != new);
    (stat.device, stat.inode, stat.kind) == (now.device, now.inode, now.kind) && !is_another
}

/// What a file takes on the disk may change later by itself.
fn has_changed(old: &FileStat, new: &FileStat) -> bool {
    *old != FileStat { allocated: old.allocated, ..*new }
}

/// Which of the names that are new or changed are further names of others.
fn links<'a>(
    changes: &Changes<'_>,
    before: &Census,
    after: &'a Census,
) -> HashMap<&'a RelPath, &'a RelPath> {
    let was_there = |seen: &Seen| {
        before.position(&seen.entry.path).is_ok_and(|at| is_same(&before.0[at], seen))
    };
    let listed = after.0.iter().zip(&changes.marks).filter(|(_, mark)| **mark != Mark::Same);
    let stat = |seen: &Seen| seen.entry.stat;
    let several = listed.map(|(seen, _)| seen);
    let several = several.filter(|seen| stat(seen).links > 1 && !stat(seen).is_dir());
    let (old, new): (Vec<_>, Vec<_>) = several.partition(|seen| was_there(seen));
    let mut first: HashMap<(u64, u64), &RelPath> = HashMap::new();
    for Seen { entry, .. } in old {
        first.entry((entry.stat.device, entry.stat.inode)).or_insert(&entry.path);
    }
    let mut links = HashMap::new();
    for Seen { entry, .. } in new {
        let target = *first.entry((entry.stat.device, entry.stat.inode)).or_insert(&entry.path);
        if *target != entry.path {
            links.insert(&entry.path, target);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell script changes in a directory, one line an entry.
    fn changes(script: &str) -> Vec<String> {
        let directory = crate::tree::testing::temporary();
        let shell = |script: &str| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-ec", script]).current_dir(directory.path());
            assert!(shell.status().unwrap().success(), "{script}");
        };
        shell(
            "mkdir -p d/e f g; echo 1 > d/e/one; echo 2 > d/two; echo 3 > f/three; ln f/three \
             f/link; ln -s d l; mkdir ignored",
        );
        let root = || RootDir::open(directory.path()).unwrap();
        let ignored = [RelPath::new("ignored").unwrap()];
        let before = Census::take(&root(), &ignored, 2).unwrap();
        shell(script);
        let after = Census::take(&root(), &ignored, 2).unwrap();
        let stat = root().stat(&RelPath::root(), Follow::Never).unwrap().unwrap();
        let below = metadata(&stat, Xattrs::default());
        let tree = scan_changes(&Origin::layer(root()), &below, &before, &after, 2).unwrap();
        let show = |entry: &Entry| match &entry.node {
            Node::File(file) => format!("{} {}", entry.path, file.size),
            Node::Directory { opaque: true } => format!("{}/ opaque", entry.path),
            Node::Directory { .. } => format!("{}/", entry.path),
            Node::Symlink { .. } => format!("{} ->", entry.path),
            Node::HardLink { target } => format!("{} = {target}", entry.path),
            Node::Whiteout => format!("{} gone", entry.path),
            node => format!("{} {node:?}", entry.path),
        };
        // Paths show with the root in front.
        tree.entries()
            .iter()
            .map(show)
            .map(|line| line.trim_start_matches('/').replace("= /", "= "))
            .collect()
    }

    #[test]
    fn what_changed_is_told_with_the_way_to_it_and_nothing_else() {
        for (script, expected) in [
            ("true", &[][..]),
            ("cat d/two > /dev/null; echo x > ignored/x", &[]),
            ("echo 22 > d/two", &["d/", "d/two 3"]),
            ("chmod 600 d/e/one", &["d/", "d/e/", "d/e/one 2"]),
            ("rm d/e/one", &["d/", "d/e/", "d/e/one gone"]),
            ("rm -r d", &["d gone"]),
            ("rm -r d; mkdir d; echo > d/new", &["d/ opaque", "d/new 1"]),
            ("rm -r d; echo > d", &["d 1"]),
            ("rm l; mkdir l", &["l/ opaque"]),
            ("mv d m", &["d gone", "m/", "m/e/", "m/e/one 2", "m/two 2"]),
            ("rm -r d; mv f d", &["d/ opaque", "d/link 2", "d/three = d/link", "f gone"]),
            ("mkdir -p new/er; ln -s x new/l", &["new/", "new/er/", "new/l ->"]),
            ("echo > g/x; rm g/x", &["g/"]),
        ] {
            assert_eq!(changes(script), expected, "{script}");
        }
    }

    #[test]
    fn names_from_before_are_files_of_their_own_and_new_ones_are_links() {
        let expected = ["f/", "f/link 2", "f/three 2"];
        assert_eq!(changes("chmod 600 f/three"), expected);
        let expected = ["f/", "f/link 2", "f/three 2", "f/x = f/link"];
        assert_eq!(changes("ln f/three f/x"), expected);
        assert_eq!(changes("echo > f/a; ln f/a f/b"), ["f/", "f/a 1", "f/b = f/a"]);
    }
}
