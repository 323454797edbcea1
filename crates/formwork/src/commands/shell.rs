//! `formwork shell`: a shell in an image that may have none.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use formwork_build::{Host, RunRequest, Toolbox, Volume, find_image};

use crate::args::ShellArgs;
use crate::commands::{self, run};
use crate::exit::Failure;
use crate::settings::{self, Settings, world};

/// Where the tools are in the container, behind the image's own directories of programs.
const PLACE: &str = "/.formwork/bin";

/// Runs a shell of its own in a new container of an image, as root unless the user wants it
/// otherwise. The image's files are as they are, and its programs are looked for first (though many
/// a busybox prefers its own).
pub(crate) fn run(args: &ShellArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let mut volumes = run::volumes(&args.volume, &[]).map_err(Failure::of_run)?;
    let platform = args.platform.as_deref().map(|text| commands::platform(Some(text)));
    let platform = platform.transpose().map_err(Failure::of_run)?;
    let host = commands::open(settings).map_err(Failure::of_run)?;
    commands::remove_stale(&host);
    let image = find_image(&host, &args.image, platform.as_ref(), args.pull.into())
        .map_err(|error| Failure::from(error).of_run())?;
    let tools = tools(&host, args.tools.as_deref()).map_err(Failure::of_run)?;
    volumes.push(Volume { source: tools, target: PLACE.to_owned(), read_only: true });
    let config = host.config_of(&image).map_err(|error| Failure::from(error).of_run())?;
    let own = config.config.env.iter().find_map(|entry| entry.strip_prefix("PATH="));
    let own = own.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut env = vec![("PATH".to_owned(), format!("{own}:{PLACE}"))];
    env.extend(run::environment(&args.env));
    let request = RunRequest {
        image,
        command: args.arguments.clone(),
        entrypoint: Some(format!("{PLACE}/sh")),
        env,
        workdir: args.workdir.clone(),
        user: Some(args.user.clone().unwrap_or_else(|| "0:0".to_owned())),
        hostname: None,
        volumes,
        interactive: true,
        world: world(&args.world).map_err(Failure::of_run)?,
        terminal: None,
    };
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    run::start(&host, request, tty)
}

/// The directory with the tools.
fn tools(host: &Host, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let found = match given {
        Some(given) => fs_err::canonicalize(given).map_err(Failure::input)?,
        None => settings::programs("busybox").find(|file| Toolbox::is_static(file)).ok_or_else(
            || {
                Failure::machine("there is no static busybox on this machine to bring along")
                    .with_help("install `busybox-static`, or name one with `--tools`")
            },
        )?,
    };
    Ok(Toolbox::of(host, &found)?)
}
