//! Options of `formwork verify`.

use clap::Args;

use super::{Format, Pairs, SpaceArgs};

/// Options of `formwork verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The image, which was built into this store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Secret for RUN --mount=type=secret, as it was given to the build
    #[arg(long, value_name = "id=ID,…")]
    pub(crate) secret: Vec<Pairs>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Show nothing but the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How much the store may take.
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
}
