//! Builds the cases of `conformance/` and compares what comes of them with what is written down.
//!
//! Each case is built as root and as an ordinary user, and the images have to be the same; with
//! `--with buildkit` BuildKit builds it instead, to prove what is written down on a peer. Other
//! arguments choose cases by a part of their path. Prints a table by section.
//!
//! This is a program of its own rather than tests of the usual kind, because the cases are not
//! known when it is compiled. `cargo test` runs it, `cargo xtask conformance` passes arguments on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests may stop, and this one prints a table"
)]

mod case;
#[path = "../cli/peers"]
mod peers {
    //! How other builders are called.

    pub(crate) mod buildkit;
    pub(crate) mod compare;
}
#[expect(dead_code, unused_imports, reason = "the other tests use the rest")]
#[path = "../cli/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use case::Case;
use peers::buildkit::BuildKit;
use peers::compare::{BUILDKIT, differences};
use support::{Site, on_each_rung};

/// What the user asks for.
#[derive(Debug, Default)]
struct Options {
    /// The peer that builds instead of formwork.
    with: Option<String>,
    filters: Vec<String>,
}

/// What has been found out about a section.
#[derive(Debug, Default)]
struct Report {
    section: String,
    cases: usize,
    problems: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let cases = Case::all(&root, &options.filters);
    let reports = match options.with.as_deref() {
        None => with_formwork(&cases),
        Some("buildkit") => match with_buildkit(&cases) {
            Some(reports) => reports,
            None => return ExitCode::SUCCESS,
        },
        Some(other) => panic!("no peer `{other}`: there is buildkit"),
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

/// The sections, each on a thread of its own and in places of its own.
fn with_formwork(cases: &[Case]) -> Vec<Report> {
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for section in cases.chunk_by(|a, b| a.section == b.section) {
            let reports = &reports;
            let name = format!("conformance {}", section[0].section);
            let work = move || {
                let report = section_with_formwork(section);
                reports.lock().unwrap().push(report);
            };
            std::thread::Builder::new().name(name).spawn_scoped(scope, work).unwrap();
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by(|a, b| a.section.cmp(&b.section));
    reports
}

fn section_with_formwork(cases: &[Case]) -> Report {
    let ids = std::cell::RefCell::new(Vec::new());
    let problems = std::cell::RefCell::new(Vec::new());
    on_each_rung(|site| {
        if site.make_busybox() {
            let build = |case: &Case| case.build(site, &mut problems.borrow_mut());
            ids.borrow_mut().push(cases.iter().map(build).collect::<Vec<_>>());
        }
    });
    let mut problems = problems.into_inner();
    if let [root, user] = ids.into_inner().as_slice() {
        for ((case, root), user) in cases.iter().zip(root).zip(user) {
            if root != user {
                let path = case.path();
                problems.push(format!("{path}: root and user differ: {root:?}, {user:?}"));
            }
        }
    }
    Report { section: cases[0].section.clone(), cases: cases.len(), problems }
}

/// All that is written down, but for what a case says BuildKit does otherwise; `None` after saying
/// why that cannot be found out here.
fn with_buildkit(cases: &[Case]) -> Option<Vec<Report>> {
    let site = Site::as_root()?;
    if !site.make_busybox() {
        return None;
    }
    let buildkit = BuildKit::start(&site)?;
    let report = |cases: &[Case]| Report {
        section: cases[0].section.clone(),
        cases: cases.len(),
        problems: cases.iter().filter_map(|case| differs(&site, &buildkit, case)).collect(),
    };
    Some(cases.chunk_by(|a, b| a.section == b.section).map(report).collect())
}

fn differs(site: &Site, buildkit: &BuildKit<'_>, case: &Case) -> Option<String> {
    let arguments = case.arguments_for_buildctl();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    case.write_context(site);
    let theirs = buildkit.build(&arguments, &case.dockerfile);
    let found = match (case.result(site), theirs) {
        (Some(ours), Some(theirs)) => differences(&ours, &theirs),
        (None, None) => Vec::new(),
        (Some(_), None) => vec!["BuildKit fails".to_owned()],
        (None, Some(_)) => vec!["BuildKit does not fail".to_owned()],
    };
    let is_meant = |line: &String| BUILDKIT.iter().any(|(known, _)| known == line);
    let found: Vec<String> = found.into_iter().filter(|line| !is_meant(line)).collect();
    (found != case.differences_to_buildkit).then(|| {
        let told = case.differences_to_buildkit.join("\n");
        format!(
            "{}: the difference\n-- expected\n{told}\n-- found\n{}",
            case.path(),
            found.join("\n")
        )
    })
}

fn print_table(reports: &[Report]) {
    println!("{:<12} {:>5} {:>8}", "section", "cases", "problems");
    for Report { section, cases, problems } in reports {
        println!("{section:<12} {cases:>5} {:>8}", problems.len());
    }
    let cases: usize = reports.iter().map(|report| report.cases).sum();
    let problems: usize = reports.iter().map(|report| report.problems.len()).sum();
    println!("{:<12} {cases:>5} {problems:>8}", "all");
}
