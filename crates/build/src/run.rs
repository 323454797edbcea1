//! `formwork run`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use formwork_diagnostics::{Diagnostic, NoEvents};
use formwork_image::StoredImage;
use formwork_oci::ImageConfig;
use formwork_sandbox::{ProgramProblem, SandboxError};
use formwork_solver::Cancel;
use formwork_worker::{
    ContainerSpec, StepWorld, Volume, WorkerError, emulator, inherited_stdio, run_container,
    terminal_stdio,
};

use crate::error::told;
use crate::resolve::base_of;
use crate::{BuildError, ErrorKind, Host};

/// How long a container has to end after it was asked to, as with `docker stop`.
const GRACE: Duration = Duration::from_secs(10);

/// A process to start in an image. What is not given is the image's own.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The image.
    pub image: StoredImage,
    /// The program and arguments in place of the image's command.
    pub command: Vec<String>,
    /// The program in place of the image's entry point.
    pub entrypoint: Option<String>,
    /// Variables on top of the image's.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The host name.
    pub hostname: Option<String>,
    /// What of the host the process sees.
    pub volumes: Vec<Volume>,
    /// Whether the process has the caller's standard input.
    pub interactive: bool,
    /// What the user asks of the world of the process.
    pub world: StepWorld,
    /// A terminal for the process alone, in place of the caller's streams.
    pub terminal: Option<Arc<OwnedFd>>,
}

/// Runs a process in an image, with the caller's streams or a terminal; returns its exit code as a shell tells
/// it (128 and the signal's number for one that was killed).
///
/// # Errors
///
/// Fails where the process could not be started.
pub fn run(host: &Host, request: &RunRequest, cancel: &Cancel) -> Result<i32, BuildError> {
    let config = host.config_of(&request.image)?;
    let spec = ContainerSpec {
        image: base_of(host, &request.image, &(Arc::new(NoEvents) as Arc<_>), cancel)?,
        args: arguments(request, &config)?,
        env: environment(request, &config),
        cwd: request.workdir.clone().unwrap_or_else(|| config.config.working_dir.clone()),
        user: request.user.clone().unwrap_or_else(|| config.config.user.clone()),
        hostname: request.hostname.clone().unwrap_or_default(),
        volumes: request.volumes.clone(),
        terminal: request.terminal.is_some(),
        emulator: emulator(&request.image.platform, &host.emulators),
        resolv_conf: host.resolv_conf.clone(),
        world: request.world.clone(),
        grace: GRACE,
    };
    let stdio = match &request.terminal {
        Some(terminal) => terminal_stdio(terminal),
        None => inherited_stdio(request.interactive),
    };
    let stdio = stdio.map_err(BuildError::store)?;
    let stop = formwork_sandbox::Cancel::new().map_err(BuildError::store)?;
    let switch = stop.clone();
    cancel.when_canceled(move || switch.cancel());
    let report =
        run_container(&host.layers, &spec, stdio, &stop).map_err(|error| failed(&error))?;
    Ok(report.status.shell_code())
}

fn failed(error: &WorkerError) -> BuildError {
    let WorkerError::Sandbox(SandboxError::Program { problem, .. }) = error else {
        return BuildError::worker(error);
    };
    let kind = match problem {
        ProgramProblem::NotInPath(_) | ProgramProblem::Missing => ErrorKind::ProgramMissing,
        _ => ErrorKind::ProgramUnusable,
    };
    BuildError::new(kind, told("run", error))
}

/// The entry point, and the command behind it, as docker puts them together.
fn arguments(request: &RunRequest, config: &ImageConfig) -> Result<Vec<String>, BuildError> {
    let (mut args, inherited) = match &request.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), Vec::new()),
        Some(entrypoint) => (vec![entrypoint.clone()], Vec::new()),
        None => (
            config.config.entrypoint.clone().unwrap_or_default(),
            config.config.cmd.clone().unwrap_or_default(),
        ),
    };
    let command = if request.command.is_empty() { inherited } else { request.command.clone() };
    args.extend(command);
    if args.is_empty() {
        let message = format!("the image `{}` has no command", request.image.title());
        let diagnostic = Diagnostic::error("no-command", message)
            .with_help("name one: `formwork run IMAGE COMMAND`");
        return Err(BuildError::new(ErrorKind::Input, diagnostic));
    }
    Ok(args)
}

fn environment(request: &RunRequest, config: &ImageConfig) -> Vec<(String, String)> {
    let mut merged = config.config.clone();
    for (name, value) in &request.env {
        merged.set_env(name, value);
    }
    let pairs = merged.env.iter().filter_map(|entry| entry.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
