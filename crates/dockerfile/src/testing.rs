//! How the tests of this crate show what was parsed, and what was said about it.

use std::fmt::Write as _;

use formwork_diagnostics::{Diagnostic, SourceFile, Span};

use crate::instruction::{
    Arg, CommandLine, From, HealthCommand, Healthcheck, Heredoc, Network, Pairs, Run, Security,
    Source, Spanned, Transfer,
};
use crate::mount::Mount;
use crate::{Check, Dockerfile, Instruction, InstructionKind, RuleNames, Word, parse};

/// Parses a file that nothing is to be said about, and compares it with what is expected.
#[track_caller]
pub(crate) fn check(text: &str, expected: &str) {
    let parsed = parse(SourceFile::new("Dockerfile", text));
    let said = annotate(&parsed.diagnostics);
    assert!(said.is_empty(), "{text}\nis complained about:\n{said}");
    assert_same(text, &show(&parsed.dockerfile), expected);
}

/// Parses the instructions of a stage that nothing is to be said about.
#[track_caller]
pub(crate) fn check_stage(text: &str, expected: &str) {
    check(&format!("FROM scratch\n{text}"), &format!("FROM scratch\n{}", unindent(expected)));
}

/// Compares what is said about a file with what is expected.
#[track_caller]
pub(crate) fn check_said(text: &str, expected: &str) {
    let parsed = parse(SourceFile::new("Dockerfile", text));
    assert_same(text, &annotate(&parsed.diagnostics), expected);
}

/// The one instruction behind a `FROM`.
#[track_caller]
pub(crate) fn only_instruction(text: &str) -> InstructionKind {
    let parsed = parse(SourceFile::new("Dockerfile", format!("FROM scratch\n{text}")));
    let said = annotate(&parsed.diagnostics);
    assert!(said.is_empty(), "{text}\nis complained about:\n{said}");
    let [stage] = &parsed.dockerfile.stages[..] else { panic!("{text}: not one stage") };
    let [instruction] = &stage.instructions[..] else { panic!("{text}: not one instruction") };
    instruction.kind.clone()
}

