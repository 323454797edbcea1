//! Which stages and images a target needs, and in which order.
//!
//! A plan can be made before all images are known: it then lists what has to be resolved. What
//! the instructions of a stage do is for [`crate::lower`].

use std::collections::{BTreeMap, BTreeSet};

use formwork_diagnostics::{Diagnostic, SourceFile, Span, nearest};
use formwork_dockerfile::{Dockerfile, Instruction, InstructionKind, Stage, Word, parse_trigger};
use formwork_oci::Platform;

use crate::scope::GlobalScope;
use crate::uncached::Uncached;
use crate::{ImageKey, ImageLocation, ImageRequest, NamedContext, Options, ResolvedImages};

/// The images that the target needs and that are not among the resolved ones.
///
/// # Errors
///
/// What is wrong with the stages' references: an unknown target, a cycle, a name that is none.
pub fn image_requests(
    dockerfile: &Dockerfile,
    options: &Options,
    resolved: &ResolvedImages,
) -> Result<Vec<ImageRequest>, Vec<Diagnostic>> {
    Plan::new(dockerfile, options, resolved).map(|plan| plan.missing)
}

/// The stages that a target needs, each after those that it takes something from.
pub(crate) struct Plan<'a> {
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) global: GlobalScope,
    pub(crate) stages: Vec<PlannedStage<'a>>,
    /// The number of the target.
    pub(crate) target: usize,
    /// Whose earlier results must not be used.
    pub(crate) uncached: Uncached,
    missing: Vec<ImageRequest>,
}

/// A stage with what it refers to.
pub(crate) struct PlannedStage<'a> {
    pub(crate) stage: &'a Stage,
    /// Its instructions; none if a named context stands in for the whole stage.
    pub(crate) instructions: &'a [Instruction],
    pub(crate) base: Reference,
    pub(crate) platform: Platform,
    /// What the base wants to be done first.
    pub(crate) triggers: Vec<Trigger>,
    /// What `COPY --from` and `RUN --mount=from` name, by what is written there.
    pub(crate) references: BTreeMap<String, Reference>,
}

/// An `ONBUILD` instruction of a base, in a source of its own.
pub(crate) struct Trigger {
    pub(crate) source: SourceFile,
    pub(crate) instruction: Instruction,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// Nothing at all.
    Scratch,
    /// A stage, by its number.
    Stage(usize),
    /// An image.
    Image(ImageKey),
    /// A directory of the user's.
    Context(String),
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a Options,
        resolved: &'a ResolvedImages,
    ) -> Result<Self, Vec<Diagnostic>> {
        let source = &dockerfile.source;
        let (target, name) = find_target(dockerfile, options).map_err(|error| vec![error])?;
        let (global, errors) = GlobalScope::new(dockerfile, options, name);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| error.to_diagnostic(source)).collect());
        }
        let mut planner = Planner {
            dockerfile,
            options,
            resolved,
            global: &global,
            planned: BTreeSet::new(),
            path: Vec::new(),
            stages: Vec::new(),
            missing: Vec::new(),
            errors: Vec::new(),
        };
        if options.all_stages {
            (0..dockerfile.stages.len()).for_each(|index| planner.visit(index));
        }
        planner.visit(target);
        let Planner { stages, missing, errors, .. } = planner;
        if !errors.is_empty() {
            return Err(each_once(errors));
        }
        let filters = &options.no_cache_filter;
        let uncached = Uncached::new(filters, dockerfile, &stages, missing.is_empty());
        let uncached = uncached.map_err(|error| vec![error])?;
        Ok(Self { dockerfile, global, stages, target, uncached, missing })
    }

    /// The first image that is not resolved.
    pub(crate) fn first_missing(&self) -> Option<&ImageRequest> {
        self.missing.first()
    }
}

/// What is wrong with a stage shows again in each stage that builds on it.
fn each_once(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told = BTreeSet::new();
    errors.retain(|error| {
        let places = error.labels.iter().map(|label| label.span);
        told.insert((error.message.clone(), places.collect::<Vec<_>>()))
    });
    errors
}

/// The number of the target stage, and the name that the user gave.
fn find_target<'a>(
    dockerfile: &Dockerfile,
    options: &'a Options,
) -> Result<(usize, Option<&'a str>), Diagnostic> {
    let count = dockerfile.stages.len();
    let Some(name) = options.target.as_deref() else {
        let last = count.checked_sub(1);
        return last.map(|last| (last, None)).ok_or_else(|| {
            Diagnostic::error("no-stage", "there is nothing to build: the file has no `FROM`")
        });
    };
    find_stage(dockerfile, name, "--target").map(|index| (index, Some(name)))
}

