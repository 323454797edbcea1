//! Options of `formwork build`.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use super::{Call, Method, Pairs, PullWhen, SpaceArgs, StepArgs, WorldArgs};
use crate::progress::Mode;

/// Options of `formwork build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Directory with the files to build from (the build context); the address of a git repository,
    /// such as https://HOST/PATH.git#BRANCH:DIRECTORY; that of a tar archive or of a Dockerfile on
    /// a web server; or `-` for either on standard input
    #[arg(value_name = "PATH")]
    pub(crate) context: PathBuf,
    /// Dockerfile, its address on a web server, or `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Name for the image, such as `app:1.0`; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Value of an ARG, as NAME=VALUE, or NAME to take it from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Other source of files or images: NAME=DIRECTORY, NAME=docker-image://IMAGE,
    /// NAME=oci-layout://DIRECTORY[:TAG], or NAME= and the address of a git repository or of a tar
    /// archive
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "id=ID,…")]
    pub(crate) secret: Vec<Pairs>,
    /// SSH agent for RUN --mount=type=ssh, and for git: ID, or ID=SOCKET for another agent than the
    /// one that SSH_AUTH_SOCK names, or ID=KEY for the file of a key without a passphrase (several
    /// separated by commas); `default` is the id that is used where none is named
    #[arg(long, value_name = "ID[=SOCKET|KEY,…]")]
    pub(crate) ssh: Vec<String>,
    /// Platform to build for, such as linux/arm64 [default: this machine's]; several, separated by
    /// commas, make one image for all of them (an index)
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Where the result goes: type=oci|docker|local|tar|image|registry|cacheonly,dest=…; may be
    /// repeated. A lone directory means type=local, `-` a tar archive on standard output
    #[arg(short, long, value_name = "type=TYPE,…")]
    pub(crate) output: Vec<Pairs>,
    /// Annotation of the image: [PLACE:]NAME=VALUE, where PLACE is manifest (if nothing is said),
    /// index, manifest-descriptor or index-descriptor, separated by commas, each with a platform
    /// where only that is meant: manifest[linux/arm64]:NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Say beside the image what it was made from: type=provenance[,mode=min|max], as SLSA 1.0 has
    /// it. It refers to the image, and changes nothing in what the image's name leads to
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) attest: Vec<Pairs>,
    /// Short for --attest=type=provenance
    #[arg(long, value_name = "mode=MODE,…", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) provenance: Option<Pairs>,
    /// Not supported; `false` is taken for the sake of scripts
    #[arg(long, value_name = "false", num_args = 0..=1, require_equals = true, hide = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// Push the image to its registry: short for --output=type=image,push=true
    #[arg(long)]
    pub(crate) push: bool,
    /// Time that everything is said to be made at, so that the same files give the same digest: in
    /// seconds since 1970, or `context` for the time of the commit that the build context is at
    /// [default: $SOURCE_DATE_EPOCH]
    #[arg(long, value_name = "SECONDS|context")]
    pub(crate) source_date_epoch: Option<String>,
    /// Load the image into docker or podman, whichever is there
    #[arg(long)]
    pub(crate) load: bool,
    /// Run every step, whatever is in the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run some steps, whatever is in the cache: those of a stage (name or number), one as the
    /// build shows it (`builder:3` or "[builder 3/7]") or by its line (`:12`), or those that use a
    /// cache mount, which begins empty (`mount=ID`). May be repeated or separated by commas; the
    /// comment `# cache: off` above an instruction does it in each build
    #[arg(long, value_name = "STAGE|STAGE:STEP|:LINE|mount=ID", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Look for steps in a cache elsewhere: type=registry,ref=REPOSITORY[:TAG],
    /// type=local,src=DIRECTORY, or type=s3,bucket=BUCKET,region=REGION[,prefix=…,name=…,
    /// endpoint_url=…,use_path_style=true] with the credentials of Amazon's tools (AWS_…, ~/.aws); a lone
    /// name means type=registry. `timeout=1m` limits how long the
    /// build waits for its answers. May be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_from: Vec<Pairs>,
    /// Send the steps to a cache elsewhere: type=registry,ref=REPOSITORY[:TAG],
    /// type=local,dest=DIRECTORY or type=s3,…; type=inline puts them into the image; with `mode=max` the layers of all stages, not only the image's.
    /// Failures are told and fail nothing, except with `ignore-error=false`. May be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_to: Vec<Pairs>,
    /// Fill cache mounts (RUN --mount=type=cache) that are empty from a place elsewhere, named as
    /// with `--cache-from`. May be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_mounts_from: Vec<Pairs>,
    /// Send the cache mounts that the build used to a place elsewhere, named as with `--cache-to`.
    /// May be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_mounts_to: Vec<Pairs>,
    /// Tell at the end what each step did, and why it did not come from the cache
    #[arg(long)]
    pub(crate) explain: bool,
    /// Tell what each step would do, why, and how long all would take by the last runs; build nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The steps that a dry run tells of: those with this text in their names.
    #[arg(skip)]
    pub(crate) foreseen: Option<String>,
    /// When to look for base images in their registries; alone, it means `always`
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        default_missing_value = "always"
    )]
    #[arg(num_args = 0..=1, require_equals = true, hide_possible_values = false)]
    pub(crate) pull: PullWhen,
    /// How many RUN steps may run at the same time [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Keep the host's certificates and proxy settings out of RUN steps
    #[arg(long)]
    pub(crate) no_host_trust: bool,
    /// Write the image ID into a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests and names of the result into a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// What to do with the Dockerfile: build it, check it, or show the arguments of a target
    /// (outline) or all targets; `,format=json` for programs
    #[arg(long, value_name = "METHOD[,format=FORMAT]", default_value = "build")]
    pub(crate) call: Call,
    /// Check the Dockerfile and build nothing: short for --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// How steps run.
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    /// What they find.
    #[command(flatten)]
    pub(crate) world: WorldArgs,
    /// Kept before each step: what no image and no running build needs goes.
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
    /// How to show the build
    #[arg(long, value_enum, default_value_t)]
    pub(crate) progress: ProgressMode,
    /// Show nothing but the image ID
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How to show a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A live view on a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// Lines as they come
    Plain,
    /// A live view
    Tty,
    /// Nothing but errors and warnings
    #[value(alias = "none")]
    Quiet,
    /// One JSON object an event
    #[value(alias = "rawjson")]
    Json,
}

