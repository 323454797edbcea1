//! From planned stages to a graph.
//!
//! `stage` walks through a stage's instructions; `files` lowers COPY, ADD and WORKDIR, `run` RUN,
//! `expiry` reads what comments say about the cache, `remote` finds what ADD takes from elsewhere, `metadata` lowers the rest. All of them report what is wrong and go on, so that one build tells of
//! all the mistakes that do not depend on each other.

mod expiry;
mod files;
mod metadata;
mod remote;
mod run;
mod stage;

use std::collections::BTreeMap;

use formwork_diagnostics::Diagnostic;
use formwork_dockerfile::Dockerfile;
use formwork_graph::{Graph, GraphBuilder, Op, OpId, Place, Places, RemoteSource, Source, Step};
use formwork_oci::ImageConfig;

use crate::budget::Budget;
use crate::emulated::emulated_stages;
use crate::findings::about_stages;
use crate::plan::{Plan, Reference};
use crate::unused::unused_build_args;
use crate::{ImageKey, Options, ResolvedImages};
pub(crate) use files::check_mode;
use stage::{StageLowerer, StageState};

/// A Dockerfile as a graph and a configuration.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// What has to be done.
    pub graph: Graph,
    /// The op that yields the target's root file system.
    pub target: OpId,
    /// The configuration of the result. History and layers are those of the base image.
    pub config: ImageConfig,
    /// What the instructions add to the history.
    pub history: Vec<HistoryEntry>,
    /// Warnings, among them what rules of `lint` find that depends on variables.
    pub diagnostics: Vec<Diagnostic>,
    /// Targets of cache mounts that are locked although nothing says so.
    pub locked_by_default: Vec<String>,
    /// The numbers of the stages that were lowered.
    pub stages: Vec<usize>,
    /// Those of them whose base has chosen a shell, for them or by `ONBUILD`.
    pub shells: Vec<usize>,
}

/// One instruction in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The instruction.
    pub created_by: String,
    /// The op that makes its layer, if it makes one.
    pub layer: Option<OpId>,
}

/// Lowers what the target needs.
///
/// # Errors
///
/// Everything that is wrong with the Dockerfile. All images must have been resolved.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &Options,
    resolved: &ResolvedImages,
) -> Result<Lowered, Vec<Diagnostic>> {
    lower_onto(GraphBuilder::default(), dockerfile, options, resolved).map(|(lowered, _)| lowered)
}

/// Lowers what the targets of several platforms need, into one graph: what is the same for some of
/// them is in it once.
///
/// # Errors
///
/// Fails as [`lower`] does, with what is wrong for the first platform for which something is.
pub fn lower_all(
    dockerfile: &Dockerfile,
    options: &[Options],
    resolved: &ResolvedImages,
) -> Result<Vec<Lowered>, Vec<Diagnostic>> {
    let mut builder = GraphBuilder::default();
    let mut all: Vec<Lowered> = Vec::new();
    for options in options {
        let (lowered, grown) = lower_onto(builder, dockerfile, options, resolved)?;
        all.push(lowered);
        builder = grown;
    }
    // Ops keep their numbers while a graph grows, so the last one is that of all.
    let graph = all.last().map(|last| last.graph.clone());
    for (lowered, graph) in all.iter_mut().zip(std::iter::repeat(graph).flatten()) {
        lowered.graph = graph;
    }
    Ok(all)
}

/// Lowers a target into a graph that has other ops already, and may get more.
fn lower_onto(
    builder: GraphBuilder,
    dockerfile: &Dockerfile,
    options: &Options,
    resolved: &ResolvedImages,
) -> Result<(Lowered, GraphBuilder), Vec<Diagnostic>> {
    let plan = Plan::new(dockerfile, options, resolved)?;
    if let Some(missing) = plan.first_missing() {
        let (source, span) = &missing.place;
        let message = format!("the image `{}` has not been resolved", missing.key.location);
        return Err(vec![Diagnostic::error("unresolved-image", message).at(source, *span, "")]);
    }
    let mut lowering = Lowering {
        plan: &plan,
        options,
        resolved,
        builder,
        states: BTreeMap::new(),
        budget: Budget::new(),
        diagnostics: unused_build_args(&plan, options),
        locked_by_default: Vec::new(),
        shells: Vec::new(),
    };
    lowering.diagnostics.extend(about_stages(dockerfile, options, &plan.global));
    lowering.diagnostics.extend(emulated_stages(&plan, options));
    for stage in &plan.stages {
        let state = StageLowerer::begin(&mut lowering, stage).lower();
        lowering.states.insert(stage.stage.index, state);
    }
    lowering.finish()
}

/// What all stages have in common.
struct Lowering<'a> {
    plan: &'a Plan<'a>,
    options: &'a Options,
    resolved: &'a ResolvedImages,
    builder: GraphBuilder,
    states: BTreeMap<usize, StageState>,
    /// What is left for the variables.
    budget: Budget,
    diagnostics: Vec<Diagnostic>,
    locked_by_default: Vec<String>,
    shells: Vec<usize>,
}

impl Lowering<'_> {
    fn finish(mut self) -> Result<(Lowered, GraphBuilder), Vec<Diagnostic>> {
        if self.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(self.diagnostics);
        }
        let Some(state) = self.states.remove(&self.plan.target) else {
            return Err(vec![Diagnostic::error("no-stage", "there is nothing to build")]);
        };
        let graph = self.builder.clone().finish().map_err(|error| {
            vec![Diagnostic::error("internal", format!("formwork made an invalid graph: {error}"))]
        })?;
        let mut config = state.config;
        config.config.labels.extend(self.options.labels.clone());
        let mut stages: Vec<usize> =
            self.plan.stages.iter().map(|stage| stage.stage.index).collect();
        stages.sort_unstable();
        let lowered = Lowered {
            stages,
            graph,
            target: state.root,
            config,
            history: state.history,
            diagnostics: self.diagnostics,
            locked_by_default: self.locked_by_default,
            shells: self.shells,
        };
        Ok((lowered, self.builder))
    }

    /// The op that yields what a reference stands for; `None` for a stage that is not lowered,
    /// which an error has been reported about.
    fn root_of(&mut self, reference: &Reference) -> Option<OpId> {
        match reference {
            Reference::Stage(index) => self.states.get(index).map(|state| state.root),
            Reference::Scratch => Some(self.source(Source::Scratch, "scratch", None)),
            Reference::Context(name) => Some(self.context(name)),
            Reference::Image(key) => self.image(key, format!("FROM {}", key.location), None),
        }
    }

    fn context(&mut self, name: &str) -> OpId {
        let source = Source::Context { name: name.to_owned() };
        self.source(source, &format!("context {name}"), None)
    }

    fn remote(&mut self, source: RemoteSource, location: Place) -> OpId {
        let name = format!("fetch {source}");
        self.source(Source::Remote(source), &name, Some(location))
    }

    fn image(&mut self, key: &ImageKey, name: String, location: Option<Place>) -> Option<OpId> {
        let image = self.resolved.get(key)?;
        let source = Source::Image {
            name: key.location.to_string(),
            manifest: image.manifest.clone(),
            layers: image.config.rootfs.diff_ids.clone(),
            platform: key.platform.clone(),
        };
        Some(self.source(source, &name, location))
    }

    fn source(&mut self, source: Source, name: &str, location: Option<Place>) -> OpId {
        let op = Op::Source(source);
        self.builder.add(Step {
            op,
            name: name.to_owned(),
            location,
            places: Places::default(),
            no_cache: false,
            max_age: None,
        })
    }
}
