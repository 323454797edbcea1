//! The build itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink, SourceFile, Span};
use formwork_dockerfile::{Dockerfile, IgnoreFile, parse};
use formwork_frontend::{Lowered, MAIN_CONTEXT, lower_all, uncached_mounts};
use formwork_graph::{Graph, Op, OpId, Place as Location, Source, Step};
use formwork_layer::LayerError;
use formwork_sandbox::{ProgramProblem, SandboxError};
use formwork_solver::Cancel;
use formwork_worker::{MissingSource, Reason, WorkerError};

use crate::error::{kind_of_worker_error, lack_of_machine, told};
use crate::mounts::empty_mounts;
use crate::once::tell_of_locked_caches;
use crate::recipe::Recipe;
use crate::request::ContextSpec;
use crate::resolve::{Images, resolve};
use crate::result::Built;
use crate::solve::Solving;
use crate::space::Keeper;
use crate::travel::{
    Export, Imports, TravelIndex, Uploads, export, fill_mounts, inline_field, send_mounts,
    used_mounts,
};
use crate::{
    BuildError, BuildOutcome, BuildRequest, ErrorKind, Host, Output, check, output, result,
};

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
    let events = &Keeper::begin(host, request.limits, events)?;
    let deliver = |image: &Built| output::deliver(host, request, image, events, cancel);
    let (image, ()) = build_and(host, request, events, cancel, deliver)?;
    let outcome = image.into_outcome()?;
    Ok(BuildOutcome { names: request.all_names(), ..outcome })
}

/// Builds what a request asks for, and does something with it. Keeps no limits on space.
pub(crate) fn build_and<T>(
    host: &Host,
    request: &BuildRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
    then: impl FnOnce(&Built) -> Result<T, BuildError>,
) -> Result<(Built, T), BuildError> {
    // Whatever goes wrong after somebody has asked to stop, goes wrong because of that.
    let or_canceled = |error| if cancel.is_canceled() { BuildError::canceled() } else { error };
    let prepared = Prepared::new(host, request, events, cancel).map_err(or_canceled)?;
    let Prepared { imports, dockerfile, ignores, images, mut lowered, mounts, emptied } = prepared;
    let ignore = ignores.get(MAIN_CONTEXT).cloned().unwrap_or_default();
    let warnings = check::warnings(request, &dockerfile, &lowered, &ignore)?;
    warnings.into_iter().for_each(|warning| emit(events, warning));
    let locked = lowered.iter().flat_map(|lowered| lowered.locked_by_default.clone());
    tell_of_locked_caches(host, &locked.collect::<Vec<_>>(), events);
    let uploads = Uploads::begin(host, request, cancel);
    let index = TravelIndex::new(&host.index, &imports, uploads);
    empty_mounts(host, &emptied)?;
    let filled: Vec<String> = mounts.iter().filter(|id| !emptied.contains(*id)).cloned().collect();
    fill_mounts(host, request, &filled, events, cancel)?;
    let solving = Solving { host, request, ignores: &ignores, images: &images, lowered: &lowered };
    let outputs = solving.solve(&imports, &index, events, cancel)?;
    for lowered in &mut lowered {
        // That of a base image is not this one's.
        let root = outputs.get(&lowered.target).and_then(|output| output.root().ok());
        let root = root.filter(|_| request.inline_cache);
        lowered.config.inline_cache =
            root.and_then(|root| inline_field(&index.used(), root, request.epoch));
    }
    let mut image = result::assemble_all(host, request, &images, &lowered, &outputs, cancel)
        .map_err(or_canceled)?;
    if cancel.is_canceled() {
        return Err(BuildError::canceled());
    }
    if request.outputs.iter().any(|output| matches!(output, Output::Store(_))) {
        let recipe = Recipe::of(host, request, &images).keep(host)?;
        image.images.iter_mut().for_each(|image| image.recipe = Some(recipe.clone()));
    }
    if let Some(provenance) = &request.provenance {
        let recipe = Recipe::of(host, request, &images);
        for one in &mut image.images {
            let dockerfile = request.dockerfile_from.as_ref();
            one.attest(host, provenance, &recipe, &request.all_names(), dockerfile)?;
        }
        image.recipe = Some(recipe);
    }
    let done = then(&image).map_err(or_canceled)?;
    let roots = image.images.iter().map(|image| &image.root).collect();
    let (imports, index, outputs) = (&imports, &index, &outputs);
    export(&Export { host, request, imports, index, outputs, roots }, events, cancel)?;
    send_mounts(host, request, &mounts, events, cancel)?;
    Ok((image, done))
}

/// A build that is ready to be carried out.
pub(crate) struct Prepared {
    pub(crate) imports: Arc<Imports>,
    dockerfile: Dockerfile,
    ignores: BTreeMap<String, IgnoreFile>,
    images: Images,
    lowered: Vec<Lowered>,
    /// The cache mounts that it uses.
    mounts: Vec<String>,
    /// Those of them that have to begin empty.
    emptied: BTreeSet<String>,
}