/// A build that `formwork explain --dry-run` is asked about.
#[derive(Debug, Parser)]
#[command(bin_name = "formwork explain [STEP] --dry-run", no_binary_name = true)]
pub(crate) struct ForeseenArgs {
    /// The build.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

impl BuildArgs {
    /// What to do with the Dockerfile.
    pub(crate) fn method(&self) -> Method {
        if self.check { Method::Check } else { self.call.method }
    }

    /// The view that the options ask for.
    pub(crate) fn progress_mode(&self) -> Mode {
        match self.progress {
            _ if self.quiet => Mode::Quiet,
            ProgressMode::Auto => Mode::Auto,
            ProgressMode::Plain => Mode::Plain,
            ProgressMode::Tty => Mode::Tty,
            ProgressMode::Quiet => Mode::Quiet,
            ProgressMode::Json => Mode::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;

    fn parse(line: &str) -> BuildArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Build(build) => *build,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_everyday_options_are_those_of_docker() {
        let build = parse(
            "formwork build -f Dockerfile.prod -t app:1 -t app:latest --target test \
             --build-arg A=1 --build-arg B --label x=y --no-cache --pull -o type=oci,dest=a.tar \
             --platform linux/arm64 --progress=plain --iidfile id --metadata-file meta -q .",
        );
        assert_eq!(build.context, PathBuf::from("."));
        assert_eq!(build.tag, ["app:1", "app:latest"]);
        assert_eq!(build.build_arg, ["A=1", "B"]);
        assert_eq!(build.output[0].get("dest"), Some("a.tar"));
        assert!(build.no_cache && build.pull == PullWhen::Always);
        assert_eq!(build.progress_mode(), Mode::Quiet);
    }

    #[test]
    fn pulling_is_a_matter_of_yes_and_no_or_of_when() {
        for (line, when) in [
            ("formwork build .", PullWhen::Missing),
            ("formwork build --pull .", PullWhen::Always),
            ("formwork build --pull=true .", PullWhen::Always),
            ("formwork build --pull=false .", PullWhen::Missing),
            ("formwork build --pull=never .", PullWhen::Never),
            ("formwork build --pull=newer .", PullWhen::Newer),
        ] {
            assert_eq!(parse(line).pull, when, "{line}");
        }
    }

    #[test]
    fn docker_names_of_views_are_known() {
        assert_eq!(parse("formwork build --progress rawjson .").progress_mode(), Mode::Json);
        assert_eq!(parse("formwork build --progress none .").progress_mode(), Mode::Quiet);
        assert_eq!(parse("formwork b .").progress_mode(), Mode::Auto);
    }
}
