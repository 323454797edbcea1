//! Carrying a graph out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use formwork_cache::{
    CacheError, CacheIndex, CacheRecord, Claim, ClaimLog, Claimed, Components, Identity, Inputs,
    LogPart, content_key, definition_key, result_key,
};
use formwork_diagnostics::{Event, EventSink, LogStream, Outcome, StepId};
use formwork_graph::{Graph, Op, OpId, Source};

use crate::explain::Explainer;
use crate::permits::Permits;
use crate::schedule::{Assignment, Schedule};
use crate::{Cancel, Done, Examined, OpInputs, OpRunner, SolveError, Task};

/// How to work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// How many processes run at the same time; at least one.
    pub jobs: usize,
    /// What the graph is about, so that steps of the same name in other graphs are told from its
    /// own: any hash.
    pub scope: [u8; 32],
}

/// Carries out what some targets need, and returns the output of each op that was needed.
///
/// # Errors
///
/// The first failure; everything else has been stopped by the time it is returned.
pub fn execute<R: OpRunner>(
    graph: &Graph,
    targets: &[OpId],
    runner: &R,
    index: &dyn CacheIndex,
    settings: Settings,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<BTreeMap<OpId, R::Output>, SolveError<R::Error>> {
    let needed = graph.needed_for(targets);
    for id in needed.iter().filter(|id| is_shown(&graph.step(**id).op)) {
        let name = graph.step(*id).name.as_str().into();
        events.emit(Event::StepAdded { step: step_id(*id), name });
    }
    let run = Run::new(graph, &needed, runner, index, settings, cancel, events);
    run.explainer.notes.keep(index, || std::thread::scope(|scope| run.work(scope)));
    let failure = run.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure {
        Some(error) => Err(error),
        None if cancel.is_canceled() => Err(SolveError::Canceled),
        None => Ok(run.schedule.into_outputs()),
    }
}

/// Whether the user sees a step for an op.
pub(crate) fn is_shown(op: &Op) -> bool {
    !matches!(op, Op::Source(Source::Scratch | Source::Context { .. }))
}

/// As which step an op is told of.
pub fn step_id(op: OpId) -> StepId {
    StepId(u32::try_from(op.index()).unwrap_or(u32::MAX))
}

/// The time in seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Why a step waits.
const WAITING: &str = "the same step is running already, maybe in another build";

/// How often a worker that waits for another process looks whether it is done.
const CLAIM_POLL: Duration = Duration::from_millis(20);

pub(crate) struct Run<'a, R: OpRunner> {
    pub(crate) graph: &'a Graph,
    pub(crate) runner: &'a R,
    pub(crate) index: &'a dyn CacheIndex,
    cancel: &'a Cancel,
    pub(crate) events: &'a dyn EventSink,
    schedule: Schedule<R::Output>,
    permits: Permits,
    pub(crate) explainer: Explainer,
    /// How many more threads may be started.
    spare_workers: AtomicUsize,
    failure: Mutex<Option<SolveError<R::Error>>>,
}

/// Lets nobody wait for a worker that has panicked.
struct StopOnPanic<'r, 'a, R: OpRunner>(&'r Run<'a, R>);

impl<R: OpRunner> Drop for StopOnPanic<'_, '_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl<'a, R: OpRunner> Run<'a, R> {
    pub(crate) fn new(
        graph: &'a Graph,
        needed: &[OpId],
        runner: &'a R,
        index: &'a dyn CacheIndex,
        settings: Settings,
        cancel: &'a Cancel,
        events: &'a dyn EventSink,
    ) -> Self {
        Self {
            graph,
            runner,
            index,
            cancel,
            events,
            schedule: Schedule::new(graph, needed),
            permits: Permits::new(settings.jobs),
            explainer: Explainer::new(settings.scope),
            // Ops that run no process may go on while all processes that may run do.
            spare_workers: AtomicUsize::new(needed.len().min(settings.jobs.saturating_add(8))),
            failure: Mutex::new(None),
        }
    }

