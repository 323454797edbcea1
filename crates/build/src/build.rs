//! The build itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use formwork_diagnostics::{Diagnostic, Event, EventSink, SourceFile, Span};
use formwork_dockerfile::{IgnoreFile, parse};
use formwork_frontend::{Lowered, MAIN_CONTEXT, lower_all};
use formwork_graph::{Graph, Op, OpId, RemoteSource, Source, Step};
use formwork_layer::LayerError;
use formwork_remote::Downloads;
use formwork_snapshot::SnapshotKey;
use formwork_solver::{Cancel, Settings, SolveError, execute};
use formwork_worker::{
    ContextConfig, Layer, MissingSource, Output as OpOutput, Reason, Worker, WorkerConfig,
    WorkerError,
};

use crate::error::{kind_of_worker_error, lack_of_machine, told};
use crate::request::ContextSpec;
use crate::resolve::{Images, resolve};
use crate::space::make_room;
use crate::travel::{Export, Imports, TravelIndex, export};
use crate::{BuildError, BuildOutcome, BuildRequest, ErrorKind, Host, check, output, result};

/// Builds what a request asks for, and takes it where it should go.
///
/// # Errors
///
/// Everything that is wrong, as diagnostics. What was built until then stays in the cache.
pub fn build(
    host: &Host,
    request: &BuildRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<BuildOutcome, BuildError> {
    make_room(host, request.limits)?;
    let _in_use = host.use_store()?;
    let imports = Imports::new(host, &request.cache_from, events, cancel);
    imports.begin();
    let parsed = parse(request.dockerfile.clone());
    let dockerfile = tell(parsed.dockerfile, parsed.diagnostics, events)?;
    let ignores = parse_ignore_files(request, events)?;
    // Whatever goes wrong after somebody has asked to stop, goes wrong because of that.
    let or_canceled = |error| if cancel.is_canceled() { BuildError::canceled() } else { error };
    let images = resolve(host, request, &dockerfile, events, cancel).map_err(or_canceled)?;
    let lowered = lower_all(&dockerfile, &request.options_by_platform(), &images.resolved);
    let lowered = lowered.map_err(BuildError::input)?;
    let ignore = ignores.get(MAIN_CONTEXT).cloned().unwrap_or_default();
    let warnings = check::warnings(request, &dockerfile, &lowered, &ignore)?;
    warnings.into_iter().for_each(|warning| emit(events, warning));
    let index = TravelIndex::new(&host.index, &imports);
    let solving = Solving { host, request, ignores: &ignores, images: &images, lowered: &lowered };
    let outputs = solving.solve(&imports, &index, events, cancel)?;
    let image = result::assemble_all(host, request, &images, &lowered, &outputs, cancel)
        .map_err(or_canceled)?;
    if cancel.is_canceled() {
        return Err(BuildError::canceled());
    }
    output::deliver(host, request, &image, events, cancel).map_err(or_canceled)?;
    let roots = image.images.iter().map(|image| &image.root).collect();
    let (imports, index, outputs) = (&imports, &index, &outputs);
    export(&Export { host, request, imports, index, outputs, roots }, events, cancel)?;
    image.into_outcome()
}

/// Passes a value on with its warnings told, or fails with its errors.
fn tell<T>(
    value: T,
    diagnostics: Vec<Diagnostic>,
    events: &Arc<dyn EventSink>,
) -> Result<T, BuildError> {
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(BuildError::input(diagnostics));
    }
    diagnostics.into_iter().for_each(|diagnostic| emit(events, diagnostic));
    Ok(value)
}

fn emit(events: &Arc<dyn EventSink>, diagnostic: Diagnostic) {
    events.emit(Event::Message(Box::new(diagnostic)));
}

/// What is left out of each context.
fn parse_ignore_files(
    request: &BuildRequest,
    events: &Arc<dyn EventSink>,
) -> Result<BTreeMap<String, IgnoreFile>, BuildError> {
    let mut files = BTreeMap::new();
    for (name, ContextSpec { ignore, .. }) in &request.contexts {
        let source = ignore.clone().unwrap_or_else(|| SourceFile::new(".dockerignore", ""));
        let (file, diagnostics) = IgnoreFile::parse(source);
        files.insert(name.clone(), tell(file, diagnostics, events)?);
    }
    Ok(files)
}

/// What is to be carried out.
struct Solving<'a> {
    host: &'a Host,
    request: &'a BuildRequest,
    ignores: &'a BTreeMap<String, IgnoreFile>,
    images: &'a Images,
    lowered: &'a [Lowered],
}

type Outputs = BTreeMap<OpId, OpOutput>;