/// The one word of a file that says nothing but `USER` and that word.
#[track_caller]
pub(crate) fn word(text: &str) -> Word {
    match only_instruction(&format!("USER {text}")) {
        InstructionKind::User(word) => word,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_same(text: &str, shown: &str, expected: &str) {
    let expected = unindent(expected);
    assert!(shown.trim_end() == expected.trim_end(), "{text}\ngives\n{shown}\nand not\n{expected}");
}

/// Takes away the indentation that all lines share, and an empty first line.
fn unindent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let filled = text.lines().filter(|line| !line.trim().is_empty());
    let indent = filled.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    text.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect()
}

/// Each diagnostic below the line that it is about, with carets at the place.
pub(crate) fn annotate(diagnostics: &[Diagnostic]) -> String {
    let mut shown = String::new();
    for diagnostic in diagnostics {
        let kind = diagnostic.severity.as_str();
        if let (Some(source), Some(span)) = (&diagnostic.source, diagnostic.primary_span()) {
            shown += &carets(source, span);
        }
        writeln!(shown, "{kind}[{}]: {}", diagnostic.code, diagnostic.message).unwrap();
        for label in diagnostic.labels.iter().skip(1) {
            let source = diagnostic.source.as_ref().unwrap();
            let line = source.position(label.span.start).line;
            writeln!(shown, "  line {line}: {}", label.text).unwrap();
        }
        for help in &diagnostic.help {
            writeln!(shown, "  help: {help}").unwrap();
        }
    }
    shown
}

fn carets(source: &SourceFile, span: Span) -> String {
    let start = source.position(span.start);
    let line = source.line_span(start.line).unwrap();
    let marked = Span::new(span.start as usize, span.end.min(line.end) as usize);
    let width = source.slice(marked).chars().count().max(1);
    let indent = " ".repeat(start.column - 1);
    format!("{}\n{indent}{}\n", source.slice(line), "^".repeat(width))
}

/// The whole file, an instruction on a line.
pub(crate) fn show(file: &Dockerfile) -> String {
    let mut shown = String::new();
    let directives = &file.directives;
    if let Some(syntax) = &directives.syntax {
        writeln!(shown, "syntax {}", text(syntax)).unwrap();
    }
    if directives.escape != '\\' {
        writeln!(shown, "escape {}", directives.escape).unwrap();
    }
    if let Some(check) = &directives.check {
        writeln!(shown, "check {}", show_check(check)).unwrap();
    }
    for instruction in &file.global_args {
        writeln!(shown, "{}", show_arg(&instruction.kind)).unwrap();
    }
    for stage in &file.stages {
        let From { platform, image, alias, .. } = &stage.from.kind;
        write!(shown, "FROM {}", text(image)).unwrap();
        shown += &option("platform", platform);
        shown += &option("AS", alias);
        if let Some(description) = &stage.description {
            write!(shown, " described {description:?}").unwrap();
        }
        shown += &common(&stage.from);
        shown += "\n";
        for instruction in &stage.instructions {
            writeln!(shown, "{}{}", show_kind(&instruction.kind), common(instruction)).unwrap();
        }
    }
    shown
}

/// What any instruction may have.
fn common<Kind>(instruction: &Instruction<Kind>) -> String {
    let mut shown = String::new();
    if let Some(check) = &instruction.check {
        write!(shown, " check {}", show_check(check)).unwrap();
    }
    if !instruction.blank_lines.is_empty() {
        write!(shown, " blank lines {}", instruction.blank_lines.len()).unwrap();
    }
    shown
}

fn show_check(check: &Check) -> String {
    let names = |names: &RuleNames| match names {
        RuleNames::All => "all".to_owned(),
        RuleNames::Named(names) => list(names),
    };
    format!(
        "skip {} experimental {} error {}",
        names(&check.skip),
        names(&check.experimental),
        check.error
    )
}

/// The kind of an instruction on one line, except for heredocs' contents.
pub(crate) fn show_kind(kind: &InstructionKind) -> String {
    let name = kind.name();
    match kind {
        InstructionKind::Add(add) => {
            let transfer = show_transfer(name, &add.files);
            let checksum = option("checksum", &add.checksum);
            let unpack = flag("unpack", add.unpack);
            format!("{transfer}{checksum}{unpack}{}", flag("keep-git-dir", add.keep_git_dir))
        }
        InstructionKind::Copy(copy) => {
            let transfer = show_transfer(name, &copy.files);
            let from = option("from", &copy.from);
            format!("{transfer}{from}{}", flag("parents", copy.parents))
        }
        InstructionKind::Arg(arg) => show_arg(arg),
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
            format!("{name} {}", show_command(command))
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            format!("{name}{}", show_pairs(pairs))
        }
        InstructionKind::Expose(words)
        | InstructionKind::Volume(words)
        | InstructionKind::Shell(words) => format!("{name} {}", list(words)),
        InstructionKind::Healthcheck(Healthcheck::None) => format!("{name} none"),
        InstructionKind::Healthcheck(Healthcheck::Command(check)) => {
            format!("{name} {}", show_health(check))
        }
        InstructionKind::Maintainer(word)
        | InstructionKind::Stopsignal(word)
        | InstructionKind::User(word)
        | InstructionKind::Workdir(word) => format!("{name} {}", text(word)),
        InstructionKind::Onbuild(onbuild) => {
            format!("{name} {:?} = {}", onbuild.expression, show_kind(&onbuild.trigger.kind))
        }
        InstructionKind::Run(run) => show_run(run),
    }
}

fn show_arg(arg: &Arg) -> String {
    let mut shown = "ARG".to_owned();
    for variable in &arg.variables {
        write!(shown, " {}", text(&variable.name)).unwrap();
        if let Some(default) = &variable.default {
            write!(shown, "={}", text(default)).unwrap();
        }
        if let Some(description) = &variable.description {
            write!(shown, " described {description:?}").unwrap();
        }
    }
    shown
}

fn show_pairs(pairs: &Pairs) -> String {
    let separator = if pairs.is_legacy { " (legacy) " } else { "=" };
    let shown = pairs
        .pairs
        .iter()
        .map(|pair| format!(" {}{separator}{}", text(&pair.key), text(&pair.value)));
    shown.collect()
}

