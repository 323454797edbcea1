//! The command line as the user wrote it.
//!
//! Pure: nothing here looks at the file system, the environment or the terminal; that is for
//! [`crate::settings`]. The doc comments are the help texts. Options have the names and meanings
//! of `docker buildx build` and `docker`.

mod build;
mod cache;
mod call;
mod files;
mod filter;
mod help;
mod ignore;
mod image_filter;
mod index;
mod login;
mod mounts;
mod pairs;
mod publish;
mod rebase;
mod registry;
mod run;
mod shell;
mod space;
mod transfer;
mod verify;
mod world;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use formwork_build::PullPolicy;

use crate::template::Template;

pub(crate) use build::{BuildArgs, ForeseenArgs, ProgressMode};
pub(crate) use cache::{CacheArgs, CacheCommand};
pub(crate) use call::{Call, Method};
pub(crate) use files::{CpArgs, DiffArgs, ExportArgs};
pub(crate) use filter::{Field, Filter, Relation, duration};
pub(crate) use help::command;
pub(crate) use ignore::IgnoreArgs;
pub(crate) use image_filter::{ImageFilter, Pattern};
pub(crate) use index::{IndexArgs, IndexCommand, IndexCreateArgs, IndexInspectArgs};
pub(crate) use login::{LoginArgs, LogoutArgs, bare_registry};
pub(crate) use mounts::{MountsArgs, MountsCommand};
pub(crate) use pairs::Pairs;
pub(crate) use publish::Published;
pub(crate) use rebase::RebaseArgs;
pub(crate) use registry::RegistryArgs;
pub(crate) use run::RunArgs;
pub(crate) use shell::ShellArgs;
pub(crate) use space::{DuArgs, PruneArgs, SpaceArgs, bytes};
pub(crate) use transfer::{
    CopyArgs, ImportArgs, LoadArgs, PullArgs, PushArgs, SaveArgs, SaveFormat,
};
pub(crate) use verify::VerifyArgs;
pub(crate) use world::{NetworkChoice, StepArgs, WorldArgs};

/// Builds small container images: one binary, no daemon, no root needed.
#[derive(Debug, Parser)]
#[command(name = "formwork", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Directory of the store [default: $FORMWORK_ROOT, else $XDG_DATA_HOME/formwork, for root
    /// /var/lib/formwork]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// How steps are kept apart from the machine; `formwork doctor` tells what it gives
    /// [default: $FORMWORK_ISOLATION, else auto]
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub(crate) isolation: Option<Isolation>,
    /// How registries are spoken to.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// How steps are kept apart from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    /// The best that the machine gives
    Auto,
    /// As root, in namespaces
    Root,
    /// As an ordinary user, in namespaces, with the user's subordinate ids
    SubordinateIds,
    /// As an ordinary user, in namespaces with a single id; all other owners are kept as data
    SingleId,
    /// As root of a container that gives no namespaces: in a chroot
    Chroot,
    /// As somebody else in such a container: each step is traced, and its owners are kept as data
    Traced,
    /// Not at all: nothing is run, and files can be copied
    CopyOnly,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Run a command in a new container of an image
    Run(Box<RunArgs>),
    /// Start a shell in an image, also where the image has none
    Shell(Box<ShellArgs>),
    /// List the images in the store
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Show how an image came to be
    History(HistoryArgs),
    /// Show all that is known about images, as JSON
    Inspect(InspectArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Remove images from the store
    #[command(visible_alias = "rmi")]
    Rm(RmArgs),
    /// Tell why steps of a build do not come from the cache
    Explain(ExplainArgs),
    /// Tell which line of .dockerignore decides about a path
    Ignore(IgnoreArgs),
    /// Fetch images from their registries
    Pull(PullArgs),
    /// Send an image to its registry
    Push(PushArgs),
    /// Write images into an archive or a directory
    Save(SaveArgs),
    /// Read the images of an archive or a directory into the store
    Load(LoadArgs),
    /// Copy an image between registries, image layouts and archives
    Copy(CopyArgs),
    /// Build an image once more, and show the first difference
    Verify(VerifyArgs),
    /// Put an image on a newer base, if that is safe
    Rebase(RebaseArgs),
    /// Make and show indexes, which are images for several platforms
    Index(IndexArgs),
    /// Make an image of the files in a tar archive
    Import(ImportArgs),
    /// Write all files of an image into a tar archive
    Export(ExportArgs),
    /// Copy files out of an image
    Cp(CpArgs),
    /// Show in what two images differ
    Diff(DiffArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Forget how to log in to a registry
    Logout(LogoutArgs),
    /// Show what the store takes on the disk
    Du(DuArgs),
    /// Remove what no image in the store needs
    Prune(PruneArgs),
    /// List, remove, export and import cache mounts (RUN --mount=type=cache)
    Mounts(MountsArgs),
    /// Keep caches in registries and directories small
    Cache(CacheArgs),
    /// Tell what this machine allows and what to do for more
    Doctor(DoctorArgs),
    /// Write a script that completes command lines in a shell
    Completion(CompletionArgs),
}

/// Options of `formwork images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Show only images with this name, with or without its tag; `*` and `?` stand for letters
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Show only images that fit: dangling=BOOL, label=KEY[=VALUE], reference=PATTERN,
    /// before=IMAGE, since=IMAGE; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<ImageFilter>,
    /// Show the digests, too
    #[arg(long)]
    pub(crate) digests: bool,
    /// Accepted for docker's users: there are no images between others here
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show nothing but image IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten IDs
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// How to write the list: table, json, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, default_value = "table", hide_default_value = true)]
    pub(crate) format: ListFormat,
}

