//! The root file system: layers, and what is written to it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use formwork_sandbox::{
    ExitStatus, FileData, MAX_LAYERS, MountKind, MountPoint, ProcessSpec, RootFs, SandboxError,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::arena::{Arena, bind, list, rel};
use crate::payload;
use crate::rungs::{self, on_each_rung};

/// The directory that took the changes of a process.
fn upper(spec: &ProcessSpec) -> std::path::PathBuf {
    spec.root.upper.as_ref().unwrap().upper.clone()
}

fn secret(target: &str) -> MountPoint {
    let data = FileData(b"secret".to_vec());
    let kind = MountKind::File { data, mode: 0o400, uid: 0, gid: 0, read_only: true };
    MountPoint { target: rel(target), kind }
}

fn tmpfs(target: &str) -> MountPoint {
    MountPoint { target: rel(target), kind: MountKind::Tmpfs { size: None, mode: 0o755 } }
}

#[test]
fn the_upper_directory_has_what_was_written_and_nothing_else() {
    on_each_rung(|arena| {
        let context = arena.tree("context", &[("a", "a")]);
        let mut spec = arena.script(
            "mkdir -p /work/x; echo 1 > /work/x/y; rm /bin/sed; cat /run/secrets/s /ctx/a >/dev/null
             echo x > /cache/in-memory; echo x > /dev/shm/z; ln /work/x/y /work/z",
        );
        spec.mounts = vec![
            secret("run/secrets/s"),
            secret("etc/hosts"),
            bind(&context, "ctx"),
            tmpfs("cache"),
            secret("cache/deep/file"),
            secret("dev/pipes/EOF"),
        ];
        spec.env = vec![("PATH".into(), "/bin".into())];
        let upper = upper(&spec);
        let ended = arena.run(spec).unwrap();
        assert_eq!(ended.report.status, ExitStatus::Exited(0), "{}", ended.stderr);
        assert_eq!(ended.report.created, []);
        let expected = ["/bin", "/bin/sed", "/work", "/work/x", "/work/x/y", "/work/z"];
        assert_eq!(list(&upper), expected);
        let whiteout = fs_err::symlink_metadata(upper.join("bin/sed")).unwrap();
        assert_eq!(
            (whiteout.rdev(), FileType::from_raw_mode(whiteout.mode())),
            (0, FileType::CharacterDevice)
        );
    });
}

#[test]
fn higher_layers_hide_lower_ones() {
    on_each_rung(|arena| {
        let low =
            arena.tree("low", &[("etc/a", "low"), ("etc/b", "low"), ("d/old", ""), ("gone", "")]);
        let high = arena.tree("high", &[("etc/a", "high"), ("d/new", "")]);
        rustix::fs::mknodat(CWD, high.join("gone"), FileType::CharacterDevice, Mode::empty(), 0)
            .unwrap();
        let opaque = "user.overlay.opaque";
        rustix::fs::setxattr(high.join("d"), opaque, b"y", XattrFlags::empty()).unwrap();
        let mut spec = arena.script("cat /etc/a /etc/b; echo; ls /d; ls /gone");
        spec.root.layers.extend([low, high]);
        assert_eq!(arena.run(spec).unwrap().stdout, "highlow\nnew\n");
    });
}

#[test]
fn hundreds_of_layers_are_one_tree() {
    on_each_rung(|arena| {
        let mut spec = arena.script("cat /f; ls /l | wc -l");
        for n in 0..MAX_LAYERS - 2 {
            let (own, n) = (format!("l/{n}"), n.to_string());
            spec.root.layers.push(arena.tree(&format!("layer{n}"), &[(&own, ""), ("f", &n)]));
        }
        assert_eq!(arena.run(spec.clone()).unwrap().success(), "497498\n");
        spec.root.layers.push(arena.tree("one-too-many", &[]));
        let error = arena.run(spec).map(|ended| ended.report).unwrap_err();
        assert_eq!(error, SandboxError::TooManyLayers { count: 501, limit: 500 });
    });
}

#[test]
fn layers_may_have_any_name() {
    on_each_rung(|arena| {
        let mut spec = arena.script("ls /here");
        let name = "a:b,c=d\\ \"ü\n%s";
        spec.root.layers.push(arena.tree(name, &[("here/x", "")]));
        let long = "d/".repeat(800);
        spec.root.layers.push(arena.tree(&long, &[("here/y", "")]));
        assert_eq!(arena.run(spec).unwrap().success(), "x\ny\n");
    });
}

#[test]
fn a_tree_without_an_upper_directory_is_read_only() {
    on_each_rung(|arena| {
        let stubs = arena.tree("s", &[("dev/", ""), ("proc/", ""), ("sys/", "")]);
        let mut complete =
            vec![arena.tree("complete", &[("dev/", ""), ("proc/", ""), ("sys/", "")])];
        complete[0] = arena.busybox();
        for directory in ["dev", "proc", "sys"] {
            fs_err::create_dir(complete[0].join(directory)).unwrap();
        }
        for layers in [vec![stubs, arena.busybox()], complete] {
            let script = "touch /x /bin/y; chmod 700 /bin; ls /x /bin/y 2>/dev/null; exit 3";
            let root = RootFs::read_only(&layers);
            let spec = ProcessSpec::new(root, ["/bin/sh", "-c", script]);
            let ended = run_as_is(arena, &spec).unwrap();
            assert_eq!(ended.report.status, ExitStatus::Exited(3));
            assert_eq!(ended.stdout, "");
            assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
        }
    });
}

fn run_as_is(arena: &Arena, spec: &ProcessSpec) -> Result<crate::arena::Ended, SandboxError> {
    crate::arena::run(&arena.launcher, spec, &formwork_sandbox::Cancel::new().unwrap())
}

