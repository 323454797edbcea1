//! A directory with a build context and a store, on one of the rungs.

use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use formwork_testing::{OrdinaryUser, is_root, program, skipped};

use super::refusal::refuse;
use super::{Built, Pod, Ran, Refusal, Rung, Tree};

/// The time that tests build at, which makes builds on different rungs comparable.
const EPOCH: &str = "1700000000";

/// The base image of the tests: busybox with all its links, some users and groups.
const BASE: &str = "\
FROM scratch AS files
COPY busybox /bin/
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
COPY <<passwd <<group /etc/
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:App:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
passwd
root:x:0:
app:x:1000:
staff:x:50:app
nogroup:x:65534:
group
RUN mkdir -p -m 1777 /tmp && mkdir -p /root /usr/share
FROM scratch
COPY --from=files / /
CMD [\"sh\"]
";

/// A place for one test: `context` is the build context and the working directory, `store` the
/// store; everything else is outside of both.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    program: PathBuf,
    user: Option<OrdinaryUser>,
    rung: Rung,
    /// What the machine refuses besides.
    refusals: Vec<Refusal>,
    pod: Option<Pod>,
}

impl Site {
    /// A place for a test that needs only one rung: the first that there is.
    pub(crate) fn new() -> Self {
        match is_root() {
            true => Self::as_user(None, Rung::Root),
            false => Self::as_user(OrdinaryUser::find(), Rung::SubordinateIds),
        }
    }

    /// A place on a rung; `None` if that takes root and the tests do not run as root, or after
    /// noting what else is missing.
    pub(crate) fn on(rung: Rung) -> Option<Self> {
        if matches!(rung, Rung::SubordinateIds | Rung::SingleId | Rung::Traced) {
            return OrdinaryUser::find().map(|user| Self::as_user(Some(user), rung));
        }
        if !is_root() {
            return None;
        }
        let mut site = Self::as_user(None, rung);
        if rung == Rung::Pod {
            let place = site.directory.path().join("pod");
            site.pod = Some(Pod::start(&place, site.directory.path())?);
            site.program = "/bin/formwork".into();
        }
        Some(site)
    }

    /// A place as root whose steps have no namespaces.
    pub(crate) fn without_namespaces() -> Self {
        Self::as_user(None, Rung::Chroot)
    }

    /// A place as root; `None` after noting that the running test is skipped.
    pub(crate) fn as_root() -> Option<Self> {
        if !is_root() {
            skipped("this needs root");
            return None;
        }
        Some(Self::as_user(None, Rung::Root))
    }

    fn as_user(user: Option<OrdinaryUser>, rung: Rung) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs_err::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_formwork"));
        let program = user.map_or(program.clone(), |user| user.executable(&program));
        let refusals = rung.refusals().to_vec();
        let site = Self { directory, program, user, rung, refusals, pod: None };
        if let Some(user) = user.filter(|_| is_root()) {
            chown(site.directory.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        site.mkdir("");
        site
    }

    /// The same place on a machine that refuses something; only root can arrange it.
    pub(crate) fn refusing(mut self, refusals: &[Refusal]) -> Self {
        self.refusals.extend_from_slice(refusals);
        self
    }

    /// Puts the image `busybox` into the store.
    pub(crate) fn with_busybox(self) -> Self {
        self.make_busybox();
        self
    }

    /// Puts the image `busybox` into the store; `false` after noting that the running test is
    /// skipped because this machine has no busybox.
    pub(crate) fn make_busybox(&self) -> bool {
        let Some(busybox) = program("busybox") else { return false };
        let file = self.context("../base/busybox");
        self.mkdir("../base");
        fs_err::copy(busybox, &file).unwrap();
        self.own(&file);
        self.write("../base/Dockerfile", BASE);
        self.run(&["build", "-q", "-t", "busybox", "../base"]);
        true
    }

    /// What the base image holds.
    pub(crate) fn busybox_tree(&self) -> &'static Tree {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| self.tree(&[], "FROM busybox"))
    }

    pub(crate) fn rung(&self) -> Rung {
        self.rung
    }

