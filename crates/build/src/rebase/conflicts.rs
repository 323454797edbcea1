//! What speaks against putting layers on another base.
//!
//! A layer goes well with a new base if what it replaces is the same there, what it adds is not
//! there, the directories that it writes to are, and if its programs find their libraries.

use std::collections::BTreeSet;

use formwork_fs::RelPath;
use formwork_layer::tree::{Entry, Found, Last, Node};
use formwork_layer::{Stack, Tree};

use super::elf;

/// The most conflicts that are told.
const TOLD: usize = 100;

/// Something that speaks against a rebase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path of the file in the image.
    pub path: String,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The image has its own version of a file that the bases have different versions of.
    Changed,
    /// The image adds what only the new base has, too.
    Hidden,
    /// The image removes what the bases have different versions of.
    Removed,
    /// A directory on the way is something else in the new base.
    Parent(String),
    /// A program needs a library or a loader that the new base does not have.
    Needs(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed => f.write_str(
                "the image has a version of its own, made from the old base's, and the new base's \
                 is another",
            ),
            Self::Hidden => f.write_str("the new base has such a file, which the image hides"),
            Self::Removed => {
                f.write_str("the image removes it, and the new base's is not the old base's")
            }
            Self::Parent(path) => write!(f, "`{path}` is no directory in the new base"),
            Self::Needs(name) => write!(f, "it needs `{name}`, which the new base does not have"),
        }
    }
}

/// What speaks against putting layers that lie on an old base on a new one.
pub(super) fn find(own: &[&Tree], old: &[&Tree], new: &[&Tree]) -> Vec<Conflict> {
    let below = (Stack::new(old.iter().copied()), Stack::new(new.iter().copied()));
    let mut conflicts = Vec::new();
    let mut seen = BTreeSet::new();
    // Only the topmost word about a path counts.
    for entry in own.iter().rev().flat_map(|tree| tree.entries()) {
        if seen.insert(&entry.path)
            && let Some(trouble) = overlap(entry, &below.0, &below.1)
        {
            conflicts.push(Conflict { path: entry.path.to_string(), trouble });
        }
    }
    conflicts.extend(missing_libraries(own, old, new));
    conflicts.sort_by(|a, b| a.path.cmp(&b.path));
    conflicts.truncate(TOLD);
    conflicts
}

/// What is wrong between an entry and what both bases have in its place.
fn overlap(entry: &Entry, old: &Stack<'_>, new: &Stack<'_>) -> Option<Trouble> {
    if let Some(parent) = wrong_parent(&entry.path, new) {
        return Some(Trouble::Parent(parent));
    }
    let (before, after) = (old.lookup(&entry.path), new.lookup(&entry.path));
    let is_same = match (&before, &after) {
        (Some(one), Some(other)) => {
            one.node() == other.node() && one.metadata().mode == other.metadata().mode
        }
        (None, None) => true,
        _ => false,
    };
    if is_same {
        return None;
    }
    match (&entry.node, &before, &after) {
        // A directory that both have is joined, whatever it holds.
        (Node::Directory { opaque: false }, _, Some(after)) if is_directory(after) => None,
        (Node::Directory { opaque: false }, _, None) => None,
        (Node::Whiteout, _, None) => None,
        (Node::Whiteout, _, Some(_)) => Some(Trouble::Removed),
        (_, None, Some(_)) => Some(Trouble::Hidden),
        // What the new base has no more was replaced as a whole.
        (_, Some(_), None) => None,
        (_, Some(_) | None, _) => Some(Trouble::Changed),
    }
}

fn is_directory(found: &Found<'_>) -> bool {
    matches!(found.node(), Node::Directory { .. })
}

/// A directory above a path that is something else.
fn wrong_parent(path: &RelPath, base: &Stack<'_>) -> Option<String> {
    let above = path.ancestors().filter(|above| !above.is_root() && above != path);
    for above in above {
        if base.lookup(&above).is_some_and(|found| !is_directory(&found)) {
            return Some(above.to_string());
        }
    }
    None
}

/// What programs of the layers have found on the old base and would miss on the new one.
fn missing_libraries(own: &[&Tree], old: &[&Tree], new: &[&Tree]) -> Vec<Conflict> {
    let merged = |below: &[&Tree]| Stack::new(below.iter().chain(own).copied()).merge();
    let (before, after) = (merged(old), merged(new));
    let names = |tree: &Tree| -> BTreeSet<Vec<u8>> {
        let is_there = |entry: &&Entry| !matches!(entry.node, Node::Directory { .. });
        tree.entries().iter().filter(is_there).map(|entry| entry.path.name().to_vec()).collect()
    };
    let (names_before, names_after) = (names(&before), names(&after));
    let mut conflicts = Vec::new();
    for entry in own.iter().flat_map(|tree| tree.entries()) {
        let Node::File(file) = &entry.node else { continue };
        let is_program = entry.metadata.mode & 0o111 != 0
            || entry.path.name().windows(3).any(|part| part == b".so");
        // What another layer has replaced does not run.
        if !is_program || after.get(&entry.path).is_none_or(|now| now.node != entry.node) {
            continue;
        }
        let Some(needs) = file.open().ok().and_then(|file| elf::needs(&file)) else { continue };
        let gone = |name: &&String| {
            let name = name.as_bytes();
            names_before.contains(name) && !names_after.contains(name)
        };
        let loader_is_gone = |loader: &&String| {
            let there = |tree: &Tree| {
                let stack = Stack::new([tree]);
                RelPath::clean(loader.as_bytes())
                    .ok()
                    .and_then(|path| stack.resolve(&path, Last::Follow).ok())
                    .is_some_and(|resolved| resolved.found.is_some())
            };
            there(&before) && !there(&after)
        };
        let missing = needs.libraries.iter().filter(gone);
        let missing = needs.loader.iter().filter(loader_is_gone).chain(missing);
        conflicts.extend(missing.map(|name| Conflict {
            path: entry.path.to_string(),
            trouble: Trouble::Needs(name.clone()),
        }));
    }
    conflicts
}
