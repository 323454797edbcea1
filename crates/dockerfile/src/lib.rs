//! Dockerfiles and `.dockerignore` files, understood but not yet carried out.
//!
//! [`parse()`] turns a text into a [`Dockerfile`] and diagnostics; it never fails. What it yields
//! is what the file says: stages and typed instructions, whose [`Word`]s still hold their
//! variables. [`expand()`] and its kin put values into words, given a function that knows them.
//! [`IgnoreFile`] is what a `.dockerignore` file says.
//!
//! The language is the one of BuildKit's frontend, of which the crate follows the code where the
//! reference is silent. It departs from it where that is plainly a fault:
//!
//! - The word in `${x:-word}` is evaluated only if it is needed.
//! - Splitting into words keeps what stands before such an expression (`EXPOSE 80${x:-81}`).
//! - The keys of a `--mount` may come in any order, and unknown ones are told even if the stage is
//!   not built.
//! - A heredoc of `COPY` is found by its place, and its delimiter may hold blanks.
//! - Flags of `ARG`, `STOPSIGNAL` and `HEALTHCHECK NONE` are not dropped in silence.
//! - What is wrong with an `ONBUILD` is told where it is written, not where it is used.
//! - Text in flags may be other than ASCII, lines may be of any length, and a `#!` line may come
//!   before the directives.
//!
//! This crate does no I/O, reads no clock and no environment, knows no image and no graph, and
//! does not judge style: rules are another crate's.

mod ast;
mod error;
mod expand;
mod ignore_file;
pub mod instruction;
mod mount;
mod parse;
#[cfg(test)]
mod robustness;
#[cfg(test)]
mod testing;
mod word;

pub use ast::{Check, Directives, Dockerfile, Instruction, InstructionKind, RuleNames, Stage};
pub use error::ExpandError;
pub use expand::{
    Expanded, ExpandedWords, Variables, expand, expand_heredoc, expand_words, variables_in,
    variables_in_heredoc,
};
pub use ignore_file::IgnoreFile;
pub use mount::{Access, FileOwner, Mount, MountSpec, Sharing};
pub use parse::{Parsed, parse, parse_check, parse_trigger};
pub use word::Word;