    /// Whether steps have namespaces of their own.
    pub(crate) fn has_namespaces(&self) -> bool {
        self.rung.has_namespaces()
    }

    /// The ordinary user, if formwork runs as one.
    pub(crate) fn user(&self) -> Option<OrdinaryUser> {
        self.user
    }

    /// The path of something in the build context.
    pub(crate) fn context(&self, path: &str) -> PathBuf {
        self.directory.path().join("context").join(path)
    }

    /// The path of something beside the build context and the store.
    pub(crate) fn outside(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join(match self.rung {
            Rung::SingleId => "store-single-id",
            Rung::Traced => "store-traced",
            _ => "store",
        })
    }

    /// Writes a file of the build context, with the directories above it.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.mkdir(Path::new(path).parent().and_then(Path::to_str).unwrap());
        let path = self.context(path);
        fs_err::write(&path, content).unwrap();
        self.own(&path);
        self.mode_of(&path, 0o644);
    }

    /// Makes a directory of the build context, and those above it.
    pub(crate) fn mkdir(&self, path: &str) {
        let path = self.context(path);
        let missing = path.ancestors().take_while(|path| !path.exists()).collect::<Vec<_>>();
        for path in missing.into_iter().rev() {
            fs_err::create_dir(path).unwrap();
            self.own(path);
            self.mode_of(path, 0o755);
        }
    }

    /// Makes a symbolic link in the build context.
    pub(crate) fn link(&self, path: &str, target: &str) {
        self.mkdir(Path::new(path).parent().and_then(Path::to_str).unwrap());
        symlink(target, self.context(path)).unwrap();
        self.own(&self.context(path));
    }

    /// Sets the permissions of something in the build context.
    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        self.mode_of(&self.context(path), mode);
    }

    fn mode_of(&self, path: &Path, mode: u32) {
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn own(&self, path: &Path) {
        if let Some(user) = self.user.filter(|_| is_root()) {
            lchown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    /// A call of the program in the build context, with an environment that says nothing.
    pub(crate) fn formwork(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(self.program.to_str().unwrap(), arguments);
        let store = self.directory.path().join("store");
        command.env("FORMWORK_ROOT", store).env("FORMWORK_ISOLATION", self.rung.isolation());
        command
    }

    /// A call of any program as the same user, in the same place and environment.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = match &self.pod {
            Some(pod) => pod.command(program, arguments),
            None => Command::new(program),
        };
        if self.pod.is_none() {
            command.args(arguments);
        }
        command.current_dir(self.context("")).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.directory.path()).env("SOURCE_DATE_EPOCH", EPOCH);
        match self.user {
            _ if !self.refusals.is_empty() => refuse(&mut command, &self.refusals, self.user),
            Some(user) => user.take_over(&mut command),
            None => {}
        }
        command
    }

    /// Calls the program; it has to succeed. Returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        Ran::of(&mut self.formwork(arguments)).succeeded().stdout
    }

    /// A build of a Dockerfile that lies outside the context.
    pub(crate) fn build_command(&self, arguments: &[&str], dockerfile: &str) -> Command {
        self.write("../Dockerfile", dockerfile);
        let mut command = self.formwork(&["build", "--progress=json", "-f", "../Dockerfile"]);
        command.args(arguments).arg(".");
        command
    }

    /// Builds a Dockerfile; it has to succeed.
    pub(crate) fn build(&self, arguments: &[&str], dockerfile: &str) -> Built {
        Built::of(&mut self.build_command(arguments, dockerfile))
    }

    /// Builds a Dockerfile and returns all its files.
    pub(crate) fn tree(&self, arguments: &[&str], dockerfile: &str) -> Tree {
        let archive = self.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        self.build(&[arguments, &["-o", &output]].concat(), dockerfile);
        Tree::from_archive(Path::new(&archive))
    }

    /// What `formwork inspect` tells about an image.
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        let images: serde_json::Value =
            serde_json::from_str(&self.run(&["inspect", image])).unwrap();
        images[0].clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.pod.take());
        formwork_testing::remove_all(self.directory.path());
    }
}
