//! What a Dockerfile offers to those who build it: targets, and the parameters of one of them.
//!
//! Descriptions come from the comments above instructions. No image has to be resolved for this:
//! a variable that only an image's `ENV` sets counts as empty.

use std::collections::BTreeMap;

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::instruction::ArgVariable;
use formwork_dockerfile::{Dockerfile, Instruction, InstructionKind, MountSpec, Word, expand};

use crate::plan::{Plan, PlannedStage, Reference};
use crate::scope::{GlobalScope, StageScope};
use crate::{Options, ResolvedImages};

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the comment above says.
    pub description: Option<String>,
    /// What it is based on, as written.
    pub base: String,
    /// Its platform, as written.
    pub platform: Option<String>,
    /// Whether it is what is built if nobody says otherwise.
    pub is_default: bool,
    /// Where it begins.
    pub span: Span,
}

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// What the comment above the target says.
    pub description: Option<String>,
    /// The arguments.
    pub args: Vec<OutlineArg>,
    /// The secrets that steps mount.
    pub secrets: Vec<OutlineMount>,
    /// The SSH agents that steps mount.
    pub ssh: Vec<OutlineMount>,
    /// The caches that steps mount.
    pub caches: Vec<OutlineMount>,
}

/// An `ARG` of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What a comment above says.
    pub description: Option<String>,
    /// The value that it has.
    pub value: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// Something that steps of a target mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether some step fails without it.
    pub is_required: bool,
    /// The first step that mounts it.
    pub span: Span,
}

/// The stages of a file.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let last = dockerfile.stages.len().saturating_sub(1);
    let target = |stage: &formwork_dockerfile::Stage| Target {
        name: stage.name.clone(),
        description: stage.description.clone(),
        base: stage.from.kind.image.text().to_owned(),
        platform: stage.from.kind.platform.as_ref().map(|platform| platform.text().to_owned()),
        is_default: stage.index == last,
        span: stage.from.span,
    };
    dockerfile.stages.iter().map(target).collect()
}

/// What the target takes, and the stages that it needs.
///
/// # Errors
///
/// What is wrong with the stages' references.
pub fn outline(dockerfile: &Dockerfile, options: &Options) -> Result<Outline, Vec<Diagnostic>> {
    let resolved = ResolvedImages::new();
    let plan = Plan::new(dockerfile, options, &resolved)?;
    let target = &dockerfile.stages[plan.target];
    let mut outliner = Outliner {
        dockerfile,
        options,
        global: &plan.global,
        scopes: BTreeMap::new(),
        outline: Outline {
            name: target.name.clone(),
            description: target.description.clone(),
            ..Outline::default()
        },
    };
    outliner.global_args(&plan);
    plan.stages.iter().for_each(|stage| outliner.stage(stage));
    Ok(outliner.outline)
}

struct Outliner<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    global: &'a GlobalScope,
    /// The variables at the end of each stage.
    scopes: BTreeMap<usize, StageScope>,
    outline: Outline,
}

impl Outliner<'_> {
    /// The arguments before the first `FROM` that the target's stages make use of.
    fn global_args(&mut self, plan: &Plan<'_>) {
        let escape = self.dockerfile.directives.escape;
        let mut used: Vec<&str> = Vec::new();
        for PlannedStage { stage, .. } in &plan.stages {
            let from = &stage.from.kind;
            let words = from.platform.iter().chain([&from.image]);
            used.extend(words.flat_map(|w| formwork_dockerfile::variables_in(w, escape)));
            used.extend(args(&stage.instructions).map(|variable| variable.name.text()));
        }
        for instruction in &self.dockerfile.global_args {
            for variable in &instruction.kind.variables {
                if used.contains(&variable.name.text()) {
                    let value = self.global.get(variable.name.text()).map(str::to_owned);
                    self.add_arg(variable, value, instruction.span);
                }
            }
        }
    }

    fn stage(&mut self, planned: &PlannedStage<'_>) {
        let mut scope = match &planned.base {
            Reference::Stage(base) => self.scopes.get(base).cloned().unwrap_or_default(),
            _ => StageScope::default(),
        };
        for instruction in planned.instructions {
            match &instruction.kind {
                InstructionKind::Arg(arg) => {
                    for variable in &arg.variables {
                        let value = self.value(variable, &scope);
                        scope.declare(variable.name.text(), value.as_deref());
                        self.add_arg(variable, value, instruction.span);
                    }
                }
                InstructionKind::Env(pairs) => {
                    let before = scope.clone();
                    for pair in &pairs.pairs {
                        let text = |word| self.text(word, &before).unwrap_or_default();
                        scope.set(&text(&pair.key), &text(&pair.value));
                    }
                }
                InstructionKind::Run(_) => self.mounts(instruction, &scope),
                _ => {}
            }
        }
        self.scopes.insert(planned.stage.index, scope);
    }

    fn value(&self, variable: &ArgVariable, scope: &StageScope) -> Option<String> {
        let name = variable.name.text();
        let given = self.options.build_args.get(name).cloned();
        let default = || variable.default.as_ref().and_then(|word| self.text(word, scope));
        given.or_else(default).or_else(|| self.global.get(name).map(str::to_owned))
    }

    fn text(&self, word: &Word, scope: &StageScope) -> Option<String> {
        let lookup = |name: &str| scope.get(name).map(str::to_owned);
        let expanded = expand(word, self.dockerfile.directives.escape, &lookup);
        expanded.ok().map(|expanded| expanded.text)
    }

    /// Adds an argument, unless it is there or BuildKit's own.
    fn add_arg(&mut self, variable: &ArgVariable, value: Option<String>, span: Span) {
        let name = variable.name.text();
        let is_own = |arg: &OutlineArg| arg.name == name;
        let is_declared = || {
            let global = self.dockerfile.global_args.iter().flat_map(|arg| &arg.kind.variables);
            global.clone().any(|variable| variable.name.text() == name)
        };
        let is_predefined = || variable.default.is_none() && self.global.get(name).is_some();
        if self.outline.args.iter().any(is_own) || (is_predefined() && !is_declared()) {
            return;
        }
        let description = variable.description.clone();
        self.outline.args.push(OutlineArg { name: name.to_owned(), description, value, span });
    }

    /// What a RUN mounts; what is wrong with a mount is told by a build.
    fn mounts(&mut self, instruction: &Instruction, scope: &StageScope) {
        let InstructionKind::Run(run) = &instruction.kind else { return };
        let escape = self.dockerfile.directives.escape;
        let lookup = |name: &str| scope.get(name).map(str::to_owned);
        for mount in &run.mounts {
            let expand = |word: &Word| expand(word, escape, &lookup).map(|expanded| expanded.text);
            let (list, id, is_required) = match mount.resolve(&self.dockerfile.source, &expand) {
                Ok(MountSpec::Secret { id, required, .. }) => {
                    (&mut self.outline.secrets, id, required)
                }
                Ok(MountSpec::Ssh { id, required, .. }) => (&mut self.outline.ssh, id, required),
                Ok(MountSpec::Cache { id, target, .. }) => {
                    (&mut self.outline.caches, id.unwrap_or(target), false)
                }
                _ => continue,
            };
            match list.iter_mut().find(|known| known.id == id) {
                Some(known) => known.is_required |= is_required,
                None => list.push(OutlineMount { id, is_required, span: instruction.span }),
            }
        }
    }
}

fn args(instructions: &[Instruction]) -> impl Iterator<Item = &ArgVariable> {
    instructions.iter().flat_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => arg.variables.as_slice(),
        _ => &[],
    })
}
