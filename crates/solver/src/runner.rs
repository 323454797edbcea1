//! What the solver asks of whoever makes ops real.

use std::collections::BTreeMap;

use formwork_cache::{CacheRecord, Claim, Identity};
use formwork_diagnostics::Outcome;
use formwork_graph::{OpId, Step};

use crate::Cancel;

/// Makes ops real. One of the two call-back traits of the program; a remote worker would be
/// another implementation.
pub trait OpRunner: Sync {
    /// What an op yields; cheap to clone.
    type Output: Clone + Send + Sync;
    /// Why an op failed.
    type Error: std::error::Error + Send + 'static;

    /// The identity of an output, for the keys of the ops that use it; `None` where an output is
    /// known by content only.
    fn identity(&self, output: &Self::Output) -> Option<Identity>;

    /// Looks at what an op uses of its inputs, for its content key.
    ///
    /// # Errors
    ///
    /// Fails where the op could not run either, such as for a missing file.
    fn examine(&self, task: &Task<'_, Self::Output>) -> Result<Examined, Self::Error>;

    /// The output that a record stands for; `None` if it is no longer there. It need not be there
    /// as a whole, unless that is asked for: then it is as good as what the op has just yielded.
    ///
    /// # Errors
    ///
    /// Fails where it is not known whether it is there.
    fn restore(
        &self,
        task: &Task<'_, Self::Output>,
        record: &CacheRecord,
        whole: bool,
    ) -> Result<Option<Self::Output>, Self::Error>;

    /// Makes sure that an op can be carried out on top of an output, as far as that is known at
    /// once: what was restored need not be there as a whole.
    ///
    /// # Errors
    ///
    /// Fails where that op would fail for it.
    fn demand(&self, output: &Self::Output) -> Result<(), Self::Error>;

    /// What an op would yield now against the layer of an earlier run, in words: the files that
    /// differ, the most telling first. Nothing where that is not known without running the op.
    fn compare(&self, task: &Task<'_, Self::Output>, earlier: &CacheRecord) -> Vec<String>;

    /// Carries an op out.
    ///
    /// # Errors
    ///
    /// Fails where the op does, and when the task's cancel flag is raised.
    fn run(&self, task: &Task<'_, Self::Output>) -> Result<Done<Self::Output>, Self::Error>;
}

/// An op to carry out.
#[derive(Debug)]
pub struct Task<'a, O> {
    /// The op's number.
    pub id: OpId,
    /// The op.
    pub step: &'a Step,
    /// What it takes something from.
    pub inputs: OpInputs<O>,
    /// The claim of the op, whose log others follow; `None` where nobody waits for it.
    pub claim: Option<Claim>,
    /// The earlier run of the step that differs least from this one: the results may have much in
    /// common. `None` where there is none, or nothing of earlier runs is to be used.
    pub earlier: Option<CacheRecord>,
    /// Raised when the work is no longer wanted.
    pub cancel: &'a Cancel,
}

/// The outputs that an op takes something from.
#[derive(Debug, Clone)]
pub struct OpInputs<O>(BTreeMap<OpId, O>);

/// What an op uses of its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The identity of what each bind mount shows, by the mount's position in the op.
    pub mounted: BTreeMap<usize, Identity>,
    /// The identity of what a file op yields: the root file system, or the layer alone if it must
    /// not depend on what is below it; `None` if the op changes nothing.
    pub result: Option<Identity>,
}

/// An op that was carried out.
#[derive(Clone, Debug)]
pub struct Done<O> {
    /// What it yields.
    pub output: O,
    /// The name of its layer and when that was made (seconds since 1970), for the record; `None`
    /// for what is not recorded.
    pub layer: Option<(String, i64)>,
    /// What to tell the user.
    pub outcome: Outcome,
}

impl<O> OpInputs<O> {
    pub(crate) fn new(outputs: BTreeMap<OpId, O>) -> Self {
        Self(outputs)
    }

    /// The output of an op; `None` for one that is not an input.
    pub fn get(&self, op: OpId) -> Option<&O> {
        self.0.get(&op)
    }
}
