//! A place with layers and a launcher.

use std::cell::Cell;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use formwork_fs::RelPath;
use formwork_sandbox::{
    Cancel, ExitReport, ExitStatus, Launcher, MountKind, MountPoint, ProcessSpec, RootFs,
    SandboxError, Stdio, Stub, stub_entries,
};

/// The programs of busybox that the tests use.
const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "chown", "chroot", "cp", "cut", "dd", "df", "env", "false", "find",
    "grep", "head", "hostname", "id", "ifconfig", "kill", "ln", "ls", "mkdir", "mknod", "mount",
    "mv", "pidof", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "sh", "sleep", "sort",
    "stat", "tail", "tar", "test", "touch", "tr", "true", "umount", "wc", "yes",
];

/// A temporary directory with layers in it.
pub(crate) struct Arena {
    directory: tempfile::TempDir,
    pub(crate) launcher: Launcher,
    runs: Cell<usize>,
}

/// How a process ended and what it wrote.
pub(crate) struct Ended {
    pub(crate) report: ExitReport,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it wrote, if it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.report.status, ExitStatus::Exited(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl Arena {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, launcher: Launcher::new(), runs: Cell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory of this name, made with these files; a name that ends in a slash is a
    /// directory's, a content that starts with `->` a link's target.
    pub(crate) fn tree(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let tree = self.path(name);
        fs_err::create_dir_all(&tree).unwrap();
        for (path, content) in files {
            let path = tree.join(path);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                fs_err::create_dir_all(&path).unwrap();
                continue;
            }
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            match content.strip_prefix("->") {
                Some(target) => symlink(target, path).or_else(ignore_existing).unwrap(),
                None => fs_err::write(path, content).unwrap(),
            }
        }
        tree
    }

    /// A layer with busybox.
    pub(crate) fn busybox(&self) -> PathBuf {
        let layer = self.path("busybox");
        if !layer.exists() {
            fs_err::create_dir_all(layer.join("bin")).unwrap();
            fs_err::create_dir_all(layer.join("tmp")).unwrap();
            assert!(Path::new("/bin/busybox").exists(), "needs Debian's busybox-static");
            copy_program(Path::new("/bin/busybox"), &layer.join("bin/busybox"));
            for applet in APPLETS {
                symlink("busybox", layer.join("bin").join(applet)).unwrap();
            }
        }
        layer
    }

    /// A copy of this program where everybody may execute it.
    pub(crate) fn program(&self) -> PathBuf {
        let copy = self.path("sandbox-test");
        copy_program(&std::env::current_exe().unwrap(), &copy);
        for path in [self.directory.path(), &copy] {
            fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        copy
    }

    /// The names for a new upper and work directory.
    pub(crate) fn upper(&self) -> (PathBuf, PathBuf) {
        let run = self.runs.replace(self.runs.get() + 1);
        let paths = (self.path(&format!("upper{run}")), self.path(&format!("work{run}")));
        fs_err::create_dir(&paths.0).unwrap();
        fs_err::create_dir(&paths.1).unwrap();
        paths
    }

    /// A process in a writable tree of busybox, the mount targets below it.
    pub(crate) fn spec(&self, args: &[&str]) -> ProcessSpec {
        let (upper, work) = self.upper();
        ProcessSpec::new(RootFs::writable([self.busybox()], upper, work), args)
    }

    /// A shell script, likewise.
    pub(crate) fn script(&self, script: &str) -> ProcessSpec {
        self.spec(&["sh", "-c", script])
    }

    /// Puts a layer with the mount targets at the bottom, as builders do.
    pub(crate) fn with_stubs(&self, mut spec: ProcessSpec) -> ProcessSpec {
        let stubs = self.path(&format!("stubs{}", self.runs.get()));
        for (path, stub) in stub_entries(&spec) {
            let path = stubs.join(path.as_path());
            match stub {
                Stub::Dir => fs_err::create_dir_all(path).unwrap(),
                Stub::File => fs_err::write(path, "").unwrap(),
            }
        }
        spec.root.layers.insert(0, stubs);
        spec
    }

    /// Runs to the end.
    pub(crate) fn run(&self, spec: ProcessSpec) -> Result<Ended, SandboxError> {
        self.run_until(spec, &Cancel::new().unwrap())
    }

    /// Runs to the end, or until it is cancelled.
    pub(crate) fn run_until(
        &self,
        spec: ProcessSpec,
        cancel: &Cancel,
    ) -> Result<Ended, SandboxError> {
        run(&self.launcher, &self.with_stubs(spec), cancel)
    }

    /// Runs a shell script that succeeds; returns what it wrote.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.run(self.script(script)).unwrap().success()
    }

    /// Runs something that cannot be run.
    #[track_caller]
    pub(crate) fn refused(&self, spec: ProcessSpec) -> String {
        match self.run(spec) {
            Err(error) => error.to_string(),
            Ok(ended) => panic!("it ran: {:?} {}{}", ended.report, ended.stdout, ended.stderr),
        }
    }
}

/// Runs to the end and collects what is written.
pub(crate) fn run(
    launcher: &Launcher,
    spec: &ProcessSpec,
    cancel: &Cancel,
) -> Result<Ended, SandboxError> {
    let (stdout, out) = std::io::pipe().unwrap();
    let (stderr, err) = std::io::pipe().unwrap();
    let stdio = Stdio { stdin: None, stdout: out.into(), stderr: err.into() };
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| collect(stdout));
        let stderr = scope.spawn(|| collect(stderr));
        let report = launcher.run(spec, stdio, cancel);
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        Ok(Ended { report: report?, stdout, stderr })
    })
}

