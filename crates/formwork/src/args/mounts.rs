//! Options of `formwork mounts`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

/// What to do with cache mounts.
#[derive(Debug, Args)]
pub(crate) struct MountsArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: MountsCommand,
}

/// What to do with cache mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// List cache mounts: their IDs are what `id=` says, else their targets
    Ls {
        /// How to write the list
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove cache mounts
    Rm {
        /// The IDs
        #[arg(required_unless_present = "all", value_name = "ID")]
        ids: Vec<String>,
        /// Remove all of them
        #[arg(short, long, conflicts_with = "ids")]
        all: bool,
    },
    /// Write the files of a cache mount into a tar archive
    Export {
        /// The ID
        id: String,
        /// File to write [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// How to compress: gzip, zstd or uncompressed
        #[arg(long, value_name = "FORMAT", default_value = "zstd")]
        compression: String,
    },
    /// Put the files of a tar archive in the place of a cache mount's
    Import {
        /// The ID
        id: String,
        /// File to read, compressed or not [default: standard input]
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
    },
}
