//! Rules about Dockerfiles: what works, though probably not as meant.
//!
//! The rules are BuildKit's, with its names and its messages, so that a `# check=skip=…` comment
//! means the same everywhere. [`RULES`] lists them all. [`check`] applies those that the text of
//! the file decides; those that need the values of variables or a base image's configuration are
//! found where these are known, in the frontend, under the names of [`RULES`]. [`Settings`] says
//! which findings count.
//!
//! This crate only reports: it does no I/O and never decides whether a build goes on.

mod commands;
mod files;
mod metadata;
mod settings;
mod stages;
mod style;
#[cfg(test)]
mod testing;

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::{Dockerfile, IgnoreFile};

pub use settings::Settings;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which is the code of its findings.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// The last part of the address of its documentation; empty if it has none.
    page: &'static str,
    /// Whether it counts only where `# check=experimental=` names it.
    pub is_experimental: bool,
}

/// All rules, by name.
pub const RULES: [Rule; 22] = [
    rule(
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    rule(
        "CopyIgnoredFile",
        "copy-ignored-file",
        "Attempting to Copy file that is excluded by .dockerignore",
    ),
    rule("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
    rule(
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will \
         become an error in a future release",
    ),
    rule(
        "ExposeProtoCasing",
        "expose-proto-casing",
        "Protocol in EXPOSE instruction should be lowercase",
    ),
    rule(
        "FromAsCasing",
        "from-as-casing",
        "The 'as' keyword should match the case of the 'from' keyword",
    ),
    rule(
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value",
    ),
    rule(
        "InvalidBaseImagePlatform",
        "",
        "Base image platform does not match expected target platform",
    ),
    rule(
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    Rule {
        is_experimental: true,
        ..rule(
            "InvalidDefinitionDescription",
            "invalid-definition-description",
            "Comment for build stage or argument should follow the format: `# <arg/stage name> \
             <description>`. If this is not intended to be a description comment, add an empty \
             line or comment between the instruction and the comment.",
        )
    },
    rule(
        "JSONArgsRecommended",
        "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to \
         OS signals",
    ),
    rule(
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used",
    ),
    rule(
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    rule(
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    rule(
        "NoEmptyContinuation",
        "no-empty-continuation",
        "Empty continuation lines will become errors in a future release",
    ),
    rule(
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the \
         default behavior",
    ),
    rule(
        "ReservedStageName",
        "reserved-stage-name",
        "Reserved words should not be used as stage names",
    ),
    rule(
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands",
    ),
    rule("StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
    rule("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs"),
    rule("UndefinedVar", "undefined-var", "Variables should be defined before their use"),
    rule(
        "WorkdirRelativePath",
        "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have \
         unexpected results if the base image changes",
    ),
];

/// What [`RULES`] says about a name; `None` for the code of another diagnostic.
pub fn find_rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// Applies the rules that the text decides, and returns what they find in the order of the file.
///
/// `stages` are the numbers of the stages that are built: only about these BuildKit says what
/// concerns the meaning of instructions, while it speaks of the looks of all. `shells` are those of
/// them whose base is known to have chosen a shell.
pub fn check(
    dockerfile: &Dockerfile,
    ignore: &IgnoreFile,
    stages: &[usize],
    shells: &[usize],
) -> Vec<Diagnostic> {
    let mut findings = Findings { dockerfile, found: Vec::new() };
    style::check(&mut findings);
    stages::check(&mut findings);
    for stage in dockerfile.stages.iter().filter(|stage| stages.contains(&stage.index)) {
        commands::check(stage, shells.contains(&stage.index), &mut findings);
        metadata::check(stage, &mut findings);
        files::check(stage, ignore, &mut findings);
    }
    let mut found = findings.found;
    found.sort_by_key(|finding| finding.labels.first().map(|label| label.span.start));
    found
}

/// What the rules have found so far.
struct Findings<'a> {
    dockerfile: &'a Dockerfile,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn add(&mut self, rule: &'static str, message: impl Into<String>, span: Span) {
        self.add_with_help(rule, message, span, "");
    }

    fn add_with_help(
        &mut self,
        rule: &'static str,
        message: impl Into<String>,
        span: Span,
        help: &str,
    ) {
        let finding = Diagnostic::warning(rule, message).at(&self.dockerfile.source, span, "");
        let has_help = !help.is_empty();
        self.found.push(if has_help { finding.with_help(help) } else { finding });
    }
}

impl Rule {
    /// Where the rule is explained, if it is anywhere.
    pub fn url(&self) -> Option<String> {
        let has_page = !self.page.is_empty();
        has_page.then(|| format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.page))
    }
}

const fn rule(name: &'static str, page: &'static str, description: &'static str) -> Rule {
    Rule { name, description, page, is_experimental: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted_and_have_pages() {
        assert!(RULES.is_sorted_by_key(|rule| rule.name));
        for rule in RULES {
            let has_page = rule.page.split('-').count() >= 2;
            assert!(has_page || rule.url().is_none(), "{rule:?}");
            assert_eq!(find_rule(rule.name), Some(&rule));
        }
        assert_eq!(find_rule("bad-directive"), None);
    }
}
