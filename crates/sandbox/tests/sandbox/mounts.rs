//! What the specification mounts.

use std::os::unix::fs::symlink;

use formwork_fs::RelPath;
use formwork_sandbox::{
    ExitStatus, FileData, IdKind, MountKind, MountPoint, ProcessSpec, RootFs, Rung, SandboxError,
    Stub, User,
};
use rustix::fs::{CWD, FileType, Mode};

use crate::arena::{Arena, bind, elf_that_exits_with_its_effective_user, list, rel};
use crate::rungs::{has_user_namespaces, on_each_rung, rung};

fn with(mut spec: ProcessSpec, mounts: impl IntoIterator<Item = MountPoint>) -> ProcessSpec {
    spec.mounts.extend(mounts);
    spec
}

fn part(source: &std::path::Path, subpath: &str, stub: Stub, read_only: bool) -> MountPoint {
    let (source, subpath) = (source.to_owned(), RelPath::clean(subpath).unwrap());
    let kind = MountKind::Bind { source, subpath, read_only, stub };
    MountPoint { target: rel("mnt"), kind }
}

fn file(target: &str, content: &str) -> MountPoint {
    let data = FileData(content.as_bytes().to_vec());
    let kind = MountKind::File { data, mode: 0o644, uid: 0, gid: 0, read_only: true };
    MountPoint { target: rel(target), kind }
}

#[test]
fn bind_mounts_show_the_hosts_files() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[("dir/file", "content"), ("dir/other", "")]);
        for (mount, script, expected) in [
            (part(&source, "", Stub::Dir, true), "ls /mnt; cat /mnt/dir/file", "dir\ncontent"),
            (part(&source, "dir", Stub::Dir, true), "ls /mnt", "file\nother\n"),
            (part(&source, "dir/file", Stub::File, true), "cat /mnt", "content"),
            (part(&source.join("dir/file"), "", Stub::File, true), "cat /mnt", "content"),
        ] {
            let ended = arena.run(with(arena.script(script), [mount])).unwrap();
            assert_eq!(ended.success(), expected);
        }
    });
}

#[test]
fn bind_mounts_are_read_only_or_not() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[("file", "old")]);
        let script = "echo new > /mnt/file; touch /mnt/more; chmod 600 /mnt/file; true";
        arena.run(with(arena.script(script), [part(&source, "", Stub::Dir, true)])).unwrap();
        assert_eq!(fs_err::read(source.join("file")).unwrap(), b"old");
        assert_eq!(list(&source), ["/file"]);
        arena.run(with(arena.script(script), [part(&source, "", Stub::Dir, false)])).unwrap();
        assert_eq!(fs_err::read(source.join("file")).unwrap(), b"new\n");
        assert_eq!(list(&source), ["/file", "/more"]);
    });
}

#[test]
fn setuid_programs_and_devices_of_the_host_are_powerless() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[]);
        elf_that_exits_with_its_effective_user(&source.join("setuid"), 0o4755);
        let mut spec = with(arena.spec(&["/mnt/setuid"]), [part(&source, "", Stub::Dir, true)]);
        spec.user = User { uid: 77, gid: 77, groups: vec![] };
        assert_eq!(arena.run(spec).unwrap().report.status, ExitStatus::Exited(77));
        // Only real root can make the device.
        let (zero, mode) = (rustix::fs::makedev(1, 5), Mode::from_raw_mode(0o666));
        let device = source.join("zero");
        if rustix::fs::mknodat(CWD, device, FileType::CharacterDevice, mode, zero).is_ok() {
            let script = "head -c 1 /mnt/zero | wc -c";
            let spec = with(arena.script(script), [part(&source, "", Stub::Dir, true)]);
            assert_eq!(arena.run(spec).unwrap().stdout, "0\n");
        }
    });
}

