//! `formwork pull`.

use formwork_build::pull;
use formwork_oci::Reference;

use crate::args::PullArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Fetches images and keeps them under their names.
pub(crate) fn run(args: &PullArgs, settings: &Settings) -> Result<(), Failure> {
    let names =
        args.names.iter().map(|text| commands::name(text)).collect::<Result<Vec<_>, _>>()?;
    let platform = commands::platform(args.platform.as_deref())?;
    let wanted = names.clone();
    let host = commands::open(settings)?;
    work::shown(&host, work::mode(args.quiet), move |host, events, cancel| {
        wanted.iter().try_for_each(|name| pull(host, name, &platform, events, cancel).map(drop))
    })?;
    let line = |name: &Reference| match name.digest() {
        Some(_) => format!("{name}\n"),
        None => format!("{}:{}\n", name.repository(), name.tag().unwrap_or("latest")),
    };
    commands::print(&names.iter().map(line).collect::<String>())
}
