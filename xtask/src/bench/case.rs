//! What is measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::bases::{BUSYBOX, LARGE};
use super::peers::Peer;
use super::random::Random;

/// How long files must have been left alone for formwork to remember what they hold.
const SETTLED: Duration = Duration::from_secs(61);

/// One thing to measure.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) kind: Kind,
    /// The Dockerfile.
    pub(crate) dockerfile: String,
    /// How many small files the context has, or how many gigabytes its one large file.
    pub(crate) files: u64,
    /// How many processes may run at once.
    pub(crate) jobs: usize,
    /// What formwork should need at most, in seconds.
    pub(crate) budget: f64,
    /// How often each tool runs it by default.
    pub(crate) runs: usize,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program starts and tells its version.
    Version,
    /// A build in a store that knows nothing but the unpacked bases, exported as an OCI archive.
    Fresh,
    /// The same with layers in zstd.
    Zstd,
    /// A build of what was built just before, exported as an OCI archive.
    Unchanged,
    /// The same in a store with much else in it.
    Crowded,
    /// A build of what was built just before but for one file, into the local store, where nothing
    /// is packed. Of formwork alone.
    OneChanged,
    /// A build in a store that knows nothing, of a base from a registry.
    Pull,
    /// A push of what the registry has.
    Push,
    /// A build with one large layer, pushed from one store and pulled and run in another.
    Stream,
    /// A build in a store that knows nothing but the unpacked bases, of what a cache in a registry
    /// has, exported as an OCI archive.
    Import,
}

/// The figures of one case.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) budget: f64,
    pub(crate) times: BTreeMap<Peer, Vec<Duration>>,
    /// What formwork took of the machine in one more run.
    pub(crate) taken: Taken,
}

/// What a run takes of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// The peak memory in bytes, the largest of its processes.
    pub(crate) peak_memory: u64,
    /// From its start to its end, in seconds.
    pub(crate) wall: f64,
    /// The time of all processors, for the program and for the kernel, in seconds.
    pub(crate) processors: f64,
}

/// All cases, in the order of the design's budgets; `pulled` is the large base in a registry, and
/// the large layer of [`Kind::Stream`] has so many gigabytes.
pub(crate) fn all(pulled: &str, gigabytes: u64) -> Vec<Case> {
    let ten: String = (0..10).map(|i| format!("COPY f{i} /\n")).collect();
    let ten = format!("FROM {BUSYBOX}\n{ten}");
    let fifty: String = (0..50).map(|i| format!("RUN echo {i} > /f{i}\n")).collect();
    let fifty = format!("FROM {BUSYBOX}\n{fifty}");
    let sleeps: String = (0..16)
        .map(|i| format!("FROM {BUSYBOX} AS s{i}\nRUN sleep 0.5; echo {i} > /f{i}\n"))
        .collect();
    let copies: String = (0..16).map(|i| format!("COPY --from=s{i} /f{i} /f{i}\n")).collect();
    let sleeps = format!("{sleeps}FROM {BUSYBOX}\n{copies}");
    let files = format!("FROM {BUSYBOX}\nCOPY . /src\n");
    let copied: String =
        (0..3).map(|i| format!("RUN mkdir /c{i} && cp -a /usr/lib/d{i}* /c{i}\n")).collect();
    let copied = format!("FROM {LARGE}\n{copied}");
    let case = |name, kind, dockerfile: &str, budget| Case {
        name,
        kind,
        dockerfile: dockerfile.to_owned(),
        files: 0,
        jobs: 4,
        budget,
        runs: 5,
    };
    let context = |case: Case| Case { files: 50_000, runs: 3, ..case };
    let slow = |case: Case| Case { runs: 3, ..case };
    let nine = nine_steps();
    vec![
        Case { runs: 20, ..case("start", Kind::Version, "", 0.003) },
        Case { files: 20, ..case("9 steps, unchanged", Kind::Unchanged, &nine, 0.02) },
        slow(case("50 RUN, nothing known", Kind::Fresh, &fifty, 0.4)),
        case("50 RUN, unchanged", Kind::Unchanged, &fifty, 0.02),
        Case { files: 20, ..case("9 steps, 10,000 records, 100 GB", Kind::Crowded, &nine, 0.025) },
        slow(Case { jobs: 16, ..case("16 × sleep 0.5, 16 jobs", Kind::Fresh, &sleeps, 0.8) }),
        context(case("50,000 files, nothing known", Kind::Fresh, &files, 2.0)),
        context(case("50,000 files, unchanged", Kind::Unchanged, &files, 0.25)),
        context(case("50,000 files, one changed", Kind::OneChanged, &files, 0.4)),
        slow(case("3 × cp -a, 450 MB", Kind::Fresh, &copied, 5.0)),
        slow(case("3 × cp -a, 450 MB, zstd", Kind::Zstd, &copied, 5.0)),
        slow(case(
            "COPY --from, 27,000 files, 900 MB",
            Kind::Fresh,
            &format!("FROM {LARGE} AS b\nFROM {BUSYBOX}\nCOPY --from=b /usr /usr\nRUN true\n"),
            6.0,
        )),
        case("import 200 RUN of a stage", Kind::Import, &steps(200, true), 0.3),
        case("import 200 RUN of the image", Kind::Import, &steps(200, false), 0.3),
        slow(case("pull 346 MB, RUN true", Kind::Pull, &format!("FROM {pulled}\nRUN true\n"), 4.0)),
        Case { files: 20, ..case("push 10 layers that are there", Kind::Push, &ten, 0.15) },
        Case {
            files: gigabytes,
            runs: 1,
            ..case(
                "build, push, pull, run one large layer",
                Kind::Stream,
                "FROM scratch\nCOPY large /\n",
                gigabytes as f64 * 15.0,
            )
        },
    ]
}

