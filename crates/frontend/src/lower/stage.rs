//! A stage, instruction by instruction.

use formwork_diagnostics::{Diagnostic, SourceFile, Span};
use formwork_dockerfile::{
    ExpandError, Expanded, ExpandedWords, Instruction, InstructionKind, Word, expand, expand_words,
};
use formwork_graph::{CopyOptions, CopySource, FileAction, FileOp, Op, OpId, Place, Places, Step};
use formwork_oci::{ImageConfig, Platform};

use super::{HistoryEntry, Lowering};
use crate::ImageKey;
use crate::config;
use crate::findings::undefined;
use crate::plan::{PlannedStage, Reference, makes_layer};
use crate::scope::StageScope;

/// What is known of a stage at a point.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    pub(super) root: OpId,
    pub(super) config: ImageConfig,
    pub(super) history: Vec<HistoryEntry>,
    pub(super) scope: StageScope,
    pub(super) platform: Platform,
    /// Whether the stage itself has set a command.
    pub(super) has_own_command: bool,
    /// Whether a WORKDIR was there, in this stage or those that it is based on.
    pub(super) has_own_workdir: bool,
    /// Where the user is given, if not by an image.
    pub(super) user: Option<Place>,
}

/// Lowers one stage.
pub(super) struct StageLowerer<'l, 'a> {
    pub(super) lowering: &'l mut Lowering<'a>,
    pub(super) stage: &'a PlannedStage<'a>,
    pub(super) state: StageState,
    /// The source of the instruction that is being lowered.
    pub(super) source: SourceFile,
    /// Where the steps of an `ONBUILD` instruction are said to stand: at the `FROM`.
    pub(super) trigger_place: Option<Span>,
    step: usize,
    steps: usize,
}

impl<'l, 'a> StageLowerer<'l, 'a> {
    /// A stage at its `FROM`.
    pub(super) fn begin(lowering: &'l mut Lowering<'a>, stage: &'a PlannedStage<'a>) -> Self {
        let triggers = stage.triggers.iter().map(|trigger| &trigger.instruction);
        let instructions = triggers.chain(stage.instructions);
        let steps = 1 + instructions.filter(|instruction| makes_layer(instruction)).count();
        let source = lowering.plan.dockerfile.source.clone();
        let state = StageState {
            root: lowering.source(formwork_graph::Source::Scratch, "scratch", None),
            config: config::scratch(&stage.platform),
            history: Vec::new(),
            scope: StageScope::default(),
            platform: stage.platform.clone(),
            has_own_command: false,
            has_own_workdir: false,
            user: None,
        };
        let mut lowerer =
            Self { lowering, stage, state, source, trigger_place: None, step: 1, steps };
        lowerer.begin_with_base();
        lowerer
    }

    /// Lowers all instructions.
    pub(super) fn lower(mut self) -> StageState {
        let stage = self.stage;
        let own_source = self.source.clone();
        self.trigger_place = Some(stage.stage.from.span);
        for trigger in &stage.triggers {
            self.source = trigger.source.clone();
            self.instruction(&trigger.instruction);
        }
        self.trigger_place = None;
        self.source = own_source;
        if config::chosen_shell(&self.state.config).is_some() {
            self.lowering.shells.push(stage.stage.index);
        }
        for instruction in stage.instructions {
            self.instruction(instruction);
        }
        self.state
    }

    fn begin_with_base(&mut self) {
        let from = &self.stage.stage.from;
        let (start, end) = (from.span.start, from.span.end);
        let name = self.step_name(&from.text);
        match &self.stage.base {
            Reference::Scratch => self.state.scope = scope_of(&self.state.config),
            Reference::Stage(index) => {
                if let Some(base) = self.lowering.states.get(index) {
                    let platform = self.state.platform.clone();
                    self.state = StageState { has_own_command: false, platform, ..base.clone() };
                    self.state.config.config.on_build.clear();
                }
            }
            Reference::Image(key) => {
                let root = self.lowering.image(key, name, Some((start, end)));
                self.state.root = root.unwrap_or(self.state.root);
                if let Some(image) = self.lowering.resolved.get(key) {
                    self.state.config = config::inherited(image.config.clone());
                    self.state.scope = scope_of(&self.state.config);
                    self.check_platform(key, from.kind.image.span());
                }
            }
            Reference::Context(context) => self.begin_with_context(context, name, (start, end)),
        }
        let span = from.span;
        if self.take_environment(span).is_none() {
            self.state.scope = StageScope::default();
        }
    }

