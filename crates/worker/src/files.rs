//! COPY, ADD and WORKDIR: planning them, which touches no file's bytes but those of archives, and
//! keeping what was planned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_cache::Identity;
use formwork_diagnostics::{Diagnostic, Outcome};
use formwork_fs::{RelPath, Timestamp};
use formwork_graph::{CopyOptions, CopySource, FileAction, FileOp, OpId};
use formwork_layer::compose::{
    Composer, CopyOptions as Compose, ModeChange, Owner, Selected, select,
};
use formwork_layer::tree::{Last, Node};
use formwork_layer::{Stack, Tree};
use formwork_pattern::IgnorePatterns;
use formwork_snapshot::SnapshotKey;
use formwork_solver::{Done, Examined, OpInputs, Task};

use crate::accounts::{Accounts, FileOwner, UnknownAccount};
use crate::context::{Context, has_wildcards};
use crate::exec::accounts;
use crate::layer::{Layer, Source};
use crate::missing::missing;
use crate::mounts::{input, path};
use crate::root::Output;
use crate::runner::Worker;
use crate::store::LayerStore;
use crate::{WorkerError, archive};

/// When directories and heredocs are said to be made: always the same, so that a copy is the same
/// wherever and whenever it is made.
const MADE: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

/// A planned copy: the layer's list of files, which knows where the bytes are.
#[derive(Debug)]
pub(crate) struct PlannedFiles {
    tree: Arc<Tree>,
}

/// A part of a context, as a layer for a bind mount.
pub(crate) struct Part {
    pub(crate) tree: Tree,
    pub(crate) path: RelPath,
    pub(crate) is_directory: bool,
}

impl PlannedFiles {
    /// The list of files.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Worker {
    /// Plans a copy; its result is its content key.
    pub(crate) fn examine_files(
        &self,
        task: &Task<'_, Output>,
        file: &FileOp,
    ) -> Result<Examined, WorkerError> {
        let plan = self.plan(task, file)?;
        if plan.tree.is_empty() {
            return Ok(Examined::default());
        }
        let digest = plan.tree.digest().0;
        let result = match file.link {
            true => Identity::files(&digest),
            false => input(task, file.base)?.root()?.identity().with_layer(&digest),
        };
        Ok(Examined { result: Some(result), ..Examined::default() })
    }

    /// Keeps a planned copy: the list of its files. Its directory and its blob are made when
    /// somebody needs them.
    pub(crate) fn run_files(
        &self,
        task: &Task<'_, Output>,
        file: &FileOp,
    ) -> Result<Done<Output>, WorkerError> {
        let plan = self.plan(task, file)?;
        let base = input(task, file.base)?.root()?;
        if plan.tree.is_empty() {
            let layer = Some((String::new(), crate::store::now()));
            return Ok(Done { output: Output::Root(base.clone()), layer, outcome: Outcome::Done });
        }
        let earlier = task.earlier.as_ref().and_then(|earlier| earlier.layer.parse().ok());
        let source = plan_source(&plan, earlier);
        let layer = Layer::keep(&self.store, Tree::clone(&plan.tree), None, source)?;
        let record = (layer.name().to_string(), layer.created()?.unwrap_or_default());
        let output = Output::Root(base.with(layer)?);
        Ok(Done { output, layer: Some(record), outcome: Outcome::Done })
    }

    /// Where the layer of a copy comes from whose list of files is in the store already.
    pub(crate) fn planned_source(&self, task: &Task<'_, Output>, file: &FileOp) -> Source {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&task.id) {
            return plan_source(plan, None);
        }
        let planner = Planner::new(&self.store, file, &task.inputs);
        Source::Plan { tree: Box::new(move || planner.plan()), earlier: None }
    }

    /// A layer of some files that are somewhere else.
    pub(crate) fn planned(&self, tree: Tree) -> Result<Arc<Layer>, WorkerError> {
        let plan = Arc::new(PlannedFiles { tree: Arc::new(tree.clone()) });
        Layer::keep(&self.store, tree, None, plan_source(&plan, None))
    }

    pub(crate) fn plan(
        &self,
        task: &Task<'_, Output>,
        file: &FileOp,
    ) -> Result<Arc<PlannedFiles>, WorkerError> {
        let known =
            self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&task.id).cloned();
        if let Some(plan) = known {
            return Ok(plan);
        }
        let planner = Planner::new(&self.store, file, &task.inputs);
        let tree = planner.plan()?;
        // BuildKit says nothing about either, and what was meant is missed much later.
        for pattern in taken(planner.unmatched).into_iter().filter(|pattern| !may_lack(pattern)) {
            let warning = Diagnostic::warning("no-match", format!("`{pattern}` matches nothing"));
            self.warn(task.step, task.step.places.of_name(&pattern), warning);
        }
        for account in taken(planner.unknown) {
            let warning = Diagnostic::warning("unknown-account", account.to_string());
            self.warn(task.step, task.step.places.account, warning.with_note(account.taken()));
        }
        let plan = Arc::new(PlannedFiles { tree: Arc::new(tree) });
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.insert(task.id, Arc::clone(&plan));
        Ok(plan)
    }
}

