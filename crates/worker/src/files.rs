//! TEMPORARY
use std::sync::Arc;
use formwork_cache::Identity;
use formwork_diagnostics::Outcome;
use formwork_fs::RelPath;
use formwork_graph::{FileAction, FileOp};
use formwork_layer::tree::{Entry, Metadata, Node};
use formwork_layer::Tree;
use formwork_solver::{Done, Examined, Task};
use crate::context::Context;
use crate::layer::{Layer, Source};
use crate::mounts::input;
use crate::root::Output;
use crate::runner::Worker;
use crate::missing::{MissingSource, Reason};
use crate::WorkerError;

pub(crate) struct PlannedFiles { tree: Tree }
pub(crate) struct Part { pub(crate) tree: Tree, pub(crate) path: RelPath, pub(crate) is_directory: bool }
pub(crate) fn missing_in_root(source: &str) -> WorkerError {
    WorkerError::Missing(MissingSource { source: source.to_owned(), context: None, reason: Reason::Unknown })
}
pub(crate) fn context_part(context: &Context, source: &str) -> Result<Part, WorkerError> {
    let tree = context.tree()?;
    let path = RelPath::clean(source).unwrap_or_default();
    Ok(Part { tree: Tree::clone(&tree), path, is_directory: true })
}
impl Worker {
    pub(crate) fn planned(&self, tree: Tree) -> Result<Arc<Layer>, WorkerError> {
        let copy = tree.clone();
        Layer::keep(&self.store, tree, None, Source::Plan(Box::new(move || Ok(copy.clone()))))
    }
    pub(crate) fn part_of(&self, _: &Output, _: &str) -> Result<Tree, WorkerError> { Ok(Tree::default()) }
    pub(crate) fn identity_of_part(&self, _: &Output, _: &str) -> Result<Identity, WorkerError> { Ok(Identity::scratch()) }
    fn plan(&self, file: &FileOp) -> Result<Tree, WorkerError> {
        let mut entries = Vec::new();
        for a in &file.actions {
            if let FileAction::MakeDirectory { path, .. } = a {
                let p = RelPath::clean(path).unwrap_or_default();
                for q in p.ancestors().chain([p.clone()]).filter(|q| !q.is_root()) {
                    entries.push(Entry { path: q, node: Node::Directory { opaque: false }, metadata: Metadata::root_owned(0o755) });
                }
            }
        }
        Ok(Tree::new(entries)?)
    }
    pub(crate) fn examine_files(&self, task: &Task<'_, Output>, file: &FileOp) -> Result<Examined, WorkerError> {
        let tree = self.plan(file)?;
        let base = input(task, file.base)?.root()?;
        Ok(Examined { result: Some(base.identity().with_layer(&tree.digest().0)), ..Examined::default() })
    }
    pub(crate) fn run_files(&self, task: &Task<'_, Output>, file: &FileOp) -> Result<Done<Output>, WorkerError> {
        let tree = self.plan(file)?;
        let base = input(task, file.base)?.root()?;
        let layer = self.planned(tree)?;
        let rec = (layer.name().to_string(), 1);
        Ok(Done { output: Output::Root(base.with(layer)?), layer: Some(rec), outcome: Outcome::Done })
    }
    pub(crate) fn plan_source(&self, _: &Task<'_, Output>, _: &FileOp) -> Result<Source, WorkerError> { Ok(Source::Store) }
}
