//! Which findings count: `# check=` comments.

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::{Check, Dockerfile, InstructionKind};

use crate::find_rule;

/// Which findings count, as the `# check=` comments of a Dockerfile say.
#[derive(Clone, Debug)]
pub struct Settings {
    file: Check,
    /// The instructions that have a comment of their own.
    instructions: Vec<(Span, Check)>,
}

impl Settings {
    /// What a file says.
    pub fn of(dockerfile: &Dockerfile) -> Self {
        let mut instructions = Vec::new();
        let mut note = |span: Span, check: &Option<Box<Check>>| {
            instructions.extend(check.as_deref().map(|check| (span, check.clone())));
        };
        for arg in &dockerfile.global_args {
            note(arg.span, &arg.check);
        }
        for stage in &dockerfile.stages {
            note(stage.from.span, &stage.from.check);
            for instruction in &stage.instructions {
                note(instruction.span, &instruction.check);
                if let InstructionKind::Onbuild(onbuild) = &instruction.kind {
                    note(instruction.span, &onbuild.trigger.check);
                }
            }
        }
        Self { file: dockerfile.directives.check.clone().unwrap_or_default(), instructions }
    }

    /// Overrides the file's own comment, as the build argument `BUILDKIT_DOCKERFILE_CHECK` does.
    #[must_use]
    pub fn with_file_check(mut self, check: Check) -> Self {
        self.file = check;
        self
    }

    /// Whether a diagnostic counts; one that is no rule's finding always does.
    pub fn counts(&self, finding: &Diagnostic) -> bool {
        let Some(rule) = find_rule(&finding.code) else { return true };
        if rule.is_experimental && !self.file.experimental.contains(rule.name) {
            return false;
        }
        let place = finding.labels.first().map(|label| label.span.start);
        let is_there =
            |span: &Span| place.is_some_and(|place| span.range().contains(&(place as usize)));
        let own = self.instructions.iter().filter(|(span, _)| is_there(span));
        !self.file.skip.contains(rule.name)
            && !own.into_iter().any(|(_, check)| check.skip.contains(rule.name))
    }

    /// Whether findings make a build fail.
    pub fn findings_are_errors(&self) -> bool {
        self.file.error
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::findings;

    #[test]
    fn comments_switch_rules_off() {
        let expected = "5 `MAINTAINER` MaintainerDeprecated: Maintainer instruction is deprecated \
                        in favor of using label\n";
        let text = "# check=skip=JSONArgsRecommended\nFROM scratch\n\
                    # check=skip=MaintainerDeprecated\nMAINTAINER a\nMAINTAINER b\nCMD c\n";
        assert_eq!(findings(text), expected);
        assert_eq!(findings("# check=skip=all\nFROM scratch as X\nMAINTAINER a\nCMD c\n"), "");
        assert_eq!(findings("FROM scratch\n# check=skip=all\nMAINTAINER a\n"), "");
    }

    #[test]
    fn experimental_rules_are_on_by_request() {
        let text = "# what\nFROM scratch AS base\n";
        assert_eq!(findings(&format!("\n{text}")), "");
        for names in ["all", "InvalidDefinitionDescription"] {
            let found = findings(&format!("# check=experimental={names}\n{text}"));
            assert!(found.contains("InvalidDefinitionDescription"), "{found}");
        }
    }
}
