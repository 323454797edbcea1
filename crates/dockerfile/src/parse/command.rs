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

#[cfg(test)]
mod tests {
    use crate::InstructionKind;
    use crate::instruction::Script;
    use crate::testing::{check_said, check_stage, only_instruction};

    #[test]
    fn commands_are_text_or_json() {
        check_stage("RUN make  all", r#"RUN "make  all""#);
        check_stage("RUN a && \\\n    b # not a comment", r#"RUN "a &&     b # not a comment""#);
        check_stage(r#"RUN ["a", "b c"]"#, r#"RUN ["a", "b c"]"#);
        check_stage("RUN [ -f x ] && y", r#"RUN "[ -f x ] && y""#);
        check_stage("CMD ['a']", r#"CMD "['a']""#);
        check_stage("CMD []", "CMD []");
        check_stage(r#"CMD ["a"] # x"#, r#"CMD "[\"a\"] # x""#);
        check_stage("CMD", r#"CMD """#);
        check_stage("RUN", r#"RUN """#);
        check_stage("ENTRYPOINT []random", r#"ENTRYPOINT "[]random""#);
        check_stage(r#"ENTRYPOINT ["/a"]"#, r#"ENTRYPOINT ["/a"]"#);
        check_stage("CMD exec \"$@\" $x", r#"CMD "exec \"$@\" $x""#);
        check_stage(r#"SHELL ["/bin/bash", "-c"]"#, r#"SHELL ["/bin/bash", "-c"]"#);
        check_stage("RUN -- --a", r#"RUN "--a""#);
    }

    #[test]
    fn run_has_flags() {
        check_stage(
            "RUN --network=none --security=insecure a",
            r#"RUN "a" network=none security=insecure"#,
        );
        check_stage(
            "RUN --network=host --security=sandbox a",
            r#"RUN "a" network=host security=sandbox"#,
        );
        check_stage(
            "RUN --device=v.com/gpu=all --device=name=v.com/x,required --device=y,required=false a",
            r#"RUN "a" device(v.com/gpu=all) device(v.com/x required) device(y)"#,
        );
        check_stage(
            "RUN --mount=target=/a --mount=type=cache,dst=/b,rw a",
            r#"RUN "a" mount(target=/a) mount(type=cache target=/b rw)"#,
        );
    }

    #[test]
    fn wrong_commands_are_told() {
        check_said(
            "FROM a\nRUN [1]\nSHELL bash -c\nSHELL []\nCMD --x a\nRUN --network=non --security= a",
            "
            RUN [1]
                ^^^
            error[bad-json]: the JSON array holds something else than strings
              help: put each of its elements between double quotes
            SHELL bash -c
            ^^^^^^^^^^^^^
            error[bad-shell]: `SHELL` needs a command in JSON form
              help: write `SHELL [\"/bin/bash\", \"-c\"]`
            SHELL []
            ^^^^^^^^
            error[bad-shell]: `SHELL` needs a command in JSON form
              help: write `SHELL [\"/bin/bash\", \"-c\"]`
            CMD --x a
                ^^^
            error[unknown-flag]: `CMD` has no flag `--x`
            RUN --network=non --security= a
                          ^^^
            error[bad-flag-value]: `non` is no value of `--network`
              help: did you mean `none`?
            RUN --network=non --security= a
                                         ^
            error[bad-flag-value]: `` is no value of `--security`
              help: it can be `sandbox`, `insecure`
            ",
        );
        check_said(
            "FROM a\nRUN --device=a,b --device=required --device=a,required=x --device='a\"' x",
            "
            RUN --device=a,b --device=required --device=a,required=x --device='a\"' x
                           ^
            error[bad-device]: `b`: a device has one name
              help: write `--device=vendor/class=name,required`
            RUN --device=a,b --device=required --device=a,required=x --device='a\"' x
                                      ^^^^^^^^
            error[bad-device]: `required`: a device needs a name
              help: write `--device=vendor/class=name,required`
            RUN --device=a,b --device=required --device=a,required=x --device='a\"' x
                                                          ^^^^^^^^^^
            error[bad-device]: `required=x`: `required` is `true` or `false`
              help: write `--device=vendor/class=name,required`
            RUN --device=a,b --device=required --device=a,required=x --device='a\"' x
                                                                                ^
            error[bad-list]: a quote stands within a field or has no counterpart
              help: put the whole field between double quotes, or none of it
            ",
        );
    }

    #[track_caller]
    fn check_script(text: &str, check: impl Fn(Script<'_>) -> bool) {
        let InstructionKind::Run(run) = only_instruction(text) else { panic!("{text}") };
        assert!(check(run.script()), "{text} gives {:?}", run.script());
    }

    #[test]
    fn a_heredoc_alone_is_the_script() {
        check_script("RUN make", |script| script == Script::Shell("make".into()));
        check_script("RUN [\"make\"]", |script| matches!(script, Script::Exec([_])));
        check_script("RUN <<EOF\na\nb\nEOF", |script| script == Script::Shell("a\nb\n".into()));
        check_script("RUN 3<<-'E F'\n\ta\n\tE F", |script| script == Script::Shell("a\n".into()));
        check_script("RUN --network=none <<-X\n\t#!/bin/awk -f\n\t\tx\n\tX", |script| {
            script == Script::File { name: "X", content: "#!/bin/awk -f\nx\n".into() }
        });
        check_script("RUN <<-EOF cat >a\n\tx\n\tEOF", |script| {
            script == Script::Shell("<<-EOF cat >a\n\tx\nEOF".into())
        });
        check_script("RUN a <<A ; b <<B\n1\nA\n2\nB", |script| {
            script == Script::Shell("a <<A ; b <<B\n1\nA\n2\nB".into())
        });
    }
}
