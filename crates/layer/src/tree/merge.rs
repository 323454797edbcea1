//! Several layers as the one root file system that they make.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use formwork_fs::RelPath;

use super::{Entry, Node, Stack, Tree, TreeDigest};

impl<'a> Stack<'a> {
    /// The root file system that the layers make: without whiteouts and opaque directories.
    ///
    /// Names that are left of the same file stay names of one file, also if the first of them is
    /// hidden.
    pub fn merge(&self) -> Tree {
        if let [layer] = &*self.layers
            && layer.entries.iter().all(|entry| is_plain(&entry.node))
        {
            return (*layer).clone();
        }
        Tree { entries: self.merge_at(&RelPath::root()) }
    }

    /// The part of [`Stack::merge`] that is at a path, which leads over no symbolic links, and
    /// below it. A hard link to a file elsewhere is a file here.
    pub fn merge_at(&self, path: &RelPath) -> Vec<Entry> {
        let mut merge = Merge { layers: &self.layers, ..Merge::default() };
        for ancestor in path.ancestors() {
            let layers = self.layers.iter().enumerate().rev();
            let same_path = layers.filter_map(|(at, layer)| Some((at, layer.get(&ancestor)?)));
            merge.add(&same_path.collect::<Vec<_>>());
        }
        // What leads here is not part of it.
        merge.entries.clear();
        merge.origins.clear();
        merge.add_all(self.layers.iter().map(|layer| layer.subtree(path)));
        merge.entries
    }

    /// The identity of what is at a path in the merged root file system, and below it: see
    /// [`Tree::content_digest`].
    pub fn content_digest(&self, path: &RelPath, owners: bool) -> Option<TreeDigest> {
        Tree { entries: self.merge_at(path) }.content_digest(path, owners)
    }
}

fn is_plain(node: &Node) -> bool {
    !matches!(node, Node::Whiteout | Node::Directory { opaque: true })
}

