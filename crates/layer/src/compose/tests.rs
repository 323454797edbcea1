//! Copies, as tables.

use formwork_pattern::IgnorePatterns;

use super::*;
use crate::tree::testing::{dir, entry, file, link, opaque, path, symlink, tree, whiteout};

/// What stands in a tree: the path, what it is, and what its mode and owner are if these are not
/// the usual ones.
fn show(tree: &Tree) -> String {
    let show = |entry: &Entry| {
        let Metadata { mode, uid, gid, .. } = entry.metadata;
        let (what, usual) = match &entry.node {
            Node::File(file) => {
                let content = file.read(100).unwrap().unwrap();
                (format!("={}", String::from_utf8_lossy(&content)), 0o644)
            }
            Node::Directory { opaque: false } => ("/".to_owned(), 0o755),
            Node::Directory { opaque: true } => ("/!".to_owned(), 0o755),
            Node::Symlink { target } => (format!("@{}", String::from_utf8_lossy(target)), 0o777),
            Node::HardLink { target } => (format!("->{target}"), mode),
            other => (format!(":{other:?}"), 0o644),
        };
        let mode = if mode == usual { String::new() } else { format!(" {mode:o}") };
        let owner = if (uid, gid) == (0, 0) { String::new() } else { format!(" {uid}:{gid}") };
        match (mode + &owner).trim() {
            "" => format!("{}{what}", entry.path),
            unusual => format!("{}{what}({unusual})", entry.path),
        }
    };
    tree.entries().iter().map(show).collect::<Vec<_>>().join(" ")
}

fn source() -> Tree {
    let mut owned = file("owned", "o");
    (owned.metadata.uid, owned.metadata.gid, owned.metadata.mode) = (7, 8, 0o4750);
    let mut private = dir("dir/private");
    private.metadata.mode = 0o700;
    tree([
        file("a.txt", "a"),
        file("b.txt", "b"),
        dir("dir"),
        file("dir/x", "x"),
        dir("dir/sub"),
        file("dir/sub/y", "y"),
        private,
        dir("empty"),
        dir("links"),
        file("links/1", "l"),
        link("links/2", "links/1"),
        symlink("links/soft", "1"),
        symlink("to-a", "a.txt"),
        symlink("to-dir", "dir"),
        owned,
        entry("fifo", Node::Fifo),
    ])
}

fn below() -> [Tree; 2] {
    let mut etc = dir("etc");
    (etc.metadata.mode, etc.metadata.uid) = (0o750, 3);
    [
        tree([
            etc,
            file("etc/passwd", "old"),
            dir("usr"),
            dir("usr/lib"),
            symlink("lib", "usr/lib"),
            dir("gone"),
            file("gone/x", "1"),
            symlink("abs", "/usr"),
            symlink("dangling", "new/place"),
            symlink("loop", "loop"),
        ]),
        tree([
            whiteout("gone"),
            dir("opt"),
            dir("opt/x"),
            opaque("opt/sub"),
            file("file", "f"),
            symlink("to-file", "file"),
        ]),
    ]
}

/// The layer that copying something makes, in front of what it lies on, or why it cannot be made.
fn copied(pattern: &str, destination: &str, options: &CopyOptions<'_>) -> String {
    let (layers, source) = (below(), source());
    run(&layers, |composer| copy(composer, &source, pattern, destination, options))
}

