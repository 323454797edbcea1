//! The solver with ops that are numbers: a source yields 0, an op adds its program's name to the
//! hash of its inputs, and everything that happens is written down.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use formwork_cache::{CacheError, CacheIndex, CacheKey, CacheRecord, Claim, Claimed, Identity};
use formwork_diagnostics::{Event, EventSink, NoEvents, Outcome};
use formwork_graph::{
    CopyOptions, CopySource, Exec, FileAction, FileOp, Graph, GraphBuilder, Network, Op, OpId,
    Places, Security, Source, Step,
};
use formwork_solver::{Cancel, Done, Examined, OpRunner, Settings, SolveError, Task, execute};

#[derive(Default)]
struct MemoryIndex {
    records: Mutex<BTreeMap<CacheKey, CacheRecord>>,
    claimed: Mutex<Vec<CacheKey>>,
    runs: Mutex<BTreeMap<CacheKey, Vec<CacheRecord>>>,
}

impl CacheIndex for MemoryIndex {
    fn find(&self, key: &CacheKey) -> Result<Option<CacheRecord>, CacheError> {
        Ok(self.records.lock().unwrap().get(key).cloned())
    }
    fn store(&self, key: &CacheKey, record: &CacheRecord) -> Result<(), CacheError> {
        self.records.lock().unwrap().insert(*key, record.clone());
        Ok(())
    }
    fn try_claim(&self, key: &CacheKey) -> Result<Claimed, CacheError> {
        self.claimed.lock().unwrap().push(*key);
        Ok(Claimed::Now(Claim::unshared()))
    }
    fn forget(&self, key: &CacheKey) -> Result<(), CacheError> {
        self.records.lock().unwrap().remove(key);
        Ok(())
    }
    fn runs(&self, step: &CacheKey) -> Vec<CacheRecord> {
        self.runs.lock().unwrap().get(step).cloned().unwrap_or_default()
    }
    fn add_run(&self, step: &CacheKey, run: &CacheRecord) -> Result<(), CacheError> {
        self.runs.lock().unwrap().entry(*step).or_default().insert(0, run.clone());
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} failed")]
struct Failure(String);

/// Output: what the op made, as text.
#[derive(Default)]
struct Runner {
    ran: Mutex<Vec<String>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    /// Programs that wait until so many run together.
    meeting: Mutex<usize>,
    met: Condvar,
    /// Layers that are no longer there.
    gone: Mutex<Vec<String>>,
    /// What programs yield, where it is not their own name.
    results: Mutex<BTreeMap<String, String>>,
}

impl Runner {
    fn ran(&self) -> Vec<String> {
        let mut ran = std::mem::take(&mut *self.ran.lock().unwrap());
        ran.sort();
        ran
    }

    fn program(task: &Task<'_, String>) -> String {
        match &task.step.op {
            Op::Source(_) => "source".to_owned(),
            Op::Exec(exec) => exec.args[0].clone(),
            Op::File(_) => task.step.name.clone(),
        }
    }

    fn result(&self, program: &str) -> String {
        self.results.lock().unwrap().get(program).cloned().unwrap_or_else(|| program.to_owned())
    }

    /// Waits until `count` programs are here at the same time.
    fn meet(&self, count: usize) -> bool {
        let mut meeting = self.meeting.lock().unwrap();
        *meeting += 1;
        self.met.notify_all();
        let wait = self.met.wait_timeout_while(meeting, Duration::from_secs(20), |n| *n < count);
        meeting = wait.unwrap().0;
        *meeting >= count
    }
}

fn digest(text: &str) -> [u8; 32] {
    let mut digest = [0u8; 32];
    for (index, byte) in text.bytes().enumerate() {
        digest[index % 32] = digest[index % 32].wrapping_mul(31).wrapping_add(byte);
    }
    digest
}

impl OpRunner for Runner {
    type Output = String;
    type Error = Failure;

    fn identity(&self, output: &String) -> Option<Identity> {
        (output != "context").then(|| Identity::files(&digest(output)))
    }

