//! What the rules of `lint` find that depends on the values of variables.
//!
//! The findings bear the names of BuildKit's rules, and its messages; whether they count is not
//! decided here.

use std::collections::{BTreeMap, BTreeSet};

use formwork_diagnostics::{Diagnostic, SourceFile, Span, nearest};
use formwork_dockerfile::instruction::{Heredoc, Source};
use formwork_dockerfile::{
    Dockerfile, ExpandError, InstructionKind, Word, expand, expand_heredoc, variables_in,
};
use formwork_oci::Reference;

use crate::Options;
use crate::scope::{GlobalScope, StageScope};

/// What there is to say about the `FROM` lines of all stages, also where the file cannot be built.
#[must_use]
pub fn stage_findings(dockerfile: &Dockerfile, options: &Options) -> Vec<Diagnostic> {
    let (global, _) = GlobalScope::new(dockerfile, options, options.target.as_deref());
    about_stages(dockerfile, options, &global)
}

/// As [`stage_findings`], for those who know the arguments.
pub(crate) fn about_stages(
    dockerfile: &Dockerfile,
    options: &Options,
    global: &GlobalScope,
) -> Vec<Diagnostic> {
    let unset = Options { build_args: BTreeMap::new(), ..options.clone() };
    let (defaults, _) = GlobalScope::new(dockerfile, &unset, None);
    let mut found = Vec::new();
    for stage in &dockerfile.stages {
        let from = &stage.from.kind;
        for word in from.platform.iter().chain([&from.image]) {
            found.extend(undeclared(dockerfile, global, word));
        }
        found.extend(invalid_default(dockerfile, &defaults, &from.image));
    }
    found
}

/// The variables of a word of `FROM` that nobody declares.
fn undeclared(dockerfile: &Dockerfile, global: &GlobalScope, word: &Word) -> Vec<Diagnostic> {
    let args = dockerfile.global_args.iter().flat_map(|arg| &arg.kind.variables);
    let names: Vec<&str> = args.map(|variable| variable.name.text()).collect();
    let lookup = |name: &str| {
        let known = global.get(name).map(str::to_owned);
        known.or_else(|| names.contains(&name).then(String::new))
    };
    let warning = |(name, span): (String, Span)| {
        let hint = nearest(&name, names.iter().copied().chain(global.names()));
        let hint = hint.map(|nearest| format!(" (did you mean {nearest}?)")).unwrap_or_default();
        let message = format!("FROM argument '{name}' is not declared{hint}");
        Diagnostic::warning("UndefinedArgInFrom", message).at(&dockerfile.source, span, "")
    };
    unknown(word, dockerfile.directives.escape, &lookup).into_iter().map(warning).collect()
}

/// A base whose name is none unless somebody gives an argument.
fn invalid_default(
    dockerfile: &Dockerfile,
    defaults: &GlobalScope,
    image: &Word,
) -> Option<Diagnostic> {
    let escape = dockerfile.directives.escape;
    if variables_in(image, escape).is_empty() {
        return None;
    }
    let name = defaults.expand(image, escape).ok()?;
    if name.parse::<Reference>().is_ok() {
        return None;
    }
    let written = image.text();
    let message =
        format!("Default value for ARG {written} results in empty or invalid base image name");
    let warning = Diagnostic::warning("InvalidDefaultArgInFrom", message);
    Some(warning.at(&dockerfile.source, image.span(), ""))
}

/// The variables of an instruction of a stage that nobody has declared or set at that point.
pub(crate) fn undefined(
    kind: &InstructionKind,
    source: &SourceFile,
    escape: char,
    scope: &StageScope,
) -> Vec<Diagnostic> {
    // Of an ARG with several variables the later see the earlier.
    let own: Vec<&str> = match kind {
        InstructionKind::Arg(arg) => arg.variables.iter().map(|v| v.name.text()).collect(),
        _ => Vec::new(),
    };
    let lookup = |name: &str| {
        let known = scope.get(name).map(str::to_owned);
        let is_declared = || own.contains(&name) || scope.declares(name);
        known.or_else(|| is_declared().then(String::new))
    };
    let words = kind.expanded_words();
    let mut found: Vec<_> =
        words.into_iter().flat_map(|word| unknown(word, escape, &lookup)).collect();
    for heredoc in heredocs(kind) {
        found.extend(expand_heredoc(heredoc, &lookup).map(|e| e.unknown).unwrap_or_default());
    }
    let mut told = BTreeSet::new();
    found.retain(|(name, _)| told.insert(name.clone()));
    let names = || scope.variables().iter().map(|(name, _)| name.as_str());
    let warning = |(name, span): (String, Span)| {
        let hint = nearest(&name, names());
        let hint = hint.map(|nearest| format!(" (did you mean ${nearest}?)")).unwrap_or_default();
        let message = format!("Usage of undefined variable '${name}'{hint}");
        Diagnostic::warning("UndefinedVar", message).at(source, span, "")
    };
    found.into_iter().map(warning).collect()
}

