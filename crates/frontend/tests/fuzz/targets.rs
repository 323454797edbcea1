//! What inputs are handed to, and what has to hold of what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use formwork_diagnostics::{Diagnostic, SourceFile, Span};
use formwork_dockerfile::instruction::{Heredoc, Source};
use formwork_dockerfile::{
    Dockerfile, IgnoreFile, Instruction, InstructionKind, expand, expand_heredoc, expand_words,
    parse, parse_trigger, variables_in,
};
use formwork_frontend::{
    Options, ResolvedImage, ResolvedImages, image_requests, lower, outline, stage_findings, targets,
};
use formwork_oci::{Digest, ImageConfig, Platform};

/// Something that takes texts.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Stops the test where something does not hold. Yields a number for the kind of the input: what
    /// is made of it and said about it, without its words.
    pub(crate) run: fn(&str) -> u64,
    /// How many bytes it may allocate, all in all, for each byte of the input; less than what the
    /// square of a long input's length would be.
    pub(crate) most: usize,
    /// How many bytes it may allocate besides: what variables may come to, each time that they are
    /// expanded.
    pub(crate) flat: usize,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "parser", run: parser, most: 4000, flat: 0 },
    Target { name: "expansion", run: expansion, most: 4000, flat: 512 << 20 },
    Target { name: "ignore", run: ignore, most: 4000, flat: 0 },
    Target { name: "lowering", run: lowering, most: 16_000, flat: 2 << 30 },
];

/// How much text is enough: a build, too, gives up when its words have come to too much.
const ENOUGH: usize = 16 << 20;
/// What a mistake counts.
const MISTAKE: usize = 1 << 20;

/// A Dockerfile.
fn parser(text: &str) -> u64 {
    let parsed = parse(SourceFile::new("Dockerfile", text));
    let again = parse(SourceFile::new("Dockerfile", text));
    assert_eq!(parsed.diagnostics, again.diagnostics);
    let file = &parsed.dockerfile;
    check_diagnostics(&parsed.diagnostics, text);
    for instruction in instructions(file) {
        check_span(instruction.span, text);
        for heredoc in heredocs(instruction) {
            check_span(heredoc.span, text);
            check_span(heredoc.content_span, text);
        }
        if let InstructionKind::Onbuild(onbuild) = &instruction.kind {
            let (trigger, _) = parse_trigger(&onbuild.expression, "a trigger");
            let kind = trigger.map(|trigger| trigger.kind.name());
            // What an image keeps has to be read as what was written.
            let is_sound = file.directives.escape == '\\' && parsed.diagnostics.is_empty();
            assert!(!is_sound || kind == Some(onbuild.trigger.kind.name()), "{onbuild:?}");
        }
    }
    kind_of(file, &parsed.diagnostics)
}

/// Words, a line each, with the lines before the first empty one as values of variables.
fn expansion(text: &str) -> u64 {
    let (values, words) = text.split_once("\n\n").unwrap_or(("", text));
    let values: BTreeMap<&str, &str> = values.lines().filter_map(|l| l.split_once('=')).collect();
    let lookup = |name: &str| values.get(name).map(|value| (*value).to_owned());
    let file: String = words.lines().map(|word| format!("ENV V={word}\nEXPOSE {word}\n")).collect();
    let text = format!("FROM a\n{file}COPY <<EOF /\n{words}\nEOF\n");
    let parsed = parse(SourceFile::new("Dockerfile", text.as_str()));
    let mut said = parsed.diagnostics.clone();
    let mut cost = 0;
    for instruction in instructions(&parsed.dockerfile) {
        for word in instruction.kind.expanded_words() {
            if cost > ENOUGH {
                break;
            }
            let source = &parsed.dockerfile.source;
            variables_in(word, '\\');
            match (expand(word, '\\', &lookup), expand_words(word, '\\', &lookup)) {
                (Ok(one), Ok(words)) => {
                    cost += one.cost() + words.cost();
                    one.unknown.iter().for_each(|(_, span)| check_span(*span, &text));
                    words.unknown.iter().for_each(|(_, span)| check_span(*span, &text));
                }
                (Err(error), _) | (_, Err(error)) => {
                    cost += MISTAKE;
                    said.push(error.to_diagnostic(source));
                }
            }
        }
        for heredoc in heredocs(instruction) {
            let expanded = expand_heredoc(heredoc, &lookup);
            said.extend(expanded.err().map(|error| error.to_diagnostic(&parsed.dockerfile.source)));
        }
    }
    check_diagnostics(&said, &text);
    kind_of(&parsed.dockerfile, &said)
}

