//! A directory with a store and a build context, and the real program working in it.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use formwork_testing::{copy_program, is_root, program, skipped};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::refusal::{Refusal, refuse};

/// The ordinary user as whom the tests also run, if the machine has them; the sandbox's tests make
/// them.
const USER: &str = "formwork-test";
/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);
/// The program under test.
const FORMWORK: &str = env!("CARGO_BIN_EXE_formwork");
/// The applets that the base image has.
const APPLETS: [&str; 17] = [
    "sh", "cat", "cp", "dd", "echo", "env", "false", "head", "id", "kill", "ln", "ls", "mkdir",
    "rm", "sleep", "touch", "true",
];

/// A directory with a store and a build context.
pub(crate) struct Arena {
    directory: TempDir,
    shared: Arc<Shared>,
    rung: Rung,
    /// Whom the program runs as, if not as the caller.
    user: Option<(u32, u32)>,
}

/// How steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// As they do for the caller.
    Callers,
    /// As an ordinary user's, where the caller is root.
    Users,
    /// As root's on a machine that forbids user namespaces.
    WithoutUserNamespaces,
    /// As root's in a chroot.
    WithoutNamespaces,
    /// As an ordinary user's who has no other id than the own.
    SingleId,
    /// As an ordinary user's whose steps are traced.
    Traced,
}

/// What all arenas of this process have in common.
struct Shared {
    directory: TempDir,
}

impl Drop for Arena {
    fn drop(&mut self) {
        formwork_testing::remove_all(self.directory.path());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        formwork_testing::remove_all(self.directory.path());
    }
}

/// A run of the program that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run of the program.
pub(crate) struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
    started: Instant,
}

impl Rung {
    const ALL: [Self; 6] = [
        Self::Callers,
        Self::Users,
        Self::WithoutUserNamespaces,
        Self::WithoutNamespaces,
        Self::SingleId,
        Self::Traced,
    ];
}

/// Runs a test as the caller and, for root, in every other way.
pub(crate) fn on_each_rung(test: impl Fn(&Arena)) {
    for rung in Rung::ALL {
        if let Some(arena) = Arena::on(rung) {
            test(&arena);
        }
    }
}

impl Arena {
    /// An arena of the caller's; `None` after noting what is missing for it.
    pub(crate) fn new() -> Option<Self> {
        let (directory, shared) = (directory(None), shared()?);
        Some(Self { directory, shared, rung: Rung::Callers, user: None })
    }

    /// An arena on a rung; `None` after noting what is missing for it, and for callers who are not
    /// root for all but their own.
    pub(crate) fn on(rung: Rung) -> Option<Self> {
        match rung {
            Rung::Callers => Self::new(),
            Rung::Users => Self::of_ordinary_user(),
            _ if !is_root() => None,
            rung => {
                let mut arena = match rung {
                    Rung::SingleId | Rung::Traced => Self::of_ordinary_user()?,
                    _ => Self::new()?,
                };
                arena.rung = rung;
                Some(arena)
            }
        }
    }

    /// An arena of an ordinary user's; `None` for callers who are one themselves.
    pub(crate) fn of_ordinary_user() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let Some(user) = ids_of(USER) else {
            skipped(&format!("there is no user `{USER}`: the rootless half"));
            return None;
        };
        let (directory, shared) = (directory(Some(user)), shared()?);
        Some(Self { directory, shared, rung: Rung::Users, user: Some(user) })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The image layout with the base image.
    pub(crate) fn base(&self) -> PathBuf {
        self.shared.base()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path(match self.rung {
            Rung::SingleId => "store-single-id",
            Rung::Traced => "store-traced",
            _ => "store",
        })
    }

    /// Makes a file of the build context.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path("context").join(name);
        // Others may be reading it.
        if fs_err::read(&path).is_ok_and(|old| old == content.as_ref()) {
            return;
        }
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    /// Builds a Dockerfile in the build context, with `base` as an image with a shell.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Ran {
        self.start_build(dockerfile, args).wait()
    }

    /// Like [`Arena::build`], for those who do not wait.
    pub(crate) fn start_build(&self, dockerfile: &str, args: &[&str]) -> Running {
        self.file("Dockerfile", dockerfile);
        self.start(self.build_command(args))
    }

    /// The command that builds what is in the context.
    pub(crate) fn build_command(&self, args: &[&str]) -> Command {
        let base = format!("base=oci-layout://{}", self.shared.base().display());
        let mut command = self.command(&["build", "--progress=plain", "--build-context", &base]);
        command.args(args).arg("context");
        command
    }

    /// The program with an empty environment, in the arena's directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(FORMWORK),
            Some((uid, gid)) => {
                let mut command = Command::new(self.shared.program());
                command.uid(uid).gid(gid);
                command
            }
        };
        command.args(args).current_dir(self.directory.path());
        self.settle(&mut command);
        command
    }

    /// The program below another one of the caller's, such as `sh -c SCRIPT`, which finds it in
    /// `$FORMWORK`, in `$AS` what makes it the arena's user's, whose ids are in `$OWNER`, and in
    /// `$STORE` where the store is.
    pub(crate) fn below(&self, wrapper: &[&str]) -> Command {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).current_dir(self.directory.path());
        self.settle(&mut command);
        let (uid, gid) = self.user.unwrap_or_default();
        let (program, user) = match self.user {
            None => (PathBuf::from(FORMWORK), String::new()),
            Some(_) => (
                self.shared.program(),
                format!("setpriv --reuid={uid} --regid={gid} --clear-groups"),
            ),
        };
        command.env("FORMWORK", program).env("AS", user).env("OWNER", format!("{uid}:{gid}"));
        command.env("BASE", self.shared.base()).env("STORE", self.store());
        command
    }

    fn settle(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path().join("home"))
            .env("FORMWORK_ROOT", self.path("store"));
        match self.rung {
            Rung::WithoutNamespaces => drop(command.env("FORMWORK_ISOLATION", "chroot")),
            Rung::SingleId => drop(command.env("FORMWORK_ISOLATION", "single-id")),
            Rung::Traced => drop(command.env("FORMWORK_ISOLATION", "traced")),
            Rung::WithoutUserNamespaces => {
                refuse(command, &[Refusal::UserNamespaces(libc::EPERM)], None);
            }
            Rung::Callers | Rung::Users => {}
        }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.start(self.command(args)).wait()
    }

    /// How steps run.
    pub(crate) fn rung(&self) -> Rung {
        self.rung
    }

    pub(crate) fn start(&self, mut command: Command) -> Running {
        let piped = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (stdout, stderr) = (Collected::from(stdout), Collected::from(stderr));
        Running { stdout, stderr, child, started: Instant::now() }
    }
}

