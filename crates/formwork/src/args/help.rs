//! The help as a whole: which commands belong together, which options do, and examples.
//!
//! What a command or an option does stands at its definition. Here is what only shows beside the
//! others, so that all of it is read in one place.

use std::fmt::Write;

use clap::builder::styling::Styles;
use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The commands in the order of the help. Each is in one group.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Build", &["build", "explain", "ignore", "verify"]),
    ("Look", &["images", "history", "inspect", "diff", "cp"]),
    ("Run", &["run", "shell"]),
    ("Change", &["tag", "rm", "rebase", "index"]),
    ("Registries", &["pull", "push", "copy", "login", "logout"]),
    ("Archives", &["save", "load", "import", "export"]),
    ("Store and machine", &["du", "prune", "mounts", "cache", "doctor", "completion"]),
];

/// Options that are shown together, below a heading, wherever they are.
const HEADINGS: [(&str, &[&str]); 4] = [
    (
        "Processes",
        &[
            "network",
            "memory",
            "cpus",
            "pids_limit",
            "ulimit",
            "shm_size",
            "add_host",
            "dns",
            "dns_search",
            "dns_option",
            "allow",
            "step_timeout",
            "retry",
            "no_host_trust",
        ],
    ),
    ("Space", &["reserved_space", "max_used_space", "min_free_space"]),
    ("Global options", &["root", "isolation"]),
    (REGISTRIES, &["authfile", "cert_dir", "tls_verify", "registry_retry", "registry_retry_delay"]),
];

/// The same for options of `build` alone, whose names mean something else at other commands.
const BUILD_HEADINGS: [(&str, &[&str]); 2] = [
    (
        "Result",
        &[
            "tag",
            "output",
            "push",
            "load",
            "platform",
            "label",
            "annotation",
            "attest",
            "provenance",
            "source_date_epoch",
            "iidfile",
            "metadata_file",
        ],
    ),
    (
        "Cache",
        &[
            "pull",
            "no_cache",
            "no_cache_filter",
            "cache_from",
            "cache_to",
            "cache_mounts_from",
            "cache_mounts_to",
        ],
    ),
];

const REGISTRIES: &str = "Registries";

/// The commands that never speak to a registry: they take its options, and do not show them.
const LOCAL: [&str; 19] = [
    "completion",
    "cp",
    "diff",
    "doctor",
    "du",
    "export",
    "history",
    "ignore",
    "images",
    "import",
    "inspect",
    "load",
    "logout",
    "prune",
    "rm",
    "save",
    "tag",
    "mounts ls",
    "mounts rm",
];

const EXAMPLES: [(&str, &str); 20] = [
    (
        "build",
        "\
formwork build -t app:1.0 .
formwork build --target test .                          # run one stage, such as the tests
formwork build -t registry.example/app:1.0 --push .
formwork build --secret id=token,src=token.txt -o type=oci,dest=app.tar .",
    ),
    (
        "explain",
        "\
formwork explain                       # why the last build did what it did
formwork explain --dry-run -t app .    # what the next one would do",
    ),
    ("ignore", "formwork ignore --why src/main.rs --why target/debug ."),
    ("images", "formwork images --filter dangling=true --format '{{.ID}}'"),
    ("inspect", "formwork inspect --format '{{json .Config.Env}}' app:1.0"),
    ("cp", "formwork cp app:1.0:/etc/passwd ."),
    ("diff", "formwork diff app:1.0 app:1.1"),
    (
        "run",
        "\
formwork run -it --rm app:1.0
formwork run -p 8080:80 -v \"$PWD/data:/data:ro\" app:1.0 serve --verbose",
    ),
    ("shell", "formwork shell app:1.0 -c 'ls -l /'"),
    ("rebase", "formwork rebase app:1.0 --new-base debian:12-slim -t app:1.0-patched"),
    ("index", "formwork index create -t registry.example/app:1.0 store:app:amd64 store:app:arm64"),
    (
        "pull",
        "\
formwork pull alpine:3.20
formwork pull --all-platforms alpine:3.20    # to be pushed or saved whole",
    ),
    ("push", "formwork push app:1.0 registry.example/team/app:1.0"),
    ("copy", "formwork copy registry.example/app:1.0 oci:layout:app:1.0"),
    ("login", "formwork login --username me --password-stdin ghcr.io < token.txt"),
    ("save", "formwork save app:1.0 | docker load"),
    ("import", "formwork import --change 'USER app' root.tar.xz base:1.0"),
    ("export", "formwork export app:1.0 | tar -tv"),
    ("prune", "formwork prune --max-used-space 20GB --dry-run"),
    ("completion", "source <(formwork completion bash)"),
];

/// What [`crate::exit`] gives back to the caller.
const EXIT_CODES: &str = "  \
  0         it worked
  1         the Dockerfile, the context or the image is wrong, or a step failed
  2         the command line is wrong
  3         a registry or another server, or the way to it
  4         the machine: the store, the disk, the kernel
  125-127   `formwork run` could not start the process
  130, 143  stopped by Ctrl-C or SIGTERM";

