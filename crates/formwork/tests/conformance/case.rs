//! One case as it is written down: a folder with a Dockerfile, a context, and what comes of them.
//!
//! The format is told in `conformance/README.md`. Nothing is built here.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A case as it is read.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// The folder that it is in, which is named after a part of the language.
    pub(crate) section: String,
    /// Its own folder's name.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// More arguments of `formwork build`.
    pub(crate) arguments: Vec<String>,
    /// Where the build context is, if that is not the folder.
    pub(crate) place: Option<String>,
    pub(crate) dockerfile: String,
    pub(crate) given: Given,
    pub(crate) expected: Expected,
    /// Further builds, after the first.
    pub(crate) again: Vec<Again>,
    /// What differs with peers.
    pub(crate) buildkit: Vec<String>,
}

/// What is there before the build.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// What git cannot keep: files by their paths and contents.
    pub(crate) files: Vec<(String, String)>,
    /// Directories, links and permissions.
    pub(crate) setup: Vec<String>,
    /// Images by their names, arguments and Dockerfiles.
    pub(crate) images: Vec<(String, Vec<String>, String)>,
    /// Repositories by their names and the scripts that make them.
    pub(crate) repositories: Vec<(String, String)>,
    /// Files of the web server.
    pub(crate) served: Vec<Served>,
    /// A script that runs in the context.
    pub(crate) script: String,
    /// Whether only root can make it.
    pub(crate) needs_root: bool,
    /// Whether there is an SSH agent at `../agent`.
    pub(crate) agent: bool,
}

/// A file of the web server.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Empty if a script makes it.
    pub(crate) content: String,
}

/// What has to come of the build.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) tree: Option<Vec<String>>,
    pub(crate) files: Option<Vec<String>>,
    pub(crate) config: Vec<(String, Value)>,
    pub(crate) history: Option<Vec<String>>,
    pub(crate) fails: Option<Vec<String>>,
    /// What the build tells.
    pub(crate) tells: Vec<String>,
    /// What `--call` shows, by its method.
    pub(crate) calls: Vec<(String, Vec<String>)>,
}

/// A build after the first.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// What changes before it: a script.
    pub(crate) change: String,
    pub(crate) arguments: Vec<String>,
    /// The steps that do not come from the cache.
    pub(crate) executed: Vec<String>,
    /// Whether its `again` has been read.
    is_whole: bool,
}

impl Case {
    /// All cases below a folder, sorted, whose section or name holds one of the filters.
    pub(crate) fn all(root: &Path, filters: &[String]) -> Vec<Self> {
        let mut cases = Vec::new();
        for section in folders(root) {
            for folder in folders(&section) {
                let (section, name) = (file_name(&section), file_name(&folder));
                let path = format!("{section}/{name}");
                if filters.is_empty() || filters.iter().any(|filter| path.contains(filter)) {
                    cases.push(Self::read(folder, section, name));
                }
            }
        }
        cases
    }

    fn read(folder: PathBuf, section: String, name: String) -> Self {
        let text = fs_err::read_to_string(folder.join("case.txt")).unwrap();
        let dockerfile = fs_err::read_to_string(folder.join("Dockerfile")).unwrap();
        let mut case = Self { section, name, folder, dockerfile, ..Self::default() };
        let (title, rest) = text.split_once("\n").unwrap();
        let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
        for line in rest.lines() {
            match (line.strip_prefix("== "), sections.last_mut()) {
                (Some(head), _) => sections.push((head, Vec::new())),
                (None, Some((_, lines))) => lines.push(line.to_owned()),
                (None, None) => assert!(line.trim().is_empty(), "{title}: {line}"),
            }
        }
        assert!(!title.is_empty() && !sections.is_empty(), "{}: nothing is said", case.path());
        for (head, lines) in sections {
            case.section(head, lines);
        }
        case
    }

    fn section(&mut self, head: &str, mut lines: Vec<String>) {
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let (given, expected) = (&mut self.given, &mut self.expected);
        match head.split_once(' ').unwrap_or((head, "")) {
            ("args", arguments) => self.arguments = words(arguments),
            ("place", place) => self.place = Some(place.to_owned()),
            ("file", path) => given.files.push((path.to_owned(), text(&lines))),
            ("context", "") => given.setup = lines,
            ("script", "") => given.script = text(&lines),
            ("image", head) => {
                let (name, arguments) = head.split_once(' ').unwrap_or((head, ""));
                given.images.push((name.to_owned(), words(arguments), text(&lines)));
            }
            ("git", name) => given.repositories.push((name.to_owned(), text(&lines))),
            ("http", head) => {
                let (path, headers) = head.split_once(' ').unwrap_or((head, ""));
                let (path, headers) = (path.to_owned(), header_lines(headers));
                given.served.push(Served { path, headers, content: text(&lines) });
            }
            ("agent", "") => given.agent = true,
            ("root", "") => given.needs_root = true,
            ("tree", "") => expected.tree = Some(lines),
            ("files", "") => expected.files = Some(lines),
            ("config", "") => {
                expected.config = lines.iter().map(|line| config_line(line)).collect();
            }
            ("history", "") => expected.history = Some(lines),
            ("fails", "") => expected.fails = Some(lines),
            ("tells", "") => expected.tells = lines,
            ("call", method) => expected.calls.push((method.to_owned(), lines)),
            ("change", "") => {
                self.again.push(Again { change: text(&lines), ..Again::default() });
            }
            ("again", arguments) => {
                if self.again.last().is_none_or(|again| again.is_whole) {
                    self.again.push(Again::default());
                }
                if let Some(again) = self.again.last_mut() {
                    again.arguments = [words(arguments), self.arguments.clone()].concat();
                    again.executed = lines;
                    again.is_whole = true;
                }
            }
            ("buildkit", "") => {
                lines.retain(|line| !line.starts_with('#'));
                self.buildkit = lines;
            }
            _ => panic!("{}: there is no section `{head}`", self.path()),
        }
    }

    /// Whether nothing is said of an image.
    pub(crate) fn is_only_looked_at(&self) -> bool {
        let Expected { tree, files, config, history, fails, tells, calls } = &self.expected;
        let has_tree = tree.is_some() || files.is_some() || history.is_some() || fails.is_some();
        !calls.is_empty() && !has_tree && config.is_empty() && tells.is_empty()
    }

    /// Where the case lies.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.section, self.name)
    }
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The last component of a path.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// `NAME: VALUE; NAME: VALUE`.
fn header_lines(text: &str) -> Vec<(String, String)> {
    let pairs = text.split("; ").filter_map(|pair| pair.split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn config_line(line: &str) -> (String, Value) {
    let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}")))
}
