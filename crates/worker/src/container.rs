//! `formwork run`: a process in an image, of which nothing is kept.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use formwork_fs::RelPath;
use formwork_sandbox::{
    Cancel, ExitReport, Launcher, NetworkMode, ProcessSpec, RootFs, Stdio, User,
};
use formwork_snapshot::Snapshotter;

use crate::exec::{accounts, root_metadata, set_metadata};
use crate::mounts::{Mounts, StubLayers};
use crate::root::Root;
use crate::{BaseImage, LayerStore, WorkerError};

/// A process in an image.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The image.
    pub image: BaseImage,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The variables.
    pub env: Vec<(String, String)>,
    /// The working directory; made if it is not there.
    pub cwd: String,
    /// `user[:group]` by name or number; empty for root.
    pub user: String,
    /// The host name; empty for the machine's.
    pub hostname: String,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// How long the process has to end after it was asked to.
    pub grace: Duration,
}

/// Runs a process in an image with the given standard streams.
///
/// # Errors
///
/// Fails where the process could not be started; a process that fails gives a report.
pub fn run_container(
    store: &Arc<LayerStore>,
    spec: &ContainerSpec,
    stdio: Stdio,
    cancel: &Cancel,
) -> Result<ExitReport, WorkerError> {
    let root = Root::of_image(store, &spec.image, true)?;
    let user = accounts(&root)?.process_user(&spec.user)?;
    let active = store.snapshots.prepare()?;
    set_metadata(&active, &root_metadata(&root)?)?;
    let rootfs = RootFs::writable(root.directories()?, active.upper(), active.work());
    let mut process = ProcessSpec::new(rootfs, spec.args.iter());
    process.mounts = Mounts::of_host(&spec.hostname, &spec.resolv_conf).points;
    process.env =
        environment(spec, &user.home).into_iter().map(|(n, v)| (n.into(), v.into())).collect();
    process.cwd = RelPath::clean(&spec.cwd).unwrap_or_default();
    process.user = User { uid: user.uid, gid: user.gid, groups: user.groups };
    process.hostname.clone_from(&spec.hostname);
    process.network = NetworkMode::Host;
    process.stop_grace = spec.grace;
    let stubs = StubLayers::default().layer(&store.layout, &process)?;
    process.root.layers.insert(0, stubs);
    Ok(Launcher::new().run(&process, stdio, cancel)?)
}

/// The variables, with the home directory unless it is set.
fn environment(spec: &ContainerSpec, home: &str) -> Vec<(String, String)> {
    let mut env = spec.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), home.to_owned()));
    }
    env
}

/// The caller's own standard streams; standard input only if the process shall have it.
pub fn inherited_stdio(with_input: bool) -> std::io::Result<Stdio> {
    use std::os::fd::AsFd;
    let clone =
        |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(Stdio {
        stdin: with_input.then(|| clone(std::io::stdin().as_fd())).transpose()?,
        stdout: clone(std::io::stdout().as_fd())?,
        stderr: clone(std::io::stderr().as_fd())?,
    })
}
