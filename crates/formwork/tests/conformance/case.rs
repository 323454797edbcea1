//! One case: a folder with a Dockerfile, a context, and what comes of them.
//!
//! The format is told in `conformance/README.md`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Ran, Site, Tree};

/// A case as it is read.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// The folder that it is in, which is named after a part of the language.
    pub(crate) section: String,
    /// Its own folder's name.
    pub(crate) name: String,
    folder: PathBuf,
    arguments: Vec<String>,
    /// What git cannot keep: files by their paths and contents.
    files: Vec<(String, String)>,
    /// Directories, links and permissions.
    setup: Vec<String>,
    pub(crate) dockerfile: String,
    pub(crate) differences_to_buildkit: Vec<String>,
    tree: Option<Vec<String>>,
    files_of_result: Option<Vec<String>>,
    config: Vec<(String, Value)>,
    history: Option<Vec<String>>,
    fails: Option<Vec<String>>,
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
        match head.split_once(' ').unwrap_or((head, "")) {
            ("args", arguments) => {
                self.arguments = arguments.split(' ').map(str::to_owned).collect();
            }
            ("file", path) => {
                let content: String = lines.iter().map(|line| format!("{line}\n")).collect();
                self.files.push((path.to_owned(), content));
            }
            ("context", "") => self.setup = lines,
            ("tree", "") => self.tree = Some(lines),
            ("files", "") => self.files_of_result = Some(lines),
            ("config", "") => self.config = lines.iter().map(|line| config_line(line)).collect(),
            ("history", "") => self.history = Some(lines),
            ("buildkit", "") => {
                lines.retain(|line| !line.starts_with('#'));
                self.differences_to_buildkit = lines;
            }
            ("fails", "") => self.fails = Some(lines),
            _ => panic!("{}: there is no section `{head}`", self.path()),
        }
    }

    /// Where the case lies.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.section, self.name)
    }

    /// Makes the build context.
    pub(crate) fn write_context(&self, site: &Site) {
        clear(site);
        copy(site, &self.folder.join("context"), "");
        copy(site, &self.folder.join("beside"), "../");
        for (path, content) in &self.files {
            site.write(path, content);
        }
        for line in &self.setup {
            set_up(site, line);
        }
    }

    /// The options of `buildctl build` that mean the same as the case's arguments.
    pub(crate) fn arguments_for_buildctl(&self) -> Vec<String> {
        let pairs = self.arguments.chunks_exact(2);
        let option = |pair: &[String]| match pair[0].as_str() {
            "--build-arg" => format!("--opt=build-arg:{}", pair[1]),
            "--label" => format!("--opt=label:{}", pair[1]),
            "--secret" => format!("--secret={}", pair[1]),
            option => format!("--opt={}={}", &option[2..], pair[1]),
        };
        pairs.map(option).collect()
    }

    /// What formwork makes of the case: its files and its configuration; `None` if it fails.
    pub(crate) fn result(&self, site: &Site) -> Option<(Tree, Value)> {
        let archive = site.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        let outputs = ["-t", "case", "-o", "type=image", "-o", &output];
        let own = self.arguments.iter().map(String::as_str);
        let arguments: Vec<&str> = own.chain(outputs).collect();
        let ran = Ran::of(&mut site.build_command(&arguments, &self.dockerfile));
        let read =
            || (Tree::from_archive(archive.as_ref()), site.inspect("case")["Config"].clone());
        (ran.code == Some(0)).then(read)
    }

    /// Builds the case and notes what is not as it should be; returns the image's id.
    pub(crate) fn build(&self, site: &Site, problems: &mut Vec<String>) -> Option<String> {
        self.write_context(site);
        let mut problem = |what: &str, expected: &str, found: &str| {
            let who = if site.user().is_some() { "user" } else { "root" };
            let path = self.path();
            problems.push(format!(
                "{path} ({who}): {what}\n-- expected\n{expected}\n-- found\n{found}"
            ));
        };
        let archive = site.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        let own = self.arguments.iter().map(String::as_str);
        let outputs = ["-t", "case", "-o", "type=image", "-o", &output];
        let arguments: Vec<&str> = own.chain(outputs).collect();
        let ran = Ran::of(&mut site.build_command(&arguments, &self.dockerfile));
        if let Some(messages) = &self.fails {
            let told = messages.iter().all(|message| ran.stderr.contains(message));
            if ran.code == Some(0) || !told {
                problem("must fail", &messages.join("\n"), &ran.stderr);
            }
            return None;
        }
        if ran.code != Some(0) {
            problem("must not fail", "", &ran.stderr);
            return None;
        }
        let result = Tree::from_archive(archive.as_ref());
        let changes = result.lines_without(site.busybox_tree());
        for (expected, found) in [(&self.tree, changes), (&self.files_of_result, result.lines())] {
            if let Some(expected) = expected.as_ref().filter(|expected| **expected != found) {
                problem("the files", &expected.join("\n"), &found.join("\n"));
            }
        }
        let image = site.inspect("case");
        for (key, expected) in &self.config {
            let found = if image[key].is_null() { &image["Config"][key] } else { &image[key] };
            if found != expected {
                problem(key, &expected.to_string(), &found.to_string());
            }
        }
        if let Some(expected) = &self.history {
            let found = history(&image);
            if found != *expected {
                problem("the history", &expected.join("\n"), &found.join("\n"));
            }
        }
        Some(ran.stdout.trim().to_owned())
    }
}

/// Removes all of the build context, and what was put beside it.
fn clear(site: &Site) {
    let keep = [site.store(), site.context("../base")];
    let store = site.store();
    // Not by way of the context, which goes meanwhile.
    let place = store.parent().unwrap();
    for entry in fs_err::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let is_kept = keep.iter().any(|keep| keep.file_name() == path.file_name());
        match path.is_dir() {
            true if !is_kept => fs_err::remove_dir_all(path).unwrap(),
            true => {}
            false => fs_err::remove_file(path).unwrap(),
        }
    }
    site.mkdir("");
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    if !directory.is_dir() {
        return Vec::new();
    }
    let entries = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Copies what is in a folder into the build context, with the permissions that files usually have.
fn copy(site: &Site, folder: &Path, to: &str) {
    if !folder.is_dir() {
        return;
    }
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let target = format!("{to}{}", file_name(&path));
        if path.is_dir() {
            site.mkdir(&target);
            copy(site, &path, &format!("{target}/"));
        } else {
            site.write(&target, fs_err::read(&path).unwrap());
        }
    }
}

fn config_line(line: &str) -> (String, Value) {
    let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// `PATH MODE`, `PATH/` for a directory, `PATH -> TARGET` for a symbolic link.
fn set_up(site: &Site, line: &str) {
    if let Some((path, target)) = line.split_once(" -> ") {
        return site.link(path, target);
    }
    let mode = line.rsplit_once(' ');
    let mode = mode.and_then(|(path, text)| Some((path, u32::from_str_radix(text, 8).ok()?)));
    let path = mode.map_or(line, |(path, _)| path);
    if let Some(directory) = path.strip_suffix('/') {
        site.mkdir(directory);
    }
    if let Some((path, mode)) = mode {
        site.chmod(path, mode);
    }
}

fn history(image: &Value) -> Vec<String> {
    let entries = image["History"].as_array().unwrap();
    let line = |entry: &Value| {
        let text = entry["created_by"].as_str().unwrap().replace('\n', "\\n");
        let empty = entry["empty_layer"] == true;
        format!("{}{text}", if empty { "# " } else { "" })
    };
    entries.iter().map(line).collect()
}
