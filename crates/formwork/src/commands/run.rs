//! `formwork run`.

use std::process::ExitCode;
use std::sync::Arc;

use formwork_build::{
    Cancel, Host, Port, RunRequest, StepNetwork, StepWorld, Uplink, Volume, find_image,
    run as run_image,
};

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::forward::forward;
use crate::settings::{self, Settings, world};
use crate::terminal::Terminal;
use crate::{commands, signals};

/// Runs a command in a new container of an image.
pub(crate) fn run(args: &RunArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let (image, command) =
        args.image_and_command().map_err(|problem| Failure::usage(problem).of_run())?;
    let platform = args.platform.as_deref().map(|text| commands::platform(Some(text)));
    let platform = platform.transpose().map_err(Failure::of_run)?;
    let volumes = volumes(&args.volume, &args.mount).map_err(Failure::of_run)?;
    let env = variables(args).map_err(Failure::of_run)?;
    let host = commands::open(settings).map_err(Failure::of_run)?;
    settings.warn_of_shared_memory(&args.world);
    commands::remove_stale(&host);
    let image = find_image(&host, image, platform.as_ref(), args.pull.into())
        .map_err(|error| Failure::from(error).of_run())?;
    let world = published_world(args, &host).map_err(Failure::of_run)?;
    let request = RunRequest {
        image,
        command: command.to_vec(),
        entrypoint: args.entrypoint.clone(),
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        volumes,
        interactive: args.interactive,
        world,
        terminal: None,
    };
    start(&host, request, args.tty)
}

/// Starts a process and waits for its end, with a terminal of its own if it shall have one.
pub(crate) fn start(host: &Host, request: RunRequest, tty: bool) -> Result<ExitCode, Failure> {
    let (shown, terminal) = match tty {
        true => {
            let opened = Terminal::open(request.interactive);
            let (shown, terminal) = opened.map_err(Failure::of_run)?;
            (Some(shown), Some(Arc::new(terminal)))
        }
        false => (None, None),
    };
    let request = RunRequest { terminal, ..request };
    let cancel = Cancel::default();
    let received = signals::stop_on_signals(&cancel).map_err(Failure::of_run)?;
    let result = run_image(host, &request, &cancel);
    // The terminal is the user's again before anything is told there.
    drop((request, shown));
    let code = result.map_err(|error| Failure::from(error).of_run())?;
    let code = received.code(code);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The world of the process, and the ports that lead there: into a network of its own where that
/// is possible and nothing else was asked for, else within this machine's.
fn published_world(args: &RunArgs, host: &Host) -> Result<StepWorld, Failure> {
    let ports: Vec<Port> = args.publish.iter().flat_map(|published| published.0.clone()).collect();
    if ports.is_empty() {
        return world(&args.world);
    }
    let mut world = settings::publishing_world(&args.world, host.layers().can_mount())?;
    match &mut world.network {
        StepNetwork::Private(Uplink::Pasta { ports: passed, .. }) => *passed = ports,
        StepNetwork::Private(Uplink::Veth { .. }) => {
            return Err(Failure::usage(
                "ports of a private network are published by `pasta` alone",
            )
            .with_help("install the package `passt`, or leave out `--network=private`"));
        }
        StepNetwork::Host => forward(&ports)?,
        StepNetwork::None => {
            return Err(Failure::usage("a container without a network has no ports to publish")
                .with_help("leave out `--network=none` or `--publish`"));
        }
    }
    Ok(world)
}

/// What of the host the process sees.
pub(crate) fn volumes(volumes: &[String], mounts: &[String]) -> Result<Vec<Volume>, Failure> {
    let volumes = volumes.iter().map(|text| volume(text));
    volumes.chain(mounts.iter().map(|text| mount(text))).collect()
}

/// `type=bind,source=PATH,target=PATH[,readonly]`.
fn mount(text: &str) -> Result<Volume, Failure> {
    let wrong = |problem: &str| {
        Failure::usage(format!("`--mount {text}`: {problem}"))
            .with_help("for example `--mount type=bind,source=.,target=/src,readonly`")
    };
    let (mut kind, mut source, mut target, mut read_only) = ("bind", None, None, false);
    for field in text.split(',') {
        match field.split_once('=').unwrap_or((field, "")) {
            ("type", given) => kind = given,
            ("source" | "src", path) => source = Some(path),
            ("target" | "destination" | "dst", path) => target = Some(path),
            ("readonly" | "ro", "" | "true" | "1") => read_only = true,
            ("readonly" | "ro", "false" | "0") | ("bind-propagation", _) => {}
            (other, _) => return Err(wrong(&format!("there is no `{other}`"))),
        }
    }
    match (kind, source, target) {
        ("bind", Some(source), Some(target)) => shown_at(source, target, read_only)
            .ok_or_else(|| wrong("the target is no absolute path"))?,
        ("bind", ..) => Err(wrong("it needs a source and a target")),
        (other, ..) => Err(wrong(&format!("the type `{other}` is not there for containers"))),
    }
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
    shown_at(source, target, read_only).ok_or_else(wrong)?
}

/// A path of the host that the process sees; `None` where that is nothing absolute.
fn shown_at(source: &str, target: &str, read_only: bool) -> Option<Result<Volume, Failure>> {
    if !target.starts_with('/') || source.is_empty() {
        return None;
    }
    let is_name = !source.contains('/') && !source.starts_with('.');
    let found = fs_err::canonicalize(source).map_err(|error| {
        let failure = Failure::input(error);
        match is_name {
            true => failure.with_help("there are no named volumes; a source is a path"),
            false => failure,
        }
    });
    Some(found.map(|source| Volume { source, target: target.to_owned(), read_only }))
}

/// The variables of files, and those that are given, which come last and count.
fn variables(args: &RunArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for file in &args.env_file {
        let text = fs_err::read_to_string(file).map_err(Failure::input)?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let place = format!("{}:{}", file.display(), number + 1);
                return Err(Failure::input(format!("{place}: `{name}` is no name of a variable")));
            }
            texts.push(line.to_owned());
        }
    }
    texts.extend(args.env.iter().cloned());
    Ok(environment(&texts))
}

/// Variables: given, or taken from the environment.
pub(crate) fn environment(texts: &[String]) -> Vec<(String, String)> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    texts.iter().filter_map(pair).collect()
}
