//! The build itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink, SourceFile, Span};
use formwork_dockerfile::{IgnoreFile, parse};
use formwork_frontend::{Lowered, MAIN_CONTEXT, lower_all};
use formwork_graph::{Graph, Op, OpId, Place as Location, RemoteSource, Source, Step};
use formwork_layer::LayerError;
use formwork_remote::Downloads;
use formwork_solver::{Cancel, Settings, SolveError, execute};
use formwork_worker::{
    ContextConfig, MissingSource, Output as OpOutput, Reason, Worker, WorkerConfig, WorkerError,
};

use crate::error::{kind_of_worker_error, lack_of_machine, told};
use crate::request::ContextSpec;
use crate::resolve::{Images, resolve};
use crate::space::make_room;
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
    let outputs = solve(host, request, &ignores, &images, &lowered, events, cancel)?;
    let image = result::assemble_all(host, request, &images, &lowered, &outputs, cancel)
        .map_err(or_canceled)?;
    if cancel.is_canceled() {
        return Err(BuildError::canceled());
    }
    output::deliver(host, request, &image, events, cancel).map_err(or_canceled)?;
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

/// Lets the worker carry out what the target needs.
fn solve(
    host: &Host,
    request: &BuildRequest,
    ignores: &BTreeMap<String, IgnoreFile>,
    images: &Images,
    lowered: &[Lowered],
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<BTreeMap<OpId, OpOutput>, BuildError> {
    // All have the same graph.
    let first = lowered.first().ok_or_else(|| BuildError::internal("there is nothing to build"))?;
    let graph = &first.graph;
    let mut targets: Vec<OpId> = lowered.iter().map(|lowered| lowered.target).collect();
    targets.sort_unstable();
    targets.dedup();
    let contexts = request.contexts.iter().map(|(name, context)| {
        let ignore = ignores.get(name).map(|file| file.patterns().clone()).unwrap_or_default();
        let directory = context.directory.clone();
        let stat_cache = stat_cache(host, &directory);
        (name.clone(), ContextConfig { directory, ignore, stat_cache })
    });
    let config = WorkerConfig {
        contexts: contexts.collect(),
        images: images.bases.clone(),
        secrets: request.secrets.clone(),
        agents: request.agents.clone(),
        trust: request.trust.clone(),
        git: request.git.clone(),
        downloads: downloads(host, graph)?,
        emulators: host.emulators.clone(),
        resolv_conf: host.resolv_conf.clone(),
        world: request.world.clone(),
        min_free: request.limits.min_free,
        text: Some(request.dockerfile.clone()),
    };
    let place = Place { request, ignores, graph };
    let layers = Arc::clone(&host.layers);
    let worker = Worker::new(graph, config, layers, Arc::clone(events), cancel)
        .map_err(|error| place.error(None, &error))?;
    let missing = worker.missing_sources(graph);
    if !missing.is_empty() {
        let told = missing.iter().map(|(op, error)| place.error(Some(*op), error));
        return Err(BuildError::input(told.flat_map(|error| error.diagnostics).collect()));
    }
    let settings = Settings { jobs: request.jobs, scope: scope(request) };
    execute(graph, &targets, &worker, &host.index, settings, cancel, &**events).map_err(|error| {
        match error {
            SolveError::Op { op, error } => place.error(Some(op), &error),
            SolveError::Cache(error) => BuildError::store(error),
            SolveError::Canceled => BuildError::canceled(),
        }
    })
}

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

    /// The place in the Dockerfile: that of the op or a part of it, or that of the `FROM` whose
    /// image is at fault.
    fn location(&self, op: Option<OpId>, error: &WorkerError) -> Option<Location> {
        let from = match error {
            WorkerError::BaseLayer { diff_id, .. } => {
                self.graph.steps().map(|(_, step)| step).find(|step| match &step.op {
                    Op::Source(Source::Image { layers, .. }) => layers.contains(diff_id),
                    _ => false,
                })
            }
            _ => None,
        };
        let step = from.or_else(|| Some(self.graph.step(op?)))?;
        let part = match error {
            WorkerError::Account(_) => step.places.account,
            WorkerError::Missing(missing) => step.places.of_name(&missing.source),
            WorkerError::NotGiven { id, .. } => step.places.of_name(id),
            _ => None,
        };
        part.or(step.location)
    }

    /// Tells why a source of a copy is not there.
    fn explain(&self, diagnostic: Diagnostic, missing: &MissingSource) -> Diagnostic {
        let context = missing.context.as_deref().unwrap_or(MAIN_CONTEXT);
        match &missing.reason {
            Reason::Ignored { path, line } => self.left_out(diagnostic, context, path, *line),
            Reason::Dangling { ignored: Some((path, line)), .. } => {
                self.left_out(diagnostic, context, path, *line)
            }
            Reason::Nearest(path) => {
                diagnostic.with_help(format!("did you mean `{}`?", show(path)))
            }
            Reason::Elsewhere(path) => diagnostic.with_help(format!("there is `{}`", show(path))),
            Reason::Dangling { ignored: None, .. } | Reason::Unknown => diagnostic,
        }
    }

    /// Adds which rule leaves a path out.
    fn left_out(
        &self,
        diagnostic: Diagnostic,
        context: &str,
        path: &formwork_fs::RelPath,
        line: usize,
    ) -> Diagnostic {
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
