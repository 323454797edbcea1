//! What the tests are made of: a place of their own, builds, and trees to compare.

mod built;
mod site;
mod tree;

pub(crate) use built::{Built, Ran};
pub(crate) use site::{Site, on_each_rung};
pub(crate) use tree::Tree;