    /// An op whose inputs are there.
    pub(crate) fn solving(&self, op: OpId, inputs: OpInputs<R::Output>) -> Solving<'_, 'a, R> {
        let step = self.graph.step(op);
        let task = Task { id: op, step, inputs, claim: None, earlier: None, cancel: self.cancel };
        Solving {
            run: self,
            task,
            examined: Examined::default(),
            is_shown_yet: Cell::default(),
            is_expired: Cell::default(),
            is_gone: Cell::default(),
        }
    }

    /// Takes one op after another; starts another worker where there is work for one.
    fn work<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        let _stop = StopOnPanic(self);
        while let Some(Assignment { op, inputs, more }) = self.schedule.next(self.graph) {
            if more && self.take_spare_worker() {
                // Where the machine has no more threads to give, those that are there do the work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || self.work(scope));
            }
            match self.solve(op, OpInputs::new(inputs)) {
                Ok(output) => self.schedule.finish(op, output),
                Err(error) => self.fail(error),
            }
        }
    }

    fn take_spare_worker(&self) -> bool {
        let take = |spare: usize| spare.checked_sub(1);
        self.spare_workers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Stops everything. Only the first failure counts: those after it are mostly its effect, and
    /// where somebody asked to stop, all of them are.
    fn fail(&self, error: SolveError<R::Error>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            let asked = self.cancel.is_canceled();
            *failure = Some(if asked { SolveError::Canceled } else { error });
        }
        drop(failure);
        self.stop();
    }

    fn stop(&self) {
        self.cancel.cancel();
        self.schedule.stop();
        self.permits.wake();
    }

    fn solve(
        &self,
        op: OpId,
        inputs: OpInputs<R::Output>,
    ) -> Result<R::Output, SolveError<R::Error>> {
        let step = self.graph.step(op);
        let solution = self.solving(op, inputs).solve();
        let (outcome, duration, result) = match solution {
            Ok((output, outcome, duration)) => (outcome, duration, Ok(output)),
            Err(error) if self.cancel.is_canceled() => {
                (Outcome::Canceled, Duration::ZERO, Err(error))
            }
            Err(error) => (Outcome::Failed(error.to_string()), Duration::ZERO, Err(error)),
        };
        if is_shown(&step.op) {
            let step = step_id(op);
            self.events.emit(Event::StepFinished { step, outcome, duration });
        }
        result
    }
}

/// One op on its way to an output.
pub(crate) struct Solving<'a, 'r, R: OpRunner> {
    pub(crate) run: &'a Run<'r, R>,
    pub(crate) task: Task<'a, R::Output>,
    examined: Examined,
    /// Whether the user has been told that the step begins.
    is_shown_yet: Cell<bool>,
    /// Whether there is a result that is too old.
    pub(crate) is_expired: Cell<bool>,
    /// Whether there was a result that is gone.
    pub(crate) is_gone: Cell<bool>,
}

type Solution<R> = (<R as OpRunner>::Output, Outcome, Duration);
/// A result, or the definition key and the content key.
type Found<R> = Result<<R as OpRunner>::Output, (Option<Components>, Option<Components>)>;
/// An earlier result with its record.
type Recorded<R> = (<R as OpRunner>::Output, CacheRecord);

impl<R: OpRunner> Solving<'_, '_, R> {
    fn solve(mut self) -> Result<Solution<R>, SolveError<R::Error>> {
        if let Op::Source(_) = self.task.step.op {
            return self.run_now(&[]);
        }
        let (definition, content) = match self.find_or_keys()? {
            Ok(output) => return Ok((output, Outcome::Cached, Duration::ZERO)),
            Err(keys) => keys,
        };
        let mut keys: Vec<Components> = [definition, content].into_iter().flatten().collect();
        // What a step takes from nowhere else, both keys say alike.
        keys.dedup_by_key(|key| key.key());
        // Whoever uses no result of others waits for none.
        if let Some(key) = keys.last().filter(|_| !self.task.step.no_cache) {
            self.task.claim = Some(self.claim(key)?);
        }
        // Whoever had the claim before may have done the work.
        if let Some(output) = self.look_up(keys.last())? {
            return Ok((output, Outcome::Cached, Duration::ZERO));
        }
        self.run_now(&keys)
    }

