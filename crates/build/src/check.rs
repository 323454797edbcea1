//! What there is to say about a Dockerfile, without building it.

use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, EventSink, SourceFile, Span};
use formwork_dockerfile::{Dockerfile, IgnoreFile, parse, parse_check};
use formwork_frontend::{
    Lowered, MAIN_CONTEXT, Outline, Target, epoch_source, lower, stage_findings,
};
use formwork_lint::{Rule, find_rule};
use formwork_solver::Cancel;

use crate::resolve::resolve;
use crate::{BuildError, BuildRequest, Host};

/// The build argument that stands in for a file's own `# check=`.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What a check finds.
#[derive(Debug)]
pub struct CheckReport {
    /// The Dockerfile.
    pub source: SourceFile,
    /// What rules find, in the order of the file.
    pub findings: Vec<Finding>,
    /// What makes a build impossible.
    pub error: Option<BuildError>,
}

/// What a rule finds.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What it says.
    pub diagnostic: Diagnostic,
    /// The first and the last line of the instruction, counted from 1.
    pub lines: (usize, usize),
}

/// Checks a Dockerfile: all of it, or the stages that the target needs where one is given.
///
/// # Errors
///
/// Fails only where the store cannot be used, or somebody stops it: what is wrong with the file is
/// part of the report.
pub fn check(
    host: &Host,
    request: &BuildRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<CheckReport, BuildError> {
    let parsed = parse(request.dockerfile.clone());
    let dockerfile = &parsed.dockerfile;
    let (ignore, wrong_patterns) = IgnoreFile::parse(ignore_source(request));
    let mut said = with_mistakes(dockerfile, parsed.diagnostics.clone());
    said.extend(wrong_patterns);
    let mut error = has_error(&said).then(|| BuildError::input(errors(&said)));
    let mut stages: Vec<usize> = (0..dockerfile.stages.len()).collect();
    let mut shells = Vec::new();
    if error.is_none() {
        let lowered = resolve(host, request, dockerfile, events, cancel).and_then(|images| {
            epoch_source(dockerfile, &request.options).map_err(|e| BuildError::input(vec![*e]))?;
            lower(dockerfile, &request.options, &images.resolved).map_err(BuildError::input)
        });
        match lowered {
            Ok(lowered) => {
                said.extend(lowered.diagnostics);
                stages = lowered.stages;
                shells = lowered.shells;
            }
            Err(wrong) if cancel.is_canceled() => return Err(wrong),
            Err(wrong) => {
                said.extend(wrong.diagnostics.iter().filter(|d| !d.is_error()).cloned());
                said.extend(stage_findings(dockerfile, &request.options));
                error = Some(BuildError { diagnostics: errors(&wrong.diagnostics), ..wrong });
            }
        }
    }
    said.extend(formwork_lint::check(dockerfile, &ignore, &stages, &shells));
    let settings = settings(request, dockerfile)?;
    let counted = said.into_iter().filter(|diagnostic| settings.counts(diagnostic));
    let mut findings: Vec<Finding> =
        counted.filter_map(|diagnostic| Finding::new(diagnostic, dockerfile)).collect();
    findings.sort_by_key(|finding| finding.lines);
    Ok(CheckReport { source: request.dockerfile.clone(), findings, error })
}

/// What a target takes.
///
/// # Errors
///
/// What is wrong with the Dockerfile.
pub fn outline(request: &BuildRequest) -> Result<Outline, BuildError> {
    let dockerfile = sound(request)?;
    formwork_frontend::outline(&dockerfile, &request.options).map_err(BuildError::input)
}

/// The stages of a Dockerfile.
///
/// # Errors
///
/// What is wrong with the Dockerfile.
pub fn targets(request: &BuildRequest) -> Result<Vec<Target>, BuildError> {
    sound(request).map(|dockerfile| formwork_frontend::targets(&dockerfile))
}

fn sound(request: &BuildRequest) -> Result<Dockerfile, BuildError> {
    let parsed = parse(request.dockerfile.clone());
    match has_error(&parsed.diagnostics) {
        true => {
            let said = with_mistakes(&parsed.dockerfile, parsed.diagnostics);
            Err(BuildError::input(errors(&said)))
        }
        false => Ok(parsed.dockerfile),
    }
}

/// What rules and the frontend have to say about a file that is about to be built.
///
/// # Errors
///
/// Fails where the file asks that findings stop the build, and there are some.
pub(crate) fn warnings(
    request: &BuildRequest,
    dockerfile: &Dockerfile,
    lowered: &[Lowered],
    ignore: &IgnoreFile,
) -> Result<Vec<Diagnostic>, BuildError> {
    let settings = settings(request, dockerfile)?;
    let mut said: Vec<Diagnostic> = Vec::new();
    // What holds for several platforms is said once.
    for diagnostic in lowered.iter().flat_map(|lowered| &lowered.diagnostics) {
        if !said.contains(diagnostic) {
            said.push(diagnostic.clone());
        }
    }
    let mut stages: Vec<usize> =
        lowered.iter().flat_map(|lowered| lowered.stages.clone()).collect();
    stages.sort_unstable();
    stages.dedup();
    let shells: Vec<usize> = lowered.iter().flat_map(|lowered| lowered.shells.clone()).collect();
    said.extend(formwork_lint::check(dockerfile, ignore, &stages, &shells));
    said.retain(|diagnostic| settings.counts(diagnostic));
    let mut rules: Vec<&str> = said.iter().map(|diagnostic| diagnostic.code.as_ref()).collect();
    rules.retain(|code| find_rule(code).is_some());
    rules.sort_unstable();
    rules.dedup();
    if rules.is_empty() || !settings.findings_are_errors() {
        said.retain(|diagnostic| !fails_anyway(diagnostic));
        return Ok(said);
    }
    let message = format!("lint violation found for rules: {}", rules.join(", "));
    let error = Diagnostic::error("lint-violation", message)
        .with_note("the build stops because of `# check=error=true`")
        .with_help("`# check=skip=RULE` above an instruction leaves a rule out there");
    said.push(error);
    Err(BuildError::input(said))
}

/// Whether the build will say the same again, as the error that it fails for.
fn fails_anyway(diagnostic: &Diagnostic) -> bool {
    let place = diagnostic.labels.first().zip(diagnostic.source.as_ref());
    let text = place.map_or("", |(label, source)| source.slice(label.span));
    diagnostic.code == "CopyIgnoredFile" && !text.contains(['*', '?', '['])
}

fn settings(
    request: &BuildRequest,
    dockerfile: &Dockerfile,
) -> Result<formwork_lint::Settings, BuildError> {
    let settings = formwork_lint::Settings::of(dockerfile);
    let Some(text) = request.options.build_args.get(CHECK_ARG) else { return Ok(settings) };
    let check = parse_check(text).map_err(|wrong| {
        let message = format!("`{wrong}` is no option of the build argument `{CHECK_ARG}`");
        let error = Diagnostic::error("bad-directive", message);
        BuildError::input(vec![error.with_help("write `skip=RuleOne,RuleTwo;error=true`")])
    })?;
    Ok(settings.with_file_check(check))
}

fn ignore_source(request: &BuildRequest) -> SourceFile {
    let own = request.contexts.get(MAIN_CONTEXT).and_then(|context| context.ignore.clone());
    own.unwrap_or_else(|| SourceFile::new(".dockerignore", ""))
}

/// What is said about a file, and if it cannot be parsed, all other mistakes that can be seen.
pub(crate) fn with_mistakes(
    dockerfile: &Dockerfile,
    mut diagnostics: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    if !has_error(&diagnostics) {
        return diagnostics;
    }
    for mistake in formwork_frontend::mistakes(dockerfile) {
        if !diagnostics.iter().any(|known| known.primary_span() == mistake.primary_span()) {
            diagnostics.push(mistake);
        }
    }
    diagnostics.sort_by_key(Diagnostic::primary_span);
    diagnostics
}

fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

fn errors(diagnostics: &[Diagnostic]) -> Vec<Diagnostic> {
    diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).cloned().collect()
}

