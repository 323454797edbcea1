//! A whole build as one function.
//!
//! [`build`] parses a Dockerfile, resolves its images, lowers it to a graph, lets the solver and
//! the worker carry that out, puts the image together and takes it where it should go. [`run`]
//! starts a process in an image.
//!
//! Everything comes in as values ([`BuildRequest`], [`Host`]), progress goes out as events, and
//! what is wrong as diagnostics with a place in the Dockerfile. Nothing here reads the
//! environment, prints or exits.

mod blobs;
mod build;
mod error;
mod fetched;
mod host;
mod output;
mod request;
mod resolve;
mod result;
mod run;
mod sizes;

pub use build::build;
pub use error::{BuildError, ErrorKind};
pub use fetched::{FetchedContext, Sent};
pub use host::{Host, RegistryFiles};
pub use request::{BuildRequest, ContextSpec, Destination, Output};
pub use result::BuildOutcome;
pub use run::{RunRequest, run};
pub use sizes::{ImageSizes, measure};

pub use formwork_frontend::{
    GitLocation, ImageLocation, NamedContext, Options, git_location, http_source, is_http,
};
pub use formwork_layer::Compression;
pub use formwork_registry::ProxyConfig;
pub use formwork_remote::GitConfig;
pub use formwork_solver::Cancel;
pub use formwork_worker::{HostTrust, Secrets};
