//! The build graph: what has to be done, as data.
//!
//! A [`Graph`] is a list of [`Op`]s, each of which names the ops that it takes something from.
//! Ops come after their inputs, so the list is a topological order and a cycle cannot be written
//! down. A graph is immutable once [`GraphBuilder::finish`] has validated it, and it prints itself
//! for people.
//!
//! Every op yields a root file system: [`Op::Source`] an image, the build context or nothing at
//! all, [`Op::Exec`] and [`Op::File`] that of another op with one more layer on it.
//!
//! This crate knows neither Dockerfiles nor containers, and nothing of how ops are carried out.

mod build;
mod display;
mod op;
mod remote;

pub use build::{GraphBuilder, GraphError};
pub use remote::{GitSource, HttpSource, RemoteSource, without_secrets};

pub use op::{
    CacheSharing, CopyOptions, CopySource, Exec, FileAction, FileOp, MountKind, MountSpec, Network,
    Op, OpId, Place, Places, Security, Source, Step,
};

/// A validated build graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    steps: Vec<Step>,
}

impl Graph {
    /// An op with what is told about it.
    ///
    /// # Panics
    ///
    /// Panics for an id of another graph.
    pub fn step(&self, id: OpId) -> &Step {
        &self.steps[id.index()]
    }

    /// All ops, each after its inputs.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = (OpId, &Step)> + ExactSizeIterator {
        self.steps.iter().enumerate().map(|(index, step)| (OpId::at(index), step))
    }

    /// The number of ops.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no ops.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The ops that the given ones need, themselves included, each after its inputs.
    pub fn needed_for(&self, targets: &[OpId]) -> Vec<OpId> {
        let mut needed = vec![false; self.steps.len()];
        for target in targets {
            needed[target.index()] = true;
        }
        for (id, step) in self.steps().rev() {
            if needed[id.index()] {
                step.op.inputs().iter().for_each(|input| needed[input.index()] = true);
            }
        }
        self.steps().map(|(id, _)| id).filter(|id| needed[id.index()]).collect()
    }
}
