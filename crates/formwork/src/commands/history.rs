//! `formwork history`.

use formwork_build::measure;
use formwork_oci::History;
use serde_json::{Value, json};

use crate::args::{HistoryArgs, ListFormat};
use crate::commands::{self, list};
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// The width of an instruction that is shown shortened.
const SHORT: usize = 70;

/// Shows how an image came to be, the newest instruction first, as docker does.
pub(crate) fn run(args: &HistoryArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    let image = host.images().resolve(&args.image).map_err(Failure::input)?;
    let config = host.config_of(&image)?;
    let mut sizes = measure(&host, &image)?.layers.into_iter();
    let entries: Vec<(&History, Option<u64>)> = config
        .history
        .iter()
        .map(|entry| (entry, if entry.empty_layer { Some(0) } else { sizes.next().flatten() }))
        .collect();
    let newest_first = entries.iter().rev();
    match &args.format {
        ListFormat::Table => commands::print(&table(&entries, args.no_trunc)),
        ListFormat::Json => {
            let line = |(entry, size): &(&History, _)| format!("{}\n", object(entry, *size));
            commands::print(&newest_first.map(line).collect::<String>())
        }
        ListFormat::Template { table, line } => {
            let fields = |(entry, size): &(&History, _)| fields(entry, *size, args.no_trunc);
            let objects: Vec<Value> = newest_first.map(fields).collect();
            list::print_lines(&objects, line, *table)
        }
    }
}

fn table(entries: &[(&History, Option<u64>)], no_trunc: bool) -> String {
    let mut table = Table::new(["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for (entry, size) in entries.iter().rev() {
        let created_by = entry.created_by.as_deref().unwrap_or_default();
        table.row([
            entry.created.as_deref().map(render::age).unwrap_or_default(),
            if no_trunc {
                created_by.to_owned()
            } else {
                render::shortened(&one_line(entry), SHORT)
            },
            render::optional_bytes(*size),
            entry.comment.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn object(entry: &History, size: Option<u64>) -> Value {
    json!({
        "CreatedAt": entry.created,
        "CreatedBy": entry.created_by,
        "Size": size,
        "Comment": entry.comment,
        "EmptyLayer": entry.empty_layer,
    })
}

/// What templates find: the same, and what docker has for people.
fn fields(entry: &History, size: Option<u64>, no_trunc: bool) -> Value {
    let mut fields = object(entry, size);
    let created_by = one_line(entry);
    let age = entry.created.as_deref().map(render::age).unwrap_or_default();
    fields["CreatedSince"] = age.into();
    fields["CreatedBy"] =
        if no_trunc { created_by.into() } else { render::shortened(&created_by, SHORT).into() };
    fields["Comment"] = entry.comment.clone().unwrap_or_default().into();
    fields["Size"] = render::optional_bytes(size).into();
    fields
}

/// The instruction without line breaks.
fn one_line(entry: &History) -> String {
    let created_by = entry.created_by.as_deref().unwrap_or_default();
    created_by.split_whitespace().collect::<Vec<_>>().join(" ")
}
