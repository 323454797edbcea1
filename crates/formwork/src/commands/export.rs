//! `formwork export`.

use formwork_build::export_files;

use crate::args::ExportArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Writes all files of an image into a tar archive.
pub(crate) fn run(args: &ExportArgs, settings: &Settings) -> Result<(), Failure> {
    let destination = commands::archive_destination(args.output.as_deref())?;
    let host = commands::open(settings)?;
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    work::shown(&host, work::mode(true), move |host, events, cancel| {
        export_files(host, &image, &destination, events, cancel)
    })
}
