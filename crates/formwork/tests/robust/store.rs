//! Stores that are damaged, full, not to be written, or none at all.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::arena::Arena;
use crate::traces::{all_files, files};

const DOCKERFILE: &str = "FROM base AS a\nRUN echo one > /one\nCOPY file /file\n\
                          FROM base\nCOPY --from=a /one /file /\nRUN cat /one /file > /two\n";

fn build(arena: &Arena) -> String {
    arena.file("file", "two\n");
    arena.build(DOCKERFILE, ARGS).image().to_owned()
}

const ARGS: &[&str] = &[
    "--build-arg=SOURCE_DATE_EPOCH=1000000000",
    "--tag=app",
    "--output=type=image",
    "--output=type=oci,dest=out.tar",
];

type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 4] = [
    ("emptied", |path| fs_err::write(path, "").unwrap()),
    ("filled with garbage", |path| fs_err::write(path, [0xfe; 300]).unwrap()),
    ("changed in the middle", |path| {
        let mut bytes = fs_err::read(path).unwrap();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0xff;
        }
        fs_err::write(path, bytes).unwrap();
    }),
    ("removed", |path| fs_err::remove_file(path).unwrap()),
];

/// Every kind of file of the store, damaged in every way: the next build works, or says which file
/// to remove, and then works.
#[test]
fn a_damaged_file_of_the_store_is_made_anew_or_named() {
    let Some(arena) = Arena::new() else { return };
    let image = build(&arena);
    arena.build("FROM app\nRUN true\n", &["-t", "other"]).image();
    let mut kinds = std::collections::BTreeMap::new();
    for path in files(&arena.store()) {
        // Blobs and layers differ in what is made of them.
        let is_different =
            ["/blobs/", "/snapshots-v1/"].iter().any(|part| path.to_str().unwrap().contains(part));
        let kind = if is_different { path.clone() } else { kind(&arena.store(), &path) };
        kinds.entry(kind).or_insert(path);
    }
    // Without it, a directory is no store.
    kinds.remove(Path::new("formwork-store"));
    assert!(kinds.len() > 8, "{kinds:?}");
    let mut problems = Vec::new();
    for (kind, path) in &kinds {
        let kind = kind.display();
        for (how, damage) in DAMAGES {
            if !path.exists() {
                build(&arena);
            }
            if !path.exists() {
                continue;
            }
            damage(path);
            let ran = arena.build(DOCKERFILE, ARGS);
            if ran.status.success() {
                if ran.image() != image {
                    problems.push(format!("{kind} {how}: another image"));
                }
                continue;
            }
            // The file, or the layer that it is about.
            let names = path.iter().rev().take(2).map(|name| name.to_str().unwrap());
            let mut telling = names.filter(|name| name.len() > 30 || name.contains('.'));
            let names_it = telling.any(|name| ran.stderr.contains(name));
            if !matches!(ran.status.code(), Some(1 | 4)) || !names_it {
                problems.push(format!("{kind} {how}: {} {}", ran.status, ran.stderr));
            }
            // What the message advises, unless it has been done.
            drop(fs_err::remove_file(path));
            let ran = arena.build(DOCKERFILE, ARGS);
            if !ran.status.success() || ran.image() != image {
                problems.push(format!("{kind} {how} and removed: {}", ran.stderr));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_layer_whose_files_are_gone_is_made_anew_or_named() {
    let Some(arena) = Arena::new() else { return };
    let build_app = || arena.build("FROM base\nRUN echo one > /one\n", &["-t", "app"]);
    build_app().image();
    for directory in fs_err::read_dir(arena.store().join("snapshots-v1")).unwrap() {
        let files = directory.unwrap().path().join("fs");
        if files.exists() {
            fs_err::remove_dir_all(files).unwrap();
        }
    }
    let dockerfile = "FROM app\nRUN cat /one\n";
    let ran = arena.build(dockerfile, &[]);
    ran.fails(4, &["snapshots-v1", "build the image that it belongs to again", "Dockerfile:2"]);
    build_app().image();
    arena.build(dockerfile, &[]).image();
    arena.assert_nothing_is_left();
    arena.assert_store_is_sound();
}

/// What a file of the store is, without that by which it differs from others of its kind.
fn kind(store: &Path, path: &Path) -> PathBuf {
    let path = path.strip_prefix(store).unwrap();
    let parts = path.iter().map(|part| {
        let text = part.to_str().unwrap();
        if text.len() >= 60 { "*" } else { text }
    });
    let mut kind: PathBuf = parts.collect();
    if kind.starts_with("index-v1") {
        kind = "index-v1".into();
    }
    kind
}

#[test]
fn a_place_that_is_no_store_is_left_alone() {
    let Some(arena) = Arena::new() else { return };
    let with_root = |root: &str| {
        arena.file("Dockerfile", "FROM base\nRUN true\n");
        let mut command = arena.build_command(&[]);
        command.env("FORMWORK_ROOT", root);
        arena.start(command).wait()
    };
    let home = arena.path("home");
    fs_err::write(home.join("mine"), "precious").unwrap();
    with_root("home").fails(4, &["home", "not a formwork store", "--root"]);
    assert_eq!(all_files(&home), [home.join("mine")]);
    with_root("home/mine").fails(4, &["home/mine"]);
    with_root("home/mine/below").fails(4, &["home/mine"]);
    with_root("/proc/formwork").fails(4, &["/proc/formwork"]);
    assert_eq!(fs_err::read(home.join("mine")).unwrap(), b"precious");
}

#[test]
fn a_store_that_cannot_be_written_is_told() {
    let Some(arena) = Arena::of_ordinary_user() else { return };
    arena.build("FROM base\nRUN true\n", &[]).image();
    let owner = fs_err::metadata(arena.store()).unwrap();
    let give = |uid, gid| {
        for directory in ["tmp", "locks", "content", "snapshots-v1", "index-v1", "images-v1"] {
            let directory = arena.store().join(directory);
            std::os::unix::fs::chown(directory, Some(uid), Some(gid)).unwrap();
        }
    };
    give(0, 0);
    let ran = arena.build("FROM base\nRUN echo x > /x\n", &[]);
    give(owner.uid(), owner.gid());
    ran.fails(4, &["error", "store", "Permission denied"]);
    arena.build("FROM base\nRUN echo x > /x\n", &[]).image();
    arena.assert_nothing_is_left();
}

#[test]
fn few_open_files_are_enough_or_told() {
    let Some(arena) = Arena::new() else { return };
    for file in 0..200 {
        arena.file(&format!("many/{file}"), "x");
    }
    arena.file("Dockerfile", "FROM base\nCOPY many /many\nRUN ls /many\n");
    for limit in [8, 16, 24, 32, 64] {
        let script = format!(
            "ulimit -n {limit}; exec \"$FORMWORK\" build --progress=plain \
             --build-context base=oci-layout://\"$BASE\" context -o type=oci,dest=out.tar"
        );
        let ran = arena.start(arena.below(&["sh", "-c", &script])).wait();
        match ran.status.code() {
            Some(0) => {}
            _ if limit == 64 => panic!("{}", ran.stderr),
            _ => ran.fails(4, &["error", "ulimit -n"]),
        }
        arena.assert_nothing_runs();
    }
    arena.build("FROM base\nCOPY many /many\nRUN ls /many\n", &[]).image();
    arena.assert_nothing_is_left();
    arena.assert_store_is_sound();
}

#[test]
fn a_file_that_may_not_get_so_large_is_told() {
    let Some(arena) = Arena::new() else { return };
    arena.file("Dockerfile", "FROM base\nRUN true\n");
    let script = "ulimit -f 100; exec \"$FORMWORK\" build --progress=plain --build-context \
                  base=oci-layout://\"$BASE\" context -o type=oci,dest=out.tar";
    let ran = arena.start(arena.below(&["sh", "-c", script])).wait();
    ran.fails(4, &["error", "File too large"]);
    arena.assert_nothing_is_left();
    arena.build("FROM base\nRUN true\n", &[]).image();
}

#[test]
fn closed_streams_do_not_matter() {
    let Some(arena) = Arena::new() else { return };
    arena.file("Dockerfile", "FROM base\nRUN echo hello; echo there >&2\n");
    for redirection in [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full", "| true"] {
        let script = format!(
            "\"$FORMWORK\" build --no-cache --progress=plain \
             --build-context base=oci-layout://\"$BASE\" context {redirection}"
        );
        let ran = arena.start(arena.below(&["sh", "-c", &script])).wait();
        ran.fails(0, &[]);
        arena.assert_nothing_is_left();
    }
    let script = "\"$FORMWORK\" build --progress=plain --build-context \
                  base=oci-layout://\"$BASE\" context > /dev/full";
    arena.start(arena.below(&["sh", "-c", script])).wait().fails(4, &["No space left"]);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let Some(arena) = Arena::of_ordinary_user() else { return };
    fs_err::write(arena.path("file"), "").unwrap();
    // What the command line says is looked at first, and nothing is built in vain.
    for (code, output, names) in [
        (1, "type=oci,dest=/nowhere/out.tar", "/nowhere/out.tar"),
        (4, "type=oci,dest=/proc/out.tar", "/proc/out.tar"),
        (4, "type=oci,dest=home", "home"),
        (1, "type=tar,dest=/nowhere/out.tar", "/nowhere/out.tar"),
        (4, "type=local,dest=/nowhere", "/nowhere"),
        (4, "type=local,dest=file", "file"),
        (4, "type=oci,tar=false,dest=/nowhere", "/nowhere"),
        (4, "type=oci,tar=false,dest=file", "file"),
        (4, "type=docker,dest=/etc/out.tar", "/etc/out.tar"),
    ] {
        let ran = arena.build("FROM base\nRUN true\n", &["-o", output]);
        ran.fails(code, &["error", names]);
        arena.assert_nothing_is_left();
    }
    let ran = arena.build("FROM base\n", &["--iidfile", "/nowhere/id"]);
    ran.fails(1, &["/nowhere/id"]);
}
