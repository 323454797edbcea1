//! `formwork shell`: a shell in an image that may have none.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use formwork_build::{Host, RunRequest, Toolbox, Volume, find_image};
use formwork_image::StoredImage;
use formwork_oci::Platform;

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
    settings.warn_of_shared_memory(&args.world);
    let host = commands::open(settings).map_err(Failure::of_run)?;
    commands::remove_stale(&host);
    let image = find_image(&host, &args.image, platform.as_ref(), args.pull.into())
        .map_err(|error| Failure::from(error).of_run())?;
    let mut env = Vec::new();
    let shell = match tools(&host, args, &image).map_err(Failure::of_run)? {
        Some(source) => {
            volumes.push(Volume { source, target: PLACE.to_owned(), read_only: true });
            let config = host.config_of(&image).map_err(|error| Failure::from(error).of_run())?;
            let own = config.config.env.iter().find_map(|entry| entry.strip_prefix("PATH="));
            let own = own.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            env.push(("PATH".to_owned(), format!("{own}:{PLACE}")));
            format!("{PLACE}/sh")
        }
        None => "/bin/sh".to_owned(),
    };
    env.extend(run::environment(&args.env));
    let request = RunRequest {
        image,
        command: args.arguments.clone(),
        entrypoint: Some(shell),
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

/// The directory with the tools; `None` where there are none, and the image has a shell of its own.
fn tools(host: &Host, args: &ShellArgs, image: &StoredImage) -> Result<Option<PathBuf>, Failure> {
    if let Some(name) = &args.tools_image {
        let machine = Platform::host();
        let found = find_image(host, name, Some(&machine), args.pull.into())?;
        return Ok(Some(Toolbox::of_image(host, &found)?));
    }
    if let Some(given) = &args.tools {
        let given = fs_err::canonicalize(given).map_err(Failure::input)?;
        return Ok(Some(Toolbox::of(host, &given)?));
    }
    let mut programs = ["busybox", "busybox.static"].into_iter().flat_map(settings::programs);
    if let Some(busybox) = programs.find(|file| Toolbox::is_static(file)) {
        return Ok(Some(Toolbox::of(host, &busybox)?));
    }
    if Toolbox::is_needless(host, image)? {
        return Ok(None);
    }
    Err(Failure::machine(
        "the image has no shell, and this machine no static busybox to bring along",
    )
    .with_help(
        "install `busybox-static`, take one from an image (`--tools-image busybox:musl`), or \
             name one with `--tools`",
    ))
}
