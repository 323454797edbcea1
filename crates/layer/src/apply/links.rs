//! The hard links of an archive while it is being read.
//!
//! A link may come before the file that it leads to, may lead to another link, and the file may be
//! replaced after a link to it was made, which leaves the link with the old content. So names of
//! one file are kept as a group, whose file is found where the group's first name is at present.

use std::collections::HashMap;

use formwork_fs::RelPath;

use crate::tree::{Entry, Node, TreeBuilder};

/// The groups of names.
#[derive(Debug, Default)]
pub(super) struct Links {
    groups: Vec<Group>,
    /// The group that each link is in.
    group_of: HashMap<RelPath, usize>,
    /// The group whose file is, or is expected, at a path.
    group_at: HashMap<RelPath, usize>,
}

#[derive(Debug)]
struct Group {
    /// Where the file is.
    file: RelPath,
    /// The links that lead to it, and some that do no longer.
    links: Vec<RelPath>,
}

impl Links {
    /// Adds a link to whatever is or comes at a path.
    pub(super) fn add(&mut self, link: RelPath, target: &RelPath) {
        let group = self.group_of.get(target).or_else(|| self.group_at.get(target)).copied();
        let group = group.unwrap_or_else(|| {
            self.groups.push(Group { file: target.clone(), links: Vec::new() });
            self.group_at.insert(target.clone(), self.groups.len() - 1);
            self.groups.len() - 1
        });
        self.groups[group].links.push(link.clone());
        self.group_of.insert(link, group);
    }

    /// Takes notice that entries have been removed. Where that leaves links without their file,
    /// the file moves to the first of them: `adopt` is given the old and the new place.
    pub(super) fn removed<E>(
        &mut self,
        gone: &[Entry],
        tree: &mut TreeBuilder,
        mut adopt: impl FnMut(&RelPath, &RelPath) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in gone {
            self.group_of.remove(&entry.path);
        }
        for entry in gone.iter().filter(|entry| !matches!(entry.node, Node::HardLink { .. })) {
            let Some(group) = self.group_at.remove(&entry.path) else { continue };
            let Some(heir) = self.take_link(group) else { continue };
            adopt(&entry.path, &heir)?;
            let (node, metadata) = (entry.node.clone(), entry.metadata.clone());
            tree.insert(Entry { path: heir.clone(), node, metadata });
            self.group_at.insert(heir.clone(), group);
            self.groups[group].file = heir;
        }
        Ok(())
    }

    /// Takes a link out of a group that still is one.
    fn take_link(&mut self, group: usize) -> Option<RelPath> {
        loop {
            let link = self.groups[group].links.pop()?;
            if self.group_of.get(&link) == Some(&group) {
                self.group_of.remove(&link);
                return Some(link);
            }
        }
    }

    /// All links with the places of their files, in order. A link that leads in a circle leads to
    /// itself.
    pub(super) fn resolved(self) -> Vec<(RelPath, RelPath)> {
        let mut links: Vec<_> = self.group_of.keys().collect();
        links.sort_unstable();
        let mut files = vec![None; self.groups.len()];
        links.into_iter().map(|link| (link.clone(), self.file_of(link, &mut files))).collect()
    }

    /// Follows groups whose file is itself a link of another group; what was found out is kept in
    /// `files`, so that long chains are followed once.
    fn file_of(&self, link: &RelPath, files: &mut [Option<RelPath>]) -> RelPath {
        let mut chain = Vec::new();
        let mut at = link;
        let file = loop {
            let Some(group) = self.group_of.get(at) else { break at.clone() };
            if let Some(file) = &files[*group] {
                break file.clone();
            }
            // A chain of more groups than there are goes in a circle.
            if chain.len() > self.groups.len() {
                break link.clone();
            }
            chain.push(*group);
            at = &self.groups[*group].file;
        };
        for group in chain {
            files[group] = Some(file.clone());
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::testing::{file, path};

    fn resolved(links: Links) -> String {
        let links = links.resolved();
        let show = |(link, file): &(RelPath, RelPath)| format!("{link}->{file}");
        links.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn links_lead_to_files_over_other_links() {
        let mut links = Links::default();
        // The third and fourth lead to what only comes later.
        for (link, target) in [("b", "a"), ("c", "b"), ("d", "e"), ("e", "f")] {
            links.add(path(link), &path(target));
        }
        assert_eq!(resolved(links), "/b->/a /c->/a /d->/f /e->/f");
    }

    #[test]
    fn circles_lead_to_themselves() {
        let mut links = Links::default();
        for (link, target) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")] {
            links.add(path(link), &path(target));
        }
        // Whatever they lead to is a link, which no tree accepts.
        let links = links.resolved();
        assert!(links.iter().all(|(_, file)| links.iter().any(|(link, _)| link == file)));
    }

    #[test]
    fn a_link_outlives_the_file() {
        let mut links = Links::default();
        let mut tree = TreeBuilder::new();
        tree.insert(file("a", "old"));
        for link in ["b", "c", "d"] {
            links.add(path(link), &path("a"));
            let node = Node::HardLink { target: path("a") };
            tree.insert(Entry { path: path(link), ..crate::tree::testing::entry("", node) });
        }
        // The link that would have been the heir is gone already.
        let gone = tree.remove(&path("d"));
        links.removed::<()>(&gone, &mut tree, |_, _| unreachable!()).unwrap();
        let gone = tree.remove(&path("a"));
        let mut adopted = Vec::new();
        let adopt = |from: &RelPath, to: &RelPath| {
            adopted.push((from.clone(), to.clone()));
            Ok::<(), ()>(())
        };
        links.removed(&gone, &mut tree, adopt).unwrap();
        assert_eq!(adopted, [(path("a"), path("c"))]);
        tree.insert(file("a", "new"));
        links.add(path("e"), &path("a"));
        assert_eq!(tree.get(&path("c")).unwrap().0, &file("", "old").node);
        assert_eq!(resolved(links), "/b->/c /e->/a");
    }

    #[test]
    fn long_chains_are_followed_once() {
        let mut links = Links::default();
        for i in 0..100_000 {
            links.add(path(&format!("{i}")), &path(&format!("{}", i + 1)));
        }
        assert!(links.resolved().iter().all(|(_, file)| *file == path("100000")));
    }
}
