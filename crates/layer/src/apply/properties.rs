//! What holds for every layer, and for every stream of bytes that claims to be one.

use std::path::Path;

use formwork_fs::{RelPath, RootDir, Timestamp};
use formwork_testing::archive::{Made, archive, made, pax};
use proptest::prelude::*;

use super::{ApplyOptions, apply, index};
use crate::tree::testing::{one_of_everything, temporary};
use crate::tree::{Entry, File, Metadata, Node, Origin, Stack, Tree, TreeBuilder};
use crate::{Compression, MaterializeOptions, PackOptions, materialize, pack, scan_upper};

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-d]{1,2}".prop_map(String::into_bytes),
        1 => prop::collection::vec(1u8..=255, 1..6),
        1 => "[a-z]{90,110}".prop_map(String::into_bytes),
    ]
}

fn path() -> impl Strategy<Value = RelPath> {
    let valid = |names: Vec<Vec<u8>>| RelPath::new(names.join(&b'/')).ok();
    let path = prop::collection::vec(name(), 1..5).prop_filter_map("a path", valid);
    let path = path.prop_filter("no deletion", |path| {
        !path.components().any(|component| component.starts_with(b".wh."))
    });
    // A scan tells the root only where something in it has changed.
    path.prop_filter("not the root", |path| !path.is_root())
}

fn node() -> impl Strategy<Value = Node> {
    let file = |content: Vec<u8>| Node::File(File::inline(content));
    let of_size = move |(size, byte): (usize, u8)| {
        file((0..size).map(|at| byte.wrapping_add((at / 3) as u8)).collect())
    };
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..50).prop_map(file),
        2 => (0usize..20_000, any::<u8>()).prop_map(of_size),
        // More than a batch, a piece and a member hold.
        1 => (100_000usize..2_500_000, any::<u8>()).prop_map(of_size),
        2 => any::<bool>().prop_map(|opaque| Node::Directory { opaque }),
        1 => "[a-z./]{1,150}".prop_map(|target| Node::Symlink { target: target.into_bytes().into() }),
        1 => path().prop_map(|target| Node::HardLink { target }),
        1 => (1u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        1 => Just(Node::Fifo),
        1 => Just(Node::Whiteout),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = || prop_oneof![0u32..3, 0u32..=u32::MAX - 1];
    // What ext4 can hold, with fractions.
    let time = (-2_000_000_000i64..10_000_000_000, 0u32..1_000_000_000);
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let xattr = prop::option::weighted(0.2, ("user\\.[a-z]{1,4}", value));
    (0u32..0o10000, id(), id(), time, xattr).prop_map(|(mode, uid, gid, time, xattr)| {
        let mtime = Timestamp { seconds: time.0, nanoseconds: time.1 };
        let xattr = xattr.map(|(name, value)| (name.into_bytes().into(), value.into()));
        Metadata { mode, uid, gid, mtime, xattrs: xattr.into_iter().collect() }
    })
}

/// Any layer at all: entries that do not fit together give way to each other.
fn layer() -> impl Strategy<Value = Tree> {
    prop::collection::vec((path(), node(), metadata()), 0..25).prop_map(|entries| {
        let mut builder = TreeBuilder::new();
        for (path, mut node, mut metadata) in entries {
            let is_file = |builder: &TreeBuilder, path: &RelPath| {
                builder.get(path).is_some_and(|(node, _)| matches!(node, Node::File(_)))
            };
            if let Node::HardLink { target } = &node
                && (!is_file(&builder, target) || path == *target || target.starts_with(&path))
            {
                node = Node::Fifo;
            }
            // Only files and directories may have attributes of users.
            if !matches!(node, Node::File(_) | Node::Directory { .. }) {
                metadata.xattrs = Default::default();
            }
            for ancestor in path.ancestors().skip(1) {
                if !builder.get(&ancestor).is_some_and(|(node, _)| node.is_directory()) {
                    let node = Node::Directory { opaque: false };
                    let metadata = Metadata::root_owned(0o755);
                    builder.insert(Entry { path: ancestor, node, metadata });
                }
            }
            builder.insert(Entry { path, node, metadata });
        }
        // A link whose file was replaced by something above it leads nowhere.
        builder.finish().unwrap_or_default()
    })
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::default()), Just(Compression::ZSTD)]
}

fn scan(directory: &Path) -> Tree {
    let root = RootDir::open(directory).unwrap();
    let stat = root.stat(&RelPath::root(), formwork_fs::Follow::Never).unwrap().unwrap();
    let below = Metadata { mode: stat.mode, uid: stat.uid, gid: stat.gid, ..Metadata::default() };
    scan_upper(&Origin::layer(root), &below, 3).unwrap()
}

