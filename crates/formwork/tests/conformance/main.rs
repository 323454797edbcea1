//! Builds the cases of `conformance/` and compares what comes of them with what is written down.
//!
//! Each case is built as root and as an ordinary user, and the images have to be the same; with
//! `--with buildkit` or `--with buildah` that builder has the cases instead, to prove what is
//! written down on a peer. Other arguments choose cases by a part of their path. Prints a table by
//! section.
//!
//! This is a program of its own rather than tests of the usual kind, because the cases are not
//! known when it is compiled. `cargo test` runs it, `cargo xtask conformance` passes arguments on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests may stop, and this one prints a table"
)]

mod buildah;
mod buildkit;
mod case;
mod judge;
#[path = "../cli/peers"]
mod peers {
    //! How other builders are called.

    pub(crate) mod buildkit;
    pub(crate) mod compare;
}
mod report;
mod scene;
#[expect(dead_code, unused_imports, reason = "the other tests use the rest")]
#[path = "../cli/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use buildah::Buildah;
use case::Case;
use judge::Outcome;
use peers::buildkit::BuildKit;
use peers::compare::{BUILDKIT, differences};
use report::{Report, print_table};
use scene::{Scene, Servers};
use support::{Rung, Site, on_each_rung};

/// Cases about what only namespaces and mounts give: a network, limits of what is
/// in memory, what may only be read.
const NEED_NAMESPACES: [&str; 10] = [
    "mounts/a-bind-is-to-be-read-and-written-to-only-if-asked",
    "mounts/a-cache-to-be-read-alone",
    "mounts/a-tmpfs-may-be-read-only",
    "mounts/binds-show-the-context-as-the-ignore-file-leaves-it-and",
    "mounts/caches-are-shared-by-steps-and-are-in-no-layer",
    "mounts/sizes-of-tmpfs-have-units",
    "mounts/tmpfs-is-empty-again-each-time",
    "run/a-run-is-alone-with-few-capabilities",
    "run/no-network-where-none-is-wanted",
    "run/nothing-of-the-surroundings-stays-in-the-layer",
];

/// A case with a file in the context that the ordinary user whose steps are traced may not read.
const HAS_CLOSED_FILES: &str = "copy/permissions-stay-or-are-those-of-chmod";

/// How many cases one thread has at a time, with places of their own.
const PORTION: usize = 24;

/// What the user asks for.
#[derive(Debug, Default)]
struct Options {
    /// The peer that builds instead of formwork.
    with: Option<String>,
    filters: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let cases = Case::all(&root, &options.filters);
    let reports = match options.with.as_deref() {
        None => in_portions(&cases, &with_formwork),
        Some("buildkit") => in_portions(&cases, &with_buildkit),
        Some("buildah") => {
            let text = fs_err::read_to_string(root.join("buildah.txt")).unwrap();
            let reasons = buildah::reasons(&text);
            in_portions(&cases, &|cases| with_buildah(cases, &reasons))
        }
        Some(other) => panic!("no peer `{other}`: there are buildkit and buildah"),
    };
    print_table(&reports);
    let problems: Vec<&String> = reports.iter().flat_map(|report| &report.problems).collect();
    for problem in &problems {
        println!("\n{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Options {
    /// Options of the usual test programs are passed over.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--with" => options.with = arguments.next(),
                flag if flag.starts_with('-') => {}
                _ => options.filters.push(argument),
            }
        }
        options
    }
}

/// Gives portions of the sections to threads, twice as many as there are processors: builds wait
/// for disks, too.
fn in_portions(cases: &[Case], work: &(impl Fn(&[Case]) -> Report + Sync)) -> Vec<Report> {
    let sections = cases.chunk_by(|a, b| a.section == b.section);
    let portions = Mutex::new(sections.flat_map(|section| section.chunks(PORTION)));
    let reports = Mutex::new(Vec::new());
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (portions, reports) = (&portions, &reports);
            let work = move || {
                while let Some(portion) = { portions.lock().unwrap().next() } {
                    let report = work(portion);
                    reports.lock().unwrap().push(report);
                }
            };
            let name = format!("conformance {number}");
            std::thread::Builder::new().name(name).spawn_scoped(scope, work).unwrap();
        }
    });
    Report::joined(reports.into_inner().unwrap())
}