    /// Notes that the environment is kept once more, for a step or a stage; `None` if that is too
    /// much.
    pub(super) fn take_environment(&mut self, span: Span) -> Option<()> {
        let variables = self.state.scope.variables().iter();
        let length = variables.map(|(name, value)| name.len() + value.len()).sum();
        let taken = self.lowering.budget.take(length, span);
        self.report_expansion(taken)
    }

    fn check_platform(&mut self, key: &ImageKey, span: Span) {
        let Some(found) = self.lowering.resolved.get(key).map(|image| image.config.platform())
        else {
            return;
        };
        let wanted = &key.platform;
        if (&found.os, &found.architecture) != (&wanted.os, &wanted.architecture) {
            let message = format!(
                "Base image {} was pulled with platform \"{found}\", expected \"{wanted}\" for \
                 current build",
                key.location
            );
            let warning = Diagnostic::warning("InvalidBaseImagePlatform", message);
            self.report(warning.at(&self.lowering.plan.dockerfile.source, span, ""));
        }
    }

    /// A directory as a base: all of it, in one layer.
    fn begin_with_context(&mut self, context: &str, name: String, location: Place) {
        self.state.scope = scope_of(&self.state.config);
        let from = self.lowering.context(context);
        let copy = FileAction::Copy {
            sources: vec![CopySource::Path { from, pattern: "/".to_owned() }],
            destination: "/".to_owned(),
            into_directory: true,
            options: CopyOptions::default(),
        };
        let op = Op::File(FileOp { base: self.state.root, link: true, actions: vec![copy] });
        let no_cache = self.is_uncached(&op);
        let places = Places::default();
        let max_age = None;
        let step = Step { op, name, location: Some(location), places, no_cache, max_age };
        let layer = self.lowering.builder.add(step);
        self.state.root = layer;
        let created_by = self.stage.stage.from.text.clone();
        self.state.history.push(HistoryEntry { created_by, layer: Some(layer) });
    }

    fn instruction(&mut self, instruction: &Instruction) {
        if self.trigger_place.is_none() && !self.lowering.budget.is_spent() {
            let (escape, scope) = (self.escape(), &self.state.scope);
            let found = undefined(&instruction.kind, &self.source, escape, scope);
            self.lowering.diagnostics.extend(found);
        }
        match &instruction.kind {
            InstructionKind::Run(run) => self.run(instruction, run),
            InstructionKind::Copy(copy) => self.copy(instruction, copy),
            InstructionKind::Add(add) => self.add(instruction, add),
            InstructionKind::Workdir(path) => self.workdir(instruction, path),
            _ => self.metadata(instruction),
        }
    }

    /// Adds an op of an instruction and puts its layer on the stage.
    pub(super) fn push(
        &mut self,
        instruction: &Instruction,
        op: Op,
        places: Places,
        created_by: String,
    ) {
        self.step += 1;
        let max_age = self.max_age(instruction);
        let no_cache = self.is_uncached(&op) || self.is_told_off(instruction);
        let layer = self.lowering.builder.add(Step {
            op,
            name: self.step_name(&instruction.text),
            location: Some(self.place(instruction.span)),
            places,
            no_cache,
            max_age,
        });
        self.state.root = layer;
        self.state.history.push(HistoryEntry { created_by, layer: Some(layer) });
    }

    /// Where the ops of an instruction are said to stand.
    pub(super) fn place(&self, span: Span) -> Place {
        let span = self.trigger_place.unwrap_or(span);
        (span.start, span.end)
    }

