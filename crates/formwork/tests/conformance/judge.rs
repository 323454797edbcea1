//! Builds a case with formwork and compares what comes of it with what is written down.

use serde_json::Value;

use crate::case::Again;
use crate::peers::buildkit::has_own_epoch;
use crate::scene::Scene;
use crate::support::{Built, Ran, Tree};

/// What a builder makes of a case.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) tree: Tree,
    pub(crate) config: Value,
    /// The steps that each further build carried out.
    pub(crate) executed: Vec<Vec<String>>,
    /// What the methods of `--call` show.
    pub(crate) calls: Vec<Vec<String>>,
}

/// What formwork makes of the case; `None` if it fails.
pub(crate) fn outcome(scene: &Scene<'_>) -> Option<Outcome> {
    let case = scene.case;
    let calls = case.expected.calls.iter().map(|(method, _)| call(scene, method)).collect();
    if case.is_only_looked_at() {
        return Some(Outcome { calls, ..Outcome::default() });
    }
    let mut ran = build(scene, &case.arguments);
    let mut executed = Vec::new();
    for again in &case.again {
        if ran.code != Some(0) {
            return None;
        }
        ran = build_again(scene, again);
        executed.push(steps(scene, &ran));
    }
    let config = || scene.site.inspect("case")["Config"].clone();
    (ran.code == Some(0)).then(|| Outcome { tree: tree(scene), config: config(), executed, calls })
}

/// Builds the case and notes what is not as it should be; returns the image's id.
pub(crate) fn judge(scene: &Scene<'_>, problems: &mut Vec<String>) -> Option<String> {
    let Scene { case, site, .. } = scene;
    let expected = &case.expected;
    let mut judge = Judge { scene, problems };
    for (method, lines) in &expected.calls {
        judge.lines(&format!("--call={method}"), Some(lines), &call(scene, method));
    }
    if case.is_only_looked_at() {
        return None;
    }
    let mut ran = build(scene, &case.arguments);
    if let Some(messages) = &expected.fails {
        let said = said(&ran);
        let is_told = |message: &String| said.contains(&scene.put_addresses(message));
        let told = messages.iter().all(is_told);
        if ran.code == Some(0) || !told {
            judge.problem("must fail", &messages.join("\n"), &ran.stderr);
        }
        return None;
    }
    for again in &case.again {
        if ran.code == Some(0) {
            ran = build_again(scene, again);
        }
        if ran.code == Some(0) {
            judge.lines("the steps carried out", Some(&again.executed), &steps(scene, &ran));
        }
    }
    if ran.code != Some(0) {
        judge.problem("must not fail", "", &ran.stderr);
        return None;
    }
    let said = said(&ran);
    for message in expected.tells.iter().filter(|message| !said.contains(*message)) {
        judge.problem("what it tells", message, &ran.stderr);
    }
    let result = tree(scene);
    let lines = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| scene.without_addresses(line)).collect()
    };
    let changes = lines(result.lines_without(site.busybox_tree()));
    judge.lines("the files", expected.tree.as_ref(), &changes);
    judge.lines("the files", expected.files.as_ref(), &lines(result.lines()));
    let image = site.inspect("case");
    for (key, expected) in &expected.config {
        let found = if image[key].is_null() { &image["Config"][key] } else { &image[key] };
        if found != expected {
            judge.problem(key, &expected.to_string(), &found.to_string());
        }
    }
    judge.lines("the history", expected.history.as_ref(), &history(scene, &image));
    Some(ran.stdout.trim().to_owned())
}

/// What a build tells, as people see it.
fn said(ran: &Ran) -> String {
    let text = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["rendered"].as_str().unwrap_or(line).to_owned()
    };
    ran.stderr.lines().map(text).collect::<Vec<_>>().join("\n")
}

/// Where problems are noted.
struct Judge<'a> {
    scene: &'a Scene<'a>,
    problems: &'a mut Vec<String>,
}

impl Judge<'_> {
    fn lines(&mut self, what: &str, expected: Option<&Vec<String>>, found: &[String]) {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            self.problem(what, &expected.join("\n"), &found.join("\n"));
        }
    }

    fn problem(&mut self, what: &str, expected: &str, found: &str) {
        let who = if self.scene.site.user().is_some() { "user" } else { "root" };
        let path = self.scene.case.path();
        self.problems
            .push(format!("{path} ({who}): {what}\n-- expected\n{expected}\n-- found\n{found}"));
    }
}

fn build(scene: &Scene<'_>, arguments: &[String]) -> Ran {
    let output = format!("type=tar,dest={}", scene.site.outside("tree.tar"));
    let outputs = ["-t", "case", "-o", "type=image", "-o", &output];
    let own = scene.arguments(arguments);
    let arguments = own.iter().map(String::as_str).chain(outputs).collect::<Vec<_>>();
    let mut command = match &scene.case.place {
        None => scene.site.build_command(&arguments, &scene.dockerfile()),
        Some(place) => {
            let place = scene.put_addresses(place);
            let own = ["build", "--progress=json"];
            scene.site.formwork(&[&own, &arguments[..], &[&place]].concat())
        }
    };
    if has_own_epoch(&scene.dockerfile()) {
        command.env_remove("SOURCE_DATE_EPOCH");
    }
    Ran::of(&mut command)
}

fn build_again(scene: &Scene<'_>, again: &Again) -> Ran {
    scene.run(&again.change);
    build(scene, &again.arguments)
}

/// The steps that were carried out, sorted: independent ones end in any order.
fn steps(scene: &Scene<'_>, ran: &Ran) -> Vec<String> {
    let built = Built::from_ran(ran);
    let mut steps: Vec<String> =
        built.executed().into_iter().map(|step| scene.without_addresses(step)).collect();
    steps.sort();
    steps
}

fn call(scene: &Scene<'_>, method: &str) -> Vec<String> {
    let own = scene.arguments(&scene.case.arguments);
    let method_argument = format!("--call={method},ignorestatus");
    let arguments = own.iter().map(String::as_str).chain([method_argument.as_str()]);
    let arguments = arguments.collect::<Vec<_>>();
    let ran = Ran::of(&mut scene.site.build_command(&arguments, &scene.dockerfile()));
    call_lines(method, &ran.stdout)
}

/// What a call prints, as far as it is the same everywhere: of a check the rules and their lines.
pub(crate) fn call_lines(method: &str, text: &str) -> Vec<String> {
    if method != "check" {
        return text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect();
    }
    let mut lines = Vec::new();
    let mut rule = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("WARNING: ") {
            rule = rest.split(' ').next();
        } else if let Some((_, number)) =
            line.rsplit_once("Dockerfile:").filter(|(before, _)| !before.contains(' '))
        {
            lines.extend(rule.take().map(|rule| format!("{number} {rule}")));
        }
    }
    lines.sort();
    lines
}

fn tree(scene: &Scene<'_>) -> Tree {
    Tree::from_archive(scene.site.outside("tree.tar").as_ref())
}

fn history(scene: &Scene<'_>, image: &Value) -> Vec<String> {
    let entries = image["History"].as_array().unwrap();
    let line = |entry: &Value| {
        let text = entry["created_by"].as_str().unwrap().replace('\n', "\\n");
        let empty = entry["empty_layer"] == true;
        scene.without_addresses(&format!("{}{text}", if empty { "# " } else { "" }))
    };
    entries.iter().map(line).collect()
}
