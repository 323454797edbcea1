//! Layers on top of each other: what is at a path, and where a path leads.

use std::collections::BTreeMap;

use formwork_fs::RelPath;

use super::{Entry, Metadata, Node, Tree};
use crate::LayerError;

/// Layers of which each changes what those before it hold: the lowest comes first.
#[derive(Clone, Debug, Default)]
pub struct Stack<'a> {
    pub(super) layers: Vec<&'a Tree>,
}

/// An entry of a stack that no layer above hides.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    entry: &'a Entry,
    layer: &'a Tree,
}

/// What becomes of a symbolic link in the last place of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The path leads on to where the link points.
    Follow,
    /// The path ends at the link.
    Keep,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// The path without symbolic links on the way. What does not exist is taken as it is written.
    pub path: RelPath,
    /// What is there; `None` if nothing is, or for a root that no layer mentions.
    pub found: Option<Found<'a>>,
}

/// As in the kernel (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

impl<'a> Stack<'a> {
    /// A stack of layers, the lowest first.
    pub fn new(layers: impl IntoIterator<Item = &'a Tree>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    /// The stack with one more layer on top.
    #[must_use]
    pub fn with<'b>(&self, layer: &'b Tree) -> Stack<'b>
    where
        'a: 'b,
    {
        Stack { layers: self.layers.iter().copied().chain([layer]).collect() }
    }

    /// What is at a path, without following symbolic links.
    pub fn lookup(&self, path: &RelPath) -> Option<Found<'a>> {
        for layer in self.layers.iter().rev() {
            match layer.get(path) {
                Some(Entry { node: Node::Whiteout, .. }) => return None,
                Some(entry) => return Some(Found { entry, layer }),
                None if hides_below(layer, path) => return None,
                None => {}
            }
        }
        None
    }

    /// What is in a directory that is reached over no symbolic links, in order.
    pub fn children(&self, directory: &RelPath) -> Vec<Found<'a>> {
        // By name, what the topmost layer has that says anything about it.
        let mut children = BTreeMap::<&[u8], Option<Found<'a>>>::new();
        for layer in self.layers.iter().copied().rev() {
            let opaque = match layer.get(directory).map(|entry| &entry.node) {
                Some(Node::Directory { opaque }) => *opaque,
                Some(_) => break,
                None if directory.is_root() => false,
                None if hides_below(layer, directory) => break,
                None => continue,
            };
            for entry in layer.children(directory) {
                let is_there = entry.node != Node::Whiteout;
                let found = is_there.then_some(Found { entry, layer });
                children.entry(entry.path.name()).or_insert(found);
            }
            if opaque {
                break;
            }
        }
        children.into_values().flatten().collect()
    }

    /// Where a path leads, following symbolic links as a process does whose root this is.
    ///
    /// # Errors
    ///
    /// Fails where something on the way is not a directory, and after 40 links.
    pub fn resolve(&self, path: &RelPath, last: Last) -> Result<Resolved<'a>, LayerError> {
        let path = resolve_links(path, last, |path| match self.lookup(path) {
            None => Step::Missing,
            Some(found) => Step::of(found.node()),
        })?;
        let found = self.lookup(&path);
        Ok(Resolved { path, found })
    }
}

impl<'a> Found<'a> {
    /// The path.
    pub fn path(&self) -> &'a RelPath {
        &self.entry.path
    }

    /// What it is, where a hard link counts as what it is a name of.
    pub fn node(&self) -> &'a Node {
        &self.layer.inode(self.entry).node
    }

    /// The metadata.
    pub fn metadata(&self) -> &'a Metadata {
        &self.entry.metadata
    }
}

impl Resolved<'_> {
    /// Whether a directory is there; the root always is.
    pub fn is_directory(&self) -> bool {
        match &self.found {
            Some(found) => found.node().is_directory(),
            None => self.path.is_root(),
        }
    }
}

/// Whether a layer that has no entry at a path hides what layers below have there.
fn hides_below(layer: &Tree, path: &RelPath) -> bool {
    path.ancestors().any(|ancestor| match layer.get(&ancestor).map(|entry| &entry.node) {
        None | Some(Node::Directory { opaque: false }) => false,
        Some(_) => true,
    })
}

/// What stands at one step of a path.
pub(crate) enum Step<'a> {
    Missing,
    Directory,
    Link(&'a [u8]),
    Other,
}

impl<'a> Step<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        match node {
            Node::Directory { .. } => Self::Directory,
            Node::Symlink { target } => Self::Link(target),
            Node::Whiteout => Self::Missing,
            _ => Self::Other,
        }
    }
}

/// Follows the symbolic links of a path; nothing leads out of the root.
pub(crate) fn resolve_links<'a>(
    path: &RelPath,
    last: Last,
    look: impl Fn(&RelPath) -> Step<'a>,
) -> Result<RelPath, LayerError> {
    let problem = |problem| LayerError::Lookup { path: path.clone(), problem };
    let mut rest: Vec<Box<[u8]>> = path.components().rev().map(Into::into).collect();
    let mut at = RelPath::root();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if &*name == b".." {
            at = at.parent().unwrap_or_default();
            continue;
        }
        let next = at.join(&name);
        match look(&next) {
            Step::Link(target) if !rest.is_empty() || last == Last::Follow => {
                links += 1;
                if links > MAX_LINKS || rest.len() > MAX_COMPONENTS {
                    return Err(problem("it leads over too many symbolic links, or in a circle"));
                }
                if target.starts_with(b"/") {
                    at = RelPath::root();
                }
                let components = target.split(|byte| *byte == b'/');
                let components = components.filter(|name| !matches!(*name, b"" | b"."));
                rest.extend(components.rev().map(Into::into));
            }
            Step::Other if !rest.is_empty() => {
                return Err(problem("something on the way is not a directory"));
            }
            Step::Missing | Step::Directory | Step::Link(_) | Step::Other => at = next,
        }
    }
    Ok(at)
}

