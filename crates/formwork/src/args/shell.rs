//! Options of `formwork shell`.

use std::path::PathBuf;

use clap::Args;

use super::{PullWhen, WorldArgs};

/// Options of `formwork shell`.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// A static busybox, or a directory of static programs with `sh` among them [default: the
    /// busybox of this machine, else the image's own shell]
    #[arg(long, value_name = "PATH")]
    pub(crate) tools: Option<PathBuf>,
    /// An image whose static busybox is taken, such as `busybox:musl`
    #[arg(long, value_name = "IMAGE", conflicts_with = "tools")]
    pub(crate) tools_image: Option<String>,
    /// Set a variable, as NAME=VALUE, or NAME to take it from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, as NAME|UID[:GROUP|GID] [default: root]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Show a file or a directory of the host to the container: SOURCE:TARGET[:ro]
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// When to look for the image in its registry
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) pull: PullWhen,
    /// Platform, such as linux/arm64 [default: that of the image in the store]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// What the process finds.
    #[command(flatten)]
    pub(crate) world: WorldArgs,
    /// The image
    pub(crate) image: String,
    /// Arguments of the shell, such as `-c COMMAND`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<String>,
}
