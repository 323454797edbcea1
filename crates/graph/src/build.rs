//! Putting a graph together.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{Exec, FileAction, FileOp, Graph, MountKind, Op, OpId, Source, Step};

/// Collects ops; equal ops become one.
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    steps: Vec<Step>,
    /// Where the ops with a given hash are.
    known: HashMap<u64, Vec<OpId>>,
}

/// What makes a graph invalid: always a mistake of the code that built it, never of the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An op takes something from one that comes later or is not there.
    #[error("{op} ({name}) takes something from {input}, which does not come before it")]
    UnknownInput {
        /// The op.
        op: OpId,
        /// Its name.
        name: String,
        /// What it takes something from.
        input: OpId,
    },
    /// A context where a root file system is needed.
    #[error("{op} ({name}) puts a layer on a build context")]
    ContextAsRoot {
        /// The op.
        op: OpId,
        /// Its name.
        name: String,
    },
    /// A path that is not absolute.
    #[error("{op} ({name}) has the relative path `{path}`")]
    RelativePath {
        /// The op.
        op: OpId,
        /// Its name.
        name: String,
        /// The path.
        path: String,
    },
    /// A process without a program, or a copy without a source.
    #[error("{op} ({name}) has nothing to do")]
    Empty {
        /// The op.
        op: OpId,
        /// Its name.
        name: String,
    },
}

impl GraphBuilder {
    /// Adds an op, or finds the equal one that is already there.
    ///
    /// Two ops are equal if they do the same, whatever they are called.
    pub fn add(&mut self, step: Step) -> OpId {
        let mut hasher = DefaultHasher::new();
        (&step.op, step.no_cache, step.max_age).hash(&mut hasher);
        let same_hash = self.known.entry(hasher.finish()).or_default();
        let is_equal = |id: &OpId| {
            let known = &self.steps[id.index()];
            known.op == step.op && (known.no_cache, known.max_age) == (step.no_cache, step.max_age)
        };
        if let Some(known) = same_hash.iter().copied().find(is_equal) {
            return known;
        }
        let id = OpId::at(self.steps.len());
        same_hash.push(id);
        self.steps.push(step);
        id
    }

    /// The graph, if it is one.
    ///
    /// # Errors
    ///
    /// Names the first op that breaks a rule.
    pub fn finish(self) -> Result<Graph, GraphError> {
        let graph = Graph { steps: self.steps };
        graph.steps().try_for_each(|(id, step)| Check { graph: &graph, id, step }.check())?;
        Ok(graph)
    }
}

struct Check<'a> {
    graph: &'a Graph,
    id: OpId,
    step: &'a Step,
}

impl Check<'_> {
    fn check(&self) -> Result<(), GraphError> {
        let late = self.step.op.inputs().into_iter().find(|input| *input >= self.id);
        if let Some(input) = late {
            return Err(GraphError::UnknownInput { op: self.id, name: self.name(), input });
        }
        match &self.step.op {
            Op::Source(_) => Ok(()),
            Op::Exec(exec) => self.check_exec(exec),
            Op::File(file) => self.check_file(file),
        }
    }

    fn check_exec(&self, exec: &Exec) -> Result<(), GraphError> {
        self.check_root(exec.rootfs)?;
        self.check_not_empty(exec.args.is_empty())?;
        self.check_path(&exec.cwd)?;
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::SecretEnv { .. } => {}
                MountKind::Bind { source, .. } => {
                    self.check_path(source)?;
                    self.check_path(&mount.target)?;
                }
                _ => self.check_path(&mount.target)?,
            }
        }
        Ok(())
    }

    fn check_file(&self, file: &FileOp) -> Result<(), GraphError> {
        self.check_root(file.base)?;
        self.check_not_empty(file.actions.is_empty())?;
        for action in &file.actions {
            match action {
                FileAction::MakeDirectory { path, .. } => self.check_path(path)?,
                FileAction::Copy { sources, destination, .. } => {
                    self.check_not_empty(sources.is_empty())?;
                    self.check_path(destination)?;
                }
            }
        }
        Ok(())
    }

    fn check_root(&self, root: OpId) -> Result<(), GraphError> {
        match self.graph.step(root).op {
            Op::Source(Source::Context { .. } | Source::Remote(_)) => {
                Err(GraphError::ContextAsRoot { op: self.id, name: self.name() })
            }
            _ => Ok(()),
        }
    }

    fn check_path(&self, path: &str) -> Result<(), GraphError> {
        if path.starts_with('/') {
            return Ok(());
        }
        Err(GraphError::RelativePath { op: self.id, name: self.name(), path: path.to_owned() })
    }

    fn check_not_empty(&self, is_empty: bool) -> Result<(), GraphError> {
        if is_empty { Err(GraphError::Empty { op: self.id, name: self.name() }) } else { Ok(()) }
    }

    fn name(&self) -> String {
        self.step.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CopyOptions, CopySource, Places};

    pub(super) fn step(op: Op) -> Step {
        Step {
            op,
            name: "step".to_owned(),
            location: None,
            places: Places::default(),
            no_cache: false,
            max_age: None,
        }
    }

    fn copy(base: OpId, from: OpId, destination: &str) -> Op {
        Op::File(FileOp {
            base,
            link: false,
            actions: vec![FileAction::Copy {
                sources: vec![CopySource::Path { from, pattern: "/app".to_owned() }],
                destination: destination.to_owned(),
                into_directory: false,
                options: CopyOptions::default(),
            }],
        })
    }

    fn context() -> Op {
        Op::Source(Source::Context { name: "context".to_owned() })
    }

    #[test]
    fn equal_ops_become_one() {
        let mut builder = GraphBuilder::default();
        let one = builder.add(step(Op::Source(Source::Scratch)));
        let two =
            builder.add(Step { name: "other".to_owned(), ..step(Op::Source(Source::Scratch)) });
        assert_eq!(one, two);
        assert_eq!(builder.finish().unwrap().len(), 1);
    }

    #[test]
    fn only_what_is_needed_is_needed() {
        let mut builder = GraphBuilder::default();
        let scratch = builder.add(step(Op::Source(Source::Scratch)));
        let context = builder.add(step(context()));
        let unused = builder.add(step(copy(scratch, context, "/unused")));
        let used = builder.add(step(copy(scratch, context, "/used")));
        let graph = builder.finish().unwrap();
        assert_eq!(graph.needed_for(&[used]), [scratch, context, used]);
        assert_eq!(graph.needed_for(&[used, unused]).len(), 4);
    }

    #[test]
    fn invalid_graphs_are_refused() {
        let build = |op: fn(OpId, OpId) -> Op| {
            let mut builder = GraphBuilder::default();
            let scratch = builder.add(step(Op::Source(Source::Scratch)));
            let context = builder.add(step(context()));
            builder.add(step(op(scratch, context)));
            builder.finish().map(|_| ()).unwrap_err().to_string()
        };
        let late = build(|scratch, _| copy(scratch, OpId::at(9), "/x"));
        assert!(late.contains("%9"), "{late}");
        let relative = build(|scratch, context| copy(scratch, context, "x"));
        assert!(relative.contains("relative path `x`"), "{relative}");
        let root = build(|scratch, context| copy(context, scratch, "/x"));
        assert!(root.contains("build context"), "{root}");
        let empty = build(|scratch, _| {
            Op::File(FileOp { base: scratch, link: false, actions: Vec::new() })
        });
        assert!(empty.contains("nothing to do"), "{empty}");
    }
}