/// What a scan sees of a layer: of the attributes, only capabilities.
fn as_scanned(tree: &Tree) -> Tree {
    let mut entries = tree.clone().into_entries();
    entries.iter_mut().for_each(|entry| entry.metadata.xattrs = Default::default());
    Tree::new(entries).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_layer_comes_back_from_its_blob(
        tree in layer(),
        compression in compression(),
        threads in 1usize..6,
    ) {
        let options = PackOptions { compression, nanoseconds: true, threads, latest_mtime: None };
        let mut blob = Vec::new();
        let packed = pack(&tree, &options, &mut blob).unwrap();
        let options = ApplyOptions { threads, ..ApplyOptions::default() };
        let indexed = index(&*blob, &options).unwrap();
        prop_assert_eq!(&indexed.tree, &tree);
        prop_assert_eq!(&indexed.diff_id, &packed.diff_id);
        prop_assert!(indexed.implied.is_empty());
        if formwork_testing::is_root() {
            let directory = temporary();
            let root = RootDir::open(directory.path()).unwrap();
            let applied = apply(&*blob, &root, &options).unwrap();
            prop_assert_eq!(&applied.tree, &tree);
            prop_assert_eq!(scan(directory.path()), as_scanned(&tree));
        }
    }

    #[test]
    fn every_layer_comes_back_from_its_directory(tree in layer(), threads in 1usize..6) {
        if formwork_testing::is_root() {
            let directory = temporary();
            let root = RootDir::open(directory.path()).unwrap();
            let options = MaterializeOptions { threads, ..MaterializeOptions::default() };
            materialize(&tree, &root, &options).unwrap();
            prop_assert_eq!(scan(directory.path()), as_scanned(&tree));
        }
    }

    #[test]
    fn every_tree_comes_back_from_its_encoding(tree in layer()) {
        let decoded = Tree::decode(&tree.encode()).unwrap();
        prop_assert_eq!(&decoded, &tree);
        prop_assert_eq!(decoded.digest(), tree.digest());
        let stack = Stack::new([&tree]);
        let merged = stack.merge();
        prop_assert_eq!(Tree::new(merged.entries().to_vec()).unwrap(), merged);
    }
}

/// Entries as somebody who means harm would choose them.
fn hostile() -> impl Strategy<Value = Made> {
    let name = prop::sample::select(vec![
        "a",
        "a/b",
        "a/b/c",
        "b",
        "/b",
        "./a/",
        "../escaped-x",
        "a/../../escaped-x",
        "..",
        ".",
        "/",
        "a//b",
        ".wh.a",
        "a/.wh.b",
        ".wh..wh..opq",
        "a/.wh..wh..opq",
        ".wh...",
        "a/.wh..",
        "l",
        "l/escaped-x",
        "l/escaped-x/y",
    ]);
    let target = prop::sample::select(vec![
        "a",
        "a/b",
        "b",
        "l",
        "/",
        "..",
        "../escaped-x",
        "../../../../etc",
        "/etc",
        "/tmp",
        "l/escaped-x",
        ".",
        "",
    ]);
    let content = prop::collection::vec(any::<u8>(), 0..600);
    let kind = prop::sample::select(b"0123456755222111\0LKxgS".to_vec());
    let size = prop::option::weighted(0.1, 0u64..5000);
    (kind, name, target, content, size).prop_map(|(kind, name, target, content, size)| {
        let made = match kind {
            b'x' => pax(&[("path", name.as_bytes()), ("linkpath", target.as_bytes())]),
            b'0' | b'7' | 0 => made(kind, name, content),
            b'L' | b'K' => made(kind, "x", target),
            _ => made(kind, name, ""),
        };
        let made = made.link_name(target);
        match size {
            Some(size) => made.size(size),
            None => made,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_archive_reaches_outside(entries in prop::collection::vec(hostile(), 1..12)) {
        let place = temporary();
        let layer = place.path().join("one/two/layer");
        fs_err::create_dir_all(&layer).unwrap();
        let blob = archive(entries);
        let options = ApplyOptions { threads: 2, ..ApplyOptions::default() };
        let applied = apply(&*blob, &RootDir::open(&layer).unwrap(), &options);
        // Nothing has appeared on the way to the directory.
        for (directory, only) in [("", "one"), ("one", "two"), ("one/two", "layer")] {
            let names = fs_err::read_dir(place.path().join(directory)).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            prop_assert_eq!(names, [only]);
        }
        for directory in ["/", "/tmp", "/etc"] {
            prop_assert!(!Path::new(directory).join("escaped-x").exists());
        }
        if let Ok(applied) = applied
            && applied.omitted == Default::default()
            && formwork_testing::is_root()
        {
            let entries = applied.tree.into_entries();
            let below_root = entries.into_iter().filter(|entry| !entry.path.is_root()).collect();
            let tree = as_scanned(&Tree::new(below_root).unwrap());
            let scanned = scan(&layer).into_entries();
            let scanned = scanned.into_iter().filter(|entry| !entry.path.is_root()).collect();
            prop_assert_eq!(Tree::new(scanned).unwrap(), tree);
        }
    }

    #[test]
    fn damaged_blobs_end_in_a_result(
        compression in compression(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let options = PackOptions { compression, ..PackOptions::default() };
        let mut blob = Vec::new();
        pack(&one_of_everything(), &options, &mut blob).unwrap();
        let at = at.index(blob.len());
        blob[at] ^= byte;
        blob.truncate(end.index(blob.len() * 2).max(1));
        let _ = index(&*blob, &ApplyOptions { threads: 2, ..ApplyOptions::default() });
    }
}