    /// What the op yields as far as that is known without running it: sources, and what the cache
    /// has.
    pub(crate) fn find(&mut self) -> Result<Option<R::Output>, SolveError<R::Error>> {
        match self.task.step.op {
            Op::Source(_) => Ok(Some(self.runner(|runner, task| runner.run(task))?.output)),
            _ => Ok(self.find_or_keys()?.ok()),
        }
    }

    /// What the cache has; else the keys that it was looked for under.
    fn find_or_keys(&mut self) -> Result<Found<R>, SolveError<R::Error>> {
        let definition = definition_key(&self.task.step.op, self);
        if let Some(output) = self.look_up(definition.as_ref())? {
            return Ok(Ok(output));
        }
        self.examined = self.runner(|runner, task| runner.examine(task))?;
        let content = content_key(&self.task.step.op, self);
        let found = self.look_up_content(definition.as_ref(), content.as_ref())?;
        Ok(found.ok_or((definition, content)))
    }

    /// The output under a key, unless the step must not use one or its output is gone.
    fn look_up(&self, key: Option<&Components>) -> Result<Option<R::Output>, SolveError<R::Error>> {
        let Some(key) = key.filter(|_| !self.task.step.no_cache).map(Components::key) else {
            return Ok(None);
        };
        let Some(record) = self.run.index.find(&key)? else { return Ok(None) };
        if self.is_too_old(&record) {
            self.is_expired.set(true);
            return Ok(None);
        }
        let output = self.runner(|runner, task| runner.restore(task, &record, false))?;
        if output.is_none() {
            self.is_gone.set(true);
            self.run.index.forget(&key)?;
        }
        Ok(output)
    }

    /// Whether a result may not be used again since it was made too long ago.
    fn is_too_old(&self, record: &CacheRecord) -> bool {
        let made = if record.ran == 0 { record.created } else { record.ran };
        let age = u64::try_from(now().saturating_sub(made)).unwrap_or_default();
        self.task.step.max_age.is_some_and(|max| age >= max)
    }

    /// Like [`Self::look_up`]; what is found is found under the definition the next time.
    fn look_up_content(
        &self,
        definition: Option<&Components>,
        content: Option<&Components>,
    ) -> Result<Option<R::Output>, SolveError<R::Error>> {
        let output = self.look_up(content)?;
        if let (Some(definition), Some(content), Some(_)) = (definition, content, &output)
            && let Some(record) = self.run.index.find(&content.key())?
        {
            let record = CacheRecord { components: definition.list().to_vec(), ..record };
            self.run.index.store(&definition.key(), &record)?;
        }
        Ok(output)
    }

    /// Takes the claim of a key. While somebody else has it, their log is shown.
    fn claim(&self, key: &Components) -> Result<Claim, SolveError<R::Error>> {
        let key = key.key();
        let mut log = match self.run.index.try_claim(&key)? {
            Claimed::Now(claim) => return Ok(claim),
            Claimed::Already(log) => log,
        };
        self.begin();
        if is_shown(&self.task.step.op) {
            let step = step_id(self.task.id);
            self.run.events.emit(Event::StepWaiting { step, why: WAITING.into() });
        }
        loop {
            self.follow(&mut log);
            if let Claimed::Now(claim) = self.run.index.try_claim(&key)? {
                self.follow(&mut log);
                return Ok(claim);
            }
            if self.run.cancel.is_canceled() {
                return Err(SolveError::Canceled);
            }
            std::thread::sleep(CLAIM_POLL);
        }
    }

