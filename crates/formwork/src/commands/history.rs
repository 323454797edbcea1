//! `formwork history`.

use formwork_build::measure;
use formwork_oci::History;
use serde_json::json;

use crate::args::{Format, HistoryArgs};
use crate::commands;
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// The width of an instruction that is shown shortened.
const SHORT: usize = 70;

/// Shows how an image came to be, the newest instruction first, as docker does.
pub(crate) fn run(args: &HistoryArgs, settings: &Settings) -> Result<(), Failure> {
    commands::enter()?;
    let host = settings.host()?;
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    let config = host.config_of(&image)?;
    let mut sizes = measure(&host, &image)?.layers.into_iter();
    let entries: Vec<(&History, Option<u64>)> = config
        .history
        .iter()
        .map(|entry| (entry, if entry.empty_layer { Some(0) } else { sizes.next().flatten() }))
        .collect();
    let text = match args.format {
        Format::Table => table(&entries, args.no_trunc),
        Format::Json => entries.iter().rev().map(|(entry, size)| line(entry, *size)).collect(),
    };
    commands::print(&text)
}

fn table(entries: &[(&History, Option<u64>)], no_trunc: bool) -> String {
    let mut table = Table::new(["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for (entry, size) in entries.iter().rev() {
        let created_by = entry.created_by.as_deref().unwrap_or_default();
        let one_line = created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        table.row([
            entry.created.as_deref().map(render::age).unwrap_or_default(),
            if no_trunc { created_by.to_owned() } else { render::shortened(&one_line, SHORT) },
            render::optional_bytes(*size),
            entry.comment.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn line(entry: &History, size: Option<u64>) -> String {
    let object = json!({
        "CreatedAt": entry.created,
        "CreatedBy": entry.created_by,
        "Size": size,
        "Comment": entry.comment,
        "EmptyLayer": entry.empty_layer,
    });
    format!("{object}\n")
}
