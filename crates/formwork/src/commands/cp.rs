//! `formwork cp`.

use formwork_build::{Destination, ImagePath, copy_out};

use crate::args::CpArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Copies files out of an image.
pub(crate) fn run(args: &CpArgs, settings: &Settings) -> Result<(), Failure> {
    let (image, path) = args.image_and_path().map_err(|problem| {
        Failure::usage(problem).with_help("for example `formwork cp app:1:/etc/passwd .`")
    })?;
    let destination = match args.destination.as_os_str() == "-" {
        true => commands::archive_destination(None)?,
        false => Destination::File(args.destination.clone()),
    };
    let host = commands::open(settings)?;
    let image = host.images().resolve(image).map_err(Failure::input)?;
    let source = ImagePath { path: path.to_owned(), follow: args.follow_link };
    work::shown(&host, work::mode(true), move |host, events, cancel| {
        copy_out(host, &image, &source, &destination, events, cancel)
    })
}