#[test]
fn links_in_a_source_cannot_lead_out_of_it() {
    on_each_rung(|arena| {
        // CVE-2024-1753, CVE-2024-9675.
        let source = arena.tree("source", &[("secret/file", "inside"), ("deep/a/b/", "")]);
        let secret = arena.tree("secret", &[("file", "outside")]);
        symlink(&secret, source.join("absolute")).unwrap();
        symlink("../secret", source.join("up")).unwrap();
        symlink("../../../../../../secret", source.join("deep/a/up")).unwrap();
        symlink("/proc/self/root", source.join("magic")).unwrap();
        symlink("/proc/self/cwd/../..", source.join("cwd")).unwrap();
        let run = |subpath: &str| {
            let mount = part(&source, subpath, Stub::Dir, true);
            arena.run(with(arena.script("cat /mnt/file"), [mount])).map(|ended| ended.stdout)
        };
        assert_eq!(run("up").unwrap(), "inside");
        assert_eq!(run("deep/a/up").unwrap(), "inside");
        for outside in ["absolute", "magic", "cwd", "magic/etc"] {
            let error = run(outside).unwrap_err().to_string();
            assert!(error.contains("No such file"), "{outside}: {error}");
        }
    });
}

#[test]
fn links_on_the_way_to_a_target_are_followed_inside() {
    on_each_rung(|arena| {
        let outside = arena.tree("outside", &[]);
        let layer = arena.tree(
            "links",
            &[
                ("etc/resolv.conf", "->../run/systemd/resolve/stub-resolv.conf"),
                ("abs", &format!("->{}", outside.display())),
                ("up", "->../../../../../../../tmp/up"),
                ("chain", "->chain2/x"),
                ("chain2", "->/tmp/./../tmp"),
            ],
        );
        let script =
            "cat /etc/resolv.conf /run/systemd/resolve/stub-resolv.conf /abs/f /tmp/up /tmp/x";
        let mut spec = arena.script(script);
        spec.root.layers.push(layer);
        let mounts =
            [file("etc/resolv.conf", "1"), file("abs/f", "2"), file("up", "3"), file("chain", "4")];
        assert_eq!(arena.run(with(spec, mounts)).unwrap().success(), "11234");
        assert!(list(&outside).is_empty());
        assert!(!std::path::Path::new("/tmp/up").exists());
    });
}

#[test]
fn targets_that_cannot_be_are_refused() {
    on_each_rung(|arena| {
        let layer = arena.tree(
            "odd",
            &[
                ("loop", "->loop"),
                ("a", "->b/x"),
                ("b", "->a/x"),
                ("file", ""),
                ("dir/", ""),
                ("p", "->proc"),
            ],
        );
        for (mount, expected) in [
            (file("loop", ""), "`/loop`: its symbolic links lead in a circle"),
            (file("a/f", ""), "`/a/f`: its symbolic links lead in a circle"),
            (file("dir", ""), "`/dir`: a file is to be mounted"),
            (bind(&layer, "file"), "`/file`: a directory is to be mounted"),
            (file("file/below", ""), "`/file/below`: Not a directory"),
            (file("proc/version", ""), "`/proc/version`: nothing may be mounted inside /proc"),
            (bind(&layer, "p"), "`/p`: nothing may be mounted inside /proc"),
            (file("p/self/attr/x", ""), "`/p/self/attr/x`"),
            (bind(&layer, ""), "nothing can be mounted on `/`"),
        ] {
            let mut spec = arena.script("true");
            spec.root.layers.push(layer.clone());
            let error = run_without_stubs(arena, with(spec, [mount]));
            assert!(error.contains(expected), "{expected}:\n{error}");
        }
    });
}

/// The stubs would be in the way of the layer's own files.
fn run_without_stubs(arena: &Arena, mut spec: ProcessSpec) -> String {
    spec.root.layers.insert(0, arena.tree("stubs", &[("dev/", ""), ("proc/", ""), ("sys/", "")]));
    let cancel = formwork_sandbox::Cancel::new().unwrap();
    match crate::arena::run(&arena.launcher, &spec, &cancel) {
        Err(error) => error.to_string(),
        Ok(ended) => panic!("it ran: {:?}", ended.report),
    }
}

