//! A tree that grows entry by entry.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};

use formwork_fs::RelPath;

use super::names::Names;
use super::{Entry, Metadata, Node, Tree};
use crate::LayerError;

/// Collects entries of which a later one replaces an earlier one in the same place.
#[derive(Clone, Debug, Default)]
pub struct TreeBuilder {
    entries: BTreeMap<RelPath, (Node, Metadata)>,
    /// Entries behind all of those, in order: most come so, and need not be sorted in.
    tail: Vec<(RelPath, (Node, Metadata))>,
    names: Names,
}

/// What went when an entry was removed from a [`TreeBuilder`].
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// Files that have moved to the place of what was a hard link to them: old and new place.
    pub moved: Vec<(RelPath, RelPath)>,
}

impl TreeBuilder {
    /// A tree without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is at a path.
    pub fn get(&self, path: &RelPath) -> Option<(&Node, &Metadata)> {
        let found = match self.in_tail(path) {
            Some(at) => at.ok().map(|at| &self.tail[at].1),
            None => self.entries.get(path),
        };
        found.map(|(node, metadata)| (node, metadata))
    }

    /// What is at a path, to be changed in place, but not to become something else.
    pub fn get_mut(&mut self, path: &RelPath) -> Option<(&mut Node, &mut Metadata)> {
        let found = match self.in_tail(path) {
            Some(at) => at.ok().map(|at| &mut self.tail[at].1),
            None => self.entries.get_mut(path),
        };
        found.map(|(node, metadata)| (node, metadata))
    }

    /// Puts an entry in its place.
    ///
    /// A directory keeps what is below the one that it replaces, and stays opaque if that one was.
    /// Anything else replaces what it finds with all that is below; other names of a file that is
    /// replaced keep the file. The target of a hard link may be inserted later.
    pub fn insert(&mut self, entry: Entry) {
        let Entry { path, mut node, metadata } = entry;
        if self.is_behind_all(&path) {
            if let Node::HardLink { target } = &node {
                self.names.add_link(path.clone(), target);
            }
            self.tail.push((path, (node, metadata)));
            return;
        }
        self.sort_in();
        match self.entries.entry(path) {
            Vacant(vacant) => {
                if let Node::HardLink { target } = &node {
                    self.names.add_link(vacant.key().clone(), target);
                }
                vacant.insert((node, metadata));
            }
            Occupied(mut occupied) => match (&mut node, &occupied.get().0) {
                (Node::Directory { opaque }, Node::Directory { opaque: was_opaque }) => {
                    *opaque |= was_opaque;
                    occupied.insert((node, metadata));
                }
                _ => {
                    let path = occupied.key().clone();
                    self.remove(&path);
                    self.insert(Entry { path, node, metadata });
                }
            },
        }
    }

