//! `cargo xtask bench`: formwork beside the installed peers, in turns.
//!
//! Every case is generated from a fixed seed. Tools take turns (A B C A B C …), so that a machine
//! whose speed drifts treats all of them alike; the table shows medians of whole processes, from
//! the start of the command to its end, and how many times longer each peer took. Peers are
//! Debian's buildah, and BuildKit where `buildkitd` and `buildctl` are on PATH. Last come the rungs of
//! the sandbox, side by side.

mod bases;
mod case;
mod crowd;
mod peers;
mod random;
mod registry;
mod report;
mod rungs;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::formwork::Formwork;
use crate::setup;
use case::{Case, Measured};
use peers::{Peer, Tool};

/// What the benchmark needs, beside a compiler.
const PACKAGES: [&str; 6] =
    ["buildah", "busybox-static", "crun", "docker-registry", "skopeo", "time"];

/// What the user asks for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Parts of names of cases; all cases if there are none.
    pub(crate) filters: Vec<String>,
    /// How often each tool runs each case.
    pub(crate) runs: Option<usize>,
    /// Where the figures go as JSON.
    pub(crate) json: Option<String>,
    /// Only formwork, without peers.
    pub(crate) alone: bool,
    /// How many gigabytes the large layer has.
    pub(crate) large: Option<u64>,
}

impl Options {
    /// Reads the command line.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| anyhow::anyhow!("`{argument}` needs a value"));
            match argument.as_str() {
                "--runs" => options.runs = Some(value()?.parse()?),
                "--json" => options.json = Some(value()?),
                "--alone" => options.alone = true,
                "--large" => options.large = Some(value()?.parse()?),
                option if option.starts_with('-') => {
                    bail!("`{option}` is none of --runs, --json, --alone, --large")
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }
}

/// The parser alone, which has no peers and a table of its own.
fn parser(root: &Path) -> Result<()> {
    let arguments = ["bench", "--package", "formwork-dockerfile", "--bench", "parser"];
    let status = Command::new(env!("CARGO")).args(arguments).current_dir(root).status()?;
    if status.success() { Ok(()) } else { bail!("the parser's benchmark failed") }
}

/// Runs all cases and prints the table.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if options.filters == ["parser"] {
        return parser(root);
    }
    setup::packages(&PACKAGES)?;
    println!("bench: building formwork");
    let formwork = Formwork::build(root)?;
    let work = root.join("target/bench");
    fs_err::create_dir_all(&work)?;
    let bases = bases::Bases::make(&work, &formwork)?;
    let registry = registry::Registry::start(&work, &bases)?;
    let mut tools = vec![Tool::formwork(&formwork, &work, &registry.host())?];
    if !options.alone {
        tools.extend(Tool::peers(&work, &registry.host())?);
    }
    println!("bench: {}", report::machine(&tools));
    let mut results = Vec::new();
    for case in case::all(&registry.large(), options.large.unwrap_or(1)) {
        if !options.filters.is_empty()
            && !options.filters.iter().any(|f| case.name.contains(f.as_str()))
        {
            continue;
        }
        let measured = measure(&case, &tools, &bases, &work, options.runs)?;
        println!("{}", report::line(&measured));
        results.push(measured);
    }
    tools.iter().try_for_each(Tool::clean)?;
    if !results.is_empty() {
        println!("\n{}", report::table(&results));
    }
    if options.filters.is_empty() || options.filters.iter().any(|filter| filter == "rungs") {
        rungs::run(root, &formwork, &tools, &work)?;
    }
    if let Some(file) = &options.json {
        fs_err::write(file, report::json(&results, &tools))?;
    }
    Ok(())
}

/// Runs one case with all tools in turns.
fn measure(
    case: &Case,
    tools: &[Tool],
    bases: &bases::Bases,
    work: &Path,
    runs: Option<usize>,
) -> Result<Measured> {
    let context = case.context(work)?;
    let mut measured = Measured::new(case);
    let mut ready: Vec<&Tool> = Vec::new();
    for tool in tools {
        match tool.prepare(case, &context, bases) {
            Ok(()) => ready.push(tool),
            Err(error) => println!("  {} skips {}: {error:#}", tool.name(), case.name),
        }
    }
    for _ in 0..runs.unwrap_or(case.runs) {
        for tool in &ready {
            match tool.run(case, &context, bases) {
                Ok(time) => measured.add(tool.peer(), time),
                Err(error) if tool.peer() == Peer::Formwork => return Err(error),
                // Debian's buildah trips over itself now and then.
                Err(error) => println!("  {} fails {}: {error:#}", tool.name(), case.name),
            }
        }
    }
    if let Some(tool) = ready.iter().find(|tool| tool.peer() == Peer::Formwork) {
        measured.taken = tool.taken(case, &context, bases)?;
    }
    // Small cases leave little; what large ones leave would fill the disk.
    if case.is_large() {
        tools.iter().try_for_each(Tool::clean)?;
    }
    Ok(measured)
}
