//! `formwork load`.

use std::io::IsTerminal;

use formwork_build::load;
use formwork_image::StoredImage;

use crate::args::LoadArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Reads the images of an archive or a directory into the store.
pub(crate) fn run(args: &LoadArgs, settings: &Settings) -> Result<(), Failure> {
    let platform = args.platform.as_deref().map(|text| commands::platform(Some(text)));
    let platform = platform.transpose()?;
    let path = args.input.clone().filter(|path| path.as_os_str() != "-");
    if path.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::usage("an archive is not read from a terminal")
            .with_help("name a file with `--input`, or redirect standard input"));
    }
    let host = commands::open(settings)?;
    let images = work::shown(&host, work::mode(true), move |host, events, cancel| {
        let stdin = &mut std::io::stdin().lock();
        load(host, path.as_deref(), stdin, platform.as_ref(), events, cancel)
    })?;
    let line = |image: &StoredImage| match (&image.name, args.quiet) {
        (Some(name), true) => format!("{}\n", name.familiar()),
        (Some(name), false) => format!("Loaded image: {}\n", name.familiar()),
        (None, true) => format!("{}\n", image.config),
        (None, false) => format!("Loaded image ID: {}\n", image.config),
    };
    commands::print(&images.iter().map(line).collect::<String>())
}
