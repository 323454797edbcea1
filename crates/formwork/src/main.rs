//! formwork: builds small container images, without a daemon and without root.
//!
//! The command line reads top to bottom: arguments ([`args`]), then what the environment says
//! ([`settings`]), then one library call a command ([`commands`]), then how it is shown
//! ([`progress`], [`render`]) and what it means for the caller ([`exit`]).

mod amazon;
mod args;
mod commands;
mod exit;
mod forward;
mod inputs;
mod progress;
mod render;
mod settings;
mod signals;
mod stores;
mod template;
mod terminal;
mod uplink;

use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Cli, Command};
use exit::Failure;
use settings::Settings;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    formwork_sandbox::init_if_child();
    let matches = args::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    run(&cli).unwrap_or_else(|failure| failure.report())
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let settings = Settings::read(&cli.global)?;
    match &cli.command {
        Command::Build(args) => commands::build::run(args, &settings),
        Command::Run(args) => return commands::run::run(args, &settings),
        Command::Shell(args) => return commands::shell::run(args, &settings),
        Command::Images(args) => commands::images::run(args, &settings),
        Command::History(args) => commands::history::run(args, &settings),
        Command::Inspect(args) => commands::inspect::run(args, &settings),
        Command::Tag(args) => commands::tag::run(args, &settings),
        Command::Rm(args) => commands::rm::run(args, &settings),
        Command::Explain(args) => commands::explain::run(args, &settings),
        Command::Ignore(args) => commands::ignore::run(args),
        Command::Pull(args) => commands::pull::run(args, &settings),
        Command::Push(args) => commands::push::run(args, &settings),
        Command::Save(args) => commands::save::run(args, &settings),
        Command::Copy(args) => commands::copy::run(args, &settings),
        Command::Verify(args) => return commands::verify::run(args, &settings),
        Command::Rebase(args) => return commands::rebase::run(args, &settings),
        Command::Index(args) => commands::index::run(args, &settings),
        Command::Import(args) => commands::import::run(args, &settings),
        Command::Load(args) => commands::load::run(args, &settings),
        Command::Export(args) => commands::export::run(args, &settings),
        Command::Cp(args) => commands::cp::run(args, &settings),
        Command::Diff(args) => return commands::diff::run(args, &settings),
        Command::Login(args) => commands::login::run(args, &settings),
        Command::Logout(args) => commands::logout::run(args, &settings),
        Command::Du(args) => commands::du::run(args, &settings),
        Command::Prune(args) => commands::prune::run(args, &settings),
        Command::Mounts(args) => commands::mounts::run(args, &settings),
        Command::Cache(args) => commands::cache::run(args, &settings),
        Command::Doctor(args) => commands::doctor::run(args, &settings),
        Command::Completion(args) => commands::completion::run(args),
    }
    .map(|()| ExitCode::SUCCESS)
}