    fn compare(&self, _: &Task<'_, String>, _: &CacheRecord) -> Vec<String> {
        Vec::new()
    }

    fn examine(&self, task: &Task<'_, String>) -> Result<Examined, Failure> {
        let result = matches!(task.step.op, Op::File(_))
            .then(|| Identity::files(&digest(&self.result(&Self::program(task)))));
        Ok(Examined { result, ..Examined::default() })
    }

    fn restore(
        &self,
        _: &Task<'_, String>,
        record: &CacheRecord,
        _: bool,
    ) -> Result<Option<String>, Failure> {
        let is_gone = self.gone.lock().unwrap().contains(&record.layer);
        Ok((!is_gone).then(|| record.layer.clone()))
    }

    fn demand(&self, _: &String) -> Result<(), Failure> {
        Ok(())
    }

    fn run(&self, task: &Task<'_, String>) -> Result<Done<String>, Failure> {
        let program = Self::program(task);
        if let Op::Source(source) = &task.step.op {
            let output = match source {
                Source::Context { .. } => "context".to_owned(),
                _ => "source".to_owned(),
            };
            return Ok(Done { output, layer: None, outcome: Outcome::Done });
        }
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        self.ran.lock().unwrap().push(program.clone());
        let result = match program.split_once(':') {
            Some(("meet", count)) => {
                let count = count.split(' ').next().unwrap().parse().unwrap();
                self.meet(count).then(|| program.clone())
            }
            Some(("wait", _)) => {
                self.meet(1);
                while !task.cancel.is_canceled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                None
            }
            Some(("nap", _)) => {
                std::thread::sleep(Duration::from_millis(5));
                Some(program.clone())
            }
            Some(("fail", _)) => None,
            Some(("panic", _)) => {
                self.meet(2);
                std::panic::resume_unwind(Box::new(program));
            }
            Some(("fail-late", _)) => {
                self.meet(2);
                None
            }
            _ => Some(self.result(&program)),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        let output = result.ok_or(Failure(program))?;
        Ok(Done { output: output.clone(), layer: Some((output, 1)), outcome: Outcome::Done })
    }
}

fn exec_op(rootfs: OpId, program: &str) -> Op {
    Op::Exec(Exec {
        rootfs,
        args: vec![program.to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        mounts: Vec::new(),
        network: Network::Default,
        security: Security::Sandbox,
        platform: "linux/amd64".parse().unwrap(),
    })
}

fn copy_op(base: OpId, from: OpId) -> Op {
    Op::File(FileOp {
        base,
        link: false,
        actions: vec![FileAction::Copy {
            sources: vec![CopySource::Path { from, pattern: "/".to_owned() }],
            destination: "/".to_owned(),
            into_directory: true,
            options: CopyOptions::default(),
        }],
    })
}

#[derive(Default)]
struct Build(GraphBuilder);

impl Build {
    fn op(&mut self, name: &str, op: Op) -> OpId {
        self.0.add(Step {
            op,
            name: name.to_owned(),
            location: None,
            places: Places::default(),
            no_cache: false,
            max_age: None,
        })
    }
    fn scratch(&mut self) -> OpId {
        self.op("scratch", Op::Source(Source::Scratch))
    }
    fn exec(&mut self, rootfs: OpId, program: &str) -> OpId {
        self.op(program, exec_op(rootfs, program))
    }
    fn copy(&mut self, name: &str, base: OpId, from: OpId) -> OpId {
        self.op(name, copy_op(base, from))
    }
    fn graph(self) -> Graph {
        self.0.finish().unwrap()
    }
}

fn run(
    graph: &Graph,
    target: OpId,
    runner: &Runner,
    index: &MemoryIndex,
    jobs: usize,
) -> Result<String, SolveError<Failure>> {
    let cancel = Cancel::default();
    execute(
        graph,
        &[target],
        runner,
        index,
        Settings { jobs, ..Settings::default() },
        &cancel,
        &NoEvents,
    )
    .map(|outputs| outputs[&target].clone())
}

#[test]
fn only_what_is_needed_runs_and_only_once() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let one = build.exec(scratch, "one");
    let two = build.exec(one, "two");
    build.exec(one, "unused");
    let graph = build.graph();
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    assert_eq!(run(&graph, two, &runner, &index, 2).unwrap(), "two");
    assert_eq!(runner.ran(), ["one", "two"]);
    assert_eq!(run(&graph, two, &runner, &index, 2).unwrap(), "two");
    assert!(runner.ran().is_empty());
}

#[test]
fn independent_ops_run_side_by_side() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let mut end = scratch;
    for number in 0..6 {
        let op = build.exec(scratch, &format!("meet:6 {number}"));
        end = build.copy(&format!("copy {number}"), end, op);
    }
    let graph = build.graph();
    let runner = Runner::default();
    run(&graph, end, &runner, &MemoryIndex::default(), 6).unwrap();
    assert_eq!(runner.most_running.load(Ordering::SeqCst), 6);
}

#[test]
fn no_more_processes_than_jobs() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let ops: Vec<OpId> = (0..40).map(|n| build.exec(scratch, &format!("nap:{n}"))).collect();
    let graph = build.graph();
    let runner = Runner::default();
    let cancel = Cancel::default();
    let index = MemoryIndex::default();
    let settings = Settings { jobs: 3, ..Settings::default() };
    execute(&graph, &ops, &runner, &index, settings, &cancel, &NoEvents).unwrap();
    assert_eq!(runner.ran().len(), 40);
    assert!(runner.most_running.load(Ordering::SeqCst) <= 3);
}