/// Whether a pattern is a name whose file may be missing: `go.su[m]` is written for nothing else.
fn may_lack(pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('[').collect();
    let is_letter = |part: &&str| part.find(']') == part.chars().next().map(char::len_utf8);
    parts.len() > 1 && parts[1..].iter().all(is_letter) && !pattern.contains(['*', '?', '\\'])
}

fn taken<T>(list: Mutex<Vec<T>>) -> Vec<T> {
    list.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn plan_source(plan: &Arc<PlannedFiles>, earlier: Option<SnapshotKey>) -> Source {
    let plan = Arc::clone(plan);
    Source::Plan { tree: Box::new(move || Ok(Tree::clone(&plan.tree))), earlier }
}

/// All that it takes to plan a copy, now or later.
struct Planner {
    store: Arc<LayerStore>,
    file: FileOp,
    inputs: OpInputs<Output>,
    /// The sources that matched nothing.
    unmatched: Mutex<Vec<String>>,
    /// The names of users and groups that the files below do not know.
    unknown: Mutex<Vec<UnknownAccount>>,
}

impl Planner {
    fn new(store: &Arc<LayerStore>, file: &FileOp, inputs: &OpInputs<Output>) -> Self {
        Self {
            store: Arc::clone(store),
            file: file.clone(),
            inputs: inputs.clone(),
            unmatched: Mutex::default(),
            unknown: Mutex::default(),
        }
    }

    fn plan(&self) -> Result<Tree, WorkerError> {
        let below = match self.file.link {
            true => Vec::new(),
            false => self.input(self.file.base)?.root()?.trees()?,
        };
        let sources = self.source_trees()?;
        let mut composer = Composer::new(Stack::new(below.iter().map(|tree| &**tree)));
        for action in &self.file.actions {
            match action {
                FileAction::MakeDirectory { path: directory, owner } => {
                    let owner = self.owner(owner)?;
                    composer.make_directory(&path(directory)?, owner, MADE)?;
                }
                FileAction::Copy { sources: from, destination, into_directory, options } => {
                    let exclude = exclude(options)?;
                    let compose = Compose {
                        into_directory: *into_directory,
                        owner: options.owner.as_deref().map(|o| self.owner(o)).transpose()?,
                        mode: options.mode.as_deref().and_then(ModeChange::parse),
                        exclude: exclude.as_ref(),
                        created: MADE,
                    };
                    let copy =
                        Copy { planner: self, options, compose, destination: path(destination)? };
                    for source in from {
                        copy.source(&mut composer, source, &sources)?;
                    }
                }
            }
        }
        Ok(composer.finish()?)
    }

    /// The lists of files of everything that is copied from, with the places of the bytes.
    fn source_trees(&self) -> Result<BTreeMap<OpId, Vec<Arc<Tree>>>, WorkerError> {
        let mut trees = BTreeMap::new();
        for action in &self.file.actions {
            let FileAction::Copy { sources, .. } = action else { continue };
            for source in sources {
                let CopySource::Path { from, .. } = source else { continue };
                if !trees.contains_key(from) {
                    trees.insert(*from, trees_with_bytes(self.input(*from)?)?);
                }
            }
        }
        Ok(trees)
    }

    fn note_unmatched(&self, pattern: &str) {
        let mut unmatched = self.unmatched.lock().unwrap_or_else(PoisonError::into_inner);
        unmatched.push(pattern.to_owned());
    }

    fn input(&self, op: OpId) -> Result<&Output, WorkerError> {
        let missing = || WorkerError::Internal(format!("the input {op} is not there"));
        self.inputs.get(op).ok_or_else(missing)
    }

    /// The numbers of an owner. Only names need a look at the files below, and there have to be
    /// some.
    fn owner(&self, text: &str) -> Result<Owner, WorkerError> {
        let FileOwner { uid, gid, unknown } = Accounts::default().owner(text);
        if unknown.is_empty() {
            return Ok(Owner { uid, gid });
        }
        let root = self.input(self.file.base)?.root()?;
        let FileOwner { uid, gid, unknown } = accounts(root)?.owner(text);
        if let Some(problem) = unknown.first().filter(|_| root.layers().is_empty()) {
            return Err(problem.clone().into());
        }
        let mut known = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        for account in unknown {
            if !known.contains(&account) {
                known.push(account);
            }
        }
        Ok(Owner { uid, gid })
    }
}

/// One COPY or ADD.
struct Copy<'a> {
    planner: &'a Planner,
    options: &'a CopyOptions,
    compose: Compose<'a>,
    destination: RelPath,
}

