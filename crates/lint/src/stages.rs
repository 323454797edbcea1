//! How stages are begun: names, platforms, and the comments that describe them.

use formwork_diagnostics::Span;
use formwork_dockerfile::instruction::Arg;
use formwork_dockerfile::{InstructionKind, Stage, Word};

use crate::Findings;

/// Names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(crate) fn check(findings: &mut Findings<'_>) {
    let dockerfile = findings.dockerfile;
    for stage in &dockerfile.stages {
        name(stage, findings);
        platform(stage, findings);
    }
    descriptions(findings);
}

fn name(stage: &Stage, findings: &mut Findings<'_>) {
    let from = &stage.from;
    let Some(alias) = &from.kind.alias else { return };
    let (name, span) = (alias.text(), alias.span());
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let message = format!("Stage name '{name}' should be lowercase");
        findings.add("StageNameCasing", message, span);
    }
    if let Some(keyword) = &from.kind.as_keyword
        && !is_like(from.keyword(), keyword.text())
    {
        let (own, from) = (keyword.text(), from.keyword());
        let message = format!("'{own}' and '{from}' keywords' casing do not match");
        findings.add("FromAsCasing", message, keyword.span());
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) {
        let message =
            format!("Stage name should not use the same name as reserved stage \"{lower}\"");
        findings.add("ReservedStageName", message, span);
    }
    if findings.dockerfile.stage_by_name(name, stage.index).is_some() {
        let message = format!("Duplicate stage name \"{lower}\", stage names should be unique");
        findings.add("DuplicateStageName", message, span);
    }
}

/// Whether `AS` is written in the case of `FROM`.
fn is_like(from: &str, own: &str) -> bool {
    let cased = |text: &str| {
        let is_lower = text.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_upper = text.bytes().all(|byte| byte.is_ascii_uppercase());
        (is_lower, is_upper)
    };
    cased(from) == cased(own) || cased(from) == (false, false)
}

fn platform(stage: &Stage, findings: &mut Findings<'_>) {
    let Some(platform) = &stage.from.kind.platform else { return };
    match platform.text() {
        "$TARGETPLATFORM" | "${TARGETPLATFORM}" => {
            let variable = platform.text();
            let message = format!(
                "Setting platform to predefined {variable} in FROM is redundant as this is the \
                 default behavior"
            );
            findings.add("RedundantTargetPlatform", message, platform.span());
        }
        text if !text.contains('$') && !is_named_after(stage, text) => {
            let message = format!("FROM --platform flag should not use constant value \"{text}\"");
            findings.add("FromPlatformFlagConstDisallowed", message, platform.span());
        }
        _ => {}
    }
}

/// Whether a stage has its platform in its name, such as `build-arm64`, so that it is meant to be
/// for no other.
fn is_named_after(stage: &Stage, platform: &str) -> bool {
    let mut parts = platform.split('/').take(2).filter(|part| !part.is_empty());
    stage.name.as_deref().is_some_and(|name| parts.any(|part| name.contains(part)))
}

fn descriptions(findings: &mut Findings<'_>) {
    let dockerfile = findings.dockerfile;
    for stage in &dockerfile.stages {
        if let Some(name) = stage.name.as_deref() {
            description("FROM", &[name], &stage.from.comments, stage.from.span, findings);
        }
        for instruction in &stage.instructions {
            if let InstructionKind::Arg(arg) = &instruction.kind {
                description("ARG", &names(arg), &instruction.comments, instruction.span, findings);
            }
        }
    }
    for arg in &dockerfile.global_args {
        description("ARG", &names(&arg.kind), &arg.comments, arg.span, findings);
    }
}

fn names(arg: &Arg) -> Vec<&str> {
    arg.variables.iter().map(|variable| variable.name.text()).collect()
}

/// The last comment above has to begin with one of the names.
fn description(
    keyword: &str,
    names: &[&str],
    comments: &[Word],
    span: Span,
    findings: &mut Findings<'_>,
) {
    let Some(comment) = comments.last() else { return };
    let first = comment.text().split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let name = if let [name] = names { name } else { "<arg_key>" };
    let message =
        format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    findings.add("InvalidDefinitionDescription", message, span);
}

#[cfg(test)]
mod tests {
    use crate::testing::findings;

    #[test]
    fn names_are_in_lower_case_and_unique() {
        let found = findings(
            "FROM a AS one\nFROM b AS Two\nFROM c AS ONE\nFROM d AS context\nFROM e AS scratch\n",
        );
        let expected = "\
            2 `Two` StageNameCasing: Stage name 'Two' should be lowercase\n\
            3 `ONE` StageNameCasing: Stage name 'ONE' should be lowercase\n\
            3 `ONE` DuplicateStageName: Duplicate stage name \"one\", stage names should be unique\n\
            4 `context` ReservedStageName: Stage name should not use the same name as reserved stage \"context\"\n\
            5 `scratch` ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn as_is_in_the_case_of_from() {
        assert_eq!(findings("from a as b\n"), "");
        for line in ["FROM a as b", "FROM a As b", "from a AS b", "from a aS b"] {
            assert!(findings(line).contains("FromAsCasing: "), "{line}");
        }
    }

    #[test]
    fn platforms_are_variables_other_than_the_default() {
        assert_eq!(findings("FROM --platform=$BUILDPLATFORM a\n"), "");
        for name in ["build-arm64", "on_linux"] {
            assert_eq!(findings(&format!("FROM --platform=linux/arm64 a AS {name}\n")), "");
        }
        let found = findings("FROM --platform=linux/amd64 a\nFROM --platform=$TARGETPLATFORM b\n");
        let expected = "\
            1 `linux/amd64` FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"\n\
            2 `$TARGETPLATFORM` RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_above_describe() {
        let found = findings(
            "# check=experimental=all\n# A is it\nARG A\n# what\nARG B\n# c is it\nFROM a AS c\n\
             # D is not\nFROM a AS D\n# what\nARG E F\n# F is one\nARG E F\n",
        );
        let lines: Vec<&str> = found.lines().filter(|line| line.contains("Comment for")).collect();
        let expected = [
            "5 `ARG B` InvalidDefinitionDescription: Comment for ARG should follow the format: `# B <description>`",
            "9 `FROM a AS D` InvalidDefinitionDescription: Comment for FROM should follow the format: `# d <description>`",
            "11 `ARG E F` InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`",
        ];
        assert_eq!(lines, expected);
    }
}
