//! How the file is written: keywords, continued lines, what is out of date.

use formwork_diagnostics::Span;
use formwork_dockerfile::InstructionKind;

use crate::Findings;

pub(crate) fn check(findings: &mut Findings<'_>) {
    casing(findings);
    let dockerfile = findings.dockerfile;
    let args = dockerfile.global_args.iter().map(|arg| &arg.blank_lines);
    let froms = dockerfile.stages.iter().map(|stage| &stage.from.blank_lines);
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let others = instructions.clone().map(|instruction| &instruction.blank_lines);
    for blank in args.chain(froms).chain(others).filter_map(|lines| lines.first()) {
        findings.add("NoEmptyContinuation", "Empty continuation line", *blank);
    }
    for instruction in instructions {
        if let InstructionKind::Maintainer(_) = instruction.kind {
            let message = "Maintainer instruction is deprecated in favor of using label";
            let help = "write `LABEL org.opencontainers.image.authors=…`";
            let span = instruction.keyword_span;
            findings.add_with_help("MaintainerDeprecated", message, span, help);
        }
    }
}

/// All keywords should be in upper case, or all in lower case: whichever most are in.
fn casing(findings: &mut Findings<'_>) {
    let keywords = keywords(findings);
    let count = |is: fn(&str) -> bool| keywords.iter().filter(|(word, _)| is(word)).count();
    let prefers_lower = count(is_lower) > count(is_upper);
    let (fits, majority): (fn(&str) -> bool, _) =
        if prefers_lower { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for (word, span) in keywords.into_iter().filter(|(word, _)| !fits(word)) {
        let message =
            format!("Command '{word}' should match the case of the command majority ({majority})");
        findings.add("ConsistentInstructionCasing", message, span);
    }
}

/// All keywords as they are written, with their places.
fn keywords<'f>(findings: &Findings<'f>) -> Vec<(&'f str, Span)> {
    let dockerfile = findings.dockerfile;
    let args = dockerfile.global_args.iter().map(|arg| (arg.keyword(), arg.keyword_span));
    let stages = dockerfile.stages.iter().flat_map(|stage| {
        let others = stage.instructions.iter().map(|one| (one.keyword(), one.keyword_span));
        std::iter::once((stage.from.keyword(), stage.from.keyword_span)).chain(others)
    });
    args.chain(stages).collect()
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use crate::testing::findings;

    #[test]
    fn keywords_are_in_one_case() {
        assert_eq!(findings("from scratch\nenv a=b\n"), "");
        let found = findings("FROM scratch\nenv a=b\nLabel a=b\nUSER x\n");
        let expected = "\
            2 `env` ConsistentInstructionCasing: Command 'env' should match the case of the command majority (uppercase)\n\
            3 `Label` ConsistentInstructionCasing: Command 'Label' should match the case of the command majority (uppercase)\n";
        assert_eq!(found, expected);
        let found = findings("from scratch\nENV a=b\nuser x\n");
        assert!(
            found.contains(
                "Command 'ENV' should match the case of the command majority (lowercase)"
            )
        );
    }

    #[test]
    fn continued_lines_are_not_empty() {
        assert_eq!(findings("FROM scratch\nRUN a \\\n  # comment\n  b\n"), "");
        let found = findings("FROM scratch\nRUN a \\\n\n\n  b\n");
        assert_eq!(found, "3 `` NoEmptyContinuation: Empty continuation line\n");
    }
}