impl Shared {
    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    /// A copy of the program that everybody can reach.
    fn program(&self) -> PathBuf {
        self.directory.path().join("formwork")
    }

    fn make(busybox: &Path) -> Self {
        let shared = Self { directory: directory(None) };
        copy_program(FORMWORK.as_ref(), &shared.program());
        let bin = shared.directory.path().join("context/rootfs/bin");
        fs_err::create_dir_all(&bin).unwrap();
        fs_err::copy(busybox, bin.join("busybox")).unwrap();
        for applet in APPLETS {
            fs_err::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let etc = bin.with_file_name("etc");
        fs_err::create_dir(&etc).unwrap();
        fs_err::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs_err::write(etc.join("group"), "root:x:0:\n").unwrap();
        let dockerfile = "FROM scratch\nCOPY rootfs /\nENV PATH=/bin\nCMD [\"/bin/sh\"]\n";
        fs_err::write(shared.directory.path().join("context/Dockerfile"), dockerfile).unwrap();
        let built = Command::new(FORMWORK)
            .args(["--root", "store", "build", "-o", "type=oci,tar=false,dest=base", "context"])
            .current_dir(shared.directory.path())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        shared
    }
}

/// A new directory that its user and nobody else may write, and all may enter.
fn directory(user: Option<(u32, u32)>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(directory.path(), everybody).unwrap();
    fs_err::create_dir(directory.path().join("home")).unwrap();
    if let Some((uid, gid)) = user {
        for path in [directory.path().to_owned(), directory.path().join("home")] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
    }
    directory
}

/// What all arenas share, made by the first; goes with the last.
fn shared() -> Option<Arc<Shared>> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let busybox = program("busybox")?;
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    Some(shared.upgrade().unwrap_or_else(|| {
        let new = Arc::new(Shared::make(&busybox));
        *shared = Arc::downgrade(&new);
        new
    }))
}

fn ids_of(name: &str) -> Option<(u32, u32)> {
    let users = fs_err::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
    Some((ids.next()??, ids.next()??))
}

/// What has come so far from a stream, and the thread that waits for more.
struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Arc::clone(&text);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { text, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn whole(self) -> String {
        self.thread.join().unwrap();
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl Running {
    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to all that runs, as a terminal does on Ctrl-C.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process_group(self.id(), signal).unwrap();
    }

    /// Whether one of some texts has come on standard error. What has ended says no more.
    pub(crate) fn has_said(&mut self, texts: &[&str]) -> bool {
        let is_over = !self.runs();
        let said = self.stderr.so_far();
        let has_come = texts.iter().any(|text| said.contains(text));
        assert!(!is_over || has_come, "{said}");
        has_come
    }

    /// Whether it has a file open.
    pub(crate) fn has_open(&self, file: &Path) -> bool {
        let descriptors = fs_err::read_dir(format!("/proc/{}/fd", self.child.id()));
        let mut files = descriptors.into_iter().flatten().flatten();
        files.any(|entry| fs_err::read_link(entry.path()).is_ok_and(|target| target == file))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end, which must come.
    pub(crate) fn wait(mut self) -> Ran {
        while self.runs() {
            if self.started.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                panic!("it hangs: {:#?}", self.end());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let ran = self.end();
        eprintln!("{}{}", ran.stdout, ran.stderr);
        for bug in ["panicked at", "formwork has a bug", "RUST_BACKTRACE"] {
            assert!(!ran.stderr.contains(bug), "{}", ran.stderr);
        }
        ran
    }

    fn end(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        Ran { status, stdout, stderr }
    }
}

impl Ran {
    /// The id of the image that was built.
    pub(crate) fn image(&self) -> &str {
        assert!(self.status.success(), "{}", self.stderr);
        self.stdout.trim()
    }

    /// Checks the exit code, and that standard error has some words in this order.
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        if let Err(problem) = self.check(code, words) {
            panic!("{problem}");
        }
    }

    /// What is wrong with the exit code, or with the words on standard error.
    pub(crate) fn check(&self, code: i32, words: &[&str]) -> Result<(), String> {
        let shown = format!("{} {}", self.status, self.stderr);
        if self.status.code() != Some(code) {
            return Err(format!("not exit code {code}: {shown}"));
        }
        let mut rest = &*self.stderr;
        for word in words {
            let Some((_, behind)) = rest.split_once(word) else {
                return Err(format!("`{word}` is missing, at least there: {shown}"));
            };
            rest = behind;
        }
        Ok(())
    }
}

/// Calls a function again and again until it tells that something has come to pass.
pub(crate) fn wait_until(what: &str, mut has_come: impl FnMut() -> bool) {
    let start = Instant::now();
    while !has_come() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
