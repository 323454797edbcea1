//! The tools, and how each of them builds a case.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bases::{BUSYBOX, Bases, LARGE};
use super::case::{Case, Kind};
use crate::formwork::Formwork;

/// A tool, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Ours.
    Formwork,
    /// A daemon and its client.
    Buildkit,
    /// Debian's.
    Buildah,
}

/// A tool with its store.
#[derive(Debug)]
pub(crate) struct Tool {
    peer: Peer,
    work: PathBuf,
    version: String,
    program: PathBuf,
    /// BuildKit's daemon, and the registry of the cases that pull.
    daemon: Option<Daemon>,
}

/// A process that ends with the benchmark.
#[derive(Debug)]
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It was started here, and nobody else uses it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Tool {
    /// formwork.
    pub(crate) fn formwork(formwork: &Formwork, work: &Path) -> Result<Self> {
        let program = formwork.program().to_owned();
        Self::new(Peer::Formwork, program, &["--version"], work)
    }

    /// The peers that are installed.
    pub(crate) fn peers(work: &Path) -> Result<Vec<Self>> {
        let mut tools = Vec::new();
        if is_on_path("buildctl") && is_on_path("buildkitd") && crate::setup::is_root() {
            let mut tool = Self::new(Peer::Buildkit, "buildctl".into(), &["--version"], work)?;
            tool.start_buildkitd()?;
            tools.push(tool);
        }
        if is_on_path("buildah") {
            tools.push(Self::new(Peer::Buildah, "buildah".into(), &["--version"], work)?);
        }
        Ok(tools)
    }

    fn new(peer: Peer, program: PathBuf, version: &[&str], work: &Path) -> Result<Self> {
        let output = Command::new(&program).args(version).output()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let work = work.join(peer.name());
        fs_err::create_dir_all(&work)?;
        Ok(Self { peer, work, version, program, daemon: None })
    }

    /// Which tool this is.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// The tool's name.
    pub(crate) fn name(&self) -> &'static str {
        self.peer.name()
    }

    /// What the tool says of its version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Brings the tool to where a case begins.
    pub(crate) fn prepare(&mut self, case: &Case, context: &Path, bases: &Bases) -> Result<()> {
        match case.kind {
            Kind::Version => Ok(()),
            Kind::Pull => bail!("there is no registry for it yet"),
            Kind::Fresh | Kind::Unchanged => {
                if self.peer == Peer::Buildah {
                    self.import(bases)?;
                }
                // The first build brings the base into the store; a second one settles what the
                // tool remembers of files that were new a moment ago.
                self.once(case, context, bases)?;
                std::thread::sleep(Duration::from_millis(2200));
                self.once(case, context, bases).map(drop)
            }
        }
    }

    /// Runs a case once; returns how long it took.
    pub(crate) fn run(&mut self, case: &Case, context: &Path, bases: &Bases) -> Result<Duration> {
        self.once(case, context, bases)
    }

    /// The largest resident set of a run, in bytes.
    pub(crate) fn peak_memory(
        &mut self,
        case: &Case,
        context: &Path,
        bases: &Bases,
    ) -> Result<u64> {
        let log = self.work.join("memory");
        let script = self.script(case, context, bases)?;
        let status = Command::new("/usr/bin/time")
            .args(["-f", "%M", "-o"])
            .arg(&log)
            .args(["sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("{} failed", self.name());
        }
        let kilobytes: u64 = fs_err::read_to_string(&log)?.trim().parse()?;
        Ok(kilobytes * 1024)
    }

    fn once(&self, case: &Case, context: &Path, bases: &Bases) -> Result<Duration> {
        let script = self.script(case, context, bases)?;
        let log = fs_err::File::create(self.work.join("log"))?.into_parts().0;
        let start = Instant::now();
        let status = Command::new("sh")
            .args(["-c", &script])
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        let time = start.elapsed();
        if !status.success() {
            let text = fs_err::read_to_string(self.work.join("log")).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("{} failed: {script}\n{}", self.name(), tail.join("\n"));
        }
        Ok(time)
    }

    /// The command line; a shell runs it, which costs all tools the same millisecond.
    fn script(&self, case: &Case, context: &Path, bases: &Bases) -> Result<String> {
        let program = self.program.display();
        if case.kind == Kind::Version {
            return Ok(format!("exec {program} --version"));
        }
        let work = self.work.display();
        let dockerfile = self.work.with_file_name("Dockerfile");
        let (dockerfile, context) = (dockerfile.display(), context.display());
        let no_cache = if case.kind == Kind::Fresh { " --no-cache" } else { "" };
        let mut script = String::new();
        // Writing into a string cannot fail.
        let _ = match self.peer {
            Peer::Formwork => {
                let contexts: String = [BUSYBOX, LARGE]
                    .map(|name| {
                        let layout = bases.layout(name);
                        format!(" --build-context {name}=oci-layout://{}", layout.display())
                    })
                    .concat();
                write!(
                    script,
                    "exec {program} --root {work}/store build --progress=plain{no_cache} --jobs {} \
                     -f {dockerfile}{contexts} -o type=oci,dest={work}/out.tar {context}",
                    case.jobs
                )
            }
            Peer::Buildkit => {
                let mut contexts = String::new();
                for (id, name) in [("busybox", BUSYBOX), ("large", LARGE)] {
                    let (layout, digest) = (bases.layout(name), bases.digest(name)?);
                    let _ = write!(
                        contexts,
                        " --oci-layout {id}={} --opt context:{name}=oci-layout://{id}@{digest}",
                        layout.display()
                    );
                }
                write!(
                    script,
                    "exec {program} --addr unix://{work}/socket build --progress=plain \
                     --frontend dockerfile.v0{no_cache} --local context={context} \
                     --local dockerfile={}{contexts} --output type=oci,dest={work}/out.tar",
                    dockerfile.to_string().trim_end_matches("/Dockerfile")
                )
            }
            Peer::Buildah => write!(
                script,
                "{buildah} build --layers --isolation chroot{no_cache} --jobs {} \
                 --ulimit nofile=1024:1024 --ulimit nproc=10000:10000 \
                 --pull-never -f {dockerfile} -t localhost/bench/result {context} \
                 && rm -f {work}/out.tar \
                 && {buildah} push --quiet localhost/bench/result oci-archive:{work}/out.tar",
                case.jobs,
                buildah = self.buildah()
            ),
        };
        Ok(script)
    }

    fn buildah(&self) -> String {
        let work = self.work.display();
        format!("buildah --root {work}/storage --runroot {work}/run --storage-driver overlay")
    }

    /// Brings the bases into buildah's storage.
    fn import(&self, bases: &Bases) -> Result<()> {
        for name in [BUSYBOX, LARGE] {
            let layout = bases.layout(name).display().to_string();
            let short = if name == LARGE { "large:1" } else { "busybox:1" };
            let _ = short;
            let script = format!(
                "{buildah} inspect --type image {name} > /dev/null 2>&1 || \
                 {buildah} tag $({buildah} pull --quiet oci:{layout}) {name}",
                buildah = self.buildah()
            );
            let status = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status()?;
            if !status.success() {
                bail!("buildah cannot import {layout}");
            }
        }
        Ok(())
    }

    fn start_buildkitd(&mut self) -> Result<()> {
        let socket = self.work.join("socket");
        let log = fs_err::File::create(self.work.join("daemon.log"))?.into_parts().0;
        let child = Command::new("buildkitd")
            .arg("--root")
            .arg(self.work.join("root"))
            .args(["--addr", &format!("unix://{}", socket.display())])
            .args(["--containerd-worker=false"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start buildkitd")?;
        self.daemon = Some(Daemon(child));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            let address = format!("unix://{}", socket.display());
            let answer =
                Command::new("buildctl").args(["--addr", &address, "debug", "workers"]).output()?;
            if answer.status.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("buildkitd does not answer")
    }
}

impl Peer {
    /// The tool's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Formwork => "formwork",
            Self::Buildkit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
