//! Drives the real program with real Dockerfiles, as root and as an ordinary user.
//!
//! What instructions do to trees and configurations is told by the cases in `conformance`; the
//! modules here hold what needs more than one build, or other programs.
//! Nothing here leaves the machine: registries run on loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may stop, also in their functions")]

mod cache;
mod call;
mod containers;
mod debian;
mod devices;
mod diagnostics;
mod emulation;
mod explain;
mod fetched;
mod files;
mod git;
mod help;
mod ignore;
mod in_place;
mod limits;
mod load;
mod machines;
mod mounts;
mod network;
mod odd_images;
mod outputs;
mod peers;
mod platforms;
mod pod;
mod pod_kills;
mod populate;
mod progress;
mod provenance;
mod rebase;
mod referrers;
mod registries;
mod reproducible;
mod round_trip;
mod sent;
mod single_id;
mod sources;
mod space;
mod ssh;
mod store;
mod support;
mod surroundings;
mod together;
mod traced;
mod transfer;
mod travel;
mod world;
