//! `RUN`, `CMD`, `ENTRYPOINT` and `SHELL`

use super::flags::{Flags, Takes};
use super::json::Json;
use super::report::{Report, excerpt};
use super::statement::Statement;
use super::transfer::report_other_json;
use super::{csv, mount};
use crate::Word;
use crate::instruction::{CommandLine, Device, Network, Run, Security};
use crate::mount::parse_bool;

/// The flags of `RUN`.
const RUN_FLAGS: [(&str, Takes); 4] = [
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Value),
    ("device", Takes::Values),
];
/// The values of `--network`.
const NETWORKS: [(&str, Network); 3] =
    [("default", Network::Default), ("none", Network::None), ("host", Network::Host)];
/// The values of `--security`.
const SECURITIES: [(&str, Security); 2] =
    [("sandbox", Security::Sandbox), ("insecure", Security::Insecure)];

/// Reads a `RUN`.
pub(super) fn run(statement: &mut Statement<'_>, report: &mut Report<'_>) -> Option<Run> {
    let mut flags = Flags::read(statement, &RUN_FLAGS, report);
    let mounts =
        flags.values("mount").iter().filter_map(|word| mount::parse(word, report)).collect();
    let devices = flags.values("device").iter().filter_map(|word| device(word, report)).collect();
    let network = flags.choice("network", &NETWORKS, report);
    let security = flags.choice("security", &SECURITIES, report);
    let command = form(statement, report)?;
    let heredocs = std::mem::take(&mut statement.heredocs).into_iter();
    let heredocs = heredocs.map(|(_, heredoc)| heredoc).collect();
    Some(Run { mounts, network, security, devices, command, heredocs })
}

/// Reads a `CMD` or an `ENTRYPOINT`.
pub(super) fn command(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<CommandLine> {
    Flags::none(statement, report);
    form(statement, report)
}

/// Reads a `SHELL`.
pub(super) fn shell(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<Vec<Word>> {
    Flags::none(statement, report);
    match form(statement, report)? {
        CommandLine::Exec(arguments) if !arguments.is_empty() => Some(arguments),
        _ => {
            let span = statement.span();
            let error = report.error("bad-shell", "`SHELL` needs a command in JSON form", span);
            report.add(error.with_help("write `SHELL [\"/bin/bash\", \"-c\"]`"));
            None
        }
    }
}

/// The arguments as a command in one of its forms.
pub(super) fn form(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<CommandLine> {
    match statement.json() {
        Json::Strings(arguments) => Some(CommandLine::Exec(arguments)),
        Json::No => Some(CommandLine::Shell(statement.line.word(statement.arguments.clone()))),
        Json::Other => {
            report_other_json(statement, report);
            None
        }
    }
}

/// Reads `vendor/class=name[,required]`. The name itself may hold a `=`.
fn device(word: &Word, report: &mut Report<'_>) -> Option<Device> {
    let mut name: Option<Word> = None;
    let mut required = false;
    for field in csv::fields(word, report)? {
        let text = field.text();
        let (key, value) = text.split_once('=').unwrap_or((text, "true"));
        let is_pair = text.contains('=');
        match key.to_ascii_lowercase().as_str() {
            "required" => match parse_bool(value) {
                Some(value) => required = value,
                None => return report_device(&field, "`required` is `true` or `false`", report),
            },
            "name" if is_pair && name.is_none() => {
                name = field.split_once('=').map(|(_, value)| value);
            }
            _ if name.is_none() => name = Some(field),
            _ => return report_device(&field, "a device has one name", report),
        }
    }
    name.filter(|name| !name.is_empty())
        .map(|name| Device { name, required })
        .or_else(|| report_device(word, "a device needs a name", report))
}

fn report_device(word: &Word, message: &str, report: &mut Report<'_>) -> Option<Device> {
    let message = format!("`{}`: {message}", excerpt(word.text()));
    let error = report.error("bad-device", message, word.span());
    report.add(error.with_help("write `--device=vendor/class=name,required`"));
    None
}
