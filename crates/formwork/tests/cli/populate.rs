//! Populate, then consume: whatever was built before, and whatever has changed since, a build from
//! the cache yields the very image that a build in an empty store does.
//!
//! Dockerfiles and contexts are made at random, with some edits after each build.
//! `FORMWORK_CACHE_CASES` says how many Dockerfiles (each is built several times),
//! `FORMWORK_CACHE_SEED` where to begin.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::{Ran, Site};

/// How often each Dockerfile is edited and built again.
const ROUNDS: usize = 5;

#[test]
fn a_build_from_the_cache_is_that_of_an_empty_store() {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (cases, seed) = (number("FORMWORK_CACHE_CASES", 2), number("FORMWORK_CACHE_SEED", 1));
    let site = Site::new();
    if !site.make_busybox() {
        return;
    }
    fs_err::rename(site.store(), site.outside("bare")).unwrap();
    for case in seed..seed + cases {
        try_case(&site, case);
    }
}

fn try_case(site: &Site, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut input = Input::new(&mut random);
    let warm = site.outside("warm");
    copy_store(site, &warm);
    let mut story = String::new();
    for round in 0..ROUNDS {
        input.write(site);
        let cold = site.outside("cold");
        copy_store(site, &cold);
        let from_cache = input.build(site, &warm);
        let fresh = input.build(site, &cold);
        let _ = writeln!(story, "--- round {round}\n{input:?}");
        assert_eq!(
            from_cache.as_ref().map_err(|_| ()),
            fresh.as_ref().map_err(|_| ()),
            "seed {seed}, round {round}\n{story}\n{from_cache:?}\n{fresh:?}"
        );
        for _ in 0..=random.below(2) {
            input.edit(&mut random);
        }
    }
}

/// A store with nothing but the base.
fn copy_store(site: &Site, to: &str) {
    let _ = fs_err::remove_dir_all(to);
    let base = site.outside("bare");
    Ran::of(&mut site.command("cp", &["-a", &base, to])).succeeded();
}

/// What can be written down about a file of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
enum File {
    Text(String, u32),
    Link(String),
    Directory(u32),
}

/// A Dockerfile with its context and its arguments.
struct Input {
    files: BTreeMap<String, File>,
    stages: Vec<Vec<String>>,
    version: u64,
    ignored: Option<&'static str>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{:?}\n{:?} {:?}", self.dockerfile(), self.files, self.version, self.ignored)
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % limit
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

const PATHS: [&str; 8] = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "e/a", "x.log"];
const PLACES: [&str; 7] = ["/out/", "/out/a", "/d", "/d/e/", "rel", "rel/", "/link/"];

impl Input {
    fn new(random: &mut Random) -> Self {
        let mut input =
            Self { files: BTreeMap::new(), stages: Vec::new(), version: 1, ignored: None };
        for path in PATHS {
            input
                .files
                .insert(path.to_owned(), File::Text(random.of(&["1", "2", "3"]).into(), 0o644));
        }
        for stage in 0..=random.below(3) {
            let count = 2 + random.below(5);
            let lines = (0..count).map(|_| instruction(random, stage)).collect();
            input.stages.push(lines);
        }
        input
    }

    fn dockerfile(&self) -> String {
        let mut text = "ARG VERSION=0\n".to_owned();
        for (number, lines) in self.stages.iter().enumerate() {
            let base = if number % 3 == 2 { "s0" } else { "busybox" };
            let _ = writeln!(text, "FROM {base} AS s{number}\nARG VERSION");
            lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }

    /// Changes one thing.
    fn edit(&mut self, random: &mut Random) {
        let path = random.of(&PATHS).to_owned();
        let at = random.below(self.stages.len());
        let line = random.below(self.stages[at].len());
        match random.below(12) {
            0..3 => {
                let text = random.of(&["1", "2", "3", "4"]).to_owned();
                drop(self.files.insert(path, File::Text(text, 0o644)));
            }
            3 => drop(self.files.remove(&path)),
            4 => drop(
                self.files.insert(path, File::Text("1".into(), random.of(&[0o600, 0o755, 0o4755]))),
            ),
            5 => drop(
                self.files
                    .insert(path, File::Link(random.of(&["a", "d", "../a", "/etc", "no"]).into())),
            ),
            6 => drop(self.files.insert(
                random.of(&["n", "d/n"]).into(),
                File::Directory(random.of(&[0o755, 0o700])),
            )),
            7 => self.version += 1,
            8 => self.ignored = random.of(&[None, Some("*.log"), Some("d/e"), Some("**/b")]),
            9 => self.stages[at][line] = instruction(random, at),
            10 => self.stages[at].insert(line, instruction(random, at)),
            _ if self.stages[at].len() > 1 => drop(self.stages[at].remove(line)),
            _ => {}
        }
    }

    /// Makes the context from nothing. All files have one time, so that only what they hold and
    /// the kernel's own times tell that they changed.
    fn write(&self, site: &Site) {
        let context = site.context("");
        for entry in fs_err::read_dir(&context).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() && !path.is_symlink() {
                true => fs_err::remove_dir_all(path).unwrap(),
                false => fs_err::remove_file(path).unwrap(),
            }
        }
        for (path, file) in &self.files {
            match file {
                File::Text(text, mode) => {
                    site.write(path, text);
                    site.chmod(path, *mode);
                }
                File::Link(target) => site.link(path, target),
                File::Directory(mode) => {
                    site.mkdir(path);
                    site.chmod(path, *mode);
                }
            }
        }
        if let Some(ignored) = self.ignored {
            site.write(".dockerignore", ignored);
        }
        set_times(&context);
        site.write("../Dockerfile", self.dockerfile());
    }

