//! `formwork diff`.

use std::process::ExitCode;

use formwork_build::{FileDetail, ImageDiff, diff};
use serde_json::{Value, json};

use crate::args::{DiffArgs, Format};
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// Shows in what two images differ.
pub(crate) fn run(args: &DiffArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let host = commands::open(settings)?;
    let image = |text: &str| host.images().resolve(text).map_err(Failure::input);
    let (first, second) = (image(&args.first)?, image(&args.second)?);
    let diff = work::shown(&host, work::mode(true), move |host, events, cancel| {
        diff(host, &first, &second, events, cancel)
    })?;
    commands::print(&match args.format {
        Format::Table => text(&diff),
        Format::Json => object(&diff),
    })?;
    let differ = args.exit_code && diff != ImageDiff::default();
    Ok(if differ { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// A line for each difference, with the letters of `docker diff`.
fn text(diff: &ImageDiff) -> String {
    let mut lines = Vec::new();
    for file in &diff.files {
        let path = render::printable(&file.path);
        lines.push(match &file.detail {
            FileDetail::Added => format!("A {path}"),
            FileDetail::Deleted => format!("D {path}"),
            FileDetail::Changed(details) => {
                let details =
                    details.iter().map(|(what, from, to)| format!("{what} {from} → {to}"));
                format!("C {path} ({})", details.collect::<Vec<_>>().join(", "))
            }
        });
    }
    for change in &diff.config {
        lines.push(format!("{}: {} → {}", change.key, change.from, change.to));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn object(diff: &ImageDiff) -> String {
    let files = diff.files.iter().map(|file| match &file.detail {
        FileDetail::Added => json!({ "Path": file.path, "Kind": "added" }),
        FileDetail::Deleted => json!({ "Path": file.path, "Kind": "deleted" }),
        FileDetail::Changed(details) => {
            let detail =
                |(what, from, to): &(&str, String, String)| json!({ "What": what, "From": from, "To": to });
            let details: Vec<Value> = details.iter().map(detail).collect();
            json!({ "Path": file.path, "Kind": "changed", "Details": details })
        }
    });
    let config = diff
        .config
        .iter()
        .map(|change| json!({ "Key": change.key, "From": change.from, "To": change.to }));
    let object = json!({
        "Files": files.collect::<Vec<_>>(),
        "Config": config.collect::<Vec<_>>(),
    });
    format!("{object}\n")
}
