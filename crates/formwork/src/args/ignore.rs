//! Options of `formwork ignore`.

use std::path::PathBuf;

use clap::Args;

/// Options of `formwork ignore`.
#[derive(Debug, Args)]
pub(crate) struct IgnoreArgs {
    /// Path in the build context, of a file that may or may not be there; may be repeated
    #[arg(long, required = true, value_name = "PATH")]
    pub(crate) why: Vec<String>,
    /// Dockerfile, beside which FILE.dockerignore may lie [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The build context
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: PathBuf,
}
