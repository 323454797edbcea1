//! `formwork cache`.

use formwork_build::{Cleared, clear_cache};

use crate::args::{CacheArgs, CacheCommand};
use crate::commands::build::caches;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// Clears a cache elsewhere.
pub(crate) fn run(args: &CacheArgs, settings: &Settings) -> Result<(), Failure> {
    let CacheCommand::Gc { cache, keep_duration, dry_run } = &args.command;
    let place = caches::place("cache gc", "src", cache)?;
    let (keep, dry_run) = (*keep_duration, *dry_run);
    let host = commands::open(settings)?;
    let cleared = work::shown(&host, work::mode(false), move |host, events, cancel| {
        clear_cache(host, &place, keep, dry_run, events, cancel)
    })?;
    commands::print(&told(cleared, dry_run))
}

fn told(Cleared { names, removed, freed }: Cleared, dry_run: bool) -> String {
    let what = if dry_run { "Would remove" } else { "Removed" };
    let space = match freed {
        Some(bytes) => format!("Freed: {}\n", render::bytes(bytes)),
        None => "Space: freed by the registry's own garbage collection\n".to_owned(),
    };
    format!("{what}: {removed} of {names} names\n{space}")
}
