//! Images on their ways to a registry and back.

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;

use super::{Peer, Tool};
use crate::bench::bases::Bases;
use crate::bench::case::Case;

impl Tool {
    /// Builds the image of a case, and pushes it for the first time.
    pub(super) fn prepare_push(&self, case: &Case, context: &Path, bases: &Bases) -> Result<()> {
        self.forget()?;
        self.import(bases)?;
        // It writes the Dockerfile.
        let push = self.write(case, context, bases)?;
        let (work, program, name) = (self.work.display(), self.program.display(), self.pushed());
        let (contexts, context) = (self.contexts(case, bases)?, context.display());
        match self.peer {
            Peer::Formwork => self.shell(&format!(
                "{program} --root {work}/store build -f {work}/Dockerfile{contexts} -t {name} {context}"
            ))?,
            Peer::Buildkit => {}
            Peer::Buildah => self.shell(&format!(
                "{} build --layers --isolation chroot --ulimit nofile=1024:1024 --pull-never \
                 -f {work}/Dockerfile -t {name} {context}",
                self.buildah()
            ))?,
        }
        self.shell(&push)
    }

    /// The command line that pushes the image; BuildKit has no other than that of a build, which is
    /// cached.
    pub(super) fn push_script(&self, context: &dyn Display, contexts: &str) -> String {
        let (work, program, name) = (self.work.display(), self.program.display(), self.pushed());
        match self.peer {
            Peer::Formwork => format!("exec {program} --root {work}/store push --quiet {name}"),
            Peer::Buildkit => format!(
                "exec {program} --addr unix://{work}/socket build --progress=plain \
                 --frontend dockerfile.v0 --local context={context} --local dockerfile={work}{contexts} \
                 --output type=image,name={name},push=true"
            ),
            Peer::Buildah => {
                format!("exec {} push --quiet --tls-verify=false {name}", self.buildah())
            }
        }
    }

    /// The command line that takes a layer from a context to a registry, and into a container of
    /// another store.
    pub(super) fn stream_script(&self, context: &dyn Display) -> String {
        let (work, program, name) = (self.work.display(), self.program.display(), self.pushed());
        let here = format!("{program} --root {work}/store");
        let there = format!("{program} --root {work}/store/elsewhere");
        format!(
            "{here} build -q -f {work}/Dockerfile -t {name} {context} && {here} push -q {name} \
             && {there} pull -q {name} && {{ {there} run {name} /none; test $? = 127; }}"
        )
    }

    fn pushed(&self) -> String {
        format!("{}/pushed/{}:1", self.registry, self.peer.name())
    }
}
