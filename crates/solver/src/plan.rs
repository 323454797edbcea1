//! What carrying a graph out would do, without doing it.

use std::collections::BTreeMap;
use std::time::Duration;

use formwork_cache::CacheIndex;
use formwork_diagnostics::EventSink;
use formwork_graph::{Graph, Op, OpId};

use crate::execute::{Run, is_shown};
use crate::{Cancel, OpInputs, OpRunner, Settings, SolveError};

/// An op as it would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// What the user sees, such as `[build 3/7] RUN make`.
    pub name: String,
    /// What it would do.
    pub forecast: Forecast,
    /// How long it took the last time it ran; `None` where that is not known.
    pub last: Option<Duration>,
    /// The steps that it waits for, by their places in the plan.
    pub after: Vec<usize>,
}

/// What an op would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forecast {
    /// Come from the cache.
    Cached,
    /// Run, for these reasons; none for one that has not run before.
    Runs(Vec<String>),
    /// Run, unless the step of this name that runs before it yields what it did.
    Follows(String),
}

/// Finds out what [`crate::execute`] would do. Sources are looked at, which may fetch them;
/// nothing else runs.
///
/// # Errors
///
/// Fails where an op that would run is known to fail, such as for a missing file.
pub fn plan<R: OpRunner>(
    graph: &Graph,
    targets: &[OpId],
    runner: &R,
    index: &dyn CacheIndex,
    settings: Settings,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<Vec<PlannedStep>, SolveError<R::Error>> {
    let needed = graph.needed_for(targets);
    let run = Run::new(graph, &needed, runner, index, settings, cancel, events);
    let mut plan = Plan { outputs: BTreeMap::new(), places: BTreeMap::new(), steps: Vec::new() };
    for id in needed {
        if cancel.is_canceled() {
            return Err(SolveError::Canceled);
        }
        plan.add(&run, id)?;
    }
    Ok(plan.steps)
}

struct Plan<O> {
    /// What is known without running anything.
    outputs: BTreeMap<OpId, O>,
    places: BTreeMap<OpId, usize>,
    steps: Vec<PlannedStep>,
}

impl<O: Clone + Send + Sync> Plan<O> {
    /// Adds an op, whose inputs have been added.
    fn add<R: OpRunner<Output = O>>(
        &mut self,
        run: &Run<'_, R>,
        id: OpId,
    ) -> Result<(), SolveError<R::Error>> {
        let step = run.graph.step(id);
        let inputs = step.op.inputs();
        let known = inputs.iter().map(|input| Some((*input, self.outputs.get(input)?.clone())));
        let forecast = match known.collect::<Option<BTreeMap<OpId, O>>>() {
            None => {
                let known = inputs.iter();
                let known = known.filter_map(|id| Some((*id, self.outputs.get(id)?.clone())));
                let mut own = run.solving(id, OpInputs::new(known.collect())).own_reasons();
                let cause = self.cause(run, &inputs);
                if own.is_empty() {
                    Forecast::Follows(cause)
                } else {
                    let text = cause.split_once("] ").map_or(&*cause, |(_, text)| text);
                    own.push(format!("`{text}` would run before it"));
                    Forecast::Runs(own)
                }
            }
            Some(known) => {
                let mut solving = run.solving(id, OpInputs::new(known));
                match solving.find()? {
                    Some(output) => {
                        self.outputs.insert(id, output);
                        Forecast::Cached
                    }
                    None => Forecast::Runs(solving.reasons().reasons),
                }
            }
        };
        if let (Op::Exec(exec), false) = (&step.op, forecast == Forecast::Cached)
            && let Some(output) = self.known_below(run.graph, exec.rootfs)
        {
            run.runner.demand(output).map_err(|error| SolveError::Op { op: id, error })?;
        }
        if is_shown(&step.op) && !matches!(step.op, Op::Source(_)) {
            let after = inputs.iter().filter_map(|input| self.places.get(input).copied()).collect();
            let last = run.explainer.last_duration(run.index, &step.name);
            self.places.insert(id, self.steps.len());
            self.steps.push(PlannedStep { name: step.name.clone(), forecast, last, after });
        }
        Ok(())
    }

    /// The nearest output that is known of an op and those that it builds on.
    fn known_below(&self, graph: &Graph, op: OpId) -> Option<&O> {
        let below = |op: &OpId| match &graph.step(*op).op {
            Op::Source(_) => None,
            Op::Exec(exec) => Some(exec.rootfs),
            Op::File(file) => Some(file.base),
        };
        std::iter::successors(Some(op), below).find_map(|op| self.outputs.get(&op))
    }

    /// The first of the inputs that would run; where that only follows another, that one.
    fn cause<R: OpRunner>(&self, run: &Run<'_, R>, inputs: &[OpId]) -> String {
        let first = inputs.iter().find(|input| !self.outputs.contains_key(input));
        let place = first.and_then(|input| self.places.get(input));
        match place.and_then(|place| self.steps.get(*place)) {
            Some(PlannedStep { forecast: Forecast::Follows(cause), .. }) => cause.clone(),
            Some(step) => step.name.clone(),
            None => first.map(|input| run.graph.step(*input).name.clone()).unwrap_or_default(),
        }
    }
}
