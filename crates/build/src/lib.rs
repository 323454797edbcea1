//! A whole build as one function.
//!
//! [`build`] parses a Dockerfile, resolves its images, lowers it to a graph, lets the solver and
//! the worker carry that out, puts the image together and takes it where it should go. [`run`]
//! starts a process in an image; [`pull`], [`push`], [`save`], [`load`] and [`import`] move images.
//!
//! Everything comes in as values ([`BuildRequest`], [`Host`]), progress goes out as events, and
//! what is wrong as diagnostics with a place in the Dockerfile. Nothing here reads the
//! environment, prints or exits.

mod blobs;
mod build;
mod check;
mod engine;
mod epoch;
mod error;
mod explanation;
mod fetched;
mod files;
mod forecast;
mod host;
mod ignore;
mod login;
mod mounts;
mod once;
mod output;
mod provenance;
mod rebase;
mod recipe;
mod request;
mod resolve;
mod result;
mod retold;
mod run;
mod sizes;
mod solve;
mod space;
mod step;
mod toolbox;
mod transfer;
mod travel;
mod verify;

pub use build::build;
pub use check::{CheckReport, Finding, check, outline, targets};
pub use engine::{Engine, EngineAddress, PodmanProcess, usual_sockets};
pub use epoch::settle_epoch;
pub use error::{BuildError, ErrorKind};
pub use explanation::{ExplainedStep, Explanation, Recorder};
pub use fetched::{FetchedContext, Sent};
pub use files::{
    ConfigChange, FileChange, FileDetail, ImageDiff, ImagePath, copy_out, diff, export_files,
};
pub use forecast::{Forecast, forecast};
pub use host::{Host, RegistryFiles};
pub use ignore::{IgnoreDecision, ignore_decision};
pub use login::{Kept, Login, log_in, log_out};
pub use mounts::{
    export_cache_mount, export_cache_mount_files, import_cache_mount, import_cache_mount_files,
    no_such_mount,
};
pub use provenance::Provenance;
pub use rebase::{Conflict, RebaseRequest, Rebased, Trouble, rebase};
pub use recipe::Recipe;
pub use request::{
    Annotation, AnnotationPlace, BuildRequest, ContextSpec, Destination, ImageForm, Output,
    PullPolicy, StoreOptions,
};
pub use resolve::find_image;
pub use result::BuildOutcome;
pub use run::{RunRequest, run};
pub use sizes::{ImageSizes, measure};
pub use space::{Item, ItemKind, Limits, Pruned, Usage, prune, usage};
pub use toolbox::Toolbox;
pub use transfer::{
    CopyRequest, CopyTarget, ImportRequest, IndexRequest, IndexSource, Listed, Recompression,
    SaveForm, copy, create_index, import, inspect_index, load, pull, pull_whole, push, save, tags,
};

pub use travel::{
    BucketPlace, CacheFrom, CacheMode, CachePlace, CacheTo, Cleared, clear_cache, send_cache_mount,
    take_cache_mount,
};

pub use verify::{Difference, Surroundings, Verified, verify};

pub use formwork_frontend::{
    Allowed, GitLocation, ImageLocation, NamedContext, Options, Outline, OutlineArg, OutlineMount,
    Target, git_location, is_http,
};
pub use formwork_graph::{Network, without_secrets};
pub use formwork_layer::Compression;
pub use formwork_registry::{
    BucketConfig, BucketKey, BucketKeys, ContainerToken, ProxyConfig, Secret,
};
pub use formwork_remote::{Commit, GitConfig, KeyAgent, PrivateKey, commit_of};
pub use formwork_sandbox::{
    Limits as ProcessLimits, Port, Resource, ResourceLimit, UPLINK_HOST, Uplink,
};
pub use formwork_solver::Cancel;
pub use formwork_worker::{Dns, HostTrust, Secrets, StepNetwork, StepWorld, Volume};
