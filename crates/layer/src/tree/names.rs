//! The hard links of a tree that grows.
//!
//! A link may come before the file that it leads to, may lead to another link, and the file may be
//! replaced after a link to it was made, which leaves the link with the old content. So the names
//! of one file are kept as a group, whose file is found where the group's first name is at present.

use std::collections::HashMap;

use formwork_fs::RelPath;

/// The groups of names.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    groups: Vec<Group>,
    /// The group that each link is in.
    group_of: HashMap<RelPath, usize>,
    /// The group whose file is, or is expected, at a path.
    group_at: HashMap<RelPath, usize>,
}

#[derive(Clone, Debug)]
struct Group {
    /// Where the file is.
    file: RelPath,
    /// The links that lead to it, and some that do no longer.
    links: Vec<RelPath>,
}

impl Names {
    /// Adds a link to whatever is or comes at a path.
    pub(super) fn add_link(&mut self, link: RelPath, target: &RelPath) {
        let group = self.group_of.get(target).or_else(|| self.group_at.get(target)).copied();
        let group = group.unwrap_or_else(|| {
            self.groups.push(Group { file: target.clone(), links: Vec::new() });
            self.group_at.insert(target.clone(), self.groups.len() - 1);
            self.groups.len() - 1
        });
        self.groups[group].links.push(link.clone());
        self.group_of.insert(link, group);
    }

    /// Takes notice that a link has been removed.
    pub(super) fn remove_link(&mut self, link: &RelPath) {
        self.group_of.remove(link);
    }

    /// Takes notice that a file has been removed. If there are links to it, one of them becomes
    /// the file's place.
    pub(super) fn remove_file(&mut self, file: &RelPath) -> Option<RelPath> {
        let group = self.group_at.remove(file)?;
        let heir = self.take_link(group)?;
        self.group_at.insert(heir.clone(), group);
        self.groups[group].file = heir.clone();
        Some(heir)
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
    pub(super) fn links(&self) -> Vec<(RelPath, RelPath)> {
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
    use super::super::testing::path;
    use super::*;

    fn show(names: &Names) -> String {
        let show = |(link, file): &(RelPath, RelPath)| format!("{link}->{file}");
        names.links().iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn links_lead_to_files_over_other_links() {
        let mut names = Names::default();
        // The third and fourth lead to what only comes later.
        for (link, target) in [("b", "a"), ("c", "b"), ("d", "e"), ("e", "f")] {
            names.add_link(path(link), &path(target));
        }
        assert_eq!(show(&names), "/b->/a /c->/a /d->/f /e->/f");
    }

    #[test]
    fn circles_lead_to_themselves() {
        let mut names = Names::default();
        for (link, target) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")] {
            names.add_link(path(link), &path(target));
        }
        // Whatever they lead to is a link, which no tree accepts.
        let links = names.links();
        assert!(links.iter().all(|(_, file)| links.iter().any(|(link, _)| link == file)));
    }

    #[test]
    fn a_link_outlives_the_file() {
        let mut names = Names::default();
        for link in ["b", "c", "d"] {
            names.add_link(path(link), &path("a"));
        }
        // The link that would have been the heir is gone already.
        names.remove_link(&path("d"));
        assert_eq!(names.remove_file(&path("a")), Some(path("c")));
        names.add_link(path("e"), &path("a"));
        assert_eq!(show(&names), "/b->/c /e->/a");
        assert_eq!(names.remove_file(&path("x")), None);
    }

    #[test]
    fn long_chains_are_followed_once() {
        let mut names = Names::default();
        for i in 0..100_000 {
            names.add_link(path(&format!("{i}")), &path(&format!("{}", i + 1)));
        }
        assert!(names.links().iter().all(|(_, file)| *file == path("100000")));
    }
}