    /// Takes an entry out with all that is below it.
    pub fn remove(&mut self, path: &RelPath) -> Removed {
        self.sort_in();
        let below = self.entries.range(path.clone()..).map(|(below, _)| below);
        let gone: Vec<RelPath> =
            below.take_while(|below| below.starts_with(path)).cloned().collect();
        let take = |path: RelPath| {
            let (node, metadata) = self.entries.remove(&path)?;
            Some(Entry { path, node, metadata })
        };
        let entries: Vec<Entry> = gone.into_iter().filter_map(take).collect();
        let (links, files): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| matches!(entry.node, Node::HardLink { .. }));
        // All links that go must have gone before one is chosen to become a file.
        links.into_iter().for_each(|link| self.names.remove_link(&link.path));
        let mut moved = Vec::new();
        for Entry { path, node, metadata } in files {
            if let Some(heir) = self.names.remove_file(path) {
                self.entries.insert(heir.clone(), (node.clone(), metadata.clone()));
                moved.push((path.clone(), heir));
            }
        }
        Removed { entries, moved }
    }

    /// All hard links, in order, with the places where their files are now.
    pub fn links(&self) -> Vec<(RelPath, RelPath)> {
        self.names.links()
    }

    /// The finished tree.
    ///
    /// # Errors
    ///
    /// Fails as [`Tree::new`] does: the builder takes entries in any order, so it cannot know
    /// earlier that a directory is missing.
    pub fn finish(mut self) -> Result<Tree, LayerError> {
        for (link, file) in self.names.links() {
            if let Some((node, _)) = self.get_mut(&link) {
                *node = Node::HardLink { target: file };
            }
        }
        let entry = |(path, (node, metadata))| Entry { path, node, metadata };
        Tree::new(self.entries.into_iter().chain(self.tail).map(entry).collect())
    }

    /// Where a path is in the tail, or would be; `None` if it is before it.
    fn in_tail(&self, path: &RelPath) -> Option<Result<usize, usize>> {
        let (first, last) = (&self.tail.first()?.0, &self.tail.last()?.0);
        if path > last {
            return Some(Err(self.tail.len()));
        }
        (path >= first).then(|| self.tail.binary_search_by(|(at, _)| at.cmp(path)))
    }

    fn is_behind_all(&self, path: &RelPath) -> bool {
        let in_order = self.entries.last_key_value().map(|(last, _)| last);
        self.tail.last().map(|(last, _)| last).or(in_order).is_none_or(|last| path > last)
    }

    /// Puts the tail among the other entries.
    fn sort_in(&mut self) {
        self.entries.extend(self.tail.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, link, opaque, path, tree};
    use super::*;

    fn built(entries: impl IntoIterator<Item = Entry>) -> Vec<String> {
        let mut builder = TreeBuilder::new();
        entries.into_iter().for_each(|entry| builder.insert(entry));
        let tree = builder.finish().unwrap();
        tree.entries().iter().map(|entry| entry.path.to_string()).collect()
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        assert_eq!(built([dir("a"), file("a/b", ""), file("a", "")]), ["/a"]);
        assert_eq!(built([file("a", ""), dir("a"), file("a/b", "")]), ["/a", "/a/b"]);
        assert_eq!(built([dir("a"), file("a/b", ""), file("a-b", ""), dir("a")]).len(), 3);
    }

    #[test]
    fn entries_are_found_and_sorted_in_whatever_order_they_come() {
        let all = ["a", "a/b", "a-b", "c", "c/d", "e"].map(|name| match name {
            "a" | "c" => dir(name),
            _ => file(name, name),
        });
        for start in 0..all.len() {
            for step in [1, 5] {
                let mut builder = TreeBuilder::new();
                let order: Vec<usize> = (0..all.len()).map(|at| (start + at * step) % 6).collect();
                for (count, at) in order.iter().enumerate() {
                    assert_eq!(builder.get(&all[*at].path), None);
                    builder.insert(all[*at].clone());
                    for known in &order[..=count] {
                        let Entry { path, node, .. } = &all[*known];
                        assert_eq!(builder.get(path).unwrap().0, node);
                        assert!(builder.get_mut(path).is_some());
                    }
                }
                assert_eq!(builder.finish().unwrap().entries(), all);
            }
        }
    }

    #[test]
    fn an_opaque_directory_stays_opaque() {
        let mut builder = TreeBuilder::new();
        builder.insert(opaque("a"));
        builder.insert(dir("a"));
        assert_eq!(builder.get(&path("a")).unwrap().0, &Node::Directory { opaque: true });
    }

    #[test]
    fn what_is_removed_comes_back_in_order() {
        let mut builder = TreeBuilder::new();
        [dir("a"), file("a/z", ""), file("a/b", ""), file("b", "")]
            .into_iter()
            .for_each(|entry| builder.insert(entry));
        let gone = builder.remove(&path("a")).entries;
        let gone: Vec<_> = gone.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(gone, ["/a", "/a/b", "/a/z"]);
        assert_eq!(builder.finish().unwrap().entries().len(), 1);
    }

    #[test]
    fn a_link_keeps_the_file_that_is_replaced() {
        let mut builder = TreeBuilder::new();
        for entry in [file("a", "old"), link("b", "a"), link("c", "b"), file("a", "new")] {
            builder.insert(entry);
        }
        assert_eq!(builder.links(), [(path("b"), path("c"))]);
        let tree = builder.finish().unwrap();
        let node = |at: &str| tree.get(&path(at)).unwrap().node.clone();
        assert_eq!(node("a"), file("", "new").node);
        assert_eq!(node("b"), file("", "old").node);
        assert_eq!(node("c"), Node::HardLink { target: path("b") });
    }

    #[test]
    fn links_go_with_the_directory_that_their_file_is_in() {
        let mut builder = TreeBuilder::new();
        let entries = [dir("d"), file("d/a", "x"), link("d/b", "d/a"), link("e", "d/b")];
        entries.into_iter().for_each(|entry| builder.insert(entry));
        let removed = builder.remove(&path("d"));
        assert_eq!(removed.entries.len(), 3);
        assert_eq!(removed.moved, [(path("d/a"), path("e"))]);
        assert_eq!(builder.finish().unwrap(), tree([file("e", "x")]));
    }
}