fn show_transfer(name: &str, files: &Transfer) -> String {
    let sources = files.sources.iter().map(|source| match source {
        Source::Path(path) => format!(" {}", text(path)),
        Source::Heredoc(heredoc) => format!(" {}", show_heredoc(heredoc)),
    });
    let excludes = files.excludes.iter().map(|exclude| format!(" exclude={}", text(exclude)));
    format!(
        "{name}{} -> {}{}{}{}{}",
        sources.collect::<String>(),
        text(&files.destination),
        option("chown", &files.chown),
        option("chmod", &files.chmod),
        flag("link", files.link),
        excludes.collect::<String>(),
    )
}

fn show_run(run: &Run) -> String {
    let mut shown = format!("RUN {}", show_command(&run.command));
    run.mounts.iter().for_each(|mount| shown += &show_mount(mount));
    match run.network.map(|network| network.value) {
        None => {}
        Some(Network::Default) => shown += " network=default",
        Some(Network::None) => shown += " network=none",
        Some(Network::Host) => shown += " network=host",
    }
    match run.security.map(|security| security.value) {
        None => {}
        Some(Security::Sandbox) => shown += " security=sandbox",
        Some(Security::Insecure) => shown += " security=insecure",
    }
    for device in &run.devices {
        let required = if device.required { " required" } else { "" };
        write!(shown, " device({}{required})", text(&device.name)).unwrap();
    }
    for heredoc in &run.heredocs {
        write!(shown, " {}", show_heredoc(heredoc)).unwrap();
    }
    shown
}

fn show_mount(mount: &Mount) -> String {
    let access = mount.access.as_ref().map_or(String::new(), |access| {
        let key = if access.writable { "rw" } else { "ro" };
        access.value.as_ref().map_or(format!(" {key}"), |value| format!(" {key}={}", text(value)))
    });
    let required = mount.required.as_ref().map_or(String::new(), |required| {
        let value = required.value.as_ref();
        value.map_or(" required".to_owned(), |value| format!(" required={}", text(value)))
    });
    let keys = [
        option("type", &mount.kind),
        option("from", &mount.from),
        option("source", &mount.source),
        option("target", &mount.target),
        access,
        required,
        option("id", &mount.id),
        option("sharing", &mount.sharing),
        option("size", &mount.size),
        option("mode", &mount.mode),
        option("uid", &mount.uid),
        option("gid", &mount.gid),
        option("env", &mount.env),
    ];
    format!(" mount({})", keys.concat().trim_start())
}

fn show_health(check: &HealthCommand) -> String {
    let times = [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ];
    let times = times.into_iter().filter_map(|(name, time)| Some(format!(" {name}={:?}", time?)));
    let retries = check.retries.map_or(String::new(), |retries| format!(" retries={retries}"));
    format!("{}{}{retries}", show_command(&check.command), times.collect::<String>())
}

fn show_command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(line) => format!("{:?}", line.text()),
        CommandLine::Exec(arguments) => list(arguments),
    }
}

fn show_heredoc(heredoc: &Heredoc) -> String {
    let descriptor = heredoc.descriptor.map_or(String::new(), |number| number.to_string());
    let dash = if heredoc.strip_tabs { "-" } else { "" };
    let quote = if heredoc.expand { "" } else { "'" };
    format!("{descriptor}<<{dash}{quote}{}{quote} {:?}", heredoc.name, heredoc.content)
}

fn list(words: &[Word]) -> String {
    format!("{:?}", words.iter().map(Word::text).collect::<Vec<_>>())
}

fn option(name: &str, word: &Option<Word>) -> String {
    word.as_ref().map_or(String::new(), |word| format!(" {name}={}", text(word)))
}

fn flag(name: &str, value: Option<Spanned<bool>>) -> String {
    value.map_or(String::new(), |flag| format!(" {name}={}", flag.value))
}

/// The text as it is, or quoted where one could not tell it from what is around it.
fn text(word: &Word) -> String {
    let is_plain = !word.is_empty() && !word.text().contains(char::is_whitespace);
    if is_plain { word.text().to_owned() } else { format!("{:?}", word.text()) }
}
