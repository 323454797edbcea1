//! `formwork rebase`.

use std::process::ExitCode;

use formwork_build::{RebaseRequest, Rebased, rebase};
use formwork_image::StoredImage;
use serde_json::json;

use crate::args::{Format, RebaseArgs};
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Puts an image on another base, unless something speaks against it. Exits with 1 if something
/// does.
pub(crate) fn run(args: &RebaseArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let tag = args.tag.as_deref().map(commands::name).transpose()?;
    let host = commands::open(settings)?;
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    if image.index.is_some() && args.platform.is_none() {
        return Err(Failure::usage(format!("`{}` is for several platforms", args.image))
            .with_help(
                "rebase one at a time, with `--platform` and a `--tag` of its own, and join \
                        them: `formwork index create`",
            ));
    }
    let image = commands::on_platform(image, args.platform.as_deref(), &args.image)?;
    let name = match (&tag, args.check) {
        (_, true) => None,
        (Some(tag), false) => Some(tag.clone()),
        (None, false) if args.platform.is_some() => {
            return Err(Failure::usage("one platform of an image needs a `--tag` of its own"));
        }
        (None, false) => Some(image.name.clone().ok_or_else(|| {
            Failure::usage(format!("`{}` has no name: say `--tag NAME`", args.image))
        })?),
    };
    let request = RebaseRequest {
        image,
        old_base: args.old_base.clone(),
        new_base: args.new_base.clone(),
        pull: args.pull.into(),
        name,
        force: args.force,
    };
    let mode = work::mode(args.quiet || args.format == Format::Json);
    let rebased = work::shown(&host, mode, move |host, events, cancel| {
        rebase(host, &request, events, cancel)
    })?;
    let text = match args.format {
        Format::Json => format!("{}\n", object(&rebased)),
        Format::Table => told(args, &rebased),
    };
    commands::print(&text)?;
    let is_good = rebased.conflicts.is_empty() || rebased.image.is_some();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn told(args: &RebaseArgs, rebased: &Rebased) -> String {
    let (own, old, new) = rebased.layers;
    let mut text = String::new();
    for conflict in &rebased.conflicts {
        text.push_str(&format!("{}: {}\n", conflict.path, conflict.trouble));
    }
    match (&rebased.image, rebased.conflicts.len()) {
        (Some(image), _) => text.push_str(&format!(
            "{} of {} {} on {} now, in place of {old}\n{}\n",
            layers(own),
            args.image,
            if own == 1 { "is" } else { "are" },
            layers(new),
            image.config
        )),
        (None, 0) => {
            text.push_str(&format!("nothing speaks against {} on {}\n", args.image, args.new_base));
        }
        (None, 1) => text.push_str("one file speaks against it: build the image again\n"),
        (None, count) => {
            text.push_str(&format!("{count} files speak against it: build the image again\n"));
        }
    }
    text
}

fn layers(count: usize) -> String {
    if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") }
}

fn object(rebased: &Rebased) -> serde_json::Value {
    json!({
        "Image": rebased.image.as_ref().map(|image: &StoredImage| image.config.as_str()),
        "Conflicts": rebased.conflicts.iter().map(|conflict| json!({
            "Path": conflict.path,
            "Problem": conflict.trouble.to_string(),
        })).collect::<Vec<_>>(),
    })
}
