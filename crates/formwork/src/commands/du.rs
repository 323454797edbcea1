//! `formwork du`.

use std::time::{Duration, SystemTime};

use formwork_build::{Item, ItemKind, usage};
use serde_json::json;

use crate::args::{DuArgs, Field, Filter, Format, Relation};
use crate::commands;
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// The width of an id or a description that is shown shortened.
const SHORT: usize = 60;
/// The kinds in the order in which they are shown, with their names.
const KINDS: [(ItemKind, &str); 6] = [
    (ItemKind::Layer, "layer"),
    (ItemKind::Blob, "blob"),
    (ItemKind::CacheMount, "mount"),
    (ItemKind::Context, "context"),
    (ItemKind::Index, "index"),
    (ItemKind::Temporary, "temporary"),
];

/// Shows what the store takes on the disk.
pub(crate) fn run(args: &DuArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    let mut items = usage(&host)?.items;
    items.retain(|item| fits(item, &args.filter));
    items.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let text = match (args.format, args.verbose) {
        (Format::Table, false) => summary(&items),
        (Format::Table, true) => list(&items) + "\n" + &summary(&items),
        (Format::Json, _) => items.iter().map(line).collect(),
    };
    commands::print(&text)
}

/// What things of a kind are called.
pub(super) fn kind_name(kind: ItemKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

/// Whether a thing meets all conditions.
pub(super) fn fits(item: &Item, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter {
        Filter::Until(age) => since(item.last_used) >= *age,
        Filter::Text { field: Field::Id, relation: Relation::Equal, value } => {
            !value.is_empty() && item.id.starts_with(value.trim_end_matches('…'))
        }
        Filter::Text { field, relation, value } => match field {
            Field::Id => relation.holds(&item.id, value),
            Field::Type => relation.holds(kind_name(item.kind), type_name(value)),
            Field::Description => relation.holds(&item.description, value),
            Field::InUse | Field::Shared => relation.holds(&item.needed.to_string(), value),
            Field::Private => relation.holds(&(!item.needed).to_string(), value),
            Field::Mutable => relation.holds(&is_mutable(item.kind).to_string(), value),
            Field::Immutable => relation.holds(&(!is_mutable(item.kind)).to_string(), value),
            Field::Parents => relation.holds("", value),
        },
    })
}

/// Whether steps may write to things of a kind.
fn is_mutable(kind: ItemKind) -> bool {
    kind == ItemKind::CacheMount
}

/// BuildKit's names of kinds mean the nearest of ours.
fn type_name(text: &str) -> &str {
    match text {
        "regular" => "layer",
        "exec.cachemount" => "mount",
        "source.local" => "context",
        other => other,
    }
}

/// How long ago a time was.
pub(super) fn since(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// One line a kind, then the sum.
fn summary(items: &[Item]) -> String {
    let mut table = Table::new(["TYPE", "COUNT", "SIZE", "RECLAIMABLE"]);
    for (kind, name) in KINDS {
        let of_kind = || items.iter().filter(|item| item.kind == kind);
        if of_kind().next().is_some() {
            table.row(row(name, of_kind()));
        }
    }
    table.row(row("total", items.iter()));
    table.to_string()
}

fn row<'a>(name: &str, items: impl Iterator<Item = &'a Item> + Clone) -> [String; 4] {
    let reclaimable = items.clone().filter(|item| !item.needed).map(|item| item.size).sum();
    let size = items.clone().map(|item| item.size).sum();
    [name.to_owned(), items.count().to_string(), render::bytes(size), render::bytes(reclaimable)]
}

/// One line a thing, the largest first.
pub(super) fn list(items: &[Item]) -> String {
    let mut table = Table::new(["ID", "TYPE", "SIZE", "RECLAIMABLE", "LAST USED", "DESCRIPTION"]);
    for item in items {
        let is_mount = item.kind == ItemKind::CacheMount;
        let one_line = item.description.split_whitespace().collect::<Vec<_>>().join(" ");
        table.row([
            // The id of a cache mount is a name.
            render::shortened(&item.id, if is_mount { SHORT } else { 20 }),
            kind_name(item.kind).to_owned(),
            render::bytes(item.size),
            (!item.needed).to_string(),
            render::ago(since(item.last_used)),
            render::shortened(&one_line, SHORT),
        ]);
    }
    table.to_string()
}

/// A thing in JSON.
pub(super) fn line(item: &Item) -> String {
    let seconds = item.last_used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let last_used = i64::try_from(seconds.as_secs()).ok();
    let last_used = last_used.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let object = json!({
        "ID": item.id,
        "Type": kind_name(item.kind),
        "Size": item.size,
        "Reclaimable": !item.needed,
        "LastUsedAt": last_used.map(|at| at.to_string()),
        "Description": item.description,
    });
    format!("{object}\n")
}