#[test]
fn the_first_failure_stops_everything() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let fail = build.exec(scratch, "fail-late:x");
    let wait = build.exec(scratch, "wait:y");
    let after = build.exec(fail, "after");
    let end = build.copy("copy", after, wait);
    let graph = build.graph();
    let runner = Runner::default();
    let index = MemoryIndex::default();
    let error = run(&graph, end, &runner, &index, 4).unwrap_err();
    assert!(matches!(&error, SolveError::Op { op, .. } if *op == fail), "{error:?}");
    assert_eq!(runner.ran(), ["fail-late:x", "wait:y"]);
    assert!(index.records.lock().unwrap().is_empty());
}

#[test]
fn nobody_waits_for_a_worker_that_panics() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let panic = build.exec(scratch, "panic:x");
    let wait = build.exec(scratch, "wait:y");
    let end = build.copy("copy", panic, wait);
    let graph = build.graph();
    let run = || {
        let (runner, index) = (Runner::default(), MemoryIndex::default());
        run(&graph, end, &runner, &index, 4).map(drop)
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
}

#[test]
fn who_cancels_stops_everything() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let wait = build.exec(scratch, "wait:x");
    let graph = build.graph();
    let cancel = Cancel::default();
    let canceler = cancel.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            canceler.cancel();
        });
        let (runner, index) = (Runner::default(), MemoryIndex::default());
        let settings = Settings { jobs: 1, ..Settings::default() };
        let error =
            execute(&graph, &[wait], &runner, &index, settings, &cancel, &NoEvents).unwrap_err();
        assert!(matches!(error, SolveError::Canceled), "{error}");
    });
}

#[test]
fn a_repeated_op_with_the_same_result_keeps_what_is_behind_it() {
    let graph = |program: &str| {
        let mut build = Build::default();
        let scratch = build.scratch();
        let one = build.exec(scratch, program);
        let two = build.exec(one, "two");
        (build.graph(), two)
    };
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    for program in ["one", "changed"] {
        runner.results.lock().unwrap().insert(program.to_owned(), "same".to_owned());
    }
    let (before, target) = graph("one");
    run(&before, target, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["one", "two"]);
    let (after, target) = graph("changed");
    run(&after, target, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["changed"]);
}

