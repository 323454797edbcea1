//! Carrying out what the targets need, with or without layers of caches elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, EventSink};
use formwork_dockerfile::IgnoreFile;
use formwork_frontend::Lowered;
use formwork_fs::map_in_parallel;
use formwork_graph::{Graph, Op, OpId, RemoteSource, Source, Step};
use formwork_remote::Downloads;
use formwork_snapshot::SnapshotKey;
use formwork_solver::{Cancel, PlannedStep, Settings, SolveError, execute, plan};
use formwork_worker::{
    ContextConfig, Layer, Output as OpOutput, Worker, WorkerConfig, WorkerError,
};

use crate::build::Place;
use crate::resolve::Images;
use crate::retold::Retold;
use crate::travel::{Imports, TravelIndex};
use crate::{BuildError, BuildRequest, Host};

/// How many layers are fetched at the same time.
const FETCHES: usize = 8;

/// What is to be carried out.
pub(crate) struct Solving<'a> {
    pub(crate) host: &'a Host,
    pub(crate) request: &'a BuildRequest,
    pub(crate) ignores: &'a BTreeMap<String, IgnoreFile>,
    pub(crate) images: &'a Images,
    pub(crate) lowered: &'a [Lowered],
}

/// What each op has yielded.
pub(crate) type Outputs = BTreeMap<OpId, OpOutput>;