/// So many steps, in a stage of which the image gets one file or in the image itself.
fn steps(count: usize, in_stage: bool) -> String {
    let steps: String = (0..count).map(|i| format!("RUN echo {i} > /f{i}\n")).collect();
    match in_stage {
        true => format!("FROM {BUSYBOX} AS b\n{steps}FROM scratch\nCOPY --from=b /f1 /f1\n"),
        false => format!("FROM {BUSYBOX}\n{steps}"),
    }
}

/// Two stages with nine steps, as a compiled program has them.
fn nine_steps() -> String {
    format!(
        "FROM {BUSYBOX} AS build\nWORKDIR /src\nCOPY f0 f1 ./\nRUN cat f0 f1 > deps\nCOPY . .\n\
         RUN cat f* > /app\nFROM scratch\nCOPY --from=build /app /app\nCOPY --from=build /src/deps /deps\n\
         USER 65532\nENTRYPOINT [\"/app\"]\n"
    )
}

impl Case {
    /// The directory with the case's Dockerfile and files.
    pub(crate) fn context(&self, work: &Path) -> Result<PathBuf> {
        if self.kind == Kind::Stream {
            return large_file(work, self.files);
        }
        let context = work.join("contexts").join(format!("files-{}", self.files));
        if !context.exists() {
            let mut random = Random::new(7);
            for number in 0..self.files {
                let directory = match self.files {
                    0..1000 => context.clone(),
                    _ => context.join(format!("d{}/e{}", number % 20, number % 1000)),
                };
                fs_err::create_dir_all(&directory)?;
                let size = 200 + random.below(11_600);
                fs_err::write(
                    directory.join(format!("f{number}")),
                    random.content(usize::try_from(size)?),
                )?;
            }
            fs_err::create_dir_all(&context)?;
            if self.files >= 1000 {
                // What has just been written is read again for a minute, as it may still change.
                std::thread::sleep(SETTLED);
            }
        }
        Ok(context)
    }

    /// Whether a store takes hundreds of megabytes after it.
    pub(crate) fn is_large(&self) -> bool {
        self.files > 1000
            || matches!(self.kind, Kind::Pull | Kind::Stream)
            || self.dockerfile.contains(LARGE)
    }

    /// A build that brings the bases of this case into a store, unpacked, and nothing else.
    pub(crate) fn of_bases_alone(&self) -> Self {
        let mut dockerfile = format!("FROM {BUSYBOX}\nRUN true\n");
        if self.dockerfile.contains(LARGE) {
            dockerfile = format!(
                "FROM {LARGE} AS large\nRUN true\n{dockerfile}COPY --from=large /bin/sh /large\n"
            );
        }
        Self { kind: Kind::Unchanged, dockerfile, files: 0, ..self.clone() }
    }
}

/// A context with one file of zeros, which takes no room itself.
fn large_file(work: &Path, gigabytes: u64) -> Result<PathBuf> {
    let context = work.join("contexts").join(format!("large-{gigabytes}"));
    fs_err::create_dir_all(&context)?;
    fs_err::File::create(context.join("large"))?.set_len(gigabytes << 30)?;
    Ok(context)
}

impl Measured {
    /// A case without figures.
    pub(crate) fn new(case: &Case) -> Self {
        Self {
            name: case.name,
            budget: case.budget,
            times: BTreeMap::new(),
            taken: Taken::default(),
        }
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, peer: Peer, time: Duration) {
        self.times.entry(peer).or_default().push(time);
    }

    /// A tool's median in seconds.
    pub(crate) fn median(&self, peer: Peer) -> Option<f64> {
        let mut times = self.times.get(&peer)?.clone();
        times.sort();
        let middle = times.len() / 2;
        let median = match times.len() % 2 {
            0 => (times.get(middle - 1)?.as_secs_f64() + times.get(middle)?.as_secs_f64()) / 2.0,
            _ => times.get(middle)?.as_secs_f64(),
        };
        Some(median)
    }
}