#[test]
fn a_copy_with_the_same_result_is_cached_by_content() {
    let graph = |program: &str| {
        let mut build = Build::default();
        let scratch = build.scratch();
        let from = build.exec(scratch, program);
        let copy = build.copy("copy", scratch, from);
        (build.graph(), copy)
    };
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    let (before, target) = graph("one");
    run(&before, target, &runner, &index, 1).unwrap();
    let (after, target) = graph("two");
    run(&after, target, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["copy", "one", "two"]);
    // Now it is known under the new definition, too.
    let records = index.records.lock().unwrap();
    assert_eq!(records.values().filter(|record| record.layer == "copy").count(), 3);
}

#[test]
fn what_comes_from_a_context_is_known_by_content_only() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let context = build.op("c", Op::Source(Source::Context { name: "context".to_owned() }));
    let copy = build.copy("copy", scratch, context);
    let graph = build.graph();
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    run(&graph, copy, &runner, &index, 1).unwrap();
    assert_eq!(index.records.lock().unwrap().len(), 1);
    run(&graph, copy, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["copy"]);
    runner.results.lock().unwrap().insert("copy".to_owned(), "changed".to_owned());
    run(&graph, copy, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["copy"]);
}

#[test]
fn a_result_that_is_gone_is_made_again() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let one = build.exec(scratch, "one");
    let graph = build.graph();
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    run(&graph, one, &runner, &index, 1).unwrap();
    runner.gone.lock().unwrap().push("one".to_owned());
    run(&graph, one, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["one", "one"]);
}

#[test]
fn no_cache_repeats_and_records() {
    let build = |no_cache| {
        let mut builder = GraphBuilder::default();
        let mut add = |op| {
            builder.add(Step {
                op,
                name: "x".to_owned(),
                location: None,
                places: Places::default(),
                no_cache,
                max_age: None,
            })
        };
        let scratch = add(Op::Source(Source::Scratch));
        let one = add(exec_op(scratch, "one"));
        (builder.finish().unwrap(), one)
    };
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    let (graph, one) = build(true);
    run(&graph, one, &runner, &index, 1).unwrap();
    run(&graph, one, &runner, &index, 1).unwrap();
    assert_eq!(runner.ran(), ["one", "one"]);
    let (graph, one) = build(false);
    run(&graph, one, &runner, &index, 1).unwrap();
    assert!(runner.ran().is_empty());
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl EventSink for Log {
    fn emit(&self, event: Event) {
        let line = match event {
            Event::StepAdded { step, name } => format!("{} added {name}", step.0),
            Event::StepStarted { step } => format!("{} started", step.0),
            Event::StepFinished { step, outcome, .. } => format!("{} {outcome:?}", step.0),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn the_user_sees_each_step() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let one = build.exec(scratch, "one");
    let fail = build.exec(one, "fail:two");
    let graph = build.graph();
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    let log = |target| {
        let (log, cancel) = (Log::default(), Cancel::default());
        let settings = Settings { jobs: 1, ..Settings::default() };
        let _ = execute(&graph, &[target], &runner, &index, settings, &cancel, &log);
        log.0.into_inner().unwrap()
    };
    assert_eq!(log(one), ["1 added one", "1 started", "1 Done"]);
    assert_eq!(
        log(fail),
        [
            "1 added one",
            "2 added fail:two",
            "1 Cached",
            "2 started",
            "2 Failed(\"fail:two failed\")"
        ]
    );
}

#[test]
fn a_deep_and_wide_graph_is_worked_through() {
    let mut build = Build::default();
    let scratch = build.scratch();
    let mut ends = Vec::new();
    for chain in 0..20 {
        let mut end = scratch;
        for link in 0..50 {
            end = build.exec(end, &format!("{chain}.{link}"));
        }
        ends.push(end);
    }
    let graph = build.graph();
    let (runner, index) = (Runner::default(), MemoryIndex::default());
    let cancel = Cancel::default();
    let settings = Settings { jobs: 8, ..Settings::default() };
    let outputs = execute(&graph, &ends, &runner, &index, settings, &cancel, &NoEvents).unwrap();
    assert_eq!(outputs.len(), 1001);
    assert_eq!(runner.ran().len(), 1000);
}
