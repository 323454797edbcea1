//! Which op comes next: a queue for several workers that knows nothing of what ops do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use formwork_graph::{Graph, OpId};

/// The ops that are needed, with what each waits for and who waits for it.
pub(crate) struct Schedule<O> {
    state: Mutex<State<O>>,
    changed: Condvar,
}

struct State<O> {
    ready: VecDeque<OpId>,
    /// For each op, the number of inputs that are not there yet.
    missing: BTreeMap<OpId, usize>,
    dependents: BTreeMap<OpId, Vec<OpId>>,
    outputs: BTreeMap<OpId, O>,
    unfinished: usize,
    idle: usize,
    stopped: bool,
}

/// What a worker is to do.
pub(crate) struct Assignment<O> {
    pub(crate) op: OpId,
    pub(crate) inputs: BTreeMap<OpId, O>,
    /// Whether there is work for one more worker than there is.
    pub(crate) more: bool,
}

impl<O: Clone> Schedule<O> {
    pub(crate) fn new(graph: &Graph, needed: &[OpId]) -> Self {
        let mut missing = BTreeMap::new();
        let mut dependents: BTreeMap<OpId, Vec<OpId>> = BTreeMap::new();
        for id in needed {
            let inputs = graph.step(*id).op.inputs();
            missing.insert(*id, inputs.len());
            for input in inputs {
                dependents.entry(input).or_default().push(*id);
            }
        }
        let ready = missing.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        let state = State {
            ready,
            missing,
            dependents,
            outputs: BTreeMap::new(),
            unfinished: needed.len(),
            idle: 0,
            stopped: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for an op that can run; `None` when there will be no more.
    pub(crate) fn next(&self, graph: &Graph) -> Option<Assignment<O>> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.unfinished == 0 {
                return None;
            }
            if let Some(op) = state.ready.pop_front() {
                let inputs = graph.step(op).op.inputs().into_iter();
                let inputs = inputs.filter_map(|id| Some((id, state.outputs.get(&id)?.clone())));
                let inputs = inputs.collect();
                let more = state.ready.len() > state.idle;
                return Some(Assignment { op, inputs, more });
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Takes an op's output and makes those ready that waited for it alone.
    pub(crate) fn finish(&self, op: OpId, output: O) {
        let mut state = self.lock();
        state.outputs.insert(op, output);
        state.unfinished -= 1;
        for dependent in state.dependents.get(&op).cloned().unwrap_or_default() {
            if let Some(missing) = state.missing.get_mut(&dependent) {
                *missing -= 1;
                if *missing == 0 {
                    state.ready.push_back(dependent);
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Lets nobody begin anything any more.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The outputs of all ops that finished.
    pub(crate) fn into_outputs(self) -> BTreeMap<OpId, O> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).outputs
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
