//! From a Dockerfile to a build graph and an image's configuration.
//!
//! [`image_requests`] tells which images the stages name that the target needs; the caller
//! resolves them and asks again, since an image's `ONBUILD` instructions may name more. When
//! nothing is asked for any more, [`lower`] makes the graph.
//!
//! Pure: the Dockerfile, the options and the resolved images go in, a graph or diagnostics come
//! out. Nothing here touches a file, a registry, the clock or the environment.

mod budget;
mod config;
mod emulated;
mod epoch;
mod findings;
mod git;
mod input;
mod location;
mod lower;
mod mistakes;
mod outline;
mod plan;
mod ports;
mod remote;
mod scope;
mod uncached;
mod unused;

pub use epoch::{EPOCH_ARG, EpochSource, epoch_source};
pub use findings::stage_findings;
pub use git::{GitLocation, git_location};
pub use input::{
    Allowed, ImageKey, ImageRequest, NamedContext, Options, ResolvedImage, ResolvedImages,
};
pub use location::{ImageLocation, LocationError};
pub use lower::{HistoryEntry, Lowered, lower, lower_all};
pub use mistakes::mistakes;
pub use outline::{Outline, OutlineArg, OutlineMount, Target, outline, targets};
pub use plan::image_requests;
pub use remote::{http_source, is_http};
pub use scope::is_proxy_arg;
pub use uncached::uncached_mounts;

/// The name of the main build context in a graph.
pub const MAIN_CONTEXT: &str = "context";
