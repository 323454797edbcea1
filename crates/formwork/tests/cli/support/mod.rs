//! What the tests are made of: a place of their own, builds, trees to compare, servers.

mod built;
mod repository;
mod server;
mod site;
mod tree;

pub(crate) use built::{Built, Ran};
pub(crate) use repository::Repositories;
pub(crate) use server::{File, Server};
pub(crate) use site::{Site, on_each_rung, on_each_rung_with_namespaces};
pub(crate) use tree::Tree;