/// An ignore file; its lines are the paths that it is asked about, too.
fn ignore(text: &str) -> u64 {
    let (file, said) = IgnoreFile::parse(SourceFile::new(".dockerignore", text));
    check_diagnostics(&said, text);
    let mut hasher = DefaultHasher::new();
    for path in text.lines().take(20) {
        let path = path.trim_matches('/').as_bytes();
        if let Some((_, span)) = file.line_about(path) {
            check_span(span, text);
        }
        format!("{:?}", file.judge(path, false)).hash(&mut hasher);
        file.judge(path, true);
    }
    codes(&said).hash(&mut hasher);
    hasher.finish()
}

/// A Dockerfile whose images are all there, with triggers of their own.
fn lowering(text: &str) -> u64 {
    let parsed = parse(SourceFile::new("Dockerfile", text));
    let (file, options) = (&parsed.dockerfile, options());
    let mut said = stage_findings(file, &options);
    said.extend(outline(file, &options).err().unwrap_or_default());
    targets(file);
    let mut resolved = ResolvedImages::new();
    // Images' triggers ask for more images, but not for ever.
    for _ in 0..4 {
        match image_requests(file, &options, &resolved) {
            Ok(requests) if requests.is_empty() => break,
            Ok(requests) => resolved.extend(requests.into_iter().map(|one| (one.key, image()))),
            Err(wrong) => {
                said.extend(wrong);
                break;
            }
        }
    }
    match lower(file, &options, &resolved) {
        Ok(lowered) => said.extend(lowered.diagnostics),
        Err(wrong) => {
            assert!(wrong.iter().any(Diagnostic::is_error), "{wrong:?}");
            said.extend(wrong);
        }
    }
    for diagnostic in &said {
        assert!(diagnostic.code != "internal", "{diagnostic:?}");
        if let Some(source) = &diagnostic.source {
            check_diagnostics(std::slice::from_ref(diagnostic), source.text());
        }
    }
    kind_of(file, &said)
}

fn options() -> Options {
    Options {
        build_args: BTreeMap::from([("GIVEN".to_owned(), "value".to_owned())]),
        all_stages: true,
        ..Options::new(Platform::host(), Platform::host())
    }
}

fn image() -> ResolvedImage {
    let mut config = ImageConfig::default();
    config.config.env = vec!["PATH=/bin".to_owned(), "E=env".to_owned()];
    config.config.on_build = vec!["COPY --from=b $E /x".to_owned()];
    ResolvedImage { manifest: Digest::of(b"an image"), config }
}

fn instructions(file: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    file.stages.iter().flat_map(|stage| &stage.instructions)
}

fn heredocs(instruction: &Instruction) -> Vec<&Heredoc> {
    let of = |source: &'_ Source| matches!(source, Source::Heredoc(_));
    let sources = match &instruction.kind {
        InstructionKind::Run(run) => return run.heredocs.iter().collect(),
        InstructionKind::Copy(copy) => &copy.files.sources,
        InstructionKind::Add(add) => &add.files.sources,
        InstructionKind::Onbuild(onbuild) => return heredocs(&onbuild.trigger),
        _ => return Vec::new(),
    };
    let heredocs = sources.iter().filter(|source| of(source)).filter_map(|source| match source {
        Source::Heredoc(heredoc) => Some(heredoc),
        Source::Path(_) => None,
    });
    heredocs.collect()
}

fn check_diagnostics(diagnostics: &[Diagnostic], text: &str) {
    let labels = diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels);
    labels.for_each(|label| check_span(label.span, text));
}

#[track_caller]
fn check_span(span: Span, text: &str) {
    assert!(text.get(span.range()).is_some(), "{span:?} in {text:?}");
}

fn codes(said: &[Diagnostic]) -> BTreeSet<&str> {
    said.iter().map(|diagnostic| diagnostic.code.as_ref()).collect()
}

fn kind_of(file: &Dockerfile, said: &[Diagnostic]) -> u64 {
    let mut hasher = DefaultHasher::new();
    instructions(file).map(|one| one.kind.name()).collect::<BTreeSet<_>>().hash(&mut hasher);
    codes(said).hash(&mut hasher);
    file.stages.len().min(3).hash(&mut hasher);
    hasher.finish()
}
