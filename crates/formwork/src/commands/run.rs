//! `formwork run`.

use std::process::ExitCode;
use std::sync::Arc;

use formwork_build::{Cancel, RunRequest, Volume, find_image, run as run_image};

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::settings::{Settings, world};
use crate::terminal::Terminal;
use crate::{commands, signals};

/// Runs a command in a new container of an image.
pub(crate) fn run(args: &RunArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let (image, command) =
        args.image_and_command().map_err(|problem| Failure::usage(problem).of_run())?;
    let platform = args.platform.as_deref().map(|text| commands::platform(Some(text)));
    let platform = platform.transpose().map_err(Failure::of_run)?;
    let volumes = args.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>();
    let volumes = volumes.map_err(Failure::of_run)?;
    let host = commands::open(settings).map_err(Failure::of_run)?;
    commands::remove_stale(&host);
    let image = find_image(&host, image, platform.as_ref(), args.pull.into())
        .map_err(|error| Failure::from(error).of_run())?;
    let (shown, terminal) = match args.tty {
        true => {
            let (shown, terminal) = Terminal::open(args.interactive).map_err(Failure::of_run)?;
            (Some(shown), Some(Arc::new(terminal)))
        }
        false => (None, None),
    };
    let request = RunRequest {
        image,
        command: command.to_vec(),
        entrypoint: args.entrypoint.clone(),
        env: environment(&args.env),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        volumes,
        interactive: args.interactive,
        world: world(&args.world).map_err(Failure::of_run)?,
        terminal,
    };
    let cancel = Cancel::default();
    let received = signals::stop_on_signals(&cancel).map_err(Failure::of_run)?;
    let result = run_image(&host, &request, &cancel);
    // The terminal is the user's again before anything is told there.
    drop((request, shown));
    let code = result.map_err(|error| Failure::from(error).of_run())?;
    let code = received.code(code);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// `SOURCE:TARGET[:ro|:rw]`. A source that is not there is a mistake: docker would make an empty
/// directory for it.
fn volume(text: &str) -> Result<Volume, Failure> {
    let wrong = || {
        Failure::usage(format!("`--volume {text}` is not SOURCE:TARGET[:ro]"))
            .with_help("for example `--volume \"$PWD\":/src:ro`")
    };
    let (source, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (target, options) = rest.split_once(':').unwrap_or((rest, ""));
    let mut read_only = false;
    for option in options.split(',') {
        match option {
            "ro" => read_only = true,
            // Labels of SELinux and ways of propagation change nothing here.
            "" | "rw" | "z" | "Z" | "rprivate" | "private" => {}
            _ => return Err(wrong()),
        }
    }
    if !target.starts_with('/') || source.is_empty() {
        return Err(wrong());
    }
    let is_name = !source.contains('/') && !source.starts_with('.');
    let source = fs_err::canonicalize(source).map_err(|error| {
        let failure = Failure::input(error);
        match is_name {
            true => failure.with_help("there are no named volumes; a source is a path"),
            false => failure,
        }
    })?;
    Ok(Volume { source, target: target.to_owned(), read_only })
}

/// Variables: given, or taken from the environment.
fn environment(texts: &[String]) -> Vec<(String, String)> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    texts.iter().filter_map(pair).collect()
}
