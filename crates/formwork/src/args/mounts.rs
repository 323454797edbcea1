//! Options of `formwork mounts`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, Pairs};

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
    /// Write the files of a cache mount into a tar archive or a directory, or send them elsewhere
    Export {
        /// The ID
        id: String,
        /// File to write; a directory, made as `NAME/`, gets the files themselves [default: a tar
        /// archive on standard output]
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Place elsewhere, where `build --cache-mounts-from` and `import --from` find it:
        /// type=registry,ref=REPOSITORY[:TAG] or type=local,dest=DIRECTORY
        #[arg(long, value_name = "type=TYPE,…", conflicts_with = "output")]
        to: Option<Pairs>,
        /// How to compress an archive: gzip, zstd or uncompressed
        #[arg(long, value_name = "FORMAT", default_value = "zstd", conflicts_with = "to")]
        compression: String,
    },
    /// Put the files of a tar archive, a directory or a place elsewhere in the place of a cache
    /// mount's
    Import {
        /// The ID
        id: String,
        /// Tar archive to read, compressed or not, or directory [default: standard input]
        #[arg(short, long, value_name = "PATH")]
        input: Option<PathBuf>,
        /// Place elsewhere: type=registry,ref=REPOSITORY[:TAG] or type=local,src=DIRECTORY
        #[arg(long, value_name = "type=TYPE,…", conflicts_with = "input")]
        from: Option<Pairs>,
    },
}
