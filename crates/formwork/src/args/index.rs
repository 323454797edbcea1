//! Options of `formwork index`.

use clap::{Args, Subcommand};

/// What to do with indexes.
#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: IndexCommand,
}

/// What to do with indexes.
#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Make one image for several platforms of images that are there already
    Create(IndexCreateArgs),
    /// Show what an index leads to
    Inspect(IndexInspectArgs),
}

/// Options of `formwork index create`.
#[derive(Debug, Args)]
pub(crate) struct IndexCreateArgs {
    /// The images: names in a registry, store:IMAGE, oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME]
    /// or docker-archive:FILE[:NAME]; of an index, all that it has
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Where the index goes: a name in a registry, oci:DIRECTORY[:NAME] or oci-archive:FILE[:NAME];
    /// may be repeated
    #[arg(short, long, value_name = "DESTINATION", required_unless_present = "dry_run")]
    pub(crate) tag: Vec<String>,
    /// Add the images to the index that the first destination is now; one for the same platform
    /// takes the place of that which is there
    #[arg(long, requires = "tag")]
    pub(crate) append: bool,
    /// Take only the images for these platforms
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Annotation: [PLACE:]NAME=VALUE, where PLACE is index (if nothing is said),
    /// manifest-descriptor[PLATFORM] or index-descriptor
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Take along what refers to the images: signatures, provenance, inventories
    #[arg(short, long, visible_alias = "recursive")]
    pub(crate) referrers: bool,
    /// Print the index and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show nothing but the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `formwork index inspect`.
#[derive(Debug, Args)]
pub(crate) struct IndexInspectArgs {
    /// The index, written like a SOURCE of `formwork index create`
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Print the document, byte for byte
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: super::Format,
}