/// The number of a stage that an option of the command line names.
pub(crate) fn find_stage(
    dockerfile: &Dockerfile,
    name: &str,
    option: &str,
) -> Result<usize, Diagnostic> {
    let count = dockerfile.stages.len();
    // BuildKit knows targets by name only; a number is what docker's classic builder took.
    let by_number = || name.parse().ok().filter(|number| *number < count);
    if let Some(index) = dockerfile.stage_by_name(name, count).or_else(by_number) {
        return Ok(index);
    }
    let error = Diagnostic::error("unknown-target", format!("there is no stage `{name}`"));
    Err(match nearest(name, dockerfile.stage_names()) {
        Some(nearest) => error.with_help(format!("did you mean `{option} {nearest}`?")),
        None => {
            let names: Vec<&str> = dockerfile.stage_names().collect();
            match names.is_empty() {
                true => error.with_help("name a stage with `FROM … AS name`"),
                false => error.with_help(format!("the stages are {}", names.join(", "))),
            }
        }
    })
}

/// Whether the user sees an instruction as a step of its own.
pub(crate) fn makes_layer(instruction: &Instruction) -> bool {
    matches!(
        instruction.kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}

struct Planner<'a, 'g> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    resolved: &'a ResolvedImages,
    global: &'g GlobalScope,
    planned: BTreeSet<usize>,
    /// The stages from the target to the one that is being visited.
    path: Vec<usize>,
    stages: Vec<PlannedStage<'a>>,
    missing: Vec<ImageRequest>,
    errors: Vec<Diagnostic>,
}

