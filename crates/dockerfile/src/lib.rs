//! Dockerfiles and `.dockerignore` files, understood but not yet carried out.
//!
//! [`parse()`] turns a text into a [`Dockerfile`] and diagnostics; it never fails. What it yields
//! is what the file says: stages and typed instructions, whose [`Word`]s still hold their
//! variables. [`expand()`] and its kin put values into words, given a function that knows them.
//! [`IgnoreFile`] is what a `.dockerignore` file says.
//!
//! The language is the one of BuildKit's frontend, of which the crate follows the code where the
//! reference is silent. It departs from it only where that is plainly a fault, and then says so
//! at the place.
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
pub use parse::{Parsed, parse, parse_trigger};
pub use word::Word;
