//! No text makes the parser panic or point beside it.

use formwork_diagnostics::{Diagnostic, SourceFile, Span};
use proptest::prelude::*;

use crate::instruction::{CommandLine, Healthcheck, Heredoc, Source};
use crate::testing::{show, show_kind};
use crate::{
    Dockerfile, IgnoreFile, Instruction, InstructionKind, Word, expand, expand_heredoc,
    expand_words, parse, parse_trigger, variables_in,
};

/// A file in which everything occurs.
const RICH: &str = r#"# syntax=docker/dockerfile:1
# escape=\
# check=skip=A,B;error=false

ARG BASE=golang:1.22 EXTRA
# build compiles ☺
FROM --platform=$BUILDPLATFORM ${BASE:-a} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PATH="/a b:$PATH" X='y' \
    # a comment
    LONG="über \
  mehrere"
ENV old form of it
LABEL "a b"=c org.example.x="${X%%y*}"
WORKDIR /src/${X/a/b}
COPY --link --chown=1:$G --chmod=u=rwX go.* ["odd]" ./
COPY ["with space", "esc\u00e9\n\"\ud83d\ude00", "/d/"]
ADD --checksum=sha256:0 --keep-git-dir=true https://a.b/c.git#v1 /e
RUN --mount=type=cache,target=/root/.cache,sharing=locked --mount='type=secret,"id=a,b"' \
    --network=none --security=insecure --device=v/x,required \

    go build ./... && \
    echo "$X"
RUN <<EOF 3<<-'ÜBER' cat
body $X
EOF
	tabbed
	ÜBER
COPY <<one.txt <<two /both/
1 ${X:?no}
one.txt
2
two
EXPOSE 80 443/tcp ${P:-1-2}
VOLUME ["/a", "/b"]
USER 1000:1000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1m --retries=3 CMD ["a"]
# check=skip=all
ONBUILD COPY <<E /x
y
E
MAINTAINER somebody
FROM build
CMD []
ENTRYPOINT exec "$@"
"#;

/// Does everything that can be done with a text, and looks at every place that comes of it.
fn exercise(text: &str) {
    let parsed = parse(SourceFile::new("Dockerfile", text));
    let file = &parsed.dockerfile;
    check_diagnostics(&parsed.diagnostics, text);
    show(file);
    for word in words(file) {
        check_word(word, text);
        let _ = expand(word, file.directives.escape, &|_| Some("value".to_owned()));
        let _ = expand_words(word, file.directives.escape, &|_| None);
        variables_in(word, '`');
    }
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        check_span(instruction.span, text);
        for heredoc in heredocs(instruction) {
            check_span(heredoc.span, text);
            check_span(heredoc.content_span, text);
            let _ = expand_heredoc(heredoc, &|_| None);
        }
    }
}

fn check_diagnostics(diagnostics: &[Diagnostic], text: &str) {
    let labels = diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels);
    labels.for_each(|label| check_span(label.span, text));
}

fn check_span(span: Span, text: &str) {
    assert!(text.get(span.range()).is_some(), "{span:?} in {text:?}");
}

/// Every character of a word stands where the word says.
fn check_word(word: &Word, text: &str) {
    check_span(word.span(), text);
    for (at, character) in word.text().char_indices() {
        let span = word.span_of(at..at + character.len_utf8());
        let there = text.get(span.start as usize..).unwrap_or_default();
        // Only JSON has other characters than its source; a backslash stands for each of them.
        assert!(there.starts_with([character, '\\']), "{character:?} of {word:?} in {text:?}");
        assert_eq!(word.span().to(span), word.span(), "{word:?} in {text:?}");
    }
}

fn words(file: &Dockerfile) -> Vec<&Word> {
    let mut words = Vec::new();
    for arg in &file.global_args {
        words.extend(arg.kind.variables.iter().map(|variable| &variable.name));
    }
    for stage in &file.stages {
        let from = &stage.from.kind;
        words.push(&from.image);
        words.extend(from.platform.iter().chain(&from.as_keyword).chain(&from.alias));
        for instruction in &stage.instructions {
            words.extend(&instruction.comments);
            words.extend(instruction.kind.expanded_words());
            words.extend(other_words(&instruction.kind));
        }
    }
    words
}