fn heredocs<'a>(kind: &'a InstructionKind) -> Vec<&'a Heredoc> {
    let files = match kind {
        InstructionKind::Copy(copy) => &copy.files,
        InstructionKind::Add(add) => &add.files,
        _ => return Vec::new(),
    };
    let heredoc = |source: &'a Source| match source {
        Source::Heredoc(heredoc) if heredoc.expand => Some(heredoc),
        _ => None,
    };
    files.sources.iter().filter_map(heredoc).collect()
}

/// What cannot be expanded at all is told elsewhere.
fn unknown(
    word: &Word,
    escape: char,
    lookup: &formwork_dockerfile::Variables<'_>,
) -> Vec<(String, Span)> {
    let result: Result<_, ExpandError> = expand(word, escape, lookup);
    result.map(|expanded| expanded.unknown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use formwork_dockerfile::parse;
    use formwork_oci::Platform;

    use super::*;
    use crate::{ResolvedImages, lower};

    fn findings(text: &str) -> Vec<String> {
        let parsed = parse(SourceFile::new("Dockerfile", text));
        let options = Options {
            build_args: [("GIVEN".to_owned(), "cratch".to_owned())].into(),
            all_stages: true,
            ..Options::new(Platform::host(), Platform::host())
        };
        let lowered = lower(&parsed.dockerfile, &options, &ResolvedImages::new()).unwrap();
        let warnings = lowered.diagnostics.iter();
        warnings.map(|warning| format!("{}: {}", warning.code, warning.message)).collect()
    }

    #[test]
    fn variables_are_defined_before_their_use() {
        for fine in [
            "ENV A=1 B=2\nENV C=$A$B",
            "ARG A\nENV C=$A",
            "ARG A=1 B=$A",
            "ENV A=${B:-x} C=${D+y}",
            "COPY <<'EOF' /a\n$B\nEOF",
            "RUN echo $B",
            "CMD [\"$B\"]",
            "ENV PATH=$PATH:/x",
        ] {
            let found = findings(&format!("FROM scratch\nARG GIVEN\n{fine}\n"));
            assert_eq!(found, [""; 0], "{fine}");
        }
        for undefined in [
            "ENV A=1 B=$C",
            "LABEL a=$C",
            "WORKDIR /$C",
            "COPY <<EOF /a\n$C\nEOF",
            "RUN --mount=type=tmpfs,target=/x$C true",
            "COPY --chown=$C:$C a /",
        ] {
            let found = findings(&format!("FROM scratch\nARG GIVEN\n{undefined}\n"));
            assert_eq!(found, ["UndefinedVar: Usage of undefined variable '$C'"], "{undefined}");
        }
        let found = findings("FROM scratch\nARG GIVEN\nENV PATH=$PAHT\n");
        let expected = "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn bases_are_named_by_what_is_declared() {
        assert_eq!(findings("ARG GIVEN\nARG A=scratch\nFROM ${A}\n"), [""; 0]);
        let found = findings("ARG GIVEN\nFROM s${GIVEN}$GIVNE\n");
        let expected =
            ["UndefinedArgInFrom: FROM argument 'GIVNE' is not declared (did you mean GIVEN?)"];
        assert_eq!(found, expected);
        let found = findings("ARG GIVEN\nARG T\nFROM scratch\nFROM scratch${T:+:}\n");
        assert_eq!(found, [""; 0]);
        let found = findings("ARG GIVEN\nFROM ${GIVEN:+s}${GIVEN}\n");
        let expected = "InvalidDefaultArgInFrom: Default value for ARG ${GIVEN:+s}${GIVEN} results \
                        in empty or invalid base image name";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_first_working_directory_is_absolute() {
        assert_eq!(findings("FROM scratch\nARG GIVEN\nWORKDIR /a\nWORKDIR b\n"), [""; 0]);
        let found = findings("FROM scratch AS a\nARG GIVEN\nWORKDIR b\nFROM a\nWORKDIR c\n");
        let expected = "WorkdirRelativePath: Relative workdir \"b\" can have unexpected results if \
                        the base image changes";
        assert_eq!(found, [expected]);
    }
}
