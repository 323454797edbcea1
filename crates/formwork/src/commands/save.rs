//! `formwork save`.

use formwork_build::{Host, SaveForm, save};
use formwork_image::StoredImage;
use formwork_oci::Reference;

use crate::args::{SaveArgs, SaveFormat};
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Writes images into an archive or a directory.
pub(crate) fn run(args: &SaveArgs, settings: &Settings) -> Result<(), Failure> {
    let how = SaveForm {
        docker: args.format == SaveFormat::DockerArchive,
        directory: args.format == SaveFormat::OciDir,
        compression: args.compression.as_deref().map(commands::compression).transpose()?,
    };
    if how.directory && args.output.is_none() {
        return Err(Failure::usage("a directory needs a name: `--output DIRECTORY`"));
    }
    let destination = commands::archive_destination(args.output.as_deref())?;
    let host = commands::open(settings)?;
    let mut images = images(&host, &args.images)?;
    for ((image, _), text) in images.iter_mut().zip(&args.images) {
        // Docker's archives have room for one platform, and docker takes this machine's, too.
        let own = (how.docker && image.index.is_some()).then(|| image.platform.to_string());
        let platform = args.platform.clone().or(own);
        *image = commands::on_platform(image.clone(), platform.as_deref(), text)?;
    }
    // Whoever saves to a file wants to see nothing more than docker's users do.
    work::shown(&host, work::mode(true), move |host, events, cancel| {
        save(host, &images, &how, &destination, events, cancel)
    })
}

/// The images, each once, with the names by which they were given; an id is no name.
fn images(host: &Host, texts: &[String]) -> Result<Vec<(StoredImage, Vec<Reference>)>, Failure> {
    let mut images: Vec<(StoredImage, Vec<Reference>)> = Vec::new();
    for text in texts {
        let image = host.images().resolve(text).map_err(Failure::input)?;
        let is_named = text.parse().is_ok_and(|name| image.is_called(&name));
        let name = image.name.clone().filter(|_| is_named);
        match images.iter_mut().find(|(known, _)| known.config == image.config) {
            Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
            None => images.push((image, name.into_iter().collect())),
        }
    }
    Ok(images)
}