#[derive(Default)]
struct Merge<'a> {
    layers: &'a [&'a Tree],
    entries: Vec<Entry>,
    /// For each entry, the layer that it is from.
    origins: Vec<usize>,
    /// The directories from the root to the entry that was seen last, each with the lowest layer
    /// that still shows what it has in there.
    open: Vec<(&'a RelPath, usize)>,
    /// For each file whose first name is hidden, by layer and that name, the name that stands in.
    stand_ins: HashMap<(usize, &'a RelPath), RelPath>,
}

impl<'a> Merge<'a> {
    /// Takes sorted entries of all layers, the lowest layer first.
    fn add_all(&mut self, layers: impl Iterator<Item = &'a [Entry]>) {
        let mut rest: Vec<&[Entry]> = layers.collect();
        // The first path in order, and of the same path the topmost layer, is the greatest.
        let mut next: BinaryHeap<(Reverse<&RelPath>, usize)> = rest
            .iter()
            .enumerate()
            .filter_map(|(layer, rest)| Some((Reverse(&rest.first()?.path), layer)))
            .collect();
        let mut same_path = Vec::new();
        while let Some((Reverse(path), layer)) = next.pop() {
            if let Some((entry, below)) = rest[layer].split_first() {
                same_path.push((layer, entry));
                next.extend(below.first().map(|entry| (Reverse(&entry.path), layer)));
                rest[layer] = below;
            }
            if next.peek().is_none_or(|(Reverse(next), _)| *next != path) {
                self.add(&same_path);
                same_path.clear();
            }
        }
    }

    /// Takes all that the layers have at one path, the topmost layer first.
    fn add(&mut self, same_path: &[(usize, &'a Entry)]) {
        let [(layer, entry), below @ ..] = same_path else { return };
        let Some(lowest) = self.lowest_shown_at(&entry.path) else { return };
        if *layer < lowest {
            return;
        }
        let node = match &entry.node {
            Node::Whiteout => return,
            Node::Directory { opaque } => {
                let lowest = if *opaque { *layer } else { lowest_merged(below, lowest) };
                self.open.push((&entry.path, lowest));
                Node::Directory { opaque: false }
            }
            Node::HardLink { target } => self.link(*layer, entry, target),
            node => node.clone(),
        };
        let (path, metadata) = (entry.path.clone(), entry.metadata.clone());
        self.entries.push(Entry { path, node, metadata });
        self.origins.push(*layer);
    }

    /// The lowest layer whose entry at a path can be seen; `None` if what the path lies in is
    /// no directory any more.
    fn lowest_shown_at(&mut self, path: &RelPath) -> Option<usize> {
        while self.open.pop_if(|(open, _)| !path.starts_with(open)).is_some() {}
        let (parent, _) = path.split_name();
        match self.open.last() {
            Some((open, lowest)) => (open.as_bytes() == parent).then_some(*lowest),
            None => parent.is_empty().then_some(0),
        }
    }

    /// What a hard link becomes: a link to the first name of the file that can be seen.
    fn link(&mut self, layer: usize, entry: &'a Entry, target: &'a RelPath) -> Node {
        if let Some(stand_in) = self.stand_ins.get(&(layer, target)) {
            return Node::HardLink { target: stand_in.clone() };
        }
        let first = self.entries.binary_search_by(|entry| entry.path.cmp(target));
        if first.is_ok_and(|at| self.origins[at] == layer) {
            return Node::HardLink { target: target.clone() };
        }
        self.stand_ins.insert((layer, target), entry.path.clone());
        self.layers[layer].inode(entry).node.clone()
    }
}

/// The lowest layer whose directory is part of the merged one: `below` is what the layers below
/// have in its place, the topmost first.
fn lowest_merged(below: &[(usize, &Entry)], lowest: usize) -> usize {
    for (layer, entry) in below {
        match entry.node {
            _ if *layer < lowest => break,
            Node::Directory { opaque: false } => {}
            Node::Directory { opaque: true } => return *layer,
            _ => return layer + 1,
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::testing::{dir, file, link, opaque, path, symlink, tree, whiteout};
    use super::*;

    fn merged(layers: &[Tree]) -> Vec<String> {
        let merged = Stack::new(layers).merge();
        // What a merge makes satisfies the invariants and is in normal form.
        assert_eq!(Tree::new(merged.entries().to_vec()).unwrap(), merged);
        let show = |entry: &Entry| match &entry.node {
            Node::File(file) => {
                let text = String::from_utf8(file.read(100).unwrap().unwrap()).unwrap();
                format!("{}={text}", entry.path)
            }
            Node::Directory { opaque: false } => format!("{}/", entry.path),
            Node::Symlink { .. } => format!("{}@", entry.path),
            Node::HardLink { target } => format!("{}->{target}", entry.path),
            other => panic!("{other:?}"),
        };
        merged.entries().iter().map(show).collect()
    }

    #[test]
    fn upper_layers_change_lower_ones() {
        let base = tree([
            dir("d"),
            file("d/a", "1"),
            file("d/b", "1"),
            dir("d/e"),
            file("d/e/x", "1"),
            file("f", "1"),
        ]);
        for (name, upper, expected) in [
            ("nothing", tree([]), "/d/ /d/a=1 /d/b=1 /d/e/ /d/e/x=1 /f=1"),
            ("a file", tree([dir("d"), file("d/a", "2")]), "/d/ /d/a=2 /d/b=1 /d/e/ /d/e/x=1 /f=1"),
            ("a deletion", tree([dir("d"), whiteout("d/e")]), "/d/ /d/a=1 /d/b=1 /f=1"),
            (
                "a deletion of nothing",
                tree([whiteout("x")]),
                "/d/ /d/a=1 /d/b=1 /d/e/ /d/e/x=1 /f=1",
            ),
            ("an opaque directory", tree([opaque("d"), file("d/n", "2")]), "/d/ /d/n=2 /f=1"),
            ("a file over a directory", tree([file("d", "2")]), "/d=2 /f=1"),
            (
                "a directory over a file",
                tree([dir("f"), file("f/n", "2")]),
                "/d/ /d/a=1 /d/b=1 /d/e/ /d/e/x=1 /f/ /f/n=2",
            ),
            ("a link over a directory", tree([symlink("d", "f")]), "/d@ /f=1"),
            (
                "a file deep over a directory",
                tree([dir("d"), file("d/e", "2")]),
                "/d/ /d/a=1 /d/b=1 /d/e=2 /f=1",
            ),
        ] {
            assert_eq!(merged(&[base.clone(), upper]).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn what_comes_back_comes_back_empty() {
        let base = tree([dir("d"), file("d/a", "1")]);
        let gone = tree([whiteout("d")]);
        let back = tree([dir("d"), file("d/b", "3")]);
        assert_eq!(merged(&[base.clone(), gone, back.clone()]).join(" "), "/d/ /d/b=3");
        let replaced = tree([file("d", "2")]);
        assert_eq!(merged(&[base, replaced, back]).join(" "), "/d/ /d/b=3");
    }

    #[test]
    fn names_of_one_file_stay_together() {
        let base = tree([file("a", "1"), link("b", "a"), link("c", "a")]);
        let merge = |upper: Tree| merged(&[base.clone(), upper]).join(" ");
        assert_eq!(merge(tree([whiteout("a")])), "/b=1 /c->/b");
        assert_eq!(merge(tree([file("a", "2")])), "/a=2 /b=1 /c->/b");
        assert_eq!(merge(tree([whiteout("b")])), "/a=1 /c->/a");
        assert_eq!(merge(tree([whiteout("a"), whiteout("b")])), "/c=1");
        // A link of the upper layer is to a file of the upper layer.
        assert_eq!(merge(tree([file("a", "2"), link("b", "a")])), "/a=2 /b->/a /c=1");
    }

    #[test]
    fn a_part_has_files_for_links_to_what_is_elsewhere() {
        let layers = [
            tree([file("a", "1"), dir("d"), link("d/x", "a"), link("d/y", "a")]),
            tree([dir("d"), file("d/z", "2")]),
        ];
        let stack = Stack::new(&layers);
        let part = stack.merge_at(&path("d"));
        let nodes: Vec<_> = part.iter().map(|entry| entry.node.clone()).collect();
        let link = Node::HardLink { target: path("d/x") };
        assert_eq!(nodes, [dir("").node, file("", "1").node, link, file("", "2").node]);
        let digest = stack.content_digest(&path("d"), true);
        assert!(digest.is_some());
        assert_eq!(digest, stack.merge().content_digest(&path("d"), true));
        assert!(stack.merge_at(&path("nothing")).is_empty());
    }

    #[test]
    fn merging_nothing_is_nothing() {
        assert!(Stack::default().merge().is_empty());
        assert_eq!(merged(&[tree([whiteout("a"), opaque("b")])]), ["/b/"]);
    }

    /// What the property test puts in a place.
    #[derive(Clone, Debug)]
    enum Change {
        Remove,
        File(u8),
        Symlink,
        /// A directory as it was, or a new one.
        Directory,
        /// A new directory that hides the old one.
        FreshDirectory,
    }

    /// A root file system in the simplest form: paths and what is there.
    type Model = BTreeMap<RelPath, String>;

    fn remove(model: &mut Model, at: &RelPath) {
        model.retain(|path, _| !path.starts_with(at));
    }

    /// Makes the directories above a path.
    fn make_way(model: &mut Model, at: &RelPath) {
        for ancestor in at.ancestors().skip(1) {
            if model.get(&ancestor).is_some_and(|kind| kind != "dir") {
                remove(model, &ancestor);
            }
            model.entry(ancestor).or_insert_with(|| "dir".to_owned());
        }
    }

    /// What a process does to the files, beside the layer that records it.
    fn apply(model: &mut Model, at: &RelPath, change: &Change) {
        make_way(model, at);
        let is_dir = model.get(at).is_some_and(|kind| kind == "dir");
        if !(is_dir && matches!(change, Change::Directory)) {
            remove(model, at);
        }
        let kind = match change {
            Change::Remove => return,
            Change::File(content) => content.to_string(),
            Change::Symlink => "symlink".to_owned(),
            Change::Directory | Change::FreshDirectory => "dir".to_owned(),
        };
        model.insert(at.clone(), kind);
    }

    /// The layer that turns one state into another, as overlayfs would record it, where a
    /// directory that was made anew is opaque.
    fn layer(before: &Model, after: &Model, touched: &[(RelPath, Change)]) -> Tree {
        let mut builder = super::super::TreeBuilder::new();
        for (at, kind) in after {
            let fresh = touched.iter().any(|(path, change)| {
                at.starts_with(path) && !matches!(change, Change::Directory)
                    || path.starts_with(at) && before.get(at).is_some_and(|kind| kind != "dir")
            });
            builder.insert(match kind.as_str() {
                "dir" if fresh => opaque(&String::from_utf8_lossy(at.as_bytes())),
                "dir" => dir(&String::from_utf8_lossy(at.as_bytes())),
                "symlink" => symlink(&String::from_utf8_lossy(at.as_bytes()), "x"),
                text => file(&String::from_utf8_lossy(at.as_bytes()), text),
            });
        }
        for at in before.keys().filter(|at| !after.contains_key(*at)) {
            let parent = at.parent().unwrap();
            if parent.is_root() || after.get(&parent).is_some_and(|kind| kind == "dir") {
                builder.insert(whiteout(&String::from_utf8_lossy(at.as_bytes())));
            }
        }
        builder.finish().unwrap()
    }

    fn change() -> impl Strategy<Value = (RelPath, Change)> {
        let at = prop::sample::select(vec!["a", "b", "a/b", "a/c", "a/b/c", "b/a", "b/a/c"]);
        let change = prop_oneof![
            Just(Change::Remove),
            (0u8..9).prop_map(Change::File),
            Just(Change::Symlink),
            Just(Change::Directory),
            Just(Change::FreshDirectory),
        ];
        (at.prop_map(path), change)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Sequences of add, remove and add again, over four layers.
        #[test]
        fn layers_make_what_was_done(
            steps in prop::collection::vec(prop::collection::vec(change(), 0..4), 4)
        ) {
            let mut model = Model::new();
            let mut layers = Vec::new();
            for step in &steps {
                let before = model.clone();
                for (at, change) in step {
                    apply(&mut model, at, change);
                }
                layers.push(layer(&before, &model, step));
            }
            let expected: Vec<_> = model.iter().map(|(at, kind)| match kind.as_str() {
                "dir" => format!("{at}/"),
                "symlink" => format!("{at}@"),
                text => format!("{at}={text}"),
            }).collect();
            prop_assert_eq!(&merged(&layers), &expected);
            // Looking at one path sees the same as merging everything.
            let stack = Stack::new(&layers);
            let merged = stack.merge();
            for at in ["a", "b", "a/b", "a/c", "a/b/c", "b/a", "b/a/c"].map(path) {
                prop_assert_eq!(stack.lookup(&at).is_some(), model.contains_key(&at), "{}", at);
                prop_assert_eq!(&*stack.merge_at(&at), merged.subtree(&at), "{}", at);
                let children: Vec<_> = stack.children(&at).iter().map(|c| c.path().clone()).collect();
                let expected: Vec<_> = merged.children(&at).map(|c| c.path.clone()).collect();
                prop_assert_eq!(children, expected, "{}", at);
            }
        }
    }
}