impl Finding {
    /// A finding of a rule; `None` for another diagnostic.
    fn new(diagnostic: Diagnostic, dockerfile: &Dockerfile) -> Option<Self> {
        let rule = find_rule(&diagnostic.code)?;
        let span = diagnostic.labels.first()?.span;
        let whole = instruction_around(dockerfile, span).filter(|_| !span.is_empty());
        let whole = whole.unwrap_or(span);
        let line = |offset| dockerfile.source.position(offset).line;
        let end = line(whole.end.max(whole.start + 1) - 1);
        if rule.name == "NoEmptyContinuation" {
            // BuildKit names the line in which the instruction ends, wherever the empty one is.
            let instruction = instruction_before(dockerfile, span);
            let last = line(instruction.map_or(span.start, |whole| whole.end.max(span.start)));
            return Some(Self { rule, diagnostic, lines: (last, last) });
        }
        Some(Self { rule, diagnostic, lines: (line(whole.start), end) })
    }
}

/// The span of the instruction that a place is in.
fn instruction_around(dockerfile: &Dockerfile, place: Span) -> Option<Span> {
    instruction_before(dockerfile, place).filter(|span| place.start < span.end)
}

/// The span of the last instruction that begins before a place ends.
fn instruction_before(dockerfile: &Dockerfile, place: Span) -> Option<Span> {
    let args = dockerfile.global_args.iter().map(|arg| arg.span);
    let stages = dockerfile.stages.iter().flat_map(|stage| {
        let others = stage.instructions.iter().map(|instruction| instruction.span);
        std::iter::once(stage.from.span).chain(others)
    });
    args.chain(stages).filter(|span| span.start <= place.start).max_by_key(|span| span.start)
}