impl Solving<'_> {
    /// Lets the worker carry out what the targets need. Where a layer of a cache elsewhere turns
    /// out to be of no use, it does so again without it: what was done by then is in the store.
    fn solve(
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
        loop {
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

    fn attempt(
        &self,
        graph: &Graph,
        place: &Place<'_>,
        imports: &Imports,
        index: &TravelIndex,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Attempt, BuildError> {
        let (host, request) = (self.host, self.request);
        let mut targets: Vec<OpId> = self.lowered.iter().map(|lowered| lowered.target).collect();
        targets.sort_unstable();
        targets.dedup();
        let config = self.worker_config(graph, imports)?;
        let layers = Arc::clone(&host.layers);
        let worker = Worker::new(graph, config, layers, Arc::clone(events), cancel)
            .map_err(|error| place.error(None, &error))?;
        let settings = Settings { jobs: request.jobs, scope: scope(request) };
        let failed = |op: Option<OpId>, error: WorkerError| match error {
            WorkerError::Imported { layer, reason } => Ok(Attempt::Unusable { layer, reason }),
            error => Err(place.error(op, &error)),
        };
        match execute(graph, &targets, &worker, index, settings, cancel, &**events) {
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
            resolv_conf: host.resolv_conf.clone(),
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

/// Fetches the layers of the targets that are in a cache elsewhere, all at the same time: whatever
/// becomes of an image needs them.
fn fetch_layers(outputs: &Outputs, targets: &[OpId]) -> Result<(), WorkerError> {
    let roots = targets.iter().filter_map(|target| outputs.get(target)?.root().ok());
    let layers = roots.flat_map(|root| root.layers());
    let layers: Vec<&Arc<Layer>> = layers.filter(|layer| layer.imported().is_some()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            layer.fetch()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..FETCHES.min(layers.len())).map_while(start).collect();
        let panicked =
            || WorkerError::Internal("a thread that fetched a layer panicked".to_owned());
        let others = others.into_iter().map(|thread| thread.join());
        std::iter::once(Ok(work()))
            .chain(others)
            .try_for_each(|result| result.unwrap_or_else(|_| Err(panicked())))
    })
}

/// How many layers are fetched at the same time.
const FETCHES: usize = 8;

/// What tells steps of this Dockerfile from steps of the same name elsewhere.
fn scope(request: &BuildRequest) -> [u8; 32] {
    use std::os::unix::ffi::OsStrExt;
    let mut text = request.dockerfile.name().as_bytes().to_vec();
    for context in request.contexts.values() {
        let path = fs_err::canonicalize(&context.directory);
        let path = path.unwrap_or_else(|_| context.directory.clone());
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

/// Finds the places of errors in the Dockerfile.
struct Place<'a> {
    request: &'a BuildRequest,
    ignores: &'a BTreeMap<String, IgnoreFile>,
    graph: &'a Graph,
}

impl Place<'_> {
    fn error(&self, op: Option<OpId>, error: &WorkerError) -> BuildError {
        if matches!(error, WorkerError::Sandbox(formwork_sandbox::SandboxError::Cancelled)) {
            return BuildError::canceled();
        }
        let mut diagnostic = told(code(error), error);
        if let Some((start, end)) = self.location(op, error) {
            let span = Span::new(start as usize, end as usize);
            diagnostic = diagnostic.at(&self.request.dockerfile, span, "");
        }
        if let WorkerError::Missing(missing) = error {
            diagnostic = self.explain(diagnostic, missing);
        }
        let kind = if self.is_about_context(error) {
            ErrorKind::Input
        } else {
            kind_of_worker_error(error)
        };
        BuildError::new(kind, diagnostic)
    }

    /// Whether a file of a context cannot be read.
    fn is_about_context(&self, error: &WorkerError) -> bool {
        let (WorkerError::File(file) | WorkerError::Layer(LayerError::Fs(file))) = error else {
            return false;
        };
        let is_short = lack_of_machine(error).is_some();
        let mut contexts = self.request.contexts.values();
        !is_short && contexts.any(|context| file.path.starts_with(&context.directory))
    }

    /// The place in the Dockerfile: that of the op, or that of the `FROM` whose image is at fault.
    fn location(&self, op: Option<OpId>, error: &WorkerError) -> Option<(u32, u32)> {
        let from = match error {
            WorkerError::BaseLayer { diff_id, .. } => {
                self.graph.steps().map(|(_, step)| step).find(|step| match &step.op {
                    Op::Source(Source::Image { layers, .. }) => layers.contains(diff_id),
                    _ => false,
                })
            }
            _ => None,
        };
        from.and_then(|step| step.location).or_else(|| self.graph.step(op?).location)
    }

    /// Tells why a source of a copy is not there.
    fn explain(&self, diagnostic: Diagnostic, missing: &MissingSource) -> Diagnostic {
        let context = missing.context.as_deref().unwrap_or(MAIN_CONTEXT);
        match &missing.reason {
            Reason::Ignored { path, line } => {
                let ignore = self.ignores.get(context).map(IgnoreFile::source);
                let rule = ignore.and_then(|source| {
                    let text = source.slice(source.line_span(line + 1)?).trim();
                    Some(format!("{}:{} `{text}`", source.name(), line + 1))
                });
                let rule = rule.unwrap_or_else(|| "an ignore file".to_owned());
                diagnostic
                    .with_note(format!("{path} is ignored by {rule}"))
                    .with_help("except it with a line that begins with `!`, or change that rule")
            }
            Reason::Nearest(path) => {
                diagnostic.with_help(format!("did you mean `{}`?", show(path)))
            }
            Reason::Elsewhere(path) => diagnostic.with_help(format!("there is `{}`", show(path))),
            Reason::Unknown => diagnostic,
        }
    }
}

/// A path as a Dockerfile has it.
fn show(path: &formwork_fs::RelPath) -> String {
    path.to_string().trim_start_matches('/').to_owned()
}

fn code(error: &WorkerError) -> &'static str {
    match error {
        WorkerError::Exit { .. } => "failed-step",
        WorkerError::Missing(_) => "missing-source",
        WorkerError::Account(_) => "unknown-account",
        WorkerError::NotGiven { kind: "secret", .. } => "missing-secret",
        WorkerError::NotGiven { .. } => "missing-ssh",
        WorkerError::Remote(_) => "remote",
        WorkerError::BaseLayer { .. } => "base-image",
        WorkerError::Internal(_) => "internal",
        _ => "step",
    }
}
