//! Texts that nobody has meant, for the parser, expansion, ignore patterns and lowering.
//!
//! A mutational fuzzer in one process: it takes texts of the corpus and of `conformance/`, cuts,
//! repeats and mixes them, and hands them to the targets. All of it follows from one seed, so what
//! it finds once it finds again. Inputs that make a target say something new join those that are
//! mixed. What may not happen: a panic, a place outside the text, memory that is out of proportion
//! to the text; and no input may take longer than [`PATIENCE`], which ends the program.
//!
//! `cargo test` gives each target some thousand inputs; `FORMWORK_FUZZ_RUNS` gives it more, and
//! `FORMWORK_FUZZ_SEED` others. Other arguments are parts of the names of targets. An input that
//! breaks something is written to a file whose name is printed: mend the code, and put the input
//! into `corpus/TARGET/`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests may stop, and this one prints a table"
)]

mod mutate;
mod targets;

use std::alloc::System;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mutate::Mutator;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many inputs a target gets unless somebody asks for more.
const RUNS: usize = 1500;
/// The longest input.
const LONGEST: usize = 8 << 10;
/// After which time an input has hung. No figure: a guard against waiting for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// The input that is being worked on, and since when.
type UnderWay = Arc<Mutex<Option<(Instant, PathBuf, String)>>>;

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runs = number("FORMWORK_FUZZ_RUNS").unwrap_or(RUNS);
    let seed = number("FORMWORK_FUZZ_SEED").unwrap_or(1);
    let under_way = UnderWay::default();
    watch(Arc::clone(&under_way));
    println!(
        "{:<10} {:>7} {:>7} {:>7} {:>16}",
        "target", "seeds", "inputs", "kinds", "bytes per byte"
    );
    let mut is_sound = true;
    for target in TARGETS {
        if filters.is_empty() || filters.iter().any(|filter| target.name.contains(filter.as_str()))
        {
            is_sound &= fuzz(target, runs, seed, &under_way);
        }
    }
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Gives a target its inputs; `false` after telling what one of them has broken.
fn fuzz(target: &Target, runs: usize, seed: usize, under_way: &UnderWay) -> bool {
    let seeds = seeds(target.name);
    let mut mutator = Mutator::new(seed as u64, seeds.clone(), LONGEST);
    let mut kinds = HashSet::new();
    let mut most = 0;
    for number in 0..seeds.len() + runs {
        let input = seeds.get(number).cloned().unwrap_or_else(|| mutator.next());
        let file = std::env::temp_dir().join(format!("formwork-fuzz-{}", target.name));
        *under_way.lock().unwrap() = Some((Instant::now(), file.clone(), input.clone()));
        let region = Region::new(ALLOCATOR);
        let found = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let change = region.change();
        *under_way.lock().unwrap() = None;
        let allocated = change.bytes_allocated + change.bytes_reallocated.unsigned_abs();
        // What a short input takes says nothing about a long one.
        let per_byte = allocated.saturating_sub(target.flat) / (input.len() + 256);
        most = most.max(allocated / (input.len() + 256));
        let problem = match found {
            Err(_) => Some("it panics".to_owned()),
            Ok(_) if per_byte > target.most => {
                Some(format!("it takes {allocated} bytes for {}", input.len()))
            }
            Ok(kind) => {
                if kinds.insert(kind) {
                    mutator.keep(&input);
                }
                None
            }
        };
        if let Some(problem) = problem {
            fs_err::write(&file, &input).unwrap();
            println!("{} {number} of seed {seed}: {problem}: see {}", target.name, file.display());
            return false;
        }
    }
    let (name, kinds) = (target.name, kinds.len());
    println!("{name:<10} {:>7} {:>7} {kinds:>7} {most:>16}", seeds.len(), seeds.len() + runs);
    true
}

/// The corpus of a target, and what of `conformance/` is for it.
fn seeds(target: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = files_below(&root.join("tests/fuzz/corpus").join(target));
    let name = if target == "ignore" { ".dockerignore" } else { "Dockerfile" };
    let cases = files_below(&root.join("../../conformance"));
    let is_for_it = |file: &PathBuf| file.file_name().is_some_and(|own| own == name);
    if target != "expansion" {
        files.extend(cases.into_iter().filter(is_for_it));
    }
    let text = |file: PathBuf| String::from_utf8_lossy(&fs_err::read(file).unwrap()).into_owned();
    let seeds: Vec<String> = files.into_iter().map(text).collect();
    assert!(!seeds.is_empty(), "{target} has no corpus");
    seeds
}

/// All files, sorted.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Ends the program when an input has hung.
fn watch(under_way: UnderWay) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PATIENCE / 10);
            let guard = under_way.lock().unwrap();
            if let Some((start, file, input)) =
                guard.as_ref().filter(|one| one.0.elapsed() > PATIENCE)
            {
                fs_err::write(file, input).unwrap();
                eprintln!("an input has hung for {:?}: see {}", start.elapsed(), file.display());
                std::process::abort();
            }
        }
    });
}
