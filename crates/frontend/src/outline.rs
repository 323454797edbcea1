//! What a Dockerfile offers to those who build it: targets, and the parameters of one of them.
//!
//! Descriptions come from the comments above instructions. No image has to be resolved for this:
//! a variable that only an image's `ENV` sets counts as empty.

use std::collections::{BTreeMap, BTreeSet};

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::instruction::ArgVariable;
use formwork_dockerfile::{
    Dockerfile, Instruction, InstructionKind, MountSpec, Word, expand, variables_in,
};
use formwork_oci::{Digest, ImageConfig};

use crate::plan::{Plan, PlannedStage, Reference, image_requests};
use crate::scope::{GlobalScope, StageScope};
use crate::{Options, ResolvedImage, ResolvedImages, epoch_source, lower};

/// The code of an error about a variable that has to be set.
const REQUIRED: &str = "required-variable";

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
    /// Whether the file gives it a value.
    pub has_default: bool,
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
/// All that is wrong with the file whatever the images are.
pub fn outline(dockerfile: &Dockerfile, options: &Options) -> Result<Outline, Vec<Diagnostic>> {
    epoch_source(dockerfile, options).map_err(|error| vec![*error])?;
    lower_without_images(dockerfile, options)?;
    let resolved = ResolvedImages::new();
    let plan = Plan::new(dockerfile, options, &resolved)?;
    let target = &dockerfile.stages[plan.target];
    let mut outliner = Outliner {
        dockerfile,
        options,
        global: &plan.global,
        scopes: BTreeMap::new(),
        args: BTreeMap::new(),
        used: BTreeSet::new(),
        outline: Outline {
            name: target.name.clone(),
            description: target.description.clone(),
            ..Outline::default()
        },
    };
    plan.stages.iter().for_each(|stage| outliner.stage(stage));
    outliner.collect_args(plan.target);
    Ok(outliner.outline)
}

/// Lowers a file as if all images were empty ones, to hear what is wrong with it.
fn lower_without_images(dockerfile: &Dockerfile, options: &Options) -> Result<(), Vec<Diagnostic>> {
    let mut resolved = ResolvedImages::new();
    for request in image_requests(dockerfile, options, &resolved)? {
        let image = ResolvedImage {
            manifest: Digest::of(b""),
            config: ImageConfig::for_platform(&request.key.platform),
        };
        resolved.insert(request.key, image);
    }
    let mut wrong = lower(dockerfile, options, &resolved).err().unwrap_or_default();
    // What misses a variable may have it from an image.
    wrong.retain(|error| error.is_error() && (resolved.is_empty() || error.code != REQUIRED));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

struct Outliner<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    global: &'a GlobalScope,
    /// The variables at the end of each stage.
    scopes: BTreeMap<usize, StageScope>,
    /// The arguments that each stage declares, after those of its base; of several declarations
    /// the last.
    args: BTreeMap<usize, Vec<OutlineArg>>,
    /// The arguments before the first `FROM` that the stages make use of.
    used: BTreeSet<String>,
    outline: Outline,
}

