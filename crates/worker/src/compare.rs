//! What files of a copy differ from those of an earlier one, in words.

use std::cmp::Ordering;

use formwork_layer::Tree;
use formwork_layer::tree::{Entry, Node};

/// How many files are named.
const NAMED: usize = 20;

/// The files that differ between two trees: changed ones first, then new ones, then those that are
/// gone.
pub(crate) fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut lists: [Vec<String>; 3] = Default::default();
    let [changed, new, gone] = &mut lists;
    let (mut old, mut current) =
        (before.entries().iter().peekable(), after.entries().iter().peekable());
    loop {
        let order = match (old.peek(), current.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(current)) => old.path.cmp(&current.path),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { current.next() } else { None };
        match (was, is) {
            (Some(was), Some(is)) => {
                changed.extend(change(was, is).map(|what| format!("{} {what}", is.path)));
            }
            (Some(was), None) if !is_directory(was) => gone.push(format!("{} is gone", was.path)),
            (None, Some(is)) if !is_directory(is) => new.push(format!("{} is new", is.path)),
            _ => {}
        }
    }
    let mut all = lists.concat();
    if all.len() > NAMED {
        let more = all.len() - NAMED;
        all.truncate(NAMED);
        all.push(format!("{more} more files changed"));
    }
    all
}

fn is_directory(entry: &Entry) -> bool {
    entry.node.is_directory()
}

/// How two entries in the same place differ, modification times aside.
fn change(was: &Entry, is: &Entry) -> Option<String> {
    let (old, new) = (&was.metadata, &is.metadata);
    if kind(&was.node) != kind(&is.node) {
        return Some(format!("was {}, is {}", kind(&was.node), kind(&is.node)));
    }
    if was.node != is.node {
        return Some("changed".to_owned());
    }
    if old.mode != new.mode {
        return Some(format!("had mode {:o}, has {:o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        return Some(format!(
            "belonged to {}:{}, belongs to {}:{}",
            old.uid, old.gid, new.uid, new.gid
        ));
    }
    (old.xattrs != new.xattrs).then(|| "has other extended attributes".to_owned())
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::File(_) => "a file",
        Node::Directory { .. } => "a directory",
        Node::Symlink { .. } => "a link",
        Node::HardLink { .. } => "a further name of a file",
        Node::CharDevice { .. } | Node::BlockDevice { .. } => "a device",
        Node::Fifo => "a pipe",
        Node::Whiteout => "removed",
    }
}

#[cfg(test)]
mod tests {
    use formwork_fs::RelPath;
    use formwork_layer::tree::{File, Metadata};

    use super::*;

    fn tree(entries: &[(&str, Node, u32)]) -> Tree {
        let entry = |(path, node, mode): &(&str, Node, u32)| Entry {
            path: RelPath::new(*path).unwrap(),
            node: node.clone(),
            metadata: Metadata::root_owned(*mode),
        };
        Tree::new(entries.iter().map(entry).collect()).unwrap()
    }

    fn file(text: &str) -> Node {
        Node::File(File::inline(text.as_bytes()))
    }

    const DIRECTORY: Node = Node::Directory { opaque: false };

    #[test]
    fn each_file_is_told_with_what_happened_to_it() {
        let before = tree(&[
            ("a", file("1"), 0o644),
            ("b", file("1"), 0o644),
            ("c", file("1"), 0o644),
            ("d", DIRECTORY, 0o755),
            ("d/gone", file("1"), 0o644),
            ("same", file("1"), 0o644),
        ]);
        let after = tree(&[
            ("a", file("2"), 0o644),
            ("b", file("1"), 0o755),
            ("c", DIRECTORY, 0o755),
            ("e", DIRECTORY, 0o755),
            ("e/new", file("1"), 0o644),
            ("same", file("1"), 0o644),
        ]);
        assert_eq!(
            differences(&before, &after),
            [
                "/a changed",
                "/b had mode 644, has 755",
                "/c was a file, is a directory",
                "/e/new is new",
                "/d/gone is gone",
            ]
        );
        assert!(differences(&after, &after).is_empty());
    }

    #[test]
    fn many_files_are_counted() {
        let names: Vec<String> = (0..100).map(|number| format!("f{number:03}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), file(""), 0o644)).collect();
        let told = differences(&Tree::default(), &tree(&entries));
        assert_eq!(told.len(), NAMED + 1);
        assert_eq!(told[NAMED], "80 more files changed");
    }
}
