//! A tree that grows entry by entry.

use std::collections::BTreeMap;

use formwork_fs::RelPath;

use super::{Entry, Metadata, Node, Tree};
use crate::LayerError;

/// Collects entries of which a later one replaces an earlier one in the same place.
#[derive(Clone, Debug, Default)]
pub struct TreeBuilder {
    entries: BTreeMap<RelPath, (Node, Metadata)>,
}

impl TreeBuilder {
    /// A tree without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is at a path.
    pub fn get(&self, path: &RelPath) -> Option<(&Node, &Metadata)> {
        self.entries.get(path).map(|(node, metadata)| (node, metadata))
    }

    /// What is at a path, to be changed in place.
    pub fn get_mut(&mut self, path: &RelPath) -> Option<(&mut Node, &mut Metadata)> {
        self.entries.get_mut(path).map(|(node, metadata)| (node, metadata))
    }

    /// Puts an entry in its place.
    ///
    /// A directory keeps what is below the one that it replaces, and stays opaque if that one was;
    /// anything else replaces what it finds with all that is below.
    pub fn insert(&mut self, entry: Entry) {
        let Entry { path, mut node, metadata } = entry;
        match (&mut node, self.entries.get(&path)) {
            (Node::Directory { opaque }, Some((Node::Directory { opaque: was_opaque }, _))) => {
                *opaque |= was_opaque;
            }
            (_, Some((Node::Directory { .. }, _))) => drop(self.remove(&path)),
            _ => {}
        }
        self.entries.insert(path, (node, metadata));
    }

    /// Takes an entry out with all that is below it; the result is in order.
    pub fn remove(&mut self, path: &RelPath) -> Vec<Entry> {
        let below = self.entries.range(path.clone()..).map(|(below, _)| below);
        let gone: Vec<RelPath> =
            below.take_while(|below| below.starts_with(path)).cloned().collect();
        let take = |path: RelPath| {
            let (node, metadata) = self.entries.remove(&path)?;
            Some(Entry { path, node, metadata })
        };
        gone.into_iter().filter_map(take).collect()
    }

    /// The finished tree.
    ///
    /// # Errors
    ///
    /// Fails as [`Tree::new`] does: the builder takes entries in any order, so it cannot know
    /// earlier that a directory is missing.
    pub fn finish(self) -> Result<Tree, LayerError> {
        let entry = |(path, (node, metadata))| Entry { path, node, metadata };
        Tree::new(self.entries.into_iter().map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, opaque, path};
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
        let gone = builder.remove(&path("a"));
        let gone: Vec<_> = gone.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(gone, ["/a", "/a/b", "/a/z"]);
        assert_eq!(builder.finish().unwrap().entries().len(), 1);
    }
}
