//! Everything that is done with formwork's sources: `cargo xtask COMMAND`.
//!
//! Never part of the product: nothing here ships, and the product never calls it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people at a terminal")]

mod bench;
mod compare;
mod conformance;
mod demo;
mod formwork;
mod setup;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
usage: cargo xtask COMMAND

  bench [CASE...] [--runs N] [--json FILE] [--alone] [--large GIGABYTES]
                  time formwork beside the installed peers, in turns; `bench parser` times the
                  parser on texts of many kinds
  compare [NAME...]
                  hold the images of the demo against what buildah, skopeo, umoci and crun make
                  of the same Dockerfiles and images; needs root, and the demo before it
  conformance [--with buildkit|buildah] [CASE...]
                  build the cases of conformance/ as root and as an ordinary user, or with a peer,
                  and compare what comes of them with what is written down
  demo [NAME...]  build the examples both ways, run them, compare them
  test [NAME...]  set up what is missing, then run every check and test, or the named tests
  tidy            check what compilers do not: borders between crates, docs, lengths, dependencies";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bench") => bench::run(&root(), &bench::Options::parse(arguments)?),
        Some("compare") => compare::run(&root(), &arguments.collect::<Vec<_>>()),
        Some("conformance") => conformance::run(&root(), &arguments.collect::<Vec<_>>()),
        Some("demo") => demo::run(&root(), &arguments.collect::<Vec<_>>()),
        Some("test") => test::run(&root(), &arguments.collect::<Vec<_>>()),
        Some("tidy") => tidy::run(&root()),
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        Some(other) => bail!("unknown command `{other}`\n\n{HELP}"),
    }
}

/// The root of the sources: this program is always built from them.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or(own.clone(), PathBuf::from)
}
