//! `formwork pull`.

use formwork_build::{Host, pull, pull_whole, tags};
use formwork_oci::{Reference, Repository};

use crate::args::PullArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Fetches images and keeps them under their names.
pub(crate) fn run(args: &PullArgs, settings: &Settings) -> Result<(), Failure> {
    let names =
        args.names.iter().map(|text| commands::name(text)).collect::<Result<Vec<_>, _>>()?;
    let platforms = commands::platforms(&args.platform)?;
    let host = commands::open(settings)?;
    let names = if args.all_tags { all_tags(&host, &args.names)? } else { names };
    let (wanted, is_whole) = (names.clone(), args.all_platforms);
    work::shown(&host, work::mode(args.quiet), move |host, events, cancel| {
        wanted.iter().try_for_each(|name| match is_whole {
            true => pull_whole(host, name, events, cancel).map(drop),
            false => platforms
                .iter()
                .try_for_each(|platform| pull(host, name, platform, events, cancel).map(drop)),
        })
    })?;
    let line = |name: &Reference| match name.digest() {
        Some(_) => format!("{name}\n"),
        None => format!("{}:{}\n", name.repository(), name.tag().unwrap_or("latest")),
    };
    commands::print(&names.iter().map(line).collect::<String>())
}

/// The names of all that the registries have in some repositories.
fn all_tags(host: &Host, texts: &[String]) -> Result<Vec<Reference>, Failure> {
    let mut names = Vec::new();
    for text in texts {
        let repository: Repository = text.parse().map_err(|error| {
            Failure::usage_error(error).with_help("with `--all-tags`, a name has no tag")
        })?;
        names.extend(tags(host, &repository)?);
    }
    Ok(names)
}