#[test]
fn later_mounts_may_lie_in_earlier_ones() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[("below/", "")]);
        let tmpfs = MountKind::Tmpfs { size: None, mode: 0o755 };
        let mounts = [
            MountPoint { target: rel("mnt"), kind: tmpfs.clone() },
            bind(&source, "mnt/a/b"),
            MountPoint { target: rel("mnt/a/b/below"), kind: tmpfs },
            file("mnt/a/b/below/file", "deep"),
            file("dev/pipes/script", "in dev"),
        ];
        let script = "cat /mnt/a/b/below/file /dev/pipes/script; echo > /mnt/x; ls /mnt/a/b";
        let ended = arena.run(with(arena.script(script), mounts)).unwrap();
        assert_eq!(ended.report.created, []);
        assert_eq!(ended.success(), "deepin devbelow\n");
        assert_eq!(list(&source), ["/below"]);
    });
}

#[test]
fn temporary_file_systems_have_their_size_and_mode() {
    on_each_rung(|arena| {
        let kind = MountKind::Tmpfs { size: Some(1 << 20), mode: 0o1770 };
        let script =
            "stat -c %a /mnt; dd if=/dev/zero of=/mnt/x bs=1M count=2 2>/dev/null || echo full";
        let mount = MountPoint { target: rel("mnt"), kind };
        assert_eq!(
            arena.run(with(arena.script(script), [mount])).unwrap().success(),
            "1770\nfull\n"
        );
    });
}

#[test]
fn files_have_their_content_mode_and_owner() {
    on_each_rung(|arena| {
        let large = "x".repeat(3_000_000);
        let kind = |data: &str, mode, id, read_only| MountKind::File {
            data: FileData(data.as_bytes().to_vec()),
            mode,
            uid: id,
            gid: id + 1,
            read_only,
        };
        let mounts = [
            MountPoint { target: rel("run/secrets/s"), kind: kind("secret", 0o400, 0, true) },
            MountPoint { target: rel("run/w"), kind: kind("writable", 0o666, 1000, false) },
            MountPoint { target: rel("run/large"), kind: kind(&large, 0o444, 7, true) },
            MountPoint {
                target: rel("run/script"),
                kind: kind("#!/bin/sh\necho ran", 0o755, 0, true),
            },
        ];
        let script = "stat -c '%a %u %g %s' /run/secrets/s /run/w /run/large
                      cat /run/secrets/s; echo; /run/script
                      echo no > /run/secrets/s; chmod 777 /run/secrets/s; rm /run/secrets/s
                      echo yes > /run/w; cat /run/w; ls -A /dev | grep -c '^\\.'";
        let ended = arena.run(with(arena.script(script), mounts)).unwrap();
        let expected = "400 0 1 6\n666 1000 1001 8\n444 7 8 3000000\nsecret\nran\nyes\n0\n";
        assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    });
}

#[test]
fn a_files_owner_must_exist() {
    on_each_rung(|arena| {
        let kind = MountKind::File {
            data: FileData(Vec::new()),
            mode: 0o400,
            uid: 0,
            gid: 3_000_000,
            read_only: true,
        };
        let mount = MountPoint { target: rel("secret"), kind };
        match (rung(), arena.run(with(arena.script("stat -c %g /secret"), [mount]))) {
            (Rung::Root | Rung::SingleId, ended) => {
                assert_eq!(ended.unwrap().success(), "3000000\n");
            }
            (_, Err(SandboxError::IdNotMapped { kind: IdKind::Group, id: 3_000_000, .. })) => {}
            (_, other) => panic!("{:?}", other.map(|ended| ended.report)),
        }
    });
}

#[test]
fn secrets_do_not_show_in_what_is_printed() {
    let mount = file("secret", "hunter2");
    assert!(!format!("{mount:?}").contains("hunter2"));
    assert!(format!("{mount:?}").contains("7 bytes"));
}

