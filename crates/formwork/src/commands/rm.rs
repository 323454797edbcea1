//! `formwork rm`.

use crate::args::RmArgs;
use crate::commands;
use crate::exit::Failure;
use crate::settings::Settings;

/// Removes images: a name, or every name of an image that is given by its id.
///
/// What other images share stays, and so does the build cache, as with docker.
pub(crate) fn run(args: &RmArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    for text in &args.images {
        let image = match host.images().resolve(text) {
            Ok(image) => image,
            Err(formwork_image::ImageError::NotFound { .. }) if args.force => continue,
            Err(error) => return Err(Failure::input(error)),
        };
        let names = host.names_of(&image, text)?;
        if names.len() > 1 && !args.force {
            let count = names.len();
            return Err(Failure::input(format!(
                "`{text}` is the id of an image with {count} names"
            ))
            .with_help("remove the names one by one, or all of them with `--force`"));
        }
        for name in names {
            host.images().remove(&name).map_err(Failure::machine)?;
            commands::print(&format!("Untagged: {}\n", name.title()))?;
        }
        if host.forget_blobs_of(&image)? {
            commands::print(&format!("Deleted: {}\n", image.config))?;
        }
    }
    Ok(())
}
