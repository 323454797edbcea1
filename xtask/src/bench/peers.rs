//! The tools, and how each of them builds a case.

mod images;
mod step;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bases::{BUSYBOX, Bases, LARGE};
use super::case::{Case, Kind, Taken};
use super::crowd;
use crate::formwork::Formwork;

pub(crate) use step::Layout;

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
    /// BuildKit's daemon.
    daemon: Option<Daemon>,
    /// The registry of the benchmark.
    registry: String,
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
    pub(crate) fn formwork(formwork: &Formwork, work: &Path, registry: &str) -> Result<Self> {
        let program = formwork.program().to_owned();
        Self::new(Peer::Formwork, program, &["--version"], work, registry)
    }

    /// The peers that are installed.
    pub(crate) fn peers(work: &Path, registry: &str) -> Result<Vec<Self>> {
        let mut tools = Vec::new();
        if is_on_path("buildctl") && is_on_path("buildkitd") && crate::setup::is_root() {
            let mut tool =
                Self::new(Peer::Buildkit, "buildctl".into(), &["--version"], work, registry)?;
            tool.start_buildkitd()?;
            tools.push(tool);
        }
        if is_on_path("buildah") {
            tools.push(Self::new(Peer::Buildah, "buildah".into(), &["--version"], work, registry)?);
        }
        Ok(tools)
    }

    fn new(
        peer: Peer,
        program: PathBuf,
        version: &[&str],
        work: &Path,
        registry: &str,
    ) -> Result<Self> {
        let output = Command::new(&program).args(version).output()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let work = work.join(peer.name());
        fs_err::create_dir_all(&work)?;
        Ok(Self { peer, work, version, program, daemon: None, registry: registry.to_owned() })
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

    /// Brings the tool to where a case begins: what costs much and is done once.
    pub(crate) fn prepare(&self, case: &Case, context: &Path, bases: &Bases) -> Result<()> {
        match case.kind {
            Kind::Unchanged | Kind::Crowded | Kind::OneChanged | Kind::Import => {}
            Kind::Push => return self.prepare_push(case, context, bases),
            Kind::Stream if self.peer != Peer::Formwork => bail!("it is about formwork's memory"),
            _ => return Ok(()),
        }
        if matches!(case.kind, Kind::Crowded | Kind::OneChanged) && self.peer != Peer::Formwork {
            bail!("this is about formwork's own store");
        }
        self.forget()?;
        self.import(bases)?;
        if case.kind == Kind::Import {
            let build = self.write(&Case { kind: Kind::Fresh, ..case.clone() }, context, bases)?;
            return self.shell(&format!("{build}{}", self.cache_options(case, true)?));
        }
        // The first build fills the cache; a second one settles what the tool remembers of files
        // that were new a moment ago.
        self.build(case, context, bases)?;
        std::thread::sleep(Duration::from_millis(2200));
        self.build(case, context, bases)?;
        if case.kind == Kind::Crowded {
            crowd::fill(&self.work.join("store"))?;
        }
        Ok(())
    }

    /// Runs a case once, from where it begins; returns how long it took.
    pub(crate) fn run(&self, case: &Case, context: &Path, bases: &Bases) -> Result<Duration> {
        self.begin(case, bases)?;
        if case.kind == Kind::OneChanged {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            fs_err::write(context.join("changed"), now.as_nanos().to_string())?;
        }
        let time = self.build(case, context, bases);
        if case.kind == Kind::OneChanged {
            fs_err::remove_file(context.join("changed"))?;
        }
        time
    }

    /// What one run takes of the machine.
    pub(crate) fn taken(&self, case: &Case, context: &Path, bases: &Bases) -> Result<Taken> {
        self.begin(case, bases)?;
        let log = self.work.join("memory");
        let script = self.write(case, context, bases)?;
        let status = Command::new("/usr/bin/time")
            .args(["-f", "%M %e %U %S", "-o"])
            .arg(&log)
            .args(["sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("{} failed", self.name());
        }
        let text = fs_err::read_to_string(&log)?;
        let figures: Vec<f64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [kilobytes, wall, user, system] = figures[..] else { bail!("time says `{text}`") };
        let peak_memory = kilobytes as u64 * 1024;
        Ok(Taken { peak_memory, wall, processors: user + system })
    }

    /// Brings the tool to where each run of a case begins; this is not measured.
    fn begin(&self, case: &Case, bases: &Bases) -> Result<()> {
        match case.kind {
            Kind::Version | Kind::Unchanged | Kind::Crowded | Kind::OneChanged | Kind::Push => {}
            Kind::Pull | Kind::Stream => self.forget()?,
            Kind::Fresh | Kind::Zstd | Kind::Import => {
                self.forget()?;
                self.import(bases)?;
                let empty = self.work.join("empty");
                self.build(&case.of_bases_alone(), &empty, bases)?;
            }
        }
        // What earlier runs have left for the disk to write is not this one's.
        self.shell("sync")
    }

    fn build(&self, case: &Case, context: &Path, bases: &Bases) -> Result<Duration> {
        let script = self.write(case, context, bases)?;
        let start = Instant::now();
        self.shell(&script)?;
        Ok(start.elapsed())
    }

    /// Runs a script; its output is shown only if it fails.
    fn shell(&self, script: &str) -> Result<()> {
        let log = self.work.join("log");
        let output = fs_err::File::create(&log)?.into_parts().0;
        let status = Command::new("sh")
            .args(["-c", script])
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()?;
        if status.success() {
            return Ok(());
        }
        let text = fs_err::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.split_at(lines.len().saturating_sub(15)).1;
        bail!("{} failed: {script}\n{}", self.name(), tail.join("\n"))
    }

    /// Writes the Dockerfile; returns the command line that builds it.
    fn write(&self, case: &Case, context: &Path, bases: &Bases) -> Result<String> {
        fs_err::create_dir_all(context)?;
        fs_err::write(self.work.join("Dockerfile"), &case.dockerfile)?;
        let script = self.script(case, context, bases)?;
        Ok(match case.kind {
            Kind::Import => format!("{script}{}", self.cache_options(case, false)?),
            _ => script,
        })
    }

    /// The options with which a build sends its cache to a registry, or takes it from there.
    fn cache_options(&self, case: &Case, send: bool) -> Result<String> {
        // Cases have caches of their own.
        let (registry, peer, tag) = (&self.registry, self.peer.name(), case.dockerfile.len());
        let place = format!("type=registry,ref={registry}/cache/{peer}:{tag}");
        Ok(match (self.peer, send) {
            (Peer::Formwork, true) => format!(" --cache-to {place},mode=max"),
            (Peer::Formwork, false) => format!(" --cache-from {place}"),
            (Peer::Buildkit, true) => format!(" --export-cache {place},mode=max"),
            (Peer::Buildkit, false) => format!(" --import-cache {place}"),
            (Peer::Buildah, _) => bail!("its cache is one of layers in a repository of its own"),
        })
    }

    /// The command line; a shell runs it, which costs all tools the same millisecond.
    fn script(&self, case: &Case, context: &Path, bases: &Bases) -> Result<String> {
        let program = self.program.display();
        if case.kind == Kind::Version {
            return Ok(format!("exec {program} --version"));
        }
        let work = self.work.display();
        let context = context.display();
        let contexts = self.contexts(case, bases)?;
        match case.kind {
            Kind::Push => return Ok(self.push_script(&context, &contexts)),
            Kind::Stream => return Ok(self.stream_script(&context)),
            _ => {}
        }
        let zstd = if case.kind == Kind::Zstd { ",compression=zstd" } else { "" };
        Ok(match self.peer {
            Peer::Formwork => format!(
                "exec {program} --root {work}/store build --progress=plain --jobs {} \
                 -f {work}/Dockerfile{contexts}{output} {context}",
                case.jobs,
                output = match case.kind {
                    Kind::OneChanged => String::new(),
                    _ => format!(" -o type=oci,dest={work}/out.tar{zstd}"),
                }
            ),
            Peer::Buildkit => format!(
                "exec {program} --addr unix://{work}/socket build --progress=plain \
                 --frontend dockerfile.v0 --local context={context} \
                 --local dockerfile={work}{contexts} --output type=oci,dest={work}/out.tar{zstd}"
            ),
            Peer::Buildah => format!(
                "{buildah} build --layers --isolation chroot --jobs {} \
                 --ulimit nofile=1024:1024 --ulimit nproc=10000:10000 \
                 --tls-verify=false {pull} -f {work}/Dockerfile -t localhost/bench/result {context} \
                 && rm -f {work}/out.tar \
                 && {buildah} push --quiet {zstd} localhost/bench/result \
                 oci-archive:{work}/out.tar",
                case.jobs,
                buildah = self.buildah(),
                zstd = if zstd.is_empty() { "" } else { "--compression-format=zstd" },
                pull = if case.kind == Kind::Pull { "--pull-always" } else { "--pull-never" }
            ),
        })
    }

    /// The options that tell where the bases are; a base that is pulled is where its name says.
    fn contexts(&self, case: &Case, bases: &Bases) -> Result<String> {
        let mut options = String::new();
        if case.kind == Kind::Pull {
            return Ok(options);
        }
        for (id, name) in [("busybox", BUSYBOX), ("large", LARGE)] {
            let layout = bases.layout(name).display().to_string();
            // Writing into a string cannot fail.
            let _ = match self.peer {
                Peer::Formwork => {
                    write!(options, " --build-context {name}=oci-layout://{layout}")
                }
                Peer::Buildkit => write!(
                    options,
                    " --oci-layout {id}={layout} --opt context:{name}=oci-layout://{id}@{}",
                    bases.digest(name)?
                ),
                Peer::Buildah => Ok(()),
            };
        }
        Ok(options)
    }

    /// Empties what a tool knows.
    fn forget(&self) -> Result<()> {
        let (work, program) = (self.work.display(), self.program.display());
        self.shell(&match self.peer {
            // ext4 looks at each inode that was freed within the last minute before it gives a
            // new one, so what is removed now would slow down what is measured next.
            Peer::Formwork => format!(
                "test ! -e {work}/store || \
                 {{ mkdir -p {work}/old && mv {work}/store $(mktemp -d {work}/old/XXXXXX); }}"
            ),
            Peer::Buildkit => format!("{program} --addr unix://{work}/socket prune --all"),
            Peer::Buildah => format!("{} rmi --all --force", self.buildah()),
        })
    }

    fn buildah(&self) -> String {
        let work = self.work.display();
        format!("buildah --root {work}/store --runroot {work}/run --storage-driver overlay")
    }

    /// Removes what [`Tool::forget`] has put aside.
    pub(crate) fn clean(&self) -> Result<()> {
        self.shell(&format!("rm -rf {}/old", self.work.display()))
    }

    /// Brings the bases into buildah's storage, since it takes them from nowhere else.
    fn import(&self, bases: &Bases) -> Result<()> {
        if self.peer != Peer::Buildah {
            return Ok(());
        }
        for name in [BUSYBOX, LARGE] {
            let (buildah, layout) = (self.buildah(), bases.layout(name));
            let layout = layout.display();
            self.shell(&format!("{buildah} tag $({buildah} pull --quiet oci:{layout}) {name}"))?;
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
