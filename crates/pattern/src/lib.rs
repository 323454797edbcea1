//! The glob patterns of Dockerfiles and `.dockerignore` files.
//!
//! - [`Glob`] is a wildcard source of `COPY` and `ADD`: Go's `filepath.Match`.
//! - [`PathPattern`] adds `**` and is what `--exclude` and `--parents` use.
//! - [`IgnorePatterns`] is an ordered list of path patterns with exceptions (`!`), of which the
//!   last that matches decides: a `.dockerignore` file.
//!
//! Patterns and paths are bytes. Where a wildcard stands for a character, that is one UTF-8
//! character, or one byte where the bytes are no UTF-8. No wildcard but `**` ever matches a slash.
//! (In Go a class such as `[^a]` may; then a walk by components could not agree with a match of
//! the whole path, and nobody means it.)
//!
//! This crate never looks at a file system: paths come in as values, relative and without `.` and
//! `..`. Matching takes no more than the product of the lengths of pattern and path, whatever they
//! hold.

mod clean;
mod error;
mod glob;
mod ignore;
mod path_pattern;
mod syntax;
mod token;

pub use error::PatternError;
pub use glob::{Component, Glob};
pub use ignore::{Ignore, IgnorePatterns, Rule};
pub use path_pattern::PathPattern;
