//! Options of `formwork rebase`.

use clap::Args;

use super::{Format, PullWhen};

/// Options of `formwork rebase`.
#[derive(Debug, Args)]
pub(crate) struct RebaseArgs {
    /// The image, which is in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The base to put it on
    #[arg(long, value_name = "IMAGE")]
    pub(crate) new_base: String,
    /// The base that it is on now [default: what it was built on, or says that it is on]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) old_base: Option<String>,
    /// Name for the result [default: the image's own]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Option<String>,
    /// Only look whether it is safe, and change nothing
    #[arg(long, conflicts_with_all = ["tag", "force"])]
    pub(crate) check: bool,
    /// Do it although something speaks against it
    #[arg(long)]
    pub(crate) force: bool,
    /// Platform, such as linux/arm64, of an image for several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// When to look for the bases in their registries; alone, it means `always`
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: PullWhen,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Show nothing but the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
