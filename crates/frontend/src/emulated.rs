//! Stages that need an emulator although nobody but other stages sees what runs in them.
//!
//! A compiler that runs for the target's processor under emulation takes ten times as long as one
//! that runs here and compiles for that processor. Where only files are taken from a stage, its
//! result need not run where the image runs, so the stage may run here.

use std::collections::BTreeSet;

use formwork_diagnostics::{Applicability, Diagnostic, Edit, Fix, Span};
use formwork_dockerfile::{InstructionKind, Stage};
use formwork_oci::Platform;

use crate::Options;
use crate::plan::{Plan, PlannedStage, Reference};

/// How compilers are told what to compile for: what a RUN has in it, what comes before it, and what
/// to do where that is not all.
const COMPILERS: [(&str, Option<&str>, &str); 5] = [
    (
        "go build",
        Some("ARG TARGETOS TARGETARCH\nENV GOOS=$TARGETOS GOARCH=$TARGETARCH\n"),
        "Go then compiles for the target; with cgo it needs a C cross compiler, too",
    ),
    (
        "go install",
        Some("ARG TARGETOS TARGETARCH\nENV GOOS=$TARGETOS GOARCH=$TARGETARCH\n"),
        "Go then compiles for the target, and installs into `bin/$GOOS_$GOARCH`",
    ),
    ("cargo ", None, "give cargo the target: `ARG TARGETARCH`, then `cargo build --target=…`"),
    (
        "dotnet ",
        None,
        "give dotnet the target: `ARG TARGETARCH`, then `dotnet publish -a $TARGETARCH`",
    ),
    ("zig ", None, "give zig the target: `ARG TARGETARCH`, then `zig build -Dtarget=…`"),
];

/// What there is to say about stages that run under emulation without need.
pub(crate) fn emulated_stages(plan: &Plan<'_>, options: &Options) -> Vec<Diagnostic> {
    let shipped = bases(plan, plan.target);
    let is_candidate = |stage: &&PlannedStage<'_>| {
        stage.stage.from.kind.platform.is_none()
            && matches!(stage.base, Reference::Image(_))
            && !runs_here(&stage.platform, &options.build_platform)
            && !shipped.contains(&stage.stage.index)
    };
    let candidates = plan.stages.iter().filter(is_candidate);
    candidates.filter_map(|stage| hint(plan, stage)).collect()
}

/// A stage with those that it is based on.
fn bases(plan: &Plan<'_>, index: usize) -> BTreeSet<usize> {
    let mut chain = BTreeSet::from([index]);
    let mut at = index;
    while let Some(Reference::Stage(base)) =
        plan.stages.iter().find(|stage| stage.stage.index == at).map(|stage| &stage.base)
        && chain.insert(*base)
    {
        at = *base;
    }
    chain
}

/// Whether a platform's programs run without an emulator.
fn runs_here(platform: &Platform, build: &Platform) -> bool {
    let is_older = (&*build.architecture, &*platform.architecture) == ("amd64", "386");
    platform.os == build.os && (is_older || platform.fitness(build).is_some())
}

fn hint(plan: &Plan<'_>, planned: &PlannedStage<'_>) -> Option<Diagnostic> {
    let stage = planned.stage;
    let family: Vec<&Stage> = plan
        .stages
        .iter()
        .map(|other| other.stage)
        .filter(|other| bases(plan, other.index).contains(&stage.index))
        .collect();
    let instructions = family.iter().flat_map(|stage| &stage.instructions);
    let runs: Vec<_> =
        instructions.filter(|one| matches!(one.kind, InstructionKind::Run(_))).collect();
    runs.first()?;
    let name = stage.name.clone().unwrap_or_else(|| stage.index.to_string());
    let after_from = stage.from.keyword_span.end;
    let mut edits = vec![Edit {
        span: Span::new(after_from as usize, after_from as usize),
        replacement: " --platform=$BUILDPLATFORM".to_owned(),
    }];
    let rest = stage.from.text.get(stage.from.keyword().len()..).unwrap_or_default();
    let mut help = format!("let it run here: `FROM --platform=$BUILDPLATFORM{rest}`");
    let compiler = COMPILERS.iter().find_map(|(command, before, advice)| {
        let run = runs.iter().find(|run| run.text.contains(command))?;
        Some((run, before, advice))
    });
    let message = format!(
        "the stage `{name}` runs under emulation, which takes about ten times as long, although \
         only files are taken from it"
    );
    let source = &plan.dockerfile.source;
    let mut diagnostic = Diagnostic::warning("emulated-stage", message);
    if let Some((run, before, advice)) = compiler {
        if let Some(before) = before {
            let start = run.span.start as usize;
            edits.push(Edit { span: Span::new(start, start), replacement: (*before).to_owned() });
            let shown = before.trim_end().replace('\n', "`, `");
            help.push_str(&format!("; and before `{}`: `{shown}`", short(&run.text)));
        }
        diagnostic = diagnostic.with_note(*advice);
    } else {
        diagnostic = diagnostic.with_note(
            "whatever it compiles must be compiled for the target: `ARG TARGETARCH` tells it",
        );
    }
    let title = "run the stage on this machine".to_owned();
    let fix = Fix { title, edits, applicability: Applicability::Unsafe };
    Some(diagnostic.at(source, stage.from.span, "").with_help(help).with_fix(fix))
}

/// The beginning of an instruction.
fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;
    use formwork_dockerfile::parse;

    use super::*;
    use crate::ResolvedImages;

    fn hints(text: &str, platform: &str) -> Vec<Diagnostic> {
        let parsed = parse(SourceFile::new("Dockerfile", text));
        let options = Options::new(platform.parse().unwrap(), "linux/amd64".parse().unwrap());
        let resolved = ResolvedImages::default();
        let plan = Plan::new(&parsed.dockerfile, &options, &resolved).unwrap();
        emulated_stages(&plan, &options)
    }

    const GO: &str = "FROM golang AS build\nRUN go build -o /app\nFROM scratch\n\
                      COPY --from=build /app /app\n";

    #[test]
    fn the_edit_makes_a_stage_run_here() {
        let [hint] = &*hints(GO, "linux/arm64") else { panic!("one hint") };
        assert!(hint.help[0].contains("FROM --platform=$BUILDPLATFORM golang AS build"));
        let mut text = GO.to_owned();
        for edit in hint.fixes[0].edits.iter().rev() {
            text.replace_range(edit.span.range(), &edit.replacement);
        }
        let expected = "FROM --platform=$BUILDPLATFORM golang AS build\n\
                        ARG TARGETOS TARGETARCH\nENV GOOS=$TARGETOS GOARCH=$TARGETARCH\n\
                        RUN go build -o /app\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(hints(&text, "linux/arm64").is_empty());
    }

    #[test]
    fn what_has_to_run_there_is_left_alone() {
        for (text, platform) in [
            (GO, "linux/amd64"),
            (GO, "linux/386"),
            ("FROM debian\nRUN apt-get update\n", "linux/arm64"),
            ("FROM debian AS base\nRUN a\nFROM base\nRUN b\n", "linux/arm64"),
            ("FROM debian AS files\nCOPY a /a\nFROM scratch\nCOPY --from=files /a /\n", "arm64"),
        ] {
            assert!(hints(text, platform).is_empty(), "{text} {platform}");
        }
        let text = "FROM node AS deps\nFROM deps AS build\nRUN npm ci\nFROM scratch\n\
                    COPY --from=build /a /a\n";
        assert_eq!(hints(text, "linux/riscv64").len(), 1);
    }
}
