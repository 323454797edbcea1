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
//! | RUN: heredoc file: target, mode, content | yes | yes |
//! | RUN: proxy variables and certificates of the host | no | no |
//! | COPY, ADD, WORKDIR: parameters | yes | by their effect on the layer |
//! | COPY, ADD, WORKDIR: layers below, except with `--link` | yes | by their effect on the layer |
//! | COPY, ADD from a stage or an image | all layers and the path | the layer that results |
//! | COPY, ADD from a context | no such key | the layer that results |
//! | names of steps, positions in the Dockerfile, modification times | no | no |
//!
//! Since a content key of COPY is the resulting layer itself, a copy whose sources changed in a
//! way that does not matter stays cached, and so does all behind it. Root file systems are
//! identified by their layers' content, so a RUN that is repeated and changes nothing leaves
//! everything behind it cached, too.
//!
//! [`definition_key`] and [`content_key`] are pure. [`DirIndex`] is the only part that touches
//! files. This crate never decides whether a step runs: that is for the solver.

mod components;
mod identity;
mod index;
mod key;

pub use components::{CacheKey, Component, Components};
pub use identity::Identity;
pub use index::{CacheError, CacheIndex, CacheRecord, Claim, DirIndex};
pub use key::{Inputs, content_key, definition_key};
