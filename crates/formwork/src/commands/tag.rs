//! `formwork tag`.

use formwork_image::StoredImage;
use formwork_oci::Reference;

use crate::args::TagArgs;
use crate::exit::Failure;
use crate::settings::Settings;

/// Gives an image one more name.
pub(crate) fn run(args: &TagArgs, settings: &Settings) -> Result<(), Failure> {
    let name: Reference = args.target.parse().map_err(Failure::usage_error)?;
    if name.digest().is_some() {
        return Err(Failure::usage("an image has its own digest, which no name can give it")
            .with_help("name it as NAME:TAG"));
    }
    settings.enter()?;
    let host = settings.host()?;
    // Nobody may remove the image meanwhile because it has no name yet.
    let _everything = host.keep_everything()?;
    let image = host.images().resolve(&args.source).map_err(Failure::input)?;
    let image = StoredImage { name: Some(name), ..image };
    host.images().put(&image).map_err(Failure::machine)
}
