//! Options of the commands that move images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of `formwork pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The images, such as `alpine:3.20`
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Fetch all tags of the repositories
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Platform, such as linux/arm64; may be repeated or separated by commas [default: this
    /// machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Fetch images for all platforms, with their indexes as they are
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// Show nothing but the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `formwork push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Where to, if not where its name says: a name with its registry
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: Option<String>,
    /// Push all tags of the repository IMAGE
    #[arg(short, long, conflicts_with = "destination")]
    pub(crate) all_tags: bool,
    /// Push only the image for this platform, such as linux/arm64, of one for several
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Compress layers that were built here anew: gzip, zstd or uncompressed [default: as they are]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) compression: Option<String>,
    /// Write the digest of the manifest into a file
    #[arg(long, value_name = "FILE")]
    pub(crate) digestfile: Option<PathBuf>,
    /// Show nothing but the name and its digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `formwork save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// File or directory to write [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// In which form
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: SaveFormat,
    /// Save only the image for this platform, such as linux/arm64, of one for several; in docker's
    /// form that is this machine's if nothing is said
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Compress layers that were built here anew: gzip, zstd or uncompressed [default: as they are]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) compression: Option<String>,
}

/// In which form images are saved, as podman calls them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    /// An archive for `docker load`, which is an OCI image layout, too
    #[default]
    DockerArchive,
    /// An OCI image layout as an archive
    OciArchive,
    /// An OCI image layout as a directory
    OciDir,
}

/// Options of `formwork copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Where from: a name in a registry, oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME] or
    /// docker-archive:FILE[:NAME]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Where to, written likewise
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
    /// Platform, such as linux/arm64, of an image for several [default: all of them]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Take along what refers to the image: signatures, provenance, inventories, also those under
    /// tags such as `sha256-….sig`
    #[arg(short, long, visible_alias = "recursive")]
    pub(crate) referrers: bool,
    /// Compress layers otherwise: gzip, zstd or uncompressed; the image keeps its id, and gets another
    /// digest [default: as they are]
    #[arg(long, value_name = "FORMAT", visible_alias = "dest-compress-format")]
    #[arg(conflicts_with = "referrers")]
    pub(crate) compression: Option<String>,
    /// Compress also those layers anew that have the format already
    #[arg(long, requires = "compression")]
    pub(crate) force_compression: bool,
    /// Show nothing but the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `formwork import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive, which may be compressed; `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name for the image
    pub(crate) name: Option<String>,
    /// Instruction that changes the configuration, such as `CMD ["/app"]`; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// Remark for the image's history
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Platform of the files, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
}

/// Options of `formwork load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive or image layout to read [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
    /// Platform, for images that are there for several [default: all of them]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Show nothing but the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
