//! Options of `formwork cache`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Pairs, duration};

/// What to do with caches elsewhere.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What to do with caches elsewhere.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Remove steps and cache mounts that nobody has used for some time
    Gc {
        /// The cache, named as with `build --cache-from`
        #[arg(value_name = "type=TYPE,…")]
        cache: Pairs,
        /// How long what is not used is kept
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
        keep_duration: Duration,
        /// Only tell what would go
        #[arg(long)]
        dry_run: bool,
    },
}