impl<'a> Planner<'a, '_> {
    /// Plans a stage after all that it needs.
    fn visit(&mut self, index: usize) {
        if self.planned.contains(&index) {
            return;
        }
        self.path.push(index);
        if let Some(stage) = self.plan_stage(&self.dockerfile.stages[index]) {
            let needed: Vec<usize> = std::iter::once(&stage.base)
                .chain(stage.references.values())
                .filter_map(Reference::stage)
                .collect();
            for other in needed {
                if self.path.contains(&other) {
                    self.errors.push(self.cycle(index, other));
                } else {
                    self.visit(other);
                }
            }
            if self.planned.insert(index) {
                self.stages.push(stage);
            }
        }
        self.path.pop();
    }

    /// What a stage refers to, or `None` if its base is no reference at all.
    fn plan_stage(&mut self, stage: &'a Stage) -> Option<PlannedStage<'a>> {
        let platform = self.platform(stage)?;
        let replacement = self.replacement(stage, &platform);
        let is_replaced = replacement.is_some();
        let (base, instructions) = match replacement {
            Some(named) => (self.image_or_context(named, &stage.from.kind.image), &[][..]),
            None => (self.base(stage, &platform)?, stage.instructions.as_slice()),
        };
        let platform = match &base {
            Reference::Stage(other) if stage.from.kind.platform.is_none() => {
                self.platform(&self.dockerfile.stages[*other])?
            }
            _ => platform,
        };
        let triggers = if is_replaced { Vec::new() } else { self.triggers(&base) };
        let mut references = BTreeMap::new();
        let source = &self.dockerfile.source;
        let own = instructions.iter().map(|instruction| (source, instruction));
        let onbuild = triggers.iter().map(|trigger| (&trigger.source, &trigger.instruction));
        for (source, word) in onbuild.chain(own).flat_map(|(s, i)| froms(i).map(move |w| (s, w))) {
            if let Some(reference) = self.reference(stage.index, &platform, source, word) {
                references.insert(word.text().to_owned(), reference);
            }
        }
        Some(PlannedStage { stage, instructions, base, platform, triggers, references })
    }

    fn platform(&mut self, stage: &Stage) -> Option<Platform> {
        let Some(word) = &stage.from.kind.platform else {
            return Some(self.options.target_platform.clone());
        };
        let text = self.expand(word)?;
        let platform = text.parse();
        if platform.is_err() {
            let message = format!("`{text}` is not a platform");
            let error = Diagnostic::error("bad-platform", message)
                .at(&self.dockerfile.source, word.span(), "")
                .with_help("write `os/architecture`, such as `linux/arm64` or `$BUILDPLATFORM`");
            self.errors.push(error);
        }
        platform.ok()
    }

    /// The context that has the name of a stage, and stands in for all of it.
    fn replacement(&self, stage: &Stage, platform: &Platform) -> Option<(String, ImageKeyOrDir)> {
        self.named_context(stage.name.as_deref()?, platform)
    }

    fn base(&mut self, stage: &Stage, platform: &Platform) -> Option<Reference> {
        let word = &stage.from.kind.image;
        let text = self.expand(word)?;
        if text.is_empty() {
            let error = Diagnostic::error("empty-base", "the base image's name is empty")
                .at(&self.dockerfile.source, word.span(), "nothing is left after expansion")
                .with_help("give the variable a default: `ARG name=value` before the first `FROM`");
            self.errors.push(error);
            return None;
        }
        let earlier = self.dockerfile.stage_by_name(&text, stage.index);
        match earlier {
            Some(earlier) => Some(Reference::Stage(earlier)),
            None if text == "scratch" => Some(Reference::Scratch),
            None => self.image(&text, platform, &self.dockerfile.source, word),
        }
    }

    /// What `COPY --from` or `RUN --mount=from` names.
    fn reference(
        &mut self,
        current: usize,
        platform: &Platform,
        source: &SourceFile,
        word: &Word,
    ) -> Option<Reference> {
        let text = word.text();
        if let Some(named) = self.named_context(text, platform) {
            return Some(self.image_or_context(named, word));
        }
        let number: Option<usize> = text.parse().ok();
        let stage = match number {
            Some(_) => self.dockerfile.find_stage(text, current),
            None => self.dockerfile.find_stage(text, self.dockerfile.stages.len()),
        };
        match (stage, number) {
            (Some(stage), _) => Some(Reference::Stage(stage)),
            (None, Some(number)) => {
                let message = format!("there is no stage {number} before this one");
                let error = Diagnostic::error("unknown-stage", message)
                    .at(source, word.span(), "")
                    .with_note("stages are counted from 0");
                self.errors.push(error);
                None
            }
            (None, None) => self.image(text, platform, source, word),
        }
    }

    fn image(
        &mut self,
        text: &str,
        platform: &Platform,
        source: &SourceFile,
        word: &Word,
    ) -> Option<Reference> {
        if let Some(named) = self.named_context(text, platform) {
            return Some(self.image_or_context(named, word));
        }
        let location = match text.parse() {
            Ok(location) => location,
            Err(error) => {
                let error: crate::LocationError = error;
                self.errors.push(self.no_image(text, &error, source, word.span()));
                return None;
            }
        };
        let key = ImageKey { location, platform: platform.clone() };
        self.request(&key, (source.clone(), word.span()), text);
        Some(Reference::Image(key))
    }

    fn no_image(
        &self,
        text: &str,
        error: &crate::LocationError,
        source: &SourceFile,
        span: Span,
    ) -> Diagnostic {
        let message = format!("`{text}` is neither a stage nor an image");
        let diagnostic = Diagnostic::error("unknown-stage", message)
            .at(source, span, "")
            .with_note(error.to_string());
        match nearest(text, self.dockerfile.stage_names()) {
            Some(name) => diagnostic.with_help(format!("did you mean the stage `{name}`?")),
            None => diagnostic,
        }
    }

    /// A context under a name, or under the name and the platform: `name::linux/arm64`.
    fn named_context(&self, name: &str, platform: &Platform) -> Option<(String, ImageKeyOrDir)> {
        let contexts = &self.options.contexts;
        let familiar = name.parse::<formwork_oci::Reference>().ok().map(|full| full.familiar());
        let names = [Some(name.to_owned()), familiar];
        let find = |name: String| {
            let exact = format!("{name}::{platform}");
            [exact, name].into_iter().find(|key| contexts.contains_key(key))
        };
        let key = names.into_iter().flatten().find_map(find)?;
        let context = match contexts.get(&key)? {
            NamedContext::Directory => None,
            NamedContext::Image(location) => {
                Some(ImageKey { location: location.clone(), platform: platform.clone() })
            }
        };
        Some((key, context))
    }

    fn image_or_context(&mut self, named: (String, ImageKeyOrDir), word: &Word) -> Reference {
        match named {
            (name, None) => Reference::Context(name),
            (_, Some(key)) => {
                self.request(&key, (self.dockerfile.source.clone(), word.span()), word.text());
                Reference::Image(key)
            }
        }
    }

    fn request(&mut self, key: &ImageKey, place: (SourceFile, Span), text: &str) {
        let is_known = self.resolved.contains_key(key);
        if is_known || self.missing.iter().any(|request| request.key == *key) {
            return;
        }
        let nearest_stage = match &key.location {
            ImageLocation::Named(_) => {
                let others = self.dockerfile.stage_names().filter(|name| *name != text);
                nearest(text, others)
            }
            _ => None,
        };
        let nearest_stage = nearest_stage.map(str::to_owned);
        self.missing.push(ImageRequest { key: key.clone(), place, nearest_stage });
    }

    /// The parsed `ONBUILD` instructions of a stage, or of a base image that is already known.
    fn triggers(&mut self, base: &Reference) -> Vec<Trigger> {
        let (name, texts) = match base {
            Reference::Stage(index) => {
                let stage = &self.dockerfile.stages[*index];
                let platform = self.platform(stage);
                match platform.and_then(|platform| self.replacement(stage, &platform)) {
                    None => (self.name(*index), onbuild(stage)),
                    Some((_, Some(key))) => return self.triggers(&Reference::Image(key)),
                    Some((_, None)) => return Vec::new(),
                }
            }
            Reference::Image(key) => match self.resolved.get(key) {
                Some(image) => (key.location.to_string(), image.config.config.on_build.clone()),
                None => return Vec::new(),
            },
            Reference::Scratch | Reference::Context(_) => return Vec::new(),
        };
        let mut triggers = Vec::new();
        for text in texts {
            let source = SourceFile::new(format!("ONBUILD of {name}"), text);
            let (instruction, diagnostics) = parse_trigger(source.text(), source.name());
            self.errors.extend(diagnostics.into_iter().filter(Diagnostic::is_error));
            triggers.extend(instruction.map(|instruction| Trigger { source, instruction }));
        }
        triggers
    }

    fn expand(&mut self, word: &Word) -> Option<String> {
        match self.global.expand(word, self.dockerfile.directives.escape) {
            Ok(text) => Some(text),
            Err(error) => {
                self.errors.push(error.to_diagnostic(&self.dockerfile.source));
                None
            }
        }
    }

    fn cycle(&self, from: usize, to: usize) -> Diagnostic {
        let start = self.path.iter().position(|index| *index == to).unwrap_or(0);
        let mut names: Vec<String> = self.path[start..].iter().map(|i| self.name(*i)).collect();
        names.push(self.name(to));
        let message = match from == to {
            true => format!("the stage {} takes something from itself", self.name(to)),
            false => format!("stages need each other in a circle: {}", names.join(" → ")),
        };
        Diagnostic::error("circular-stages", message)
            .at(&self.dockerfile.source, self.mention(from, to), "")
            .with_help("take what is needed from a stage that comes before both")
    }

    /// Where a stage names another one; its `FROM` if that does, or an ONBUILD instruction.
    fn mention(&self, from: usize, to: usize) -> Span {
        let count = self.dockerfile.stages.len();
        let is_other = |word: &&Word| {
            let by_number = || word.text().parse().ok();
            self.dockerfile.stage_by_name(word.text(), count).or_else(by_number) == Some(to)
        };
        let stage = &self.dockerfile.stages[from];
        let word = stage.instructions.iter().flat_map(froms).find(is_other);
        word.map_or(stage.from.span, Word::span)
    }

    fn name(&self, index: usize) -> String {
        let name = self.dockerfile.stages[index].name.as_deref();
        name.map_or_else(|| format!("#{index}"), |name| format!("`{name}`"))
    }
}

/// A named context: an image, or `None` for a directory.
type ImageKeyOrDir = Option<ImageKey>;

impl Reference {
    fn stage(&self) -> Option<usize> {
        match self {
            Self::Stage(index) => Some(*index),
            _ => None,
        }
    }
}

/// What the `ONBUILD` instructions of a stage hold for the stages that are based on it.
fn onbuild(stage: &Stage) -> Vec<String> {
    let text = |instruction: &Instruction| match &instruction.kind {
        InstructionKind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
        _ => None,
    };
    stage.instructions.iter().filter_map(text).collect()
}

/// The words of an instruction that name a stage, an image or a context.
pub(crate) fn froms(instruction: &Instruction) -> impl Iterator<Item = &Word> {
    let (copied, mounts) = match &instruction.kind {
        InstructionKind::Copy(copy) => (copy.from.as_ref(), &[][..]),
        InstructionKind::Run(run) => (None, run.mounts.as_slice()),
        _ => (None, &[][..]),
    };
    let mounted = mounts.iter().filter_map(|mount| mount.from.as_ref());
    copied.into_iter().chain(mounted).filter(|word| !word.is_empty())
}