/// Options of `formwork history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The image
    pub(crate) image: String,
    /// Do not shorten instructions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show nothing but the image's ID, and `<missing>` for what is below
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write sizes and times for people; with `false`, bytes and dates
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = true, default_missing_value = "true", hide_default_value = true)]
    pub(crate) human: bool,
    /// How to write the list: table, json, or a template such as `{{.Size}} {{.CreatedBy}}`
    #[arg(long, default_value = "table", hide_default_value = true)]
    pub(crate) format: ListFormat,
}

/// Options of `formwork inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The images
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// Platform, such as linux/arm64, of an image for several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Kind of what is shown, which is always an image here
    #[arg(long, value_name = "TYPE", value_parser = ["image"])]
    pub(crate) r#type: Option<String>,
    /// Accepted for docker's users: sizes are always shown
    #[arg(short, long)]
    pub(crate) size: bool,
    /// How to write each image: json, or a template such as `{{.Config.User}}` or
    /// `{{json .Config.Env}}` [default: JSON in several lines]
    #[arg(short, long)]
    pub(crate) format: Option<ListFormat>,
}

/// Options of `formwork tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image
    pub(crate) source: String,
    /// Its new name
    pub(crate) target: String,
}

/// Options of `formwork rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The images
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// Do not complain about images that are not there; remove all names of an image given by ID
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Options of `formwork explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Show only steps with this text in their names, such as `build 3/7` or `RUN make`
    pub(crate) step: Option<String>,
    /// Tell of a build that has not been: what follows is what `formwork build` would be given
    #[arg(long, value_name = "BUILD OPTIONS AND PATH", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) dry_run: Vec<OsString>,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Options of `formwork doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How to write the report
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Options of `formwork completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// When to ask registries for images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    /// Where the store does not have them
    #[default]
    #[value(alias = "false", alias = "ifmissing")]
    Missing,
    /// Every time
    #[value(alias = "true")]
    Always,
    /// Every time, but be content with what is in the store where that fails
    #[value(alias = "ifnewer")]
    Newer,
    /// Never
    Never,
}

impl From<PullWhen> for PullPolicy {
    fn from(when: PullWhen) -> Self {
        match when {
            PullWhen::Missing => Self::Missing,
            PullWhen::Always => Self::Always,
            PullWhen::Newer => Self::Newer,
            PullWhen::Never => Self::Never,
        }
    }
}

/// How to write a list of which scripts want parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ListFormat {
    /// A table for people.
    Table,
    /// JSON for programs, an object a line.
    Json,
    /// What a template makes of each object; in columns, under headings, if it is a table.
    Template {
        /// Whether there are columns.
        table: bool,
        /// What a line looks like.
        line: Template,
    },
}

impl FromStr for ListFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "table" => return Ok(Self::Table),
            "json" => return Ok(Self::Json),
            _ => {}
        }
        let (table, line) = match text.strip_prefix("table ") {
            Some(line) => (true, line),
            None => (false, text),
        };
        if !line.contains("{{") {
            return Err("there are `table`, `json` and templates with `{{…}}`".to_owned());
        }
        Ok(Self::Template { table, line: line.parse()? })
    }
}

/// How to write a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_store_can_be_named_anywhere() {
        for line in ["formwork --root /s images", "formwork images --root /s"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.root, Some(PathBuf::from("/s")));
        }
    }
}