impl Prepared {
    /// Reads what a request says, and finds the images that it needs.
    pub(crate) fn new(
        host: &Host,
        request: &BuildRequest,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Self, BuildError> {
        let imports = Imports::new(host, &request.cache_from, events, cancel);
        imports.begin();
        let parsed = parse(request.dockerfile.clone());
        let said = check::with_mistakes(&parsed.dockerfile, parsed.diagnostics);
        let dockerfile = tell(parsed.dockerfile, said, events)?;
        let ignores = parse_ignore_files(request, events)?;
        let images = resolve(host, request, &dockerfile, events, cancel)?;
        let lowered = lower_all(&dockerfile, &request.options_by_platform(), &images.resolved);
        let lowered = lowered.map_err(BuildError::input)?;
        let mounts = mounts_of(&lowered);
        let emptied = uncached_mounts(&request.options.no_cache_filter, &mounts)
            .map_err(|error| BuildError::input(vec![error]))?;
        Ok(Self { imports, dockerfile, ignores, images, lowered, mounts, emptied })
    }

    /// What is to be carried out.
    pub(crate) fn solving<'a>(&'a self, host: &'a Host, request: &'a BuildRequest) -> Solving<'a> {
        let Self { ignores, images, lowered, .. } = self;
        Solving { host, request, ignores, images, lowered }
    }
}

/// The ids of the cache mounts that the targets use.
fn mounts_of(lowered: &[Lowered]) -> Vec<String> {
    let targets: Vec<OpId> = lowered.iter().map(|lowered| lowered.target).collect();
    lowered.first().map(|lowered| used_mounts(&lowered.graph, &targets)).unwrap_or_default()
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

/// Finds the places of errors in the Dockerfile.
pub(crate) struct Place<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) ignores: &'a BTreeMap<String, IgnoreFile>,
    pub(crate) graph: &'a Graph,
}

impl Place<'_> {
    /// An error of the worker, at its place.
    pub(crate) fn error(&self, op: Option<OpId>, error: &WorkerError) -> BuildError {
        if matches!(error, WorkerError::Sandbox(SandboxError::Cancelled)) {
            return BuildError::canceled();
        }
        let mut diagnostic = told(code(error), error);
        if let Some((start, end)) = self.location(op, error) {
            let span = Span::new(start as usize, end as usize);
            diagnostic = diagnostic.at(&self.request.dockerfile, span, "");
        }
        if let Some(note) = op.and_then(|op| self.note_of_base(self.graph.step(op), error)) {
            diagnostic = diagnostic.with_note(note);
        }
        if let WorkerError::Missing(missing) = error {
            diagnostic = self.explain(diagnostic, missing);
        }
        if let Some(help) = help(error) {
            diagnostic = diagnostic.with_help(help);
        }
        let kind = if self.is_about_context(error) {
            ErrorKind::Input
        } else {
            kind_of_worker_error(error)
        };
        BuildError::new(kind, diagnostic)
    }

    /// Where the cause is in the base image and not in the Dockerfile.
    fn note_of_base(&self, step: &Step, error: &WorkerError) -> Option<String> {
        let (start, end) = step.location?;
        let span = Span::new(start as usize, end as usize);
        let text = self.request.dockerfile.slice(span);
        let (_, instruction) = step.name.split_once("] ")?;
        let is_from =
            |text: &str| text.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("FROM "));
        if is_from(text) && !is_from(instruction) {
            return Some(format!("the base image brings `ONBUILD {instruction}`"));
        }
        let has_user = matches!(error, WorkerError::Account(_)) && step.places.account.is_none();
        has_user.then(|| "the base image sets the user".to_owned())
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
            Reason::Unknown if missing.context.is_some() && is_of_host(&missing.source) => {
                diagnostic
                    .with_help("paths begin at the build context, not at the root of this machine")
            }
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

/// Whether a source is written as if it were looked for on the machine.
fn is_of_host(source: &str) -> bool {
    source.starts_with("~/") || (source.starts_with('/') && source.trim_matches('/').contains('/'))
}

/// The way out of an error where it depends on the instruction.
fn help(error: &WorkerError) -> Option<&'static str> {
    let WorkerError::Sandbox(SandboxError::Program { program, problem }) = error else {
        return None;
    };
    let is_shell = ["/bin/sh", "/bin/bash", "/bin/ash"].iter().any(|shell| program == shell);
    let is_missing = matches!(problem, ProgramProblem::Missing);
    (is_shell && is_missing).then_some(
        "the image has no such shell: set another with `SHELL`, or write `RUN [\"/program\", \"argument\"]`",
    )
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