/// No path that the kernel takes has more components.
const MAX_COMPONENTS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, link, opaque, path, symlink, tree, whiteout};
    use super::*;

    /// What is at a path of some layers: its content, or a letter for its kind.
    fn look(layers: &[Tree], at: &str) -> String {
        match Stack::new(layers).lookup(&path(at)).map(|found| found.node().clone()) {
            None => "-".to_owned(),
            Some(Node::File(file)) => String::from_utf8(file.read(100).unwrap().unwrap()).unwrap(),
            Some(Node::Directory { .. }) => "dir".to_owned(),
            Some(Node::Symlink { .. }) => "symlink".to_owned(),
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let layers = [
            tree([
                dir("a"),
                file("a/x", "low"),
                file("a/y", "low"),
                file("b", "low"),
                dir("c"),
                file("c/x", "low"),
            ]),
            tree([dir("a"), file("a/x", "high"), whiteout("b"), opaque("c"), dir("c/d")]),
        ];
        for (at, expected) in [
            ("a", "dir"),
            ("a/x", "high"),
            ("a/y", "low"),
            ("b", "-"),
            ("c", "dir"),
            ("c/x", "-"),
            ("c/d", "dir"),
        ] {
            assert_eq!(look(&layers, at), expected, "{at}");
        }
    }

    #[test]
    fn what_was_a_directory_hides_what_was_in_it() {
        let lower = tree([dir("a"), file("a/x", "low")]);
        for replacement in [file("a", "file"), symlink("a", "b"), whiteout("a")] {
            assert_eq!(look(&[lower.clone(), tree([replacement])], "a/x"), "-");
        }
        let again = [lower, tree([whiteout("a")]), tree([dir("a"), file("a/y", "new")])];
        assert_eq!(look(&again, "a/x"), "-");
        assert_eq!(look(&again, "a/y"), "new");
    }

    #[test]
    fn a_hard_link_is_what_it_links_to() {
        assert_eq!(look(&[tree([file("a", "text"), link("b", "a")])], "b"), "text");
    }

    fn usr_merged() -> Tree {
        tree([
            symlink("bin", "usr/bin"),
            symlink("absolute", "/usr/bin/"),
            symlink("up", "../../usr/../usr"),
            symlink("loop", "loop"),
            symlink("to-file", "usr/bin/sh"),
            symlink("dangling", "no/where"),
            symlink("twice", "bin/sh"),
            dir("usr"),
            dir("usr/bin"),
            file("usr/bin/sh", ""),
        ])
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let tree = usr_merged();
        let stack = Stack::new([&tree]);
        for (at, follow, keep) in [
            ("bin/sh", "/usr/bin/sh", "/usr/bin/sh"),
            ("bin", "/usr/bin", "/bin"),
            ("absolute/sh", "/usr/bin/sh", "/usr/bin/sh"),
            ("up/bin", "/usr/bin", "/usr/bin"),
            ("twice", "/usr/bin/sh", "/twice"),
            ("dangling", "/no/where", "/dangling"),
            ("bin/new/deep", "/usr/bin/new/deep", "/usr/bin/new/deep"),
            ("", "/", "/"),
        ] {
            for (last, expected) in [(Last::Follow, follow), (Last::Keep, keep)] {
                let resolved = stack.resolve(&path(at), last).unwrap();
                assert_eq!(resolved.path.to_string(), expected, "{at}");
            }
        }
        assert!(stack.resolve(&path("absolute"), Last::Follow).unwrap().is_directory());
        assert!(stack.resolve(&path(""), Last::Follow).unwrap().is_directory());
        assert!(!stack.resolve(&path("dangling"), Last::Follow).unwrap().is_directory());
    }

    #[test]
    fn paths_that_lead_nowhere_say_why() {
        let tree = usr_merged();
        let stack = Stack::new([&tree]);
        let problem = |at: &str| stack.resolve(&path(at), Last::Follow).unwrap_err().to_string();
        assert!(problem("loop").contains("circle"), "{}", problem("loop"));
        assert!(problem("loop/x").contains("circle"));
        assert!(problem("to-file/x").contains("/to-file/x cannot be looked up: something on"));
        assert!(problem("usr/bin/sh/x").contains("not a directory"));
    }

    #[test]
    fn links_that_grow_with_every_step_come_to_an_end() {
        let target = "x/".repeat(500) + "a";
        let tree = tree([symlink("a", &target), symlink("x", ".")]);
        assert!(Stack::new([&tree]).resolve(&path("a/b"), Last::Follow).is_err());
    }

    #[test]
    fn links_lead_through_all_layers() {
        let below = usr_merged();
        let above =
            tree([dir("usr"), symlink("usr/bin", "../opt"), dir("opt"), file("opt/sh", "")]);
        let stack = Stack::new([&below]);
        let stack = stack.with(&above);
        assert_eq!(stack.resolve(&path("bin/sh"), Last::Follow).unwrap().path, path("opt/sh"));
    }
}
