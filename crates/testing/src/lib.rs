//! What formwork's tests share.
//!
//! Never part of the product.

#![expect(clippy::print_stderr, reason = "tests tell people why they do not run")]

mod skip;

pub use skip::{is_root, program, skipped};
