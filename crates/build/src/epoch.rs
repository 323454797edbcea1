//! The time that everything is said to be made at: `SOURCE_DATE_EPOCH`.

use std::path::Path;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink};
use formwork_dockerfile::parse;
use formwork_frontend::{EPOCH_ARG, EpochSource, epoch_source};
use formwork_graph::{HttpSource, without_secrets};
use formwork_remote::{Fetch, commit_of};
use formwork_solver::Cancel;
use formwork_worker::WorkerError;

use crate::fetched::failed;
use crate::step::step;
use crate::{BuildError, BuildRequest, FetchedContext, Host};

/// Finds out the time that a request and its Dockerfile name, and completes the request with it;
/// the contexts have to be there.
///
/// # Errors
///
/// Fails where the time is none, and where what it follows from cannot be had.
pub fn settle_epoch(
    host: &Host,
    request: &mut BuildRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let is_named = request.options.build_args.contains_key(EPOCH_ARG)
        || request.dockerfile.text().contains(EPOCH_ARG);
    if !is_named {
        return Ok(());
    }
    let parsed = parse(request.dockerfile.clone());
    let source = epoch_source(&parsed.dockerfile, &request.options)
        .map_err(|error| BuildError::input(vec![*error]))?;
    let seconds = match source {
        None => return Ok(()),
        Some(EpochSource::At(seconds)) => {
            request.epoch = Some(seconds);
            return Ok(());
        }
        Some(EpochSource::Context(name)) => Some(of_context(host, request, &name)?),
        Some(EpochSource::Commit(location)) => {
            let fetched = FetchedContext::git(host, request, &location, events, cancel)?;
            Some(time_of(fetched.directory())?)
        }
        Some(EpochSource::File(source)) => of_file(host, request, &source, events, cancel)?,
    };
    // What has no time says nothing.
    request.epoch = seconds;
    let value = seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
    request.options.build_args.insert(EPOCH_ARG.to_owned(), value);
    Ok(())
}

/// The time of the commit that a directory is at.
fn of_context(host: &Host, request: &BuildRequest, name: &str) -> Result<i64, BuildError> {
    let wrong = |message: String| {
        let error = Diagnostic::error("bad-epoch", message);
        let help = "say the time in seconds: `--source-date-epoch=SECONDS`";
        BuildError::input(vec![error.with_help(help)])
    };
    let Some(context) = request.contexts.get(name) else {
        return Err(wrong(format!("{EPOCH_ARG} is `{name}`, which is no directory")));
    };
    let directory = &context.directory;
    if directory.starts_with(host.layout().snapshots()) {
        return time_of(directory);
    }
    let commit = commit_of(&request.git, directory).map_err(|error| wrong(error.to_string()))?;
    commit.map(|commit| commit.time).ok_or_else(|| {
        wrong(format!(
            "{EPOCH_ARG} is to be the time of a commit, but the build context `{}` is in no git \
             repository with one",
            directory.display()
        ))
    })
}

/// All files of a commit that was fetched were modified when it was made.
fn time_of(directory: &Path) -> Result<i64, BuildError> {
    let metadata = fs_err::metadata(directory).map_err(BuildError::store)?;
    Ok(std::os::unix::fs::MetadataExt::mtime(&metadata))
}

fn of_file(
    host: &Host,
    request: &BuildRequest,
    source: &HttpSource,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Option<i64>, BuildError> {
    let authorization = request.secrets.authorization_for(&source.url);
    step(format!("fetch {}", without_secrets(&source.url)), events, cancel, |step| {
        let progress = |current, total| {
            let label = source.name.as_str().into();
            events.emit(Event::StepProgress { step, label, current, total });
            !cancel.is_canceled()
        };
        let fetch = Fetch { authorization: authorization.as_deref(), progress: &progress };
        let modified = host.downloads()?.modified(source, &fetch);
        modified.map_err(|error| failed(&WorkerError::Remote(error), cancel))
    })
}