#[test]
fn another_tree_can_be_mounted_whole_or_in_part() {
    on_each_rung(|arena| {
        let low = arena
            .tree("low", &[("usr/lib/a", "low a"), ("usr/lib/b", "low b"), ("link", "->/usr/lib")]);
        let high = arena.tree("high", &[("usr/lib/a", "high a")]);
        let tree = RootFs::read_only([&low, &high]);
        let mount = |tree: &RootFs, subpath: &str, stub| MountPoint {
            target: rel("mnt"),
            kind: MountKind::Overlay { tree: tree.clone(), subpath: rel(subpath), stub },
        };
        let one = RootFs::read_only([&low]);
        let run = |mount, script: &str| arena.run(with(arena.script(script), [mount])).unwrap();
        assert_eq!(run(mount(&tree, "", Stub::Dir), "ls /mnt").stdout, "link\nusr\n");
        assert_eq!(run(mount(&tree, "usr/lib", Stub::Dir), "cat /mnt/*").stdout, "high alow b");
        assert_eq!(run(mount(&tree, "link", Stub::Dir), "cat /mnt/*").stdout, "high alow b");
        assert_eq!(run(mount(&tree, "usr/lib/a", Stub::File), "cat /mnt").stdout, "high a");
        assert_eq!(run(mount(&one, "link/b", Stub::File), "cat /mnt").stdout, "low b");
        let ended = run(mount(&tree, "", Stub::Dir), "touch /mnt/x /mnt/usr/lib/a");
        assert_eq!(ended.report.status, ExitStatus::Exited(1));
        let ended = run(mount(&one, "", Stub::Dir), "touch /mnt/x /mnt/usr/lib/a");
        assert_eq!(ended.report.status, ExitStatus::Exited(1));
        // What was needed on the way is gone: there is nothing on top of the root.
        let script = "[ \"$(ls /..)\" = \"$(ls /)\" ] && grep -c overlay /proc/self/mountinfo";
        assert_eq!(run(mount(&tree, "usr", Stub::Dir), script).stdout, "2\n");
        let error = arena.refused(with(arena.script("true"), [mount(&tree, "no", Stub::Dir)]));
        assert!(error.contains("mount's source `/no`: No such file"), "{error}");
    });
}

#[test]
fn changes_of_another_tree_go_to_its_own_upper_directory() {
    on_each_rung(|arena| {
        let low = arena.tree("low", &[("dir/file", "old")]);
        let (upper, work) = arena.upper();
        let tree = RootFs::writable([&low], &upper, work);
        let kind = MountKind::Overlay { tree, subpath: rel("dir"), stub: Stub::Dir };
        let mount = MountPoint { target: rel("mnt"), kind };
        let script = "echo new > /mnt/file; cat /mnt/file";
        assert_eq!(arena.run(with(arena.script(script), [mount])).unwrap().success(), "new\n");
        assert_eq!(list(&upper), ["/dir", "/dir/file"]);
        assert_eq!(fs_err::read(low.join("dir/file")).unwrap(), b"old");
    });
}

#[test]
fn the_layers_of_the_root_may_be_mounted_once_more() {
    on_each_rung(|arena| {
        let layer = arena.busybox();
        let other = arena.tree("other", &[("x", "")]);
        let tree = RootFs::read_only([&layer, &other]);
        let kind = MountKind::Overlay { tree, subpath: rel("bin"), stub: Stub::Dir };
        let mount = MountPoint { target: rel("mnt"), kind };
        assert_eq!(arena.run(with(arena.spec(&["/mnt/true"]), [mount])).unwrap().success(), "");
    });
}

#[test]
fn a_source_of_another_kind_is_refused() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[("file", "")]);
        for (subpath, stub) in [("", Stub::File), ("file", Stub::Dir)] {
            let mount = part(&source, subpath, stub, true);
            let error = arena.refused(with(arena.script("true"), [mount]));
            assert!(error.contains(&format!("mounted on `/mnt` is no {stub}")), "{error}");
        }
        let mount = part(&arena.path("missing"), "", Stub::Dir, true);
        let error = arena.refused(with(arena.script("true"), [mount]));
        assert!(error.contains("missing`: No such file"), "{error}");
    });
}

#[test]
fn what_the_host_mounts_later_does_not_show_and_the_reverse() {
    on_each_rung(|arena| {
        let source = arena.tree("source", &[("below/", "")]);
        let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        let mut spec = with(
            arena.script("mount -t tmpfs x /mnt/below"),
            [part(&source, "", Stub::Dir, false)],
        );
        spec.privileged = has_user_namespaces();
        let ended = arena.run(spec).unwrap();
        assert_eq!(ended.report.status.is_success(), has_user_namespaces(), "{}", ended.stderr);
        assert_eq!(mounts(), before);
    });
}