impl Outliner<'_> {
    /// Puts together what the target, the other stages, and the lines before the first `FROM`
    /// declare; what is said for the target counts most.
    fn collect_args(&mut self, target: usize) {
        let own = self.args.remove(&target);
        let others = std::mem::take(&mut self.args).into_values().rev();
        let declared: Vec<OutlineArg> = own.into_iter().chain(others).flatten().collect();
        for arg in declared.into_iter().chain(self.global_args()) {
            if !self.outline.args.iter().any(|known| known.name == arg.name) {
                self.outline.args.push(arg);
            }
        }
        self.outline.args.sort_by_key(|arg| arg.span);
    }

    /// The arguments before the first `FROM` that are made use of, also by each other; the last of
    /// each name comes first.
    fn global_args(&self) -> Vec<OutlineArg> {
        let escape = self.dockerfile.directives.escape;
        let mut used = self.used.clone();
        let mut args = Vec::new();
        for instruction in self.dockerfile.global_args.iter().rev() {
            for variable in instruction.kind.variables.iter().rev() {
                let name = variable.name.text();
                if !used.contains(name) {
                    continue;
                }
                let default =
                    variable.default.iter().filter(|_| !self.options.build_args.contains_key(name));
                let others = default.flat_map(|word| variables_in(word, escape));
                used.extend(others.map(str::to_owned));
                let value = self.global.get(name).map(str::to_owned);
                args.push(OutlineArg::new(variable, value, instruction.span));
            }
        }
        args
    }

    fn stage(&mut self, planned: &PlannedStage<'_>) {
        let escape = self.dockerfile.directives.escape;
        let from = &planned.stage.from.kind;
        let words = from.platform.iter().chain([&from.image]);
        self.used.extend(words.flat_map(|word| variables_in(word, escape)).map(str::to_owned));
        let (mut scope, mut args) = match &planned.base {
            Reference::Stage(base) => {
                (self.scopes.get(base).cloned(), self.args.get(base).cloned())
            }
            _ => (None, None),
        };
        let (scope, args) = (scope.get_or_insert_default(), args.get_or_insert_default());
        for instruction in planned.instructions {
            match &instruction.kind {
                InstructionKind::Arg(arg) => {
                    for variable in &arg.variables {
                        let value = self.value(variable, scope);
                        scope.declare(variable.name.text(), value.as_deref());
                        self.declare(OutlineArg::new(variable, value, instruction.span), args);
                    }
                }
                InstructionKind::Env(pairs) => {
                    let before = scope.clone();
                    for pair in &pairs.pairs {
                        let text = |word| self.text(word, &before).unwrap_or_default();
                        scope.set(&text(&pair.key), &text(&pair.value));
                    }
                }
                InstructionKind::Run(_) => self.mounts(instruction, scope),
                _ => {}
            }
        }
        self.scopes.insert(planned.stage.index, std::mem::take(scope));
        self.args.insert(planned.stage.index, std::mem::take(args));
    }

    /// Adds an argument of a stage in the place of earlier ones, unless it only takes its value
    /// from one before the first `FROM`, or from BuildKit's own.
    fn declare(&mut self, arg: OutlineArg, args: &mut Vec<OutlineArg>) {
        let is_given = self.options.build_args.contains_key(&arg.name);
        if !arg.has_default && !is_given && self.global.get(&arg.name).is_some() {
            self.used.insert(arg.name);
            return;
        }
        args.retain(|known| known.name != arg.name);
        args.push(arg);
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

impl OutlineArg {
    fn new(variable: &ArgVariable, value: Option<String>, span: Span) -> Self {
        Self {
            name: variable.name.text().to_owned(),
            description: variable.description.clone(),
            value,
            has_default: variable.default.is_some(),
            span,
        }
    }
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;
    use formwork_dockerfile::parse;
    use formwork_oci::Platform;

    use super::*;

    fn args(text: &str) -> Result<String, String> {
        let parsed = parse(SourceFile::new("Dockerfile", text));
        let options = Options::new(Platform::host(), Platform::host());
        let outline = outline(&parsed.dockerfile, &options);
        let outline = outline.map_err(|errors| errors[0].message.clone())?;
        let shown = |arg: &OutlineArg| {
            let line = parsed.dockerfile.source.position(arg.span.start).line;
            format!("{}={}:{line}", arg.name, arg.value.as_deref().unwrap_or_default())
        };
        Ok(outline.args.iter().map(shown).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_last_declaration_that_the_target_sees_counts() {
        for (text, expected) in [
            ("FROM a\nARG B=1\nARG C=2\nARG B=3", "C=2:3 B=3:4"),
            ("ARG B=1 C=2\nFROM a\nARG B=3\nARG C", "C=2:1 B=3:3"),
            ("FROM a AS b\nARG B=1\nFROM b\nARG B=2", "B=2:4"),
            ("FROM a AS b\nARG B=1\nFROM b", "B=1:2"),
            ("FROM a AS b\nARG B=1\nFROM a\nARG B=2\nCOPY --from=b /x /", "B=2:4"),
            ("FROM a AS b\nARG B=1\nFROM a\nARG B=2", "B=2:4"),
            ("ARG B=1\nFROM a\nARG TARGETARCH", ""),
        ] {
            assert_eq!(args(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn arguments_that_others_are_made_of_are_listed() {
        assert_eq!(
            args("ARG R=x\nARG O=y T=z\nARG B=$R/$O\nFROM $B").as_deref(),
            Ok("R=x:1 O=y:2 B=x/y:3")
        );
        assert_eq!(args("ARG A=1\nARG A=${A}2\nFROM b$A").as_deref(), Ok("A=12:2"));
        assert_eq!(args("ARG V\nFROM a$V").as_deref(), Ok("V=:1"));
    }

    #[test]
    fn what_no_build_can_do_is_refused() {
        for text in ["FROM a\nCOPY --chmod=9 x /", "FROM scratch\nENV A=${B:?}"] {
            assert!(args(text).is_err(), "{text}");
        }
        // The image may have it.
        assert_eq!(args("FROM a\nENV A=${B:?}").as_deref(), Ok(""));
    }
}
