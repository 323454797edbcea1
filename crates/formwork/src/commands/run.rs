//! `formwork run`.

use std::process::ExitCode;

use formwork_build::{Cancel, RunRequest, run as run_image};

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::settings::Settings;
use crate::{commands, signals};

/// Runs a command in a new container of an image.
pub(crate) fn run(args: &RunArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let (image, command) =
        args.image_and_command().map_err(|problem| Failure::usage(problem).of_run())?;
    commands::enter().map_err(Failure::of_run)?;
    let host = settings.host().map_err(Failure::of_run)?;
    commands::remove_stale(&host);
    let image = host.images().resolve(image).map_err(|e| Failure::input(e).of_run())?;
    let request = RunRequest {
        image,
        command: command.to_vec(),
        entrypoint: args.entrypoint.clone(),
        env: environment(&args.env),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        interactive: args.interactive,
    };
    let cancel = Cancel::default();
    signals::stop_on_signals(&cancel).map_err(Failure::of_run)?;
    let code = run_image(&host, &request, &cancel).map_err(|e| Failure::from(e).of_run())?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Variables: given, or taken from the environment.
fn environment(texts: &[String]) -> Vec<(String, String)> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    texts.iter().filter_map(pair).collect()
}
