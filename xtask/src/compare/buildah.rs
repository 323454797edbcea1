//! The same Dockerfiles, built by buildah.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use super::tools::output;
use crate::formwork::Formwork;

/// The host's certificates, which formwork mounts into each step by itself.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The variables by which programs find them.
const BUNDLE_VARIABLES: [&str; 7] = [
    "CARGO_HTTP_CAINFO",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
];

/// buildah with a storage of its own.
pub(super) struct Buildah<'a> {
    formwork: &'a Formwork,
    work: PathBuf,
}

/// What buildah has built.
pub(super) struct Built {
    container: String,
    pub(super) rootfs: PathBuf,
    pub(super) config: Value,
}

impl<'a> Buildah<'a> {
    pub(super) fn new(formwork: &'a Formwork, work: &Path) -> Self {
        Self { formwork, work: work.to_owned() }
    }

    /// Builds the Dockerfile of a context, on the very bases that formwork has used.
    pub(super) fn build(&self, context: &Path, work: &Path) -> Result<Built> {
        let text = fs_err::read_to_string(context.join("Dockerfile"))?;
        let bases = bases(&text);
        let mut set_by_bases = String::new();
        for base in &bases {
            self.import(base)?;
            let inspected = self.formwork.inspect(base)?.unwrap_or_default();
            set_by_bases.push_str(&inspected["Config"]["Env"].to_string());
        }
        let name = format!("localhost/{}", work.file_name().unwrap_or_default().display());
        let mut build = self.command(&["build", "--isolation=chroot", "--format=docker"]);
        build.args(["--ulimit=nofile=20000:20000", "--ulimit=nproc=20000:20000"]);
        build.args(["--pull=never", "--identity-label=false", "--volume"]);
        build.arg(format!("{BUNDLE}:/run/host-certificates.crt:ro"));
        // What is unset at the end must not be what a base has set.
        let is_own = |name: &&str| !set_by_bases.contains(&format!("\"{name}="));
        for variable in BUNDLE_VARIABLES.into_iter().filter(is_own) {
            build.arg(format!("--env={variable}=/run/host-certificates.crt"));
            build.arg(format!("--unsetenv={variable}"));
        }
        output(build.args(["--tag", &name]).arg(context))?;
        let inspected = output(&mut self.command(&["inspect", "--type=image", &name]))?;
        let mut inspected: Value = serde_json::from_str(&inspected)?;
        // The name of the container that was committed.
        inspected["Docker"]["config"]["Hostname"].take();
        let container = output(&mut self.command(&["from", "--pull-never", &name]))?;
        let container = container.trim().to_owned();
        let rootfs = output(&mut self.command(&["mount", &container]))?;
        let rootfs = PathBuf::from(rootfs.trim());
        Ok(Built { container, rootfs, config: inspected["Docker"]["config"].clone() })
    }

    /// Lets go of what [`Self::build`] has mounted.
    pub(super) fn release(&self, built: &Built) -> Result<()> {
        output(&mut self.command(&["rm", &built.container])).map(drop)
    }

    /// Puts an image of formwork's store into buildah's.
    fn import(&self, base: &str) -> Result<()> {
        let mut known = self.command(&["inspect", "--type=image", base]);
        if known.output()?.status.success() {
            return Ok(());
        }
        let layout = self.work.join("base");
        if layout.exists() {
            fs_err::remove_dir_all(&layout)?;
        }
        let context = self.work.join("empty");
        fs_err::create_dir_all(&context)?;
        let file = context.join("Dockerfile");
        fs_err::write(&file, format!("FROM {base}\n"))?;
        let export = format!("type=oci,tar=false,dest={}", layout.display());
        let directory = context.display().to_string();
        let arguments = ["build", "--progress=plain", "-t", base, "-o", &export, &directory];
        self.formwork.call(&arguments, &self.work.join("base.log"))?;
        let storage = format!("[overlay@{}+{}]", self.storage().display(), self.run().display());
        let target = format!("containers-storage:{storage}{}", full_name(base));
        let source = format!("oci:{}", layout.display());
        let arguments = ["--insecure-policy", "copy", "-q", &source, &target];
        output(Command::new("skopeo").args(arguments)).map(drop)
    }

    fn storage(&self) -> PathBuf {
        self.work.join("storage")
    }

    fn run(&self) -> PathBuf {
        self.work.join("run")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.storage()).arg("--runroot").arg(self.run());
        command.args(["--storage-driver=overlay"]).args(arguments);
        command
    }
}

/// The images that the stages of a Dockerfile start from.
fn bases(dockerfile: &str) -> BTreeSet<String> {
    let mut stages: BTreeSet<String> = BTreeSet::from(["scratch".to_owned()]);
    let mut bases = BTreeSet::new();
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace().filter(|word| !word.starts_with("--"));
        if words.next() != Some("FROM") {
            continue;
        }
        let image = words.next().unwrap_or_default();
        if !stages.contains(image) {
            bases.insert(image.to_owned());
        }
        stages.extend(words.nth(1).map(str::to_owned));
    }
    bases
}

/// A name as docker completes it.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}