/// The words in which nothing is expanded.
fn other_words(kind: &InstructionKind) -> Vec<&Word> {
    match kind {
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
            words_of_command(command).iter().collect()
        }
        InstructionKind::Healthcheck(Healthcheck::Command(check)) => {
            words_of_command(&check.command).iter().collect()
        }
        InstructionKind::Run(run) => {
            let devices = run.devices.iter().map(|device| &device.name);
            devices.chain(words_of_command(&run.command)).collect()
        }
        InstructionKind::Copy(copy) => copy.from.iter().chain(&copy.files.excludes).collect(),
        InstructionKind::Add(add) => add.files.excludes.iter().collect(),
        InstructionKind::Arg(arg) => arg.variables.iter().map(|variable| &variable.name).collect(),
        InstructionKind::Shell(words) => words.iter().collect(),
        InstructionKind::Maintainer(word) => vec![word],
        _ => Vec::new(),
    }
}

fn words_of_command(command: &CommandLine) -> &[Word] {
    match command {
        CommandLine::Shell(line) => std::slice::from_ref(line),
        CommandLine::Exec(arguments) => arguments,
    }
}

fn heredocs(instruction: &Instruction) -> Vec<&Heredoc> {
    match &instruction.kind {
        InstructionKind::Run(run) => run.heredocs.iter().collect(),
        InstructionKind::Copy(copy) => {
            let sources = copy.files.sources.iter();
            let heredocs = sources.filter_map(|source| match source {
                Source::Heredoc(heredoc) => Some(heredoc),
                Source::Path(_) => None,
            });
            heredocs.collect()
        }
        InstructionKind::Onbuild(onbuild) => heredocs(&onbuild.trigger),
        _ => Vec::new(),
    }
}

#[test]
fn a_rich_file_is_sound() {
    let parsed = parse(SourceFile::new("Dockerfile", RICH));
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.dockerfile.stages[0].instructions.len(), 18);
    assert!(words(&parsed.dockerfile).len() > 40);
    exercise(RICH);
}

#[test]
fn every_beginning_and_every_end_of_it_can_be_parsed() {
    for (at, _) in RICH.char_indices() {
        exercise(&RICH[..at]);
        exercise(&RICH[at..]);
    }
}

#[test]
fn any_character_of_it_may_be_missing_or_be_another() {
    for (at, character) in RICH.char_indices() {
        let (before, behind) = (&RICH[..at], &RICH[at + character.len_utf8()..]);
        for other in ["", "\\", "\n", "\"", "$", "<", "{", "ü", "\0"] {
            exercise(&format!("{before}{other}{behind}"));
        }
    }
}

#[test]
fn a_trigger_means_what_the_instruction_means() {
    let parsed = parse(SourceFile::new("Dockerfile", RICH));
    let refused = ["MAINTAINER", "ONBUILD"];
    let stage = &parsed.dockerfile.stages[0];
    for instruction in &stage.instructions {
        if refused.contains(&instruction.kind.name()) {
            continue;
        }
        let text = RICH.get(instruction.span.range()).unwrap();
        let file = format!("FROM a\nONBUILD {text}");
        let onbuild = parse(SourceFile::new("Dockerfile", file)).dockerfile;
        let InstructionKind::Onbuild(onbuild) = &onbuild.stages[0].instructions[0].kind else {
            panic!("{text}")
        };
        let (trigger, _) = parse_trigger(&onbuild.expression, "a trigger");
        assert_eq!(show_kind(&onbuild.trigger.kind), show_kind(&instruction.kind));
        assert_eq!(show_kind(&trigger.unwrap().kind), show_kind(&instruction.kind));
    }
}

/// Pieces of Dockerfiles in any order.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM a\n",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "CMD ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "LABEL ",
        "EXPOSE ",
        "VOLUME ",
        "--mount=",
        "--from=",
        "--",
        "type=cache,",
        "<<EOF",
        "<<-E",
        "EOF\n",
        "E\n",
        "\\\n",
        "\\",
        "\n",
        "\r\n",
        " ",
        "\t",
        "# ",
        "# check=",
        "# escape=`\n",
        "\"",
        "'",
        "[\"",
        "\", \"",
        "\"]",
        "$",
        "${",
        "}",
        ":-",
        "/",
        "%%",
        "a",
        "=",
        "é",
        "☺",
        "\u{a0}",
        ",",
        "`",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_can_be_parsed(text: String) {
        exercise(&text);
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_pieces_can_be_parsed(text in soup()) {
        exercise(&text);
        exercise(&format!("FROM a\n{text}"));
    }

    #[test]
    fn any_trigger_can_be_parsed(text in soup()) {
        let (_, diagnostics) = parse_trigger(&text, "a trigger");
        check_diagnostics(&diagnostics, &text);
    }

    #[test]
    fn any_ignore_file_can_be_parsed(text: String, path: String) {
        let (file, diagnostics) = IgnoreFile::parse(SourceFile::new(".dockerignore", text.as_str()));
        check_diagnostics(&diagnostics, &text);
        if let Some((_, span)) = file.line_about(path.as_bytes()) {
            check_span(span, &text);
        }
    }
}
