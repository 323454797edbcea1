//! What the tests are made of: a place of their own, builds, trees to compare, servers.

mod built;
mod pod;
mod refusal;
mod repository;
mod rung;
mod server;
mod site;
mod tree;

pub(crate) use built::{Built, Ran};
pub(crate) use pod::Pod;
pub(crate) use refusal::Refusal;
pub(crate) use repository::Repositories;
pub(crate) use rung::{Rung, on_each_rung, on_each_rung_with_namespaces, on_every_rung};
pub(crate) use server::{File, Server};
pub(crate) use site::Site;
pub(crate) use tree::Tree;