fn with_formwork(cases: &[Case]) -> Report {
    let servers: Vec<Option<Servers>> = cases.iter().map(Servers::of).collect();
    let (ids, problems) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    on_each_rung(|site| {
        if site.make_busybox() {
            let build = |(case, servers): (&Case, &Option<Servers>)| {
                let path = case.path().to_string();
                let needs_namespaces = NEED_NAMESPACES.contains(&&*path);
                let is_closed = site.rung() == Rung::Traced && path == HAS_CLOSED_FILES;
                if is_closed
                    || (case.given.needs_root && site.user().is_some())
                    || (needs_namespaces && !site.has_namespaces())
                {
                    return None;
                }
                let scene = Scene::set(case, site, servers.as_ref());
                Some(judge::judge(&scene, &mut problems.borrow_mut()))
            };
            ids.borrow_mut().push(cases.iter().zip(&servers).map(build).collect::<Vec<_>>());
        }
    });
    let mut problems = problems.into_inner();
    if let [root, others @ ..] = ids.into_inner().as_slice() {
        for other in others {
            for ((case, root), other) in cases.iter().zip(root).zip(other) {
                if other.is_some() && root != other {
                    let path = case.path();
                    problems.push(format!("{path}: the rungs differ: {root:?}, {other:?}"));
                }
            }
        }
    }
    Report { problems, ..Report::of(cases) }
}

/// All that is written down, but for what a case says BuildKit does otherwise.
fn with_buildkit(cases: &[Case]) -> Report {
    let mut report = Report::of(cases);
    let Some(site) = Site::as_root().filter(Site::make_busybox) else { return report.skipped() };
    let Some(buildkit) = BuildKit::start(&site) else { return report.skipped() };
    for case in cases {
        let servers = Servers::of(case);
        let scene = Scene::set(case, &site, servers.as_ref());
        let theirs = buildkit::outcome(&buildkit, &scene);
        drop(scene);
        let scene = Scene::set(case, &site, servers.as_ref());
        let message = theirs.as_ref().err().cloned().unwrap_or_default();
        let found = differences_of(judge::outcome(&scene), theirs.ok(), "BuildKit");
        let is_meant = |line: &String| BUILDKIT.iter().any(|(known, _)| known == line);
        let found = found.into_iter().filter(|line| !is_meant(line));
        let found: Vec<String> = found.map(|line| scene.without_addresses(&line)).collect();
        report.compare(case, &case.buildkit, &found, &message);
    }
    report
}

/// All that is written down, but for the cases that `conformance/buildah.txt` names.
fn with_buildah(cases: &[Case], reasons: &BTreeMap<String, String>) -> Report {
    let mut report = Report::of(cases);
    let Some(site) = Site::as_root().filter(Site::make_busybox) else { return report.skipped() };
    let Some(buildah) = Buildah::new(&site) else { return report.skipped() };
    // It has nothing that only looks at a Dockerfile.
    let (looked_at, built): (Vec<_>, Vec<_>) = cases.iter().partition(|c| c.is_only_looked_at());
    report.skipped = looked_at.len();
    for case in built {
        let servers = Servers::of(case);
        let scene = Scene::set(case, &site, servers.as_ref());
        let theirs = buildah.outcome(&scene);
        drop(scene);
        let scene = Scene::set(case, &site, servers.as_ref());
        let message = theirs.as_ref().err().cloned().unwrap_or_default();
        let ours = judge::outcome(&scene).map(without_names_of_steps);
        let found = differences_of(ours, theirs.ok(), "buildah");
        let found: Vec<String> =
            found.into_iter().filter(|line| !buildah::is_always_so(line)).collect();
        report.expect(case, reasons.contains_key(&case.path()), &found, &message);
    }
    report
}

/// What buildah tells of further builds: whether they had anything to do.
fn without_names_of_steps(outcome: Outcome) -> Outcome {
    let any = |steps: Vec<String>| steps.first().map(|_| "another image".to_owned());
    let executed = outcome.executed.into_iter().map(|steps| any(steps).into_iter().collect());
    Outcome { executed: executed.collect(), ..outcome }
}

/// What differs between what formwork and a peer make of a case, as lines.
fn differences_of(ours: Option<Outcome>, theirs: Option<Outcome>, peer: &str) -> Vec<String> {
    let (ours, theirs) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (None, None) => return Vec::new(),
        (Some(_), None) => return vec![format!("{peer} fails")],
        (None, Some(_)) => return vec![format!("{peer} does not fail")],
    };
    let mut lines = differences(&(ours.tree, ours.config), &(theirs.tree, theirs.config));
    for (ours, theirs) in ours.executed.iter().zip(&theirs.executed) {
        lines.extend(only_in(ours, theirs).map(|step| format!("- step {step}")));
        lines.extend(only_in(theirs, ours).map(|step| format!("+ step {step}")));
    }
    for (ours, theirs) in ours.calls.iter().zip(&theirs.calls) {
        lines.extend(only_in(ours, theirs).map(|line| format!("- says {line}")));
        lines.extend(only_in(theirs, ours).map(|line| format!("+ says {line}")));
    }
    lines
}

fn only_in<'a>(one: &'a [String], other: &'a [String]) -> impl Iterator<Item = &'a String> {
    one.iter().filter(|line| !other.contains(line))
}
