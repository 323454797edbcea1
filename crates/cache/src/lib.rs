//! Cache keys, and the index from keys to results.
//!
//! # What a key contains
//!
//! A step may have a **definition key**, made from what is written down and from the whole
//! identity of its inputs, and a **content key**, made from just those parts of its inputs that it
//! uses. The definition key is looked up first, since it needs no look at any file; where it is
//! not known, the content key decides. A result is recorded under both.
//!
//! | input | definition key | content key |
//! |---|---|---|
//! | RUN: program, arguments, working directory, user, host name | yes | yes |
//! | RUN: environment, including declared `ARG`s, in order | yes | yes |
//! | RUN: network, security, platform | yes | yes |
//! | RUN: layers of the root file system | yes | yes |
//! | RUN: bind mount from a stage or an image: target, writable | yes | yes |
//! | RUN: bind mount from a stage or an image: what is mounted | all layers and the path | the mounted files |
//! | RUN: bind mount from a context | no such key | the mounted files |
//! | RUN: cache mount: target, id, first content's origin | yes | yes |
//! | RUN: cache mount: content, sharing, mode, owner | no | no |
//! | RUN: tmpfs: target, size | yes | yes |
//! | RUN: secret: id, target, mode, owner | yes | yes |
//! | RUN: secret: value, whether it is required | no | no |
//! | RUN: SSH agent: id, target, mode, owner | yes | yes |
//! | RUN: SSH agent: its keys, whether it is required | no | no |
//! | RUN: heredoc file: target, mode, content | yes | yes |
//! | RUN: proxy variables and certificates of the host | no | no |
//! | RUN: `--add-host`, `--dns`, limits, `/dev/shm`, attempts | no | no |
//! | COPY, ADD, WORKDIR: parameters | yes | by their effect on the result |
//! | COPY, ADD, WORKDIR: layers below | yes, except with `--link` | yes, except with `--link` |
//! | COPY, ADD from a stage or an image | all layers and the path | by its effect on the result |
//! | COPY, ADD from a context, ADD from elsewhere | no such key | by its effect on the result |
//! | names of steps, positions in the Dockerfile, modification times | no | no |
//!
//! The content key of COPY is what results from it, so a copy whose sources changed in a way that
//! does not matter stays cached.
//!
//! # Equal results, and modification times
//!
//! Root file systems are identified by their layers' content, modification times aside. A step
//! that is repeated and yields an equal root file system therefore leaves everything behind it
//! cached. But programs such as make and cargo go by modification times, so two equal root file
//! systems must not be mixed: the first result of an identity is recorded under [`result_key`],
//! and whoever makes it again takes that one. An identity includes all layers below, so times of
//! an old layer never meet those of newer layers beneath it.
//!
//! [`definition_key`] and [`content_key`] are pure. [`DirIndex`] is the only part that touches
//! files. This crate never decides whether a step runs: that is for the solver.

mod claim;
mod components;
mod difference;
mod identity;
mod index;
mod key;

pub use claim::{Claim, ClaimLog, Claimed, LogPart};
pub use components::{CacheKey, Component, Components};
pub use difference::{Difference, described};
pub use identity::Identity;
pub use index::{CacheError, CacheIndex, CacheRecord, DirIndex, StoredRecord};
pub use key::{Inputs, content_key, definition_key, result_key};
