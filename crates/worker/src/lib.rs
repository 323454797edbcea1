//! Makes ops real.
//!
//! [`Worker`] implements the solver's [`OpRunner`](formwork_solver::OpRunner) over the stores and
//! the sandbox. It is where everything meets: contexts are scanned (`context`), copies planned as
//! arithmetic on trees (`files`), processes run (`exec`, `mounts`), images fetched and unpacked,
//! and results packed ([`Layer`]).
//!
//! A [`Layer`] is lazy in each of its three forms: the list of its files, its directory and its
//! blob are made when somebody asks, once, and kept in the store.
//!
//! This crate knows no Dockerfile: what to do comes as a graph, and errors go back without a
//! place in any source.

mod accounts;
mod archive;
mod cache_mount;
mod cache_transfer;
mod checkout;
mod compare;
mod container;
mod context;
mod error;
mod exec;
mod facts;
mod fetch;
mod files;
mod imported;
mod in_place;
mod layer;
mod lent;
mod loading;
mod mask;
mod missing;
mod mounts;
mod name;
mod root;
mod runner;
mod secrets;
mod ssh;
mod store;
mod trust;
mod world;

pub use accounts::UnknownAccount;
pub use cache_mount::{StoredCacheMount, stored_cache_mounts};
pub use cache_transfer::{
    CacheMountFiles, cache_mount_files, is_cache_mount_empty, replace_cache_mount,
};
pub use checkout::Checkout;
pub use container::{ContainerSpec, Volume, inherited_stdio, run_container, terminal_stdio};
pub use context::{Context, ContextConfig};
pub use error::{BaseLayerError, ExitReason, StoreError, UNUSABLE_LAYER, WorkerError};
pub use exec::emulator;
pub use facts::{PackForm, blobs_of_layer};
pub use imported::{ImportedBlob, ImportedLayer, ImportedLayers, ImportedTree};
pub use layer::{Layer, PackedLayer, stored_layer, stored_layer_of_image};
pub use lent::{bring_caches_home, bring_own_caches_home};
pub use missing::{MissingSource, Reason};
pub use name::is_of_image;
pub use root::{Output, Root};
pub use runner::{BaseImage, LocalLayer, Worker, WorkerConfig};
pub use secrets::Secrets;
pub use store::LayerStore;
pub use trust::HostTrust;
pub use world::{Dns, StepNetwork, StepWorld};
