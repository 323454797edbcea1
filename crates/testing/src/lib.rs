//! What formwork's tests share: skipping loudly, an ordinary user, a registry on loopback,
//! archives made by hand.
//!
//! Never part of the product.

#![expect(clippy::print_stderr, reason = "tests tell people why they do not run")]
#![expect(clippy::expect_used, reason = "a test cannot go on where its surroundings fail")]

pub mod archive;
mod executable;
mod registry;
mod skip;
mod user;

pub use executable::copy_program;
pub use registry::Registry;
pub use skip::{is_root, program, skipped};
pub use user::{OrdinaryUser, remove_all};