    /// Shows what the log of somebody else's claim says since the last time.
    fn follow(&self, log: &mut ClaimLog) {
        for LogPart { is_error, data } in log.read() {
            let stream = if is_error { LogStream::Stderr } else { LogStream::Stdout };
            self.run.events.emit(Event::StepLog { step: step_id(self.task.id), stream, data });
        }
    }

    /// Tells, once, that the step begins.
    fn begin(&self) {
        if is_shown(&self.task.step.op) && !self.is_shown_yet.replace(true) {
            self.run.events.emit(Event::StepStarted { step: step_id(self.task.id) });
        }
    }

    fn run_now(&mut self, keys: &[Components]) -> Result<Solution<R>, SolveError<R::Error>> {
        let _permit = match self.task.step.op {
            Op::Exec(_) => Some(self.run.permits.acquire(self.run.cancel)),
            _ => None,
        };
        if self.run.cancel.is_canceled() {
            return Err(SolveError::Canceled);
        }
        self.begin();
        self.task.earlier = self.explain();
        let start = Instant::now();
        let done = self.runner(|runner, task| runner.run(task))?;
        let duration = start.elapsed();
        let Done { output, layer, outcome } = done;
        let Some((layer, created)) = layer else { return Ok((output, outcome, duration)) };
        // What changes nothing has the identity of what is below it, under which that is recorded.
        let identity = self.run.runner.identity(&output);
        let identity = identity.filter(|identity| self.base_identity() != Some(*identity));
        if let Some((output, record)) = self.equal_result(identity)? {
            self.run.explainer.is_unchanged(self.task.id);
            self.record(keys, &record.layer, record.created, duration)?;
            self.note_run(&record.layer, record.created, duration);
            return Ok((output, Outcome::Unchanged, duration));
        }
        self.record(keys, &layer, created, duration)?;
        self.note_run(&layer, created, duration);
        if let Some(identity) = identity {
            self.record(&[result_key(identity)], &layer, created, duration)?;
        }
        Ok((output, outcome, duration))
    }

    fn base_identity(&self) -> Option<Identity> {
        match &self.task.step.op {
            Op::Source(_) => None,
            Op::Exec(exec) => self.root(exec.rootfs),
            Op::File(file) => self.root(file.base),
        }
    }

    /// The first result with an identity, if there is one and it is still there.
    ///
    /// Equal results differ in modification times, so only one of them may be used; what was made
    /// on top of the first one stays valid that way.
    fn equal_result(
        &self,
        identity: Option<Identity>,
    ) -> Result<Option<Recorded<R>>, SolveError<R::Error>> {
        let Some(identity) = identity else { return Ok(None) };
        let Some(record) = self.run.index.find(&result_key(identity).key())? else {
            return Ok(None);
        };
        let output = self.runner(|runner, task| runner.restore(task, &record, true))?;
        Ok(output.map(|output| (output, record)))
    }

    fn record(
        &self,
        keys: &[Components],
        layer: &str,
        created: i64,
        duration: Duration,
    ) -> Result<(), CacheError> {
        keys.iter().try_for_each(|key| {
            let record = CacheRecord {
                layer: layer.to_owned(),
                created,
                step: self.task.step.name.clone(),
                milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                ran: now(),
                components: key.list().to_vec(),
            };
            self.run.index.store(&key.key(), &record)
        })
    }

    fn runner<T>(
        &self,
        call: impl FnOnce(&R, &Task<'_, R::Output>) -> Result<T, R::Error>,
    ) -> Result<T, SolveError<R::Error>> {
        call(self.run.runner, &self.task)
            .map_err(|error| SolveError::Op { op: self.task.id, error })
    }
}

impl<R: OpRunner> Inputs for Solving<'_, '_, R> {
    fn root(&self, op: OpId) -> Option<Identity> {
        self.run.runner.identity(self.task.inputs.get(op)?)
    }

    fn mounted(&self, mount: usize) -> Option<Identity> {
        self.examined.mounted.get(&mount).copied()
    }

    fn result(&self) -> Option<Identity> {
        self.examined.result
    }
}