/// Copies in a process of its own: were the copy open for writing here, a child that another test
/// forks at that moment would keep it open, and nobody could execute it.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").args([from, to]).status().unwrap().success());
}

fn ignore_existing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn collect(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// A read-only bind mount of a directory.
pub(crate) fn bind(source: &Path, target: &str) -> MountPoint {
    let (source, subpath) = (source.to_owned(), RelPath::root());
    let kind = MountKind::Bind { source, subpath, read_only: true, stub: Stub::Dir };
    MountPoint { target: rel(target), kind }
}

/// All paths in a directory, sorted.
pub(crate) fn list(directory: &Path) -> Vec<String> {
    let root = formwork_fs::RootDir::open(directory).unwrap();
    let keep = |_: &RelPath, _: bool| formwork_fs::Verdict::Keep;
    let entries = formwork_fs::walk(&root, &keep, 1).unwrap();
    entries.iter().map(|entry| entry.path.to_string()).collect()
}

/// Writes a program for a machine that ends with its effective user number, or, with a loader, one
/// that wants to be loaded.
pub(crate) fn elf(path: &Path, machine: u16, loader: Option<&str>) {
    // geteuid; exit with the result.
    let code: &[u8] = match machine {
        62 => &[0xb8, 107, 0, 0, 0, 0x0f, 5, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 5],
        _ => &[0xe8, 0x15, 0x80, 0xd2, 0x01, 0, 0, 0xd4, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
    };
    let kind: u32 = if loader.is_some() { 3 } else { 1 };
    let (at, length) = (0x40_0000_u64, 64 + 56 + 64_u64);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend((at + 120).to_le_bytes());
    file.extend([64_u64, 0].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([kind, 5].map(u32::to_le_bytes).concat());
    let (offset, size) = loader.map_or((0, length), |loader| (120, loader.len() as u64 + 1));
    file.extend([offset, at, at, size, size, 4096].map(u64::to_le_bytes).concat());
    file.extend(loader.map_or(code, str::as_bytes));
    file.resize(length as usize, 0);
    // Written under another name and copied, as all programs here.
    let draft = path.with_extension("draft");
    fs_err::write(&draft, file).unwrap();
    copy_program(&draft, path);
    fs_err::remove_file(draft).unwrap();
}

/// Writes a program for this machine that ends with its effective user number.
pub(crate) fn elf_that_exits_with_its_effective_user(path: &Path, mode: u32) {
    elf(path, if cfg!(target_arch = "x86_64") { 62 } else { 183 }, None);
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