    /// The image's id, or why there is none.
    fn build(&self, site: &Site, store: &str) -> Result<String, String> {
        let version = format!("VERSION={}", self.version);
        let arguments = [
            "build",
            "-q",
            "-f",
            "../Dockerfile",
            "--build-arg",
            &version,
            "-o",
            "type=oci,dest=../out.tar",
            ".",
        ];
        let ran = Ran::of(site.formwork(&arguments).env("FORMWORK_ROOT", store));
        // A working directory may have become a file, which the sandbox notices.
        let is_expected =
            matches!(ran.code, Some(0 | 1)) || ran.stderr.contains("working directory");
        assert!(is_expected, "{self:?}\n{}", ran.stderr);
        if ran.code == Some(0) { Ok(ran.stdout) } else { Err(ran.stderr) }
    }
}

fn set_times(directory: &Path) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            set_times(&path);
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        fs_err::File::open(&path).unwrap().file().set_modified(time).unwrap();
    }
}

/// An instruction at random; many of them depend on what others have made.
fn instruction(random: &mut Random, stage: usize) -> String {
    let source = random.of(&["a", "b", "d", "d/", "d/e", "*", "d/*", ".", "e/a", "?"]);
    let place = random.of(&PLACES);
    let flags = random.of(&[
        "",
        "",
        "",
        "--link ",
        "--chown=app ",
        "--chown=7:8 ",
        "--chmod=0640 ",
        "--chmod=go= ",
        "--parents ",
        "--exclude=**/b ",
        "--link --chown=1:1 ",
    ]);
    let name = random.of(&["p", "q", "d/a", "out/a", "tmp/x"]);
    let from = if stage == 0 { "busybox".to_owned() } else { format!("s{}", random.below(stage)) };
    let path = random.of(&["/out", "/d", "/p", "/etc/passwd", "/tmp", "/out/a"]);
    match random.below(20) {
        0..5 => format!("COPY {flags}{source} {place}"),
        5..8 => format!("COPY {flags}--from={from} {path} {place}"),
        8 => format!("RUN echo {} > /{name} || true", random.below(3)),
        9 => format!("RUN cat /out/* /d/* /{name} 2>/dev/null | sort > /z || true; mv /z /p"),
        10 => format!("RUN rm -rf /{name} /out/b"),
        11 => "RUN find /out /d /rel 2>/dev/null | sort > /q; test ! -e /nowhere".to_owned(),
        12 => format!(
            "RUN --mount=type=bind,target=/m cat /m/{source} > /p 2>/dev/null || echo no > /p"
        ),
        13 => format!(
            "RUN --mount=type=bind,from={from},source={path},target=/m ls -ln /m | awk '{{print $1, $3, $5}}' | sort > /q"
        ),
        14 => format!("WORKDIR {}", random.of(&["/w", "/d", "w/x", "/link"])),
        15 => format!("ENV V={}\nRUN echo $V $VERSION > /p", random.of(&["1", "$VERSION", "x$V"])),
        16 => format!(
            "RUN mkdir -p /{0} 2>/dev/null; chmod 70{1} /{0}; chown {1}:0 /{0}",
            random.of(&["d", "out", "w"]),
            random.below(3)
        ),
        17 => format!("COPY {flags}<<EOF {place}\n{}\nEOF", random.of(&["1", "$VERSION"])),
        18 => format!(
            "RUN ln -s{} /{} /link 2>/dev/null || true",
            random.of(&["", "f"]),
            random.of(&["d", "out", "w"])
        ),
        _ => format!("USER {}", random.of(&["app", "0", "root"])),
    }
}
