//! `formwork prune`.

use formwork_build::{Limits, prune};

use crate::args::PruneArgs;
use crate::commands;
use crate::commands::du::{fits, list};
use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// Removes what no image in the store needs, and tells what that was.
pub(crate) fn run(args: &PruneArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    if !args.dry_run {
        commands::remove_stale(&host);
    }
    let limits = Limits {
        reserved: args.space.reserved_space,
        max_used: args.space.max_used_space,
        min_free: args.space.min_free_space,
    };
    let selected = |item: &_| fits(item, &args.filter);
    let pruned = prune(&host, &selected, args.all, limits, args.dry_run)?;
    let mut text = String::new();
    if !pruned.items.is_empty() {
        text = list(&pruned.items) + "\n";
    }
    let title = if args.dry_run { "Would free" } else { "Freed" };
    commands::print(&format!("{text}{title}: {}\n", render::bytes(pruned.freed())))
}
