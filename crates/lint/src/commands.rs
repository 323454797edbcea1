//! What the image starts: CMD, ENTRYPOINT, HEALTHCHECK.

use formwork_dockerfile::instruction::CommandLine;
use formwork_dockerfile::{Dockerfile, Instruction, InstructionKind, Stage};

use crate::Findings;

pub(crate) fn check(stage: &Stage, base_has_shell: bool, findings: &mut Findings<'_>) {
    let mut has_shell = base_has_shell || inherits_shell(stage, findings.dockerfile);
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Shell(_) => has_shell = true,
            InstructionKind::Cmd(CommandLine::Shell(text))
            | InstructionKind::Entrypoint(CommandLine::Shell(text))
                if !has_shell =>
            {
                let name = instruction.kind.name();
                let message = format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related \
                     to OS signals"
                );
                let help = match text.text().starts_with('[') {
                    true => {
                        "this is no JSON, so a shell runs it as it stands: strings are between \
                             double quotes, with commas between them"
                            .to_owned()
                    }
                    false => format!("write `{name} [\"program\", \"argument\"]`"),
                };
                findings.add_with_help("JSONArgsRecommended", message, text.span(), &help);
            }
            _ => {}
        }
    }
    for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        only_one(stage, name, findings);
    }
}

/// Whether one of the stages that a stage is based on chooses a shell.
fn inherits_shell(stage: &Stage, dockerfile: &Dockerfile) -> bool {
    let base_of = |stage: &Stage| {
        let index = dockerfile.stage_by_name(stage.from.kind.image.text(), stage.index)?;
        dockerfile.stages.get(index)
    };
    let is_shell = |one: &Instruction| matches!(one.kind, InstructionKind::Shell(_));
    std::iter::successors(base_of(stage), |base| base_of(base))
        .any(|base| base.instructions.iter().any(is_shell))
}

/// All but the last instruction of a kind are without effect.
fn only_one(stage: &Stage, name: &str, findings: &mut Findings<'_>) {
    let same = stage.instructions.iter().filter(|instruction| instruction.kind.name() == name);
    let same: Vec<_> = same.collect();
    for instruction in same.iter().rev().skip(1).rev() {
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the \
             last one will be used"
        );
        findings.add("MultipleInstructionsDisallowed", message, instruction.span);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::findings;

    #[test]
    fn commands_are_json_unless_the_shell_is_chosen() {
        assert_eq!(findings("FROM a\nCMD [\"b\"]\nENTRYPOINT [\"c\"]\n"), "");
        assert_eq!(findings("FROM a\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD b\n"), "");
        let found = findings("FROM a AS b\nSHELL [\"/s\"]\nFROM b AS c\nFROM c\nCMD d\n");
        assert_eq!(found, "");
        let found = findings("FROM a\nENTRYPOINT b $c\n");
        let expected = "2 `b $c` JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to \
                        prevent unintended behavior related to OS signals\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_last_of_several_counts() {
        assert_eq!(findings("FROM a\nCMD [\"b\"]\nFROM a\nCMD [\"b\"]\n"), "");
        let found = findings("FROM a\nHEALTHCHECK CMD b\nCMD [\"c\"]\nHEALTHCHECK NONE\n");
        let expected = "2 `HEALTHCHECK CMD b` MultipleInstructionsDisallowed: Multiple HEALTHCHECK \
                        instructions should not be used in the same stage because only the last \
                        one will be used\n";
        assert_eq!(found, expected);
    }
}
