//! `formwork verify`.

use std::process::ExitCode;

use formwork_build::{Difference, Recipe, Surroundings, Verified, verify};
use serde_json::json;

use crate::args::{Format, VerifyArgs};
use crate::commands::{self, build::secrets, work};
use crate::exit::Failure;
use crate::settings::{Settings, host_trust, limits};

/// Builds an image once more from what it was made of, and shows the first difference. Exits with 1
/// if there is one.
pub(crate) fn run(args: &VerifyArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let surroundings = Surroundings {
        secrets: secrets::secrets(&args.secret)?,
        git: settings.git(),
        trust: host_trust(),
        jobs: settings.processors,
        limits: limits(&args.space)?,
    };
    let host = commands::open(settings)?;
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    // What cannot be done is told before anything is shown.
    Recipe::of_image(&host, &image)?;
    let mode = work::mode(args.quiet || args.format == Format::Json);
    let verified = work::shown(&host, mode, move |host, events, cancel| {
        verify(host, &image, surroundings, events, cancel)
    })?;
    let text = match args.format {
        Format::Json => format!("{}\n", object(&verified)),
        Format::Table => told(&args.image, &verified),
    };
    commands::print(&text)?;
    Ok(if verified.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn told(image: &str, verified: &Verified) -> String {
    let times = match verified.epoch {
        Some(epoch) => format!("built at SOURCE_DATE_EPOCH={epoch}"),
        None => "built without SOURCE_DATE_EPOCH, so times do not count".to_owned(),
    };
    let Some(difference) = &verified.difference else {
        return format!("{image} is what its inputs make ({times})\n");
    };
    let Difference { platform, layer, path, field, stored, rebuilt } = difference;
    let mut text =
        format!("{image} is not what its inputs make now ({times}); first difference:\n");
    if let Some(platform) = platform {
        text.push_str(&format!("  platform  {platform}\n"));
    }
    match layer {
        Some((number, made_by)) => text.push_str(&format!("  layer     {number}: {made_by}\n")),
        None => text.push_str("  in        the configuration\n"),
    }
    if let Some(path) = path {
        text.push_str(&format!("  path      {path}\n"));
    }
    text.push_str(&format!("  field     {field}\n"));
    text.push_str(&format!("  image     {stored}\n  rebuilt   {rebuilt}\n"));
    text
}

fn object(verified: &Verified) -> serde_json::Value {
    json!({
        "Same": verified.difference.is_none(),
        "SourceDateEpoch": verified.epoch,
        "Difference": verified.difference.as_ref().map(|difference| json!({
            "Platform": difference.platform.as_ref().map(ToString::to_string),
            "Layer": difference.layer.as_ref().map(|(number, _)| number),
            "Instruction": difference.layer.as_ref().map(|(_, made_by)| made_by),
            "Path": difference.path,
            "Field": difference.field,
            "Image": difference.stored,
            "Rebuilt": difference.rebuilt,
        })),
    })
}
