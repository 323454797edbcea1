//! `formwork mounts`.

use std::io::IsTerminal;
use std::path::Path;

use formwork_build::{
    Host, Item, ItemKind, Limits, export_cache_mount, export_cache_mount_files, import_cache_mount,
    import_cache_mount_files, no_such_mount, prune, send_cache_mount, take_cache_mount, usage,
};

use crate::args::{Format, MountsArgs, MountsCommand, Pairs};
use crate::commands::build::caches;
use crate::commands::{self, du, work};
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// Lists cache mounts, removes them, and takes them to other machines.
pub(crate) fn run(args: &MountsArgs, settings: &Settings) -> Result<(), Failure> {
    match &args.command {
        MountsCommand::Ls { format } => list(&commands::open(settings)?, *format),
        MountsCommand::Rm { ids, all } => remove(&commands::open(settings)?, ids, *all),
        MountsCommand::Export { id, to: Some(to), .. } => send(settings, id, to),
        MountsCommand::Export { id, output, to: None, compression } => {
            export(settings, id, output.as_deref(), compression)
        }
        MountsCommand::Import { id, from: Some(from), .. } => take(settings, id, from),
        MountsCommand::Import { id, input, from: None } => import(settings, id, input.as_deref()),
    }
}

fn export(
    settings: &Settings,
    id: &str,
    output: Option<&Path>,
    compression: &str,
) -> Result<(), Failure> {
    let id = id.to_owned();
    // As with cp(1), a slash at the end means a directory, also one that has to be made.
    let is_directory =
        |path: &&Path| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if let Some(directory) = output.filter(is_directory).map(Path::to_owned) {
        let host = commands::open(settings)?;
        return work::shown(&host, work::mode(true), move |host, _, _| {
            export_cache_mount_files(host, &id, &directory)
        });
    }
    let destination = commands::archive_destination(output)?;
    let compression = commands::compression(compression)?;
    let host = commands::open(settings)?;
    work::shown(&host, work::mode(true), move |host, _, _| {
        export_cache_mount(host, &id, compression, &destination)
    })
}

fn send(settings: &Settings, id: &str, to: &Pairs) -> Result<(), Failure> {
    let (id, place) = (id.to_owned(), caches::place("--to", "dest", to)?);
    let host = commands::open(settings)?;
    work::shown(&host, work::mode(false), move |host, events, cancel| {
        send_cache_mount(host, &id, &place, events, cancel).map(drop)
    })
}

fn take(settings: &Settings, id: &str, from: &Pairs) -> Result<(), Failure> {
    let place = caches::place("--from", "src", from)?;
    let host = commands::open(settings)?;
    let wanted = id.to_owned();
    let taken = work::shown(&host, work::mode(false), move |host, events, cancel| {
        take_cache_mount(host, &wanted, &place, events, cancel)
    })?;
    match taken {
        true => Ok(()),
        false => Err(Failure::input(format!("the place has no cache mount `{id}`"))
            .with_help("`formwork mounts export --to` puts one there")),
    }
}

fn list(host: &Host, format: Format) -> Result<(), Failure> {
    let mounts = mounts(host)?;
    let text = match format {
        Format::Json => mounts.iter().map(du::line).collect(),
        Format::Table => {
            let mut table = Table::new(["ID", "SIZE", "LAST USED"]);
            for mount in &mounts {
                let size = render::bytes(mount.size);
                table.row([mount.id.clone(), size, render::ago(du::since(mount.last_used))]);
            }
            table.to_string()
        }
    };
    commands::print(&text)
}

fn remove(host: &Host, ids: &[String], all: bool) -> Result<(), Failure> {
    let mounts = mounts(host)?;
    if let Some(missing) = ids.iter().find(|id| !mounts.iter().any(|mount| mount.id == **id)) {
        return Err(no_such_mount(host, missing).into());
    }
    let selected =
        |item: &Item| item.kind == ItemKind::CacheMount && (all || ids.contains(&item.id));
    let pruned = prune(host, &selected, false, Limits::default(), false)?;
    let line = |mount: &Item| format!("Deleted: {}\n", mount.id);
    commands::print(&pruned.items.iter().map(line).collect::<String>())?;
    let stays = |mount: &&Item| pruned.items.iter().all(|gone| gone.id != mount.id);
    match mounts.iter().filter(|mount| selected(mount)).find(stays) {
        None => Ok(()),
        Some(used) => {
            Err(Failure::machine(format!("a step is using the cache mount `{}`", used.id))
                .with_help("try again when the build has ended"))
        }
    }
}

fn import(settings: &Settings, id: &str, input: Option<&Path>) -> Result<(), Failure> {
    if let Some(directory) = input.filter(|path| path.is_dir()).map(Path::to_owned) {
        let (host, id) = (commands::open(settings)?, id.to_owned());
        return work::shown(&host, work::mode(true), move |host, _, _| {
            import_cache_mount_files(host, &id, &directory)
        });
    }
    let file = input.filter(|path| path.as_os_str() != "-");
    let file = file.map(fs_err::File::open).transpose().map_err(Failure::input)?;
    if file.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::usage("an archive is not read from a terminal")
            .with_help("name a file with `--input`, or redirect standard input"));
    }
    let host = commands::open(settings)?;
    let id = id.to_owned();
    work::shown(&host, work::mode(true), move |host, _, _| match file {
        Some(file) => import_cache_mount(host, &id, file),
        None => import_cache_mount(host, &id, std::io::stdin()),
    })
}

/// The cache mounts, sorted by id.
fn mounts(host: &Host) -> Result<Vec<Item>, Failure> {
    let mut items = usage(host)?.items;
    items.retain(|item| item.kind == ItemKind::CacheMount);
    items.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(items)
}