impl Copy<'_> {
    fn source(
        &self,
        composer: &mut Composer<'_>,
        source: &CopySource,
        trees: &BTreeMap<OpId, Vec<Arc<Tree>>>,
    ) -> Result<(), WorkerError> {
        match source {
            CopySource::Inline { name, data } => {
                let name = name.as_bytes();
                composer.copy_file(name, data.as_slice(), &self.destination, &self.compose)?;
            }
            CopySource::Path { from, pattern } => {
                let stack = stack(trees.get(from).map_or(&[][..], Vec::as_slice));
                self.check_is_there(&stack, pattern, self.planner.input(*from)?)?;
                if self.options.parents {
                    let (name, to) = (pattern.as_bytes(), &self.destination);
                    if !composer.copy_with_parents(&stack, name, to, &self.compose)? {
                        self.planner.note_unmatched(pattern);
                    }
                    return Ok(());
                }
                let all = select(&stack, pattern.as_bytes())?;
                if all.is_empty() {
                    self.planner.note_unmatched(pattern);
                }
                for selected in all {
                    self.selected(composer, &stack, &selected)?;
                }
            }
        }
        Ok(())
    }

    /// Copies something, or unpacks it if it is an archive and may be.
    fn selected(
        &self,
        composer: &mut Composer<'_>,
        stack: &Stack<'_>,
        selected: &Selected,
    ) -> Result<(), WorkerError> {
        if self.options.unpack
            && let Some(found) = stack.lookup(&selected.path)
            && let Node::File(file) = found.node()
            && let Some(unpacked) = archive::unpacked(&self.planner.store, file)?
        {
            let (tree, implied) = (&unpacked.tree, &unpacked.implied);
            return Ok(composer.unpack(tree, implied, &self.destination, &self.compose)?);
        }
        Ok(composer.copy(stack, selected, &self.destination, &self.compose)?)
    }

    /// Tells why a source without wildcards is not there, if it is not.
    fn check_is_there(
        &self,
        stack: &Stack<'_>,
        pattern: &str,
        from: &Output,
    ) -> Result<(), WorkerError> {
        if has_wildcards(pattern) {
            return Ok(());
        }
        let Ok(clean) = RelPath::clean(pattern) else { return Ok(()) };
        let is_there = match stack.resolve(&clean, Last::Follow) {
            Ok(resolved) => resolved.found.is_some() || resolved.path.is_root(),
            // Told better by those who copy.
            Err(_) => true,
        };
        if is_there { Ok(()) } else { Err(missing(from, stack, pattern)) }
    }
}

fn exclude(options: &CopyOptions) -> Result<Option<IgnorePatterns>, WorkerError> {
    if options.exclude.is_empty() {
        return Ok(None);
    }
    let patterns = IgnorePatterns::new(options.exclude.iter().map(String::as_bytes));
    patterns.map(Some).map_err(|error| {
        WorkerError::Internal(format!("`--exclude` has a pattern that is none: {error}"))
    })
}

/// A part of a context, for a bind mount.
pub(crate) fn context_part(context: &Arc<Context>, source: &str) -> Result<Part, WorkerError> {
    let whole = context.tree()?;
    let stack = Stack::new([&*whole]);
    let resolved = stack.resolve(&path(source)?, Last::Follow)?;
    if resolved.found.is_none() && !resolved.path.is_root() {
        return Err(missing(&Output::Context(Arc::clone(context)), &stack, source));
    }
    let is_directory = resolved.is_directory();
    let path = resolved.path;
    let above = path.ancestors().filter_map(|ancestor| whole.get(&ancestor).cloned());
    let entries = above.chain(whole.subtree(&path).iter().cloned()).collect();
    Ok(Part { tree: Tree::new(entries)?, path, is_directory })
}

impl Worker {
    /// The identity of what a bind mount shows.
    pub(crate) fn identity_of_part(
        &self,
        from: &Output,
        source: &str,
    ) -> Result<Identity, WorkerError> {
        let trees = trees(from)?;
        let stack = stack(&trees);
        let resolved = stack.resolve(&path(source)?, Last::Follow)?;
        match stack.content_digest(&resolved.path, true) {
            Some(digest) => Ok(Identity::files(&digest.0)),
            None if resolved.path.is_root() => Ok(Identity::scratch()),
            None => Err(missing(from, &stack, source)),
        }
    }

    /// The files of a part, as the first content of a directory that others write to.
    pub(crate) fn part_of(&self, from: &Output, source: &str) -> Result<Tree, WorkerError> {
        let trees = trees_with_bytes(from)?;
        let stack = stack(&trees);
        let mut composer = Composer::new(Stack::default());
        let options = Compose { into_directory: true, created: MADE, ..Compose::default() };
        for selected in select(&stack, source.as_bytes())? {
            composer.copy(&stack, &selected, &RelPath::root(), &options)?;
        }
        Ok(composer.finish()?)
    }
}

fn trees(output: &Output) -> Result<Vec<Arc<Tree>>, WorkerError> {
    match output {
        Output::Context(context) => Ok(vec![context.tree()?]),
        Output::Fetched(tree, _) => Ok(vec![Arc::clone(tree)]),
        Output::Root(root) => root.trees(),
    }
}

fn trees_with_bytes(output: &Output) -> Result<Vec<Arc<Tree>>, WorkerError> {
    match output {
        Output::Context(context) => Ok(vec![context.tree()?]),
        Output::Fetched(tree, _) => Ok(vec![Arc::clone(tree)]),
        Output::Root(root) => root.trees_with_bytes(),
    }
}

fn stack(trees: &[Arc<Tree>]) -> Stack<'_> {
    Stack::new(trees.iter().map(|tree| &**tree))
}
