//! `cargo xtask demo`: the five examples, each built the way tutorials do it and the way
//! production wants it, run, asked for a page, and compared.

mod bases;
mod contents;
pub(crate) mod services;
mod table;

use std::path::Path;

use anyhow::Result;

use crate::formwork::Formwork;
use crate::setup;

/// What the demo needs, beside a compiler.
const PACKAGES: [&str; 5] = ["ca-certificates", "curl", "mmdebstrap", "uidmap", "busybox-static"];

/// Builds, runs and compares the examples, or only those that are named.
pub(crate) fn run(root: &Path, names: &[String]) -> Result<()> {
    setup::packages(&PACKAGES)?;
    setup::subordinate_ids()?;
    println!("demo: building formwork");
    let formwork = Formwork::build(root)?;
    let work = root.join("target/demo");
    fs_err::create_dir_all(&work)?;
    bases::make(root, &formwork, &work)?;
    let mut rows = Vec::new();
    for service in services::read(root)? {
        if names.is_empty() || names.contains(&service.directory) {
            rows.push(services::show(&service, root, &formwork, &work)?);
        }
    }
    println!("\n{}", table::render(&rows));
    table::check(&rows)
}