fn run(below: &[Tree], act: impl FnOnce(&mut Composer<'_>) -> Result<(), LayerError>) -> String {
    let mut composer = Composer::new(Stack::new(below));
    match act(&mut composer).and_then(|()| composer.finish()) {
        Ok(tree) => show(&tree),
        Err(error) => format!("error: {error}"),
    }
}

fn copy(
    composer: &mut Composer<'_>,
    source: &Tree,
    pattern: &str,
    destination: &str,
    options: &CopyOptions<'_>,
) -> Result<(), LayerError> {
    let options = CopyOptions { into_directory: destination.ends_with('/'), ..options.clone() };
    let destination = RelPath::clean(destination).unwrap();
    let source = Stack::new([source]);
    for selected in select(&source, pattern.as_bytes())? {
        composer.copy(&source, &selected, &destination, &options)?;
    }
    Ok(())
}

#[test]
fn files_go_into_directories_or_take_a_name() {
    for (pattern, destination, expected) in [
        ("a.txt", "/b", "/b=a"),
        ("a.txt", "/", "/a.txt=a"),
        ("a.txt", "/new/", "/new/ /new/a.txt=a"),
        ("a.txt", "/new/deep/name", "/new/ /new/deep/ /new/deep/name=a"),
        ("a.txt", "/opt", "/opt/ /opt/a.txt=a"),
        ("a.txt", "/opt/", "/opt/ /opt/a.txt=a"),
        ("a.txt", "/gone", "/gone=a"),
        ("a.txt", "/etc/passwd", "/etc/(750 3:0) /etc/passwd=a"),
        ("a.txt", "/file", "/file=a"),
        ("*.txt", "/new/", "/new/ /new/a.txt=a /new/b.txt=b"),
        ("*.txt", "/name", "/name=b"),
        ("a*", "/name", "/name=a"),
        ("nothing*", "/new/", ""),
        ("owned", "/", "/owned=o(4750 7:8)"),
        ("fifo", "/", "/fifo:Fifo"),
        ("to-a", "/new/", "/new/ /new/to-a=a"),
        ("to-a", "/name", "/name=a"),
        ("links/2", "/name", "/name=l"),
    ] {
        let copied = copied(pattern, destination, &CopyOptions::default());
        assert_eq!(copied, expected, "{pattern} {destination}");
    }
}

#[test]
fn directories_are_merged() {
    for (pattern, destination, expected) in [
        ("dir", "/new", "/new/ /new/private/(700) /new/sub/ /new/sub/y=y /new/x=x"),
        ("dir/", "/new/", "/new/ /new/private/(700) /new/sub/ /new/sub/y=y /new/x=x"),
        ("dir", "/gone", "/gone/ /gone/private/(700) /gone/sub/ /gone/sub/y=y /gone/x=x"),
        ("dir/sub", "/etc", "/etc/(750 3:0) /etc/y=y"),
        ("dir/sub", "/", "/y=y"),
        ("empty", "/new", "/new/"),
        ("empty", "/opt", ""),
        ("to-dir", "/new", "/new/ /new/private/(700) /new/sub/ /new/sub/y=y /new/x=x"),
        ("links", "/new", "/new/ /new/1=l /new/2->/new/1 /new/soft@1"),
        ("di*", "/new/", "/new/ /new/private/(700) /new/sub/ /new/sub/y=y /new/x=x"),
    ] {
        let copied = copied(pattern, destination, &CopyOptions::default());
        assert_eq!(copied, expected, "{pattern} {destination}");
    }
}

#[test]
fn existing_directories_take_over_the_sources_metadata_but_not_the_destination() {
    let mut root = dir("");
    root.metadata.mode = 0o700;
    let mut etc = dir("etc");
    (etc.metadata.mode, etc.metadata.uid) = (0o711, 5);
    let source = tree([root, etc]);
    let layers = below();
    let copy = |destination: &str| {
        run(&layers, |composer| copy(composer, &source, "/", destination, &CopyOptions::default()))
    };
    assert_eq!(copy("/"), "/etc/(711 5:0)");
    assert_eq!(copy("/opt"), "/opt/ /opt/etc/(711 5:0)");
}

#[test]
fn the_destination_takes_over_the_time_of_the_directory_that_is_copied() {
    let at = |seconds| Timestamp { seconds, ..Timestamp::default() };
    let mut directory = dir("dir");
    directory.metadata.mtime = at(5);
    let source = tree([directory, file("dir/x", "x")]);
    let below = [tree([dir("there")])];
    for destination in ["/there", "/new/place"] {
        let mut composer = Composer::new(Stack::new(&below));
        let options = CopyOptions { created: at(1), ..CopyOptions::default() };
        copy(&mut composer, &source, "dir", destination, &options).unwrap();
        let made = composer.finish().unwrap();
        let mtime = |name| made.get(&path(name)).map(|entry| entry.metadata.mtime);
        assert_eq!(mtime(destination), Some(at(5)), "{destination}");
        assert!(mtime("/new").is_none_or(|time| time == at(1)));
    }
}

#[test]
fn links_in_the_destination_are_followed_inside_the_root() {
    for (pattern, destination, expected) in [
        ("a.txt", "/lib/", "/usr/ /usr/lib/ /usr/lib/a.txt=a"),
        ("a.txt", "/lib", "/usr/ /usr/lib/ /usr/lib/a.txt=a"),
        ("a.txt", "/abs/lib/name", "/usr/ /usr/lib/ /usr/lib/name=a"),
        ("a.txt", "/dangling", "/new/ /new/place=a"),
        ("a.txt", "/dangling/", "/new/ /new/place/ /new/place/a.txt=a"),
        ("a.txt", "/to-file", "/file=a"),
        ("dir/sub", "/lib", "/usr/ /usr/lib/ /usr/lib/y=y"),
        ("dir/sub", "/lib/new", "/usr/ /usr/lib/ /usr/lib/new/ /usr/lib/new/y=y"),
        ("a.txt", "/lib/../x", "/x=a"),
    ] {
        let copied = copied(pattern, destination, &CopyOptions::default());
        assert_eq!(copied, expected, "{pattern} {destination}");
    }
}

#[test]
fn copies_that_cannot_be_made_say_why() {
    for (pattern, destination, expected) in [
        ("missing", "/", "cannot copy `missing`: it is not there"),
        ("dir", "/file", "cannot write to /file: something that is not a directory is there"),
        ("a.txt", "/file/", "cannot write to /file: something that is not a directory is there"),
        ("a.txt", "/file/x", "cannot write to /file/x: something on the way is not a directory"),
        (
            "a.txt",
            "/file/x/y",
            "cannot write to /file/x/y: something on the way is not a directory",
        ),
        (
            "a.txt",
            "/loop",
            "cannot write to /loop: it leads over too many symbolic links, or in a circle",
        ),
        (
            "dir",
            "/opt/",
            "cannot write to /opt/x: a directory is there, and a file cannot replace it",
        ),
        (
            "to-dir/sub",
            "/to-file",
            "cannot write to /file: something that is not a directory is there",
        ),
    ] {
        let copied = copied(pattern, destination, &CopyOptions::default());
        assert_eq!(copied, format!("error: {expected}"), "{pattern} {destination}");
    }
}

#[test]
fn a_directory_does_not_replace_a_link_to_one() {
    let (layers, source) = (below(), tree([dir("lib"), file("lib/x", "x")]));
    let copied =
        run(&layers, |composer| copy(composer, &source, "/", "/", &CopyOptions::default()));
    assert!(
        copied.starts_with("error: cannot write to /lib: something that is not a dir"),
        "{copied}"
    );
}

#[test]
fn a_file_replaces_a_link_where_it_goes_into_a_directory() {
    let (layers, source) = (below(), tree([file("lib", "x")]));
    let copied =
        run(&layers, |composer| copy(composer, &source, "lib", "/", &CopyOptions::default()));
    assert_eq!(copied, "/lib=x");
}

#[test]
fn owners_and_modes_apply_to_what_is_copied_and_to_what_is_made_for_it() {
    let with = |owner: Option<(u32, u32)>, mode: Option<&str>| CopyOptions {
        owner: owner.map(|(uid, gid)| Owner { uid, gid }),
        mode: mode.map(|mode| ModeChange::parse(mode).unwrap()),
        ..CopyOptions::default()
    };
    for (pattern, destination, options, expected) in [
        (
            "owned",
            "/new/x/",
            with(Some((1, 2)), None),
            "/new/(1:2) /new/x/(1:2) /new/x/owned=o(4750 1:2)",
        ),
        ("dir/sub", "/new", with(Some((1, 2)), None), "/new/(1:2) /new/y=y(1:2)"),
        (
            "dir/sub",
            "/etc/new",
            with(Some((1, 2)), None),
            "/etc/(750 3:0) /etc/new/(1:2) /etc/new/y=y(1:2)",
        ),
        (
            "a.txt",
            "/some/nested/",
            with(None, Some("0400")),
            "/some/(400) /some/nested/(400) /some/nested/a.txt=a(400)",
        ),
        (
            "dir",
            "/new",
            with(None, Some("u=rwX,go=rX")),
            "/new/ /new/private/ /new/sub/ /new/sub/y=y /new/x=x",
        ),
        (
            "dir",
            "/new",
            with(None, Some("go-rwx")),
            "/new/ /new/private/(700) /new/sub/(700) /new/sub/y=y(600) /new/x=x(600)",
        ),
        (
            "links",
            "/new",
            with(Some((1, 2)), Some("700")),
            "/new/(700 1:2) /new/1=l(700 1:2) /new/2->/new/1(1:2) /new/soft@1(1:2)",
        ),
    ] {
        assert_eq!(copied(pattern, destination, &options), expected, "{pattern} {destination}");
    }
}

#[test]
fn several_copies_are_one_layer() {
    let (layers, source) = (below(), source());
    let all = |copies: &[(&str, &str)]| {
        run(&layers, |composer| {
            copies.iter().try_for_each(|(pattern, destination)| {
                copy(composer, &source, pattern, destination, &CopyOptions::default())
            })
        })
    };
    assert_eq!(all(&[("a.txt", "/x"), ("b.txt", "/x")]), "/x=b");
    assert_eq!(all(&[("dir/sub", "/x"), ("b.txt", "/x")]), "/x/ /x/b.txt=b /x/y=y");
    let failed = all(&[("a.txt", "/x"), ("dir", "/x")]);
    assert!(failed.starts_with("error: cannot write to /x"), "{failed}");
    // What an earlier copy has made is followed and seen like what was there before.
    assert_eq!(all(&[("links", "/x"), ("a.txt", "/x/soft")]), "/x/ /x/1=a /x/2=l /x/soft@1");
}

#[test]
fn without_anything_below_every_directory_is_made() {
    let source = source();
    let copied =
        run(&[], |composer| copy(composer, &source, "a.txt", "/lib/x/", &CopyOptions::default()));
    assert_eq!(copied, "/lib/ /lib/x/ /lib/x/a.txt=a");
}

#[test]
fn what_is_excluded_is_left_out() {
    let excluded = |pattern: &str, rules: &[&str]| {
        let rules = IgnorePatterns::new(rules).unwrap();
        let options = CopyOptions { exclude: Some(&rules), ..CopyOptions::default() };
        copied(pattern, "/n/", &options)
    };
    for (pattern, rules, expected) in [
        ("dir", &["x"][..], "/n/ /n/private/(700) /n/sub/ /n/sub/y=y"),
        ("dir", &["sub"], "/n/ /n/private/(700) /n/x=x"),
        ("dir", &["**/y", "private"], "/n/ /n/sub/ /n/x=x"),
        ("dir", &["*", "!sub/y"], "/n/ /n/sub/ /n/sub/y=y"),
        ("dir", &["*", "!sub/z"], "/n/"),
        ("links", &["1"], "/n/ /n/2=l /n/soft@1"),
        ("*.txt", &["b*"], "/n/ /n/a.txt=a"),
        ("*.txt", &["*.txt"], ""),
    ] {
        assert_eq!(excluded(pattern, rules), expected, "{pattern} {rules:?}");
    }
}

#[test]
fn parents_are_kept_on_request() {
    let (layers, source) = (below(), source());
    let with_parents = |pattern: &str| {
        run(&layers, |composer| {
            let options = CopyOptions { into_directory: true, ..CopyOptions::default() };
            let source = Stack::new([&source]);
            composer.copy_with_parents(&source, pattern.as_bytes(), &path("n"), &options).map(drop)
        })
    };
    for (pattern, expected) in [
        ("dir/sub/y", "/n/ /n/dir/ /n/dir/sub/ /n/dir/sub/y=y"),
        ("./dir/./sub/y", "/n/ /n/sub/ /n/sub/y=y"),
        ("to-dir/./sub", "/n/ /n/sub/ /n/sub/y=y"),
        ("dir/sub", "/n/ /n/dir/ /n/dir/sub/ /n/dir/sub/y=y"),
        ("**/y", "/n/ /n/dir/ /n/dir/sub/ /n/dir/sub/y=y"),
        ("*/private", "/n/ /n/dir/ /n/dir/private/(700)"),
        ("nothing*", "/n/"),
        ("to-a", "/n/ /n/to-a@a.txt"),
        ("missing", "error: cannot copy `missing`: it is not there"),
        ("./", "error: cannot copy `./`: it is not there"),
        ("./dir/./", "error: cannot copy `./dir/./`: it is not there"),
        ("missing/./*", "error: cannot copy `missing/./*`: it is not there"),
    ] {
        assert_eq!(with_parents(pattern), expected, "{pattern}");
    }
}

#[test]
fn inline_files_are_files_of_root() {
    let layers = below();
    let created = Timestamp { seconds: 5, nanoseconds: 0 };
    let inline = |destination: &str, owner: Option<Owner>| {
        run(&layers, |composer| {
            let into_directory = destination.ends_with('/');
            let options = CopyOptions { into_directory, owner, created, ..CopyOptions::default() };
            composer.copy_file(b"EOF", *b"text", &RelPath::clean(destination).unwrap(), &options)
        })
    };
    assert_eq!(inline("/x", None), "/x=text");
    assert_eq!(inline("/new/", None), "/new/ /new/EOF=text");
    assert_eq!(inline("/lib", None), "/usr/ /usr/lib/ /usr/lib/EOF=text");
    assert_eq!(inline("/x", Some(Owner { uid: 4, gid: 5 })), "/x=text(4:5)");
}

#[test]
fn directories_are_made_on_request() {
    let layers = below();
    let make = |at: &str| {
        run(&layers, |composer| {
            composer.make_directory(&path(at), Owner { uid: 9, gid: 9 }, Timestamp::default())
        })
    };
    assert_eq!(make("new/deep"), "/new/(9:9) /new/deep/(9:9)");
    assert_eq!(make("etc/new"), "/etc/(750 3:0) /etc/new/(9:9)");
    assert_eq!(make("lib/new"), "/usr/ /usr/lib/ /usr/lib/new/(9:9)");
    assert_eq!(make("opt"), "");
    assert_eq!(make(""), "");
    assert_eq!(make("gone"), "/gone/(9:9)");
    assert!(make("file/x").starts_with("error: cannot write to /file/x"));
}

#[test]
fn archives_replace_what_is_in_their_way() {
    let layers = below();
    let unpack = |archive: &[Entry], implied: &[&str]| {
        let archive = tree(archive.to_vec());
        let implied: Vec<RelPath> = implied.iter().map(|implied| path(implied)).collect();
        run(&layers, |composer| {
            composer.unpack(&archive, &implied, &RelPath::root(), &CopyOptions::default())
        })
    };
    // Directories and files replace each other; a directory replaces a link.
    assert_eq!(unpack(&[file("etc", "x")], &[]), "/etc=x");
    assert_eq!(unpack(&[dir("file"), file("file/x", "x")], &[]), "/file/ /file/x=x");
    assert_eq!(unpack(&[dir("lib"), file("lib/x", "x")], &[]), "/lib/ /lib/x=x");
    // But one that is only implied leads where the link leads.
    assert_eq!(
        unpack(&[dir("lib"), file("lib/x", "x"), link("y", "lib/x")], &["lib"]),
        "/usr/ /usr/lib/ /usr/lib/x=x /y->/usr/lib/x"
    );
    assert_eq!(unpack(&[dir("etc"), file("etc/x", "x")], &["etc"]), "/etc/(750 3:0) /etc/x=x");
    assert_eq!(unpack(&[dir("new"), file("new/x", "x")], &["new"]), "/new/ /new/x=x");
    assert_eq!(
        unpack(&[dir("dangling"), file("dangling/x", "x")], &["dangling"]),
        "/dangling/ /dangling/x=x"
    );
}

#[test]
fn what_is_unpacked_takes_an_owner_but_no_mode() {
    let owner = Some(Owner { uid: 7, gid: 8 });
    let options = CopyOptions { owner, mode: ModeChange::parse("600"), ..CopyOptions::default() };
    let archive = tree([dir("d"), file("d/x", "x")]);
    let unpacked = run(&below(), |composer| composer.unpack(&archive, &[], &path("new"), &options));
    assert_eq!(unpacked, "/new/(7:8) /new/d/(7:8) /new/d/x=x(7:8)");
}

#[test]
fn a_directory_that_comes_back_hides_what_was_there_before() {
    let layers = below();
    let copied = run(&layers, |composer| {
        let root = RelPath::root();
        for archive in [tree([file("etc", "x")]), tree([dir("etc"), file("etc/y", "y")])] {
            composer.unpack(&archive, &[], &root, &CopyOptions::default())?;
        }
        Ok(())
    });
    assert_eq!(copied, "/etc/! /etc/y=y");
}

#[test]
fn copies_keep_capabilities_and_times_and_no_other_attributes() {
    let mut source = file("a", "x");
    source.metadata.mtime = Timestamp { seconds: 77, nanoseconds: 5 };
    let xattr = |name: &str| (name.as_bytes().into(), b"1"[..].into());
    source.metadata.xattrs =
        ["security.capability", "security.selinux", "user.a"].map(xattr).into_iter().collect();
    let source = tree([source]);
    let mut composer = Composer::new(Stack::default());
    let created = Timestamp { seconds: 5, nanoseconds: 0 };
    let options = CopyOptions { created, ..CopyOptions::default() };
    copy(&mut composer, &source, "a", "/new/", &options).unwrap();
    let layer = composer.finish().unwrap();
    let metadata = |at: &str| layer.get(&path(at)).unwrap().metadata.clone();
    assert_eq!(metadata("new").mtime, created);
    assert_eq!(metadata("new/a").mtime, Timestamp { seconds: 77, nanoseconds: 5 });
    let names: Vec<_> = metadata("new/a").xattrs.iter().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"security.capability"]);
}