/// The definition of the command line, with its help put in order.
pub(crate) fn command() -> Command {
    let mut cli = Cli::command().mut_args(|arg| with_heading(arg, &HEADINGS));
    let hidden: Vec<Arg> = cli
        .get_arguments()
        .filter(|arg| heading_of(arg, &HEADINGS) == Some(REGISTRIES))
        .map(|arg| arg.clone().hide(true))
        .collect();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}\n{{options}}{{after-help}}",
        commands(&cli),
        title("Options for every command"),
    );
    for name in GROUPS.iter().flat_map(|(_, names)| *names) {
        cli = cli.mut_subcommand(name, |command| arrange(command, name));
    }
    for path in LOCAL {
        cli = within(cli, path, |command| command.args(&hidden));
    }
    cli.help_template(template).after_help(format!("{}\n{EXIT_CODES}", title("Exit codes")))
}

/// A command whose options are in groups, with its examples.
fn arrange(command: Command, name: &str) -> Command {
    let command = command
        .mut_args(|arg| with_heading(arg, if name == "build" { &BUILD_HEADINGS } else { &[] }));
    let command = command.mut_args(|arg| with_heading(arg, &HEADINGS));
    match EXAMPLES.iter().find(|(command, _)| *command == name) {
        Some((_, examples)) => {
            let examples = examples.replace('\n', "\n  ");
            command.after_help(format!("{}\n  {examples}", title("Examples")))
        }
        None => command,
    }
}

/// Changes the command below another that the words of `path` name.
fn within(command: Command, path: &str, change: impl FnOnce(Command) -> Command) -> Command {
    match path.split_once(' ') {
        Some((name, rest)) => command.mut_subcommand(name, |below| within(below, rest, change)),
        None => command.mut_subcommand(path, change),
    }
}

fn with_heading(arg: Arg, headings: &[(&'static str, &[&str])]) -> Arg {
    match heading_of(&arg, headings) {
        Some(heading) => arg.help_heading(heading),
        None => arg,
    }
}

fn heading_of(arg: &Arg, headings: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let id = arg.get_id().as_str();
    headings.iter().find(|(_, ids)| ids.contains(&id)).map(|(heading, _)| *heading)
}

/// The list of all commands, group by group.
fn commands(cli: &Command) -> String {
    let name = *Styles::styled().get_literal();
    let mut text = String::new();
    for (group, names) in GROUPS {
        let _ = writeln!(text, "{}", title(group));
        for command in names.iter().filter_map(|name| cli.find_subcommand(name)) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<&str> = command.get_visible_aliases().collect();
            let aliases = match &aliases[..] {
                [] => String::new(),
                aliases => format!(" [alias: {}]", aliases.join(", ")),
            };
            let _ = writeln!(text, "  {name}{:10}{name:#}  {about}{aliases}", command.get_name());
        }
        text.push('\n');
    }
    text
}

fn title(text: &str) -> String {
    let style = *Styles::styled().get_header();
    format!("{style}{text}:{style:#}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let cli = Cli::command();
        let all: BTreeSet<&str> = cli.get_subcommands().map(Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        assert_eq!(grouped.len(), all.len());
        assert_eq!(grouped.into_iter().collect::<BTreeSet<_>>(), all);
        for (name, _) in &EXAMPLES {
            assert!(all.contains(name), "{name}");
        }
    }

    #[test]
    fn every_heading_has_its_options() {
        let cli = Cli::command();
        let build = cli.find_subcommand("build").unwrap();
        let has = |id: &str| {
            cli.get_arguments().chain(build.get_arguments()).any(|arg| arg.get_id() == id)
        };
        for (heading, ids) in HEADINGS.iter().chain(&BUILD_HEADINGS) {
            for id in *ids {
                assert!(has(id), "{heading}: {id}");
            }
        }
    }

    /// The help of a command, as `--help` shows it.
    fn help(words: &[&str]) -> String {
        let words = ["formwork"].iter().chain(words).chain(&["--help"]);
        command().try_get_matches_from(words).unwrap_err().to_string()
    }

    #[test]
    fn examples_are_command_lines() {
        for line in EXAMPLES.iter().flat_map(|(_, lines)| lines.lines()) {
            let line = line.split(['#', '|', '<']).next().unwrap();
            // As a shell would split it, as far as these lines go.
            let mut words: Vec<String> = Vec::new();
            for (at, part) in line.split(['\'', '"']).enumerate() {
                match at % 2 {
                    0 => words.extend(part.split_whitespace().map(str::to_owned)),
                    _ => words.push(part.to_owned()),
                }
            }
            if words[0] == "formwork" {
                command().try_get_matches_from(&words).unwrap();
            }
        }
    }

    #[test]
    fn registries_are_shown_where_they_matter() {
        assert!(help(&["build"]).contains("--authfile"));
        assert!(!help(&["du"]).contains("--authfile"));
        assert!(help(&["mounts", "export"]).contains("--authfile"));
        assert!(!help(&["mounts", "ls"]).contains("--authfile"));
        // They are taken all the same, as an alias or a script may pass them everywhere.
        command().try_get_matches_from(["formwork", "du", "--tls-verify=false"]).unwrap();
    }

    #[test]
    fn headings_hold_what_belongs_there() {
        let build = help(&["build"]);
        let at = |text: &str| build.find(text).unwrap_or_else(|| panic!("{text}"));
        assert!(at("Options:") < at("--progress") && at("--progress") < at("Result:"));
        assert!(at("Result:") < at("--push") && at("--push") < at("Cache:"));
        assert!(at("Cache:") < at("--no-cache-filter"));
        assert!(at("Examples:") > at("Global options:"));
        let prune = help(&["prune"]);
        assert!(prune.find("--dry-run") < prune.find("Space:"));
        assert!(help(&["run"]).find("Arguments:") < help(&["run"]).find("Options:"));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for line in help(&[]).lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
