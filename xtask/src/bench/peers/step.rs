//! A step by itself, on a base that is there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Peer, Tool};

/// A base image as an OCI layout, with the name that Dockerfiles have for it.
pub(crate) struct Layout {
    directory: PathBuf,
    name: String,
    digest: String,
}

impl Layout {
    /// Reads which image a layout has.
    pub(crate) fn read(directory: &Path, name: &str) -> Result<Self> {
        let index: Value = serde_json::from_slice(&fs_err::read(directory.join("index.json"))?)?;
        let digest = index["manifests"][0]["digest"].as_str();
        let digest = digest.context("the base's layout has no image")?.to_owned();
        Ok(Self { directory: directory.to_owned(), name: name.to_owned(), digest })
    }
}

impl Tool {
    /// Brings a base into the storage of a peer that takes it from nowhere else.
    pub(crate) fn take_base(&self, base: &Layout) -> Result<()> {
        if self.peer != Peer::Buildah {
            return Ok(());
        }
        let (buildah, layout, name) = (self.buildah(), base.directory.display(), &base.name);
        self.shell(&format!("{buildah} tag $({buildah} pull --quiet oci:{layout}) {name}"))
    }

    /// Builds a Dockerfile that needs nothing but a base, without a cache; returns how long it took.
    pub(crate) fn build_on(&self, base: &Layout, dockerfile: &str) -> Result<Duration> {
        let context = self.work.join("empty");
        fs_err::create_dir_all(&context)?;
        fs_err::write(self.work.join("Dockerfile"), dockerfile)?;
        let (work, program, context) =
            (self.work.display(), self.program.display(), context.display());
        let (layout, name, digest) = (base.directory.display(), &base.name, &base.digest);
        let script = match self.peer {
            Peer::Formwork => bail!("formwork tells its steps itself"),
            Peer::Buildkit => format!(
                "exec {program} --addr unix://{work}/socket build --no-cache --progress=plain \
                 --frontend dockerfile.v0 --local context={context} --local dockerfile={work} \
                 --oci-layout base={layout} --opt context:{name}=oci-layout://base@{digest}"
            ),
            Peer::Buildah => format!(
                "exec {} build --no-cache --layers --isolation chroot --pull-never \
                 --ulimit nofile=1024:1024 --ulimit nproc=10000:10000 -f {work}/Dockerfile {context}",
                self.buildah()
            ),
        };
        let start = Instant::now();
        self.shell(&script)?;
        Ok(start.elapsed())
    }
}
