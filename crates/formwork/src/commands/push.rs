//! `formwork push`.

use formwork_build::{BuildError, Host, push};
use formwork_image::StoredImage;
use formwork_oci::{Reference, Repository};

use crate::args::PushArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Sends an image to a registry, or all that are in the store of one repository.
pub(crate) fn run(args: &PushArgs, settings: &Settings) -> Result<(), Failure> {
    let compression = args.compression.as_deref().map(commands::compression).transpose()?;
    let host = commands::open(settings)?;
    let wanted =
        if args.all_tags { all_tags(&host, &args.image)? } else { vec![one(&host, args)?] };
    let pushed = work::shown(&host, work::mode(args.quiet), move |host, events, cancel| {
        let push = |(image, name): (StoredImage, Reference)| {
            let report = push(host, &image, &name, compression, events, cancel)?;
            Ok::<_, BuildError>((name, report.manifest.digest))
        };
        wanted.into_iter().map(push).collect::<Result<Vec<_>, _>>()
    })?;
    if let (Some(file), Some((_, digest))) = (&args.digestfile, pushed.last()) {
        fs_err::write(file, digest.as_str()).map_err(Failure::machine)?;
    }
    let line = |(name, digest): &(Reference, _)| match name.digest() {
        Some(_) => format!("{}\n", name.familiar()),
        None => format!("{}@{digest}\n", name.familiar()),
    };
    commands::print(&pushed.iter().map(line).collect::<String>())
}

fn one(host: &Host, args: &PushArgs) -> Result<(StoredImage, Reference), Failure> {
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    let image = commands::on_platform(image, args.platform.as_deref(), &args.image)?;
    let name = match (&args.destination, args.image.parse::<Reference>()) {
        (Some(destination), _) => {
            let bare = destination.strip_prefix("docker://").unwrap_or(destination);
            commands::name(bare)?
        }
        (None, Ok(name)) if image.is_called(&name) => name,
        (None, _) => {
            return Err(Failure::usage(format!("`{}` is an id, not a name", args.image))
                .with_help("say where to: `formwork push IMAGE REGISTRY/NAME:TAG`"));
        }
    };
    Ok((image, name))
}

/// All images whose names are of a repository.
fn all_tags(host: &Host, text: &str) -> Result<Vec<(StoredImage, Reference)>, Failure> {
    let repository: Repository = text.parse().map_err(Failure::usage_error)?;
    let images = host.images().list().map_err(Failure::machine)?.images;
    let tagged = images.into_iter().filter_map(|image| {
        let name = image.name.clone()?;
        (*name.repository() == repository && name.digest().is_none()).then_some((image, name))
    });
    let tagged: Vec<_> = tagged.collect();
    match tagged.is_empty() {
        true => Err(Failure::input(format!("the store has no image of the repository `{text}`"))),
        false => Ok(tagged),
    }
}