#[test]
fn the_result_does_not_depend_on_how_the_source_is_layered() {
    let whole = source();
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    for (i, entry) in whole.entries().iter().enumerate() {
        if entry.node.is_directory() || i % 2 == 0 || entry.path.starts_with(&path("links")) {
            lower.push(entry.clone());
        }
        if entry.node.is_directory() || i % 2 == 1 && !entry.path.starts_with(&path("links")) {
            upper.push(entry.clone());
        }
    }
    let layers = [tree(lower), tree(upper)];
    let copy = |source: &Stack<'_>| {
        let mut composer = Composer::new(Stack::default());
        for selected in select(source, b"*").unwrap() {
            let options = CopyOptions { into_directory: true, ..CopyOptions::default() };
            composer.copy(source, &selected, &path("n"), &options).unwrap();
        }
        composer.finish().unwrap()
    };
    assert_eq!(copy(&Stack::new([&whole])), copy(&Stack::new(&layers)));
}

#[test]
fn what_lies_below_is_in_the_way_of_each_file_and_what_was_deleted_is_not() {
    let source = tree([dir("d"), file("d/a", "1"), file("d/b", "2"), file("d/c", "3")]);
    let lower = tree([dir("there"), dir("there/b"), dir("gone"), dir("gone/b")]);
    let layers = [lower, tree([whiteout("gone")])];
    let copied = |destination| {
        let options = CopyOptions::default();
        run(&layers, |composer| copy(composer, &source, "d", destination, &options))
    };
    assert_eq!(copied("gone"), "/gone/ /gone/a=1 /gone/b=2 /gone/c=3");
    assert!(copied("there").contains("a directory is there"), "{}", copied("there"));
}