    /// Where a part of an instruction stands; that of an image's `ONBUILD` stands nowhere.
    pub(super) fn part(&self, span: Span) -> Option<Place> {
        self.trigger_place.is_none().then_some((span.start, span.end))
    }

    /// Whether an earlier result of the step that is being lowered must not be used.
    fn is_uncached(&self, op: &Op) -> bool {
        self.lowering.options.no_cache
            || self.lowering.plan.uncached.has(self.stage.stage.index, self.step, op)
    }

    /// Notes an instruction that makes no layer.
    pub(super) fn note(&mut self, created_by: String) {
        self.state.history.push(HistoryEntry { created_by, layer: None });
    }

    /// What the user sees: the stage, how far it is, the instruction.
    fn step_name(&self, text: &str) -> String {
        let (step, steps) = (self.step, self.steps);
        let stage = self.stage.stage;
        let platform = match self.lowering.options.several_platforms {
            true => format!("{} ", self.stage.platform),
            false => String::new(),
        };
        match &stage.name {
            Some(name) => format!("[{platform}{name} {step}/{steps}] {text}"),
            None if self.lowering.plan.stages.len() == 1 => {
                format!("[{platform}{step}/{steps}] {text}")
            }
            None => format!("[{platform}stage-{} {step}/{steps}] {text}", stage.index),
        }
    }

    /// Expands a word; `None` after reporting what is wrong with it.
    pub(super) fn expand(&mut self, word: &Word) -> Option<String> {
        let result = self.try_expand(word);
        self.report_expansion(result)
    }

    pub(super) fn try_expand(&self, word: &Word) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.state.scope.get(name).map(str::to_owned);
        let text = || expand(word, self.escape(), &lookup);
        let expanded = self.lowering.budget.expand(word.span(), text, Expanded::cost);
        expanded.map(|expanded| expanded.text)
    }

    /// Expands a word to any number of words.
    pub(super) fn expand_words(&mut self, word: &Word) -> Option<Vec<String>> {
        let lookup = |name: &str| self.state.scope.get(name).map(str::to_owned);
        let words = || expand_words(word, self.escape(), &lookup);
        let result = self.lowering.budget.expand(word.span(), words, ExpandedWords::cost);
        self.report_expansion(result.map(|expanded| expanded.words))
    }

    pub(super) fn report_expansion<T>(&mut self, result: Result<T, ExpandError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let diagnostic = error.to_diagnostic(&self.source);
                self.report(diagnostic);
                None
            }
        }
    }

    /// The escape character of the source that is being lowered: an image's `ONBUILD` has always
    /// been stored with the default one.
    fn escape(&self) -> char {
        match self.trigger_place {
            Some(_) => '\\',
            None => self.lowering.plan.dockerfile.directives.escape,
        }
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.lowering.diagnostics.push(diagnostic);
    }

    /// Reports an error at a place of the source that is being lowered.
    pub(super) fn error(&mut self, code: &'static str, message: String, span: Span, help: &str) {
        let diagnostic = Diagnostic::error(code, message).at(&self.source, span, "");
        self.report(if help.is_empty() { diagnostic } else { diagnostic.with_help(help) });
    }

    /// An absolute path: the given one, or below the working directory. A slash at its end stays.
    pub(super) fn absolute(&self, path: &str) -> String {
        let directory = self.state.config.config.working_dir.as_str();
        join(if directory.is_empty() { "/" } else { directory }, path)
    }
}

/// Joins paths by their text.
pub(super) fn join(directory: &str, path: &str) -> String {
    match path {
        _ if path.starts_with('/') => path.to_owned(),
        "" => directory.to_owned(),
        _ if directory.ends_with('/') => format!("{directory}{path}"),
        _ => format!("{directory}/{path}"),
    }
}

fn scope_of(config: &ImageConfig) -> StageScope {
    StageScope::of_env(&config.config.env)
}
