//! Dockerfiles with what comes of them, from the text files in `cases`.
//!
//! A file holds cases. A case begins with a line of `====` and a sentence that says what holds,
//! and has sections:
//!
//! - `-- Dockerfile`: the Dockerfile, which lies outside the build context;
//! - `-- PATH [MODE]`: a file of the build context; `-- PATH/` a directory, `-- PATH -> TARGET` a
//!   symbolic link. A path that begins with `../` lies outside;
//! - `== args ARGUMENT…`: more arguments for `formwork build`;
//! - `== tree`: all entries of the result that the base image `busybox` does not have, sorted;
//! - `== files`: all entries of the result;
//! - `== config`: parts of what `formwork inspect` shows, as `KEY: JSON`; `null` is for what is
//!   missing;
//! - `== history`: the instructions in the image's history, with `#` before those without a layer;
//! - `== fails`: the build fails, and each line is part of the message.
//!
//! Each case is built as root and as an ordinary user, and the images have to be the same.

use serde_json::Value;

use crate::support::{Ran, Site, Tree, on_each_rung};

#[test]
fn from_and_stages() {
    check_all(include_str!("cases/from.txt"));
}

#[test]
fn copies() {
    check_all(include_str!("cases/copy.txt"));
}

#[test]
fn metadata() {
    check_all(include_str!("cases/metadata.txt"));
}

#[test]
fn arguments_and_variables() {
    check_all(include_str!("cases/args.txt"));
}

#[test]
fn runs() {
    check_all(include_str!("cases/run.txt"));
}

#[test]
fn mounts() {
    check_all(include_str!("cases/mounts.txt"));
}

#[test]
fn ignore_files() {
    check_all(include_str!("cases/ignore.txt"));
}

/// A case as it is read.
#[derive(Debug, Default)]
struct Case<'a> {
    title: &'a str,
    arguments: Vec<&'a str>,
    files: Vec<(&'a str, String)>,
    dockerfile: String,
    tree: Option<Vec<&'a str>>,
    files_of_result: Option<Vec<&'a str>>,
    config: Vec<(&'a str, Value)>,
    history: Option<Vec<&'a str>>,
    fails: Option<Vec<&'a str>>,
}

fn check_all(text: &str) {
    let cases: Vec<Case<'_>> = text.split("\n==== ").skip(1).map(Case::parse).collect();
    assert!(!cases.is_empty(), "no cases");
    let ids = std::cell::RefCell::new(Vec::new());
    let problems = std::cell::RefCell::new(Vec::new());
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let results = cases.iter().map(|case| case.build(site, &mut problems.borrow_mut()));
        ids.borrow_mut().push(results.collect::<Vec<_>>());
    });
    let mut problems = problems.into_inner();
    if let [root, user] = ids.into_inner().as_slice() {
        for ((case, root), user) in cases.iter().zip(root).zip(user) {
            if root != user {
                problems.push(format!("{}: root and user differ: {root:?}, {user:?}", case.title));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems\n\n{}", problems.len(), problems.join("\n\n"));
}

impl<'a> Case<'a> {
    fn parse(text: &'a str) -> Self {
        let (title, rest) = text.split_once('\n').unwrap();
        let mut case = Self { title: title.trim(), ..Self::default() };
        let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in rest.lines() {
            match (line.get(..3), sections.last_mut()) {
                (Some("-- " | "== "), _) => sections.push((line, Vec::new())),
                (_, Some((_, lines))) => lines.push(line),
                (_, None) => assert!(line.trim().is_empty(), "{title}: {line}"),
            }
        }
        for (head, lines) in sections {
            case.section(head, lines);
        }
        assert!(!case.dockerfile.is_empty(), "{title}: no Dockerfile");
        case
    }

    fn section(&mut self, head: &'a str, mut lines: Vec<&'a str>) {
        let name = &head[3..];
        while head.starts_with('=') && lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        match name.split_once(' ').unwrap_or((name, "")) {
            ("Dockerfile", "") => self.dockerfile = content(&lines),
            _ if head.starts_with('-') => self.files.push((name, content(&lines))),
            ("args", arguments) => self.arguments = arguments.split(' ').collect(),
            ("tree", "") => self.tree = Some(lines),
            ("files", "") => self.files_of_result = Some(lines),
            ("config", "") => self.config = lines.into_iter().map(config_line).collect(),
            ("history", "") => self.history = Some(lines),
            ("fails", "") => self.fails = Some(lines),
            _ => panic!("{}: {head}", self.title),
        }
    }

    /// Builds the case and notes what is not as it should be; returns the image's id.
    fn build(&self, site: &Site, problems: &mut Vec<String>) -> Option<String> {
        site.clear_context();
        for (head, content) in &self.files {
            write(site, head, content);
        }
        let mut problem = |what: &str, expected: &str, found: &str| {
            let who = if site.user().is_some() { "user" } else { "root" };
            let title = self.title;
            problems.push(format!(
                "{title} ({who}): {what}\n-- expected\n{expected}\n-- found\n{found}"
            ));
        };
        let archive = site.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        let arguments =
            [self.arguments.as_slice(), &["-t", "case", "-o", "type=image", "-o", &output]];
        let ran = Ran::of(&mut site.build_command(&arguments.concat(), &self.dockerfile));
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

/// The lines of a file; the empty ones at the end only part it from what comes after.
fn content(lines: &[&str]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let trimmed = text.trim_end_matches('\n');
    if trimmed.is_empty() { String::new() } else { format!("{trimmed}\n") }
}

fn config_line(line: &str) -> (&str, Value) {
    let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    (key, serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}")))
}

fn write(site: &Site, head: &str, content: &str) {
    if let Some((path, target)) = head.split_once(" -> ") {
        return site.link(path, target);
    }
    let mode = head.rsplit_once(' ');
    let mode = mode.and_then(|(path, text)| Some((path, u32::from_str_radix(text, 8).ok()?)));
    let path = mode.map_or(head, |(path, _)| path);
    match path.strip_suffix('/') {
        Some(directory) => site.mkdir(directory),
        None => site.write(path, content),
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
