//! Build arguments that nothing in a Dockerfile takes: mostly misspelt names.

use std::collections::BTreeSet;

use formwork_diagnostics::{Diagnostic, nearest};
use formwork_dockerfile::{Instruction, InstructionKind};

use crate::Options;
use crate::plan::Plan;
use crate::scope::PROXY_ARGS;

/// How the names begin of settings that are given as build arguments, for docker's sake.
const SETTINGS: [&str; 2] = ["BUILDKIT_", "SOURCE_DATE_EPOCH"];

/// A warning for each build argument that no `ARG` of the file or of a base image's triggers
/// takes, whether its stage is built or not.
pub(crate) fn unused_build_args(plan: &Plan<'_>, options: &Options) -> Vec<Diagnostic> {
    let taken = taken(plan);
    let is_known = |name: &str| {
        taken.contains(name)
            || PROXY_ARGS.contains(&name)
            || plan.global.get(name).is_some()
            || SETTINGS.iter().any(|setting| name.starts_with(setting))
    };
    let unused = options.build_args.keys().filter(|name| !is_known(name));
    let warning = |name: &String| {
        let message = format!("no ARG takes the build argument `{name}`");
        let warning = Diagnostic::warning("unused-build-arg", message);
        match nearest(name, taken.iter().copied()) {
            Some(nearest) => warning.with_help(format!("did you mean `{nearest}`?")),
            None => warning.with_help(format!("declare it with `ARG {name}` in the stage")),
        }
    };
    unused.map(warning).collect()
}

/// The names of all `ARG`s.
fn taken<'a>(plan: &'a Plan<'_>) -> BTreeSet<&'a str> {
    let global = plan.dockerfile.global_args.iter().map(|arg| &arg.kind);
    let triggers = plan.stages.iter().flat_map(|stage| &stage.triggers);
    let triggers = triggers.map(|trigger| &trigger.instruction);
    let stages = plan.dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let own =
        stages.chain(triggers).filter_map(|instruction: &Instruction| match &instruction.kind {
            InstructionKind::Arg(arg) => Some(arg),
            _ => None,
        });
    global.chain(own).flat_map(|arg| &arg.variables).map(|variable| variable.name.text()).collect()
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;
    use formwork_dockerfile::parse;
    use formwork_oci::Platform;

    use super::*;
    use crate::ResolvedImages;

    fn warnings(name: &str) -> Vec<String> {
        let text = "ARG BASE\nFROM scratch AS other\nARG ELSEWHERE\nFROM scratch\nARG VERSION=1\n";
        let parsed = parse(SourceFile::new("Dockerfile", text));
        let options = Options {
            build_args: [(name.to_owned(), "x".to_owned())].into(),
            ..Options::new(Platform::host(), Platform::host())
        };
        let resolved = ResolvedImages::default();
        let plan = Plan::new(&parsed.dockerfile, &options, &resolved).unwrap();
        unused_build_args(&plan, &options).iter().map(|d| format!("{d} {:?}", d.help)).collect()
    }

    #[test]
    fn what_no_arg_takes_is_told() {
        for name in
            ["BASE", "ELSEWHERE", "VERSION", "http_proxy", "TARGETARCH", "SOURCE_DATE_EPOCH"]
        {
            assert!(warnings(name).is_empty(), "{name}");
        }
        for (name, help) in [("VERSOIN", "did you mean `VERSION`?"), ("nothing", "`ARG nothing`")] {
            let [warning] = &warnings(name)[..] else { panic!("{name}") };
            assert!(warning.contains(help), "{warning}");
        }
    }
}