impl Solving<'_> {
    /// Lets the worker carry out what the targets need. Where a layer of a cache elsewhere turns
    /// out to be of no use, it does so again without it: what was done by then is in the store.
    pub(crate) fn solve(
        &self,
        imports: &Imports,
        index: &TravelIndex,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Outputs, BuildError> {
        // All have the same graph.
        let nothing = || BuildError::internal("there is nothing to build");
        let graph = &self.lowered.first().ok_or_else(nothing)?.graph;
        let place = Place { request: self.request, ignores: self.ignores, graph };
        let retold = Arc::new(Retold::new(events));
        let events = &(Arc::clone(&retold) as Arc<dyn EventSink>);
        loop {
            retold.begin();
            let own = Cancel::default();
            let stop = own.clone();
            cancel.when_canceled(move || stop.cancel());
            match self.attempt(graph, &place, imports, index, events, &own) {
                Ok(Attempt::Solved(outputs)) => return Ok(outputs),
                _ if cancel.is_canceled() => return Err(BuildError::canceled()),
                Ok(Attempt::Unusable { layer, reason }) => imports.give_up(&layer, &reason),
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds out what [`Solving::solve`] would do.
    pub(crate) fn plan(
        &self,
        imports: &Imports,
        index: &TravelIndex,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Vec<PlannedStep>, BuildError> {
        let nothing = || BuildError::internal("there is nothing to build");
        let graph = &self.lowered.first().ok_or_else(nothing)?.graph;
        let place = Place { request: self.request, ignores: self.ignores, graph };
        loop {
            let (worker, targets) = self.worker(graph, &place, imports, events, cancel)?;
            let settings = self.settings();
            match plan(graph, &targets, &worker, index, settings, cancel, &**events) {
                Ok(steps) => return Ok(steps),
                Err(SolveError::Op { error: WorkerError::Imported { layer, reason }, .. })
                    if !cancel.is_canceled() =>
                {
                    imports.give_up(&layer, &reason);
                }
                Err(SolveError::Op { op, error }) => return Err(place.error(Some(op), &error)),
                Err(SolveError::Cache(error)) => return Err(BuildError::store(error)),
                Err(SolveError::Canceled) => return Err(BuildError::canceled()),
            }
        }
    }

    /// The worker, and the ops that are wanted of it.
    fn worker(
        &self,
        graph: &Graph,
        place: &Place<'_>,
        imports: &Imports,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<(Worker, Vec<OpId>), BuildError> {
        let mut targets: Vec<OpId> = self.lowered.iter().map(|lowered| lowered.target).collect();
        targets.sort_unstable();
        targets.dedup();
        let config = self.worker_config(graph, imports)?;
        let layers = Arc::clone(&self.host.layers);
        let worker = Worker::new(graph, config, layers, Arc::clone(events), cancel)
            .map_err(|error| place.error(None, &error))?;
        let missing = worker.missing_sources(graph);
        if !missing.is_empty() {
            let told = missing.iter().map(|(op, error)| place.error(Some(*op), error));
            let mut told: Vec<_> = told.flat_map(|error| error.diagnostics).collect();
            // An instruction is a step for each platform.
            told.sort_by_key(Diagnostic::primary_span);
            told.dedup();
            return Err(BuildError::input(told));
        }
        Ok((worker, targets))
    }

    fn settings(&self) -> Settings {
        Settings { jobs: self.request.jobs, scope: scope(self.request) }
    }

    fn attempt(
        &self,
        graph: &Graph,
        place: &Place<'_>,
        imports: &Imports,
        index: &TravelIndex,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Attempt, BuildError> {
        let (worker, targets) = self.worker(graph, place, imports, events, cancel)?;
        let settings = self.settings();
        let failed = |op: Option<OpId>, error: WorkerError| match error {
            WorkerError::Imported { layer, reason } => Ok(Attempt::Unusable { layer, reason }),
            error => Err(place.error(op, &error)),
        };
        match execute(graph, &targets, &worker, index, settings, cancel, &**events) {
            Ok(outputs) if is_here(&outputs) => Ok(Attempt::Solved(outputs)),
            Ok(outputs) => match fetch_layers(&outputs, &targets) {
                Ok(()) => Ok(Attempt::Solved(outputs)),
                Err(error) => failed(None, error),
            },
            Err(SolveError::Op { op, error }) => failed(Some(op), error),
            Err(SolveError::Cache(error)) => Err(BuildError::store(error)),
            Err(SolveError::Canceled) => Err(BuildError::canceled()),
        }
    }

    fn worker_config(&self, graph: &Graph, imports: &Imports) -> Result<WorkerConfig, BuildError> {
        let (host, request) = (self.host, self.request);
        let contexts = request.contexts.iter().map(|(name, context)| {
            let ignore = self.ignores.get(name).map(|file| file.patterns().clone());
            let (ignore, directory) = (ignore.unwrap_or_default(), context.directory.clone());
            let stat_cache = stat_cache(host, &directory);
            (name.clone(), ContextConfig { directory, ignore, stat_cache })
        });
        Ok(WorkerConfig {
            contexts: contexts.collect(),
            images: self.images.bases.clone(),
            secrets: request.secrets.clone(),
            agents: request.agents.clone(),
            trust: request.trust.clone(),
            git: request.git.clone(),
            downloads: downloads(host, graph)?,
            emulators: host.emulators.clone(),
            resolv_conf: host.resolv_conf.clone(),
            world: request.world.clone(),
            text: Some(request.dockerfile.clone()),
            imported: Arc::clone(&imports.layers),
            min_free: request.limits.min_free,
        })
    }
}

/// What came of carrying out a graph.
enum Attempt {
    Solved(Outputs),
    /// A layer of a cache elsewhere is not what it should be, or cannot be had.
    Unusable {
        layer: SnapshotKey,
        reason: String,
    },
}

/// Whether no op has yielded a layer that is elsewhere, or nowhere.
fn is_here(outputs: &Outputs) -> bool {
    let roots = outputs.values().filter_map(|output| output.root().ok());
    let mut layers = roots.flat_map(|root| root.layers());
    layers.all(|layer| layer.imported().is_none() && !layer.has_no_files())
}

/// Makes sure that the layers of the targets are in the store, several at the same time: whatever
/// becomes of an image needs them, and when it does nobody can build them after all.
fn fetch_layers(outputs: &Outputs, targets: &[OpId]) -> Result<(), WorkerError> {
    let roots = targets.iter().filter_map(|target| outputs.get(target)?.root().ok());
    let layers = roots.flat_map(|root| root.layers());
    let layers: Vec<&Arc<Layer>> =
        layers.filter(|layer| layer.base_descriptor().is_none()).collect();
    map_in_parallel(&layers, FETCHES, |layer| layer.fetch()).map(drop)
}

/// What tells steps of this Dockerfile from steps of the same name elsewhere.
fn scope(request: &BuildRequest) -> [u8; 32] {
    use std::os::unix::ffi::OsStrExt;
    let mut text = request.dockerfile.name().as_bytes().to_vec();
    for context in request.contexts.values() {
        let path = match &context.stands_for {
            Some(name) => name.into(),
            None => fs_err::canonicalize(&context.directory)
                .unwrap_or_else(|_| context.directory.clone()),
        };
        text.push(0);
        text.extend_from_slice(path.as_os_str().as_bytes());
    }
    // Half of the digits are enough to tell them apart.
    let mut scope = [0; 32];
    scope.copy_from_slice(&formwork_oci::Digest::of(&text).hex().as_bytes()[..32]);
    scope
}

/// What fetches files of web servers, if a graph has any.
fn downloads(host: &Host, graph: &Graph) -> Result<Option<Downloads>, BuildError> {
    let is_file =
        |step: &Step| matches!(step.op, Op::Source(Source::Remote(RemoteSource::Http(_))));
    let is_needed = graph.steps().any(|(_, step)| is_file(step));
    is_needed.then(|| host.downloads()).transpose()
}

/// Where what is known about a context's files is kept: under the path of the context.
fn stat_cache(host: &Host, directory: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let path = fs_err::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let name = formwork_oci::Digest::of(path.as_os_str().as_bytes());
    host.layout.contexts().join(name.hex())
}