#[test]
fn a_target_missing_in_a_read_only_tree_is_named() {
    on_each_rung(|arena| {
        let root = RootFs::read_only([arena.busybox()]);
        let error = run_as_is(arena, &ProcessSpec::new(root, ["/bin/true"])).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("target `/proc`") && text.contains("read-only"), "{text}");
    });
}

#[test]
fn hidden_targets_are_made_and_reported() {
    on_each_rung(|arena| {
        let layer = arena.tree("hiding", &[("etc/", ""), ("link", "->/made/by/link")]);
        let no_device = Mode::empty();
        rustix::fs::mknodat(CWD, layer.join("run"), FileType::CharacterDevice, no_device, 0)
            .unwrap();
        rustix::fs::setxattr(layer.join("etc"), "user.overlay.opaque", b"y", XattrFlags::empty())
            .unwrap();
        let mut spec =
            arena.script("cat /run/secrets/s /etc/hosts /link/x /made/by/link/x; echo > /mine");
        spec.mounts = vec![secret("run/secrets/s"), secret("etc/hosts"), secret("link/x")];
        spec.root.layers.push(layer);
        let upper = upper(&spec);
        let ended = arena.run(spec).unwrap();
        assert_eq!(ended.stdout, "secret".repeat(4));
        let created = [
            "run",
            "run/secrets",
            "run/secrets/s",
            "etc/hosts",
            "made",
            "made/by",
            "made/by/link",
            "made/by/link/x",
        ];
        assert_eq!(ended.report.created, created.map(rel));
        // All of them, in the places that the report names, and nothing that was mounted.
        for path in created {
            assert!(fs_err::symlink_metadata(upper.join(path)).is_ok(), "{path}");
        }
        assert!(fs_err::read(upper.join("etc/hosts")).unwrap().is_empty());
    });
}

#[test]
fn system_directories_that_are_links_are_refused() {
    on_each_rung(|arena| {
        for name in ["proc", "sys", "dev"] {
            let layer = arena.tree(name, &[("elsewhere/", ""), (name, "->/elsewhere")]);
            let mut spec = arena.script("true");
            spec.root.layers.push(layer);
            let error = arena.refused(spec);
            assert!(error.contains(&format!("`/{name}`: the root")), "{error}");
        }
        let layer = arena.tree("file", &[("proc", "a file")]);
        let mut spec = arena.script("true");
        spec.root.layers.push(layer);
        assert!(arena.refused(spec).contains("plain directory"));
    });
}

#[test]
fn a_missing_layer_is_named() {
    on_each_rung(|arena| {
        let mut spec = arena.script("true");
        spec.root.layers.push("/missing/layer".into());
        let error = arena.refused(spec);
        assert!(
            error.starts_with("cannot open the layer `/missing/layer`: No such file"),
            "{error}"
        );
        let mut spec = arena.script("true");
        spec.root.layers = vec!["relative".into()];
        let error = run_as_is(arena, &spec).err().unwrap().to_string();
        assert!(error.contains("`relative` is not an absolute path"), "{error}");
    });
}

#[test]
fn the_hosts_paths_do_not_show() {
    on_each_rung(|arena| {
        let mut spec = arena.script("cat /proc/self/mountinfo");
        spec.mounts = vec![bind(&arena.tree("context", &[]), "ctx")];
        let mounts = arena.run(spec).unwrap().success();
        let directory = arena.path("");
        let store: Vec<&str> = mounts.lines().filter(|line| line.contains("lowerdir")).collect();
        assert_eq!(store.len(), 1);
        assert!(!store[0].contains(directory.to_str().unwrap()), "{mounts}");
        assert!(Path::new("/proc/self/mountinfo").exists());
    });
}

#[test]
fn the_upper_directory_is_nobodys_when_the_run_returns() {
    on_each_rung(|arena| {
        // In a mount namespace of its own, since it mounts something to find out.
        let script = "exec \"$0\" --exact payload::run --nocapture";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(arena.program());
        command
            .env(payload::PAYLOAD, "unmounted")
            .env_remove(rungs::ENTERED)
            .env_remove(rungs::SINGLE);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("while it runs: true\nafterwards: false\n"), "{text}");
    });
}

/// The payload: whether the kernel says that an upper directory is in use, while a process runs
/// and right after each of some.
pub(crate) fn report_mounts() {
    let arena = Arena::new();
    let in_use = |upper: &Path| {
        let [lower, root] = ["lower", "root"].map(|name| arena.tree(name, &[]));
        let (_, work) = arena.upper();
        // With an index, the kernel refuses to share.
        let options = format!(
            "userxattr,index=on,lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let mounted =
            rustix::mount::mount("overlay", &root, "overlay", MountFlags::empty(), &*options);
        if mounted.is_ok() {
            rustix::mount::unmount(&root, UnmountFlags::empty()).unwrap();
        }
        mounted == Err(rustix::io::Errno::BUSY)
    };
    let spec = arena.with_stubs(arena.script("echo > /file; sleep 1000"));
    let cancel = formwork_sandbox::Cancel::new().unwrap();
    std::thread::scope(|scope| {
        let (launcher, cancel, spec) = (&arena.launcher, &cancel, &spec);
        scope.spawn(move || crate::arena::run(launcher, spec, cancel));
        payload::until(|| upper(spec).join("file").exists());
        print!("\nwhile it runs: {}\nafterwards: ", in_use(&upper(spec)));
        cancel.cancel();
    });
    let again = (0..30).any(|_| {
        let spec = arena.script("echo > /file");
        let upper = upper(&spec);
        arena.run(spec).unwrap();
        in_use(&upper)
    });
    println!("{}", again || in_use(&upper(&spec)));
}
