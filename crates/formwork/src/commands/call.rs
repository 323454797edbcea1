//! `formwork build --call`: what there is to say about a Dockerfile, without building it.
//!
//! Texts and JSON are those of `docker buildx build`, so that what reads them reads these.

use std::fmt::Write;

use base64::Engine;
use formwork_build::{
    Allowed, BuildError, BuildRequest, CheckReport, Finding, Host, Outline, OutlineMount, Target,
    check, outline, targets,
};
use formwork_diagnostics::{SourceFile, Span};
use serde_json::{Map, Value, json};

use crate::args::{BuildArgs, Method};
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::inputs::Pending;
use crate::progress::Mode;

/// Does what `--call` asks for.
pub(super) fn run(
    args: &BuildArgs,
    host: &Host,
    mut request: BuildRequest,
    pending: Pending,
) -> Result<(), Failure> {
    // Whoever only asks has nothing to allow.
    request.options.allowed = Allowed { host_network: true, insecure: true };
    let (method, json) = (args.method(), args.call.json);
    request.options.all_stages = method == Method::Check && request.options.target.is_none();
    let told = work::shown(host, Mode::Quiet, move |host, events, cancel| {
        let _held = pending.complete(host, &mut request, events, cancel)?;
        match method {
            Method::Outline => Told::outline(&request, json),
            Method::Targets => Told::targets(&request, json),
            Method::Build | Method::Check => {
                let report = check(host, &request, events, cancel)?;
                Ok(Told::check(report, json))
            }
        }
    })?;
    commands::print(&told.text)?;
    match told.error {
        Some(error) => Err(error.into()),
        None if told.has_findings && !args.call.ignore_status => Err(Failure::told()),
        None => Ok(()),
    }
}

/// What goes to standard output, and what it means for the exit code.
struct Told {
    text: String,
    has_findings: bool,
    error: Option<BuildError>,
}

impl Told {
    fn check(report: CheckReport, json: bool) -> Self {
        let text = if json { pretty(&check_json(&report)) } else { check_text(&report) };
        Self { text, has_findings: !report.findings.is_empty(), error: report.error }
    }

    fn outline(request: &BuildRequest, json: bool) -> Result<Self, Failure> {
        let outline = outline(request)?;
        Ok(Self::without_findings(match json {
            true => pretty(&outline_json(&outline, &request.dockerfile)),
            false => outline_text(&outline),
        }))
    }

    fn targets(request: &BuildRequest, json: bool) -> Result<Self, Failure> {
        let targets = targets(request)?;
        Ok(Self::without_findings(match json {
            true => pretty(&targets_json(&targets, &request.dockerfile)),
            false => targets_text(&targets),
        }))
    }

    fn without_findings(text: String) -> Self {
        Self { text, has_findings: false, error: None }
    }
}

fn check_text(report: &CheckReport) -> String {
    let mut text = match (report.findings.len(), &report.error) {
        (0, Some(_)) => return String::new(),
        (0, None) => return "Check complete, no warnings found.\n".to_owned(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (count, _) => format!("Check complete, {count} warnings have been found!\n"),
    };
    for finding in &report.findings {
        let Finding { rule, diagnostic, lines } = finding;
        let excerpt = excerpt(&report.source, *lines);
        let (name, message) = (rule.name, &diagnostic.message);
        let page = rule.url().map(|url| format!(" - {url}")).unwrap_or_default();
        let (file, line) = (report.source.name(), lines.0);
        // Writing to a string cannot fail.
        let _ = write!(text, "\nWARNING: {name}{page}\n{message}\n{file}:{line}\n{excerpt}");
    }
    text
}

/// The lines of an instruction, marked, between two or three others on each side.
fn excerpt(source: &SourceFile, (first, last): (usize, usize)) -> String {
    const RULE: &str = "--------------------\n";
    let around = if first == last { 2 } else { 1 };
    let lines: Vec<&str> = source.text().split('\n').collect();
    let start = first.saturating_sub(around).max(1);
    let end = (last + around).min(lines.len());
    let mut text = RULE.to_owned();
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = lines.get(number - 1).unwrap_or(&"").trim_end_matches('\r');
        let _ = writeln!(text, " {number:3} | {mark} {line}");
    }
    text + RULE
}

fn check_json(report: &CheckReport) -> Value {
    let warnings = report.findings.iter().map(|Finding { rule, diagnostic, lines }| {
        let mut object = Map::new();
        put(&mut object, "ruleName", Some(rule.name));
        put(&mut object, "description", Some(rule.description));
        put(&mut object, "url", rule.url().as_deref());
        put(&mut object, "detail", Some(&diagnostic.message));
        object.insert("location".into(), location(*lines));
        Value::Object(object)
    });
    let source = json!({
        "fileName": report.source.name(),
        "language": "Dockerfile",
        "data": base64(report.source.text()),
    });
    let mut object = Map::new();
    object.insert("warnings".into(), warnings.collect());
    object.insert("sources".into(), json!([source]));
    if let Some(error) = &report.error {
        object.insert("buildError".into(), json!({ "message": error.to_string() }));
    }
    Value::Object(object)
}

fn location((first, last): (usize, usize)) -> Value {
    json!({ "ranges": [{ "start": { "line": first }, "end": { "line": last } }] })
}

fn lines_of(source: &SourceFile, span: Span) -> (usize, usize) {
    let line = |offset| source.position(offset).line;
    (line(span.start), line(span.end.max(span.start + 1) - 1))
}

fn targets_text(targets: &[Target]) -> String {
    let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = target.name.clone().unwrap_or_default();
        let name = if target.is_default { format!("{name} (default)") } else { name };
        rows.push([name.trim().to_owned(), target.description.clone().unwrap_or_default()]);
    }
    columns(&rows, 1)
}

fn targets_json(targets: &[Target], source: &SourceFile) -> Value {
    let target = |target: &Target| {
        let mut object = Map::new();
        put(&mut object, "name", target.name.as_deref());
        if target.is_default {
            object.insert("default".into(), true.into());
        }
        put(&mut object, "description", target.description.as_deref());
        put(&mut object, "base", Some(&target.base));
        put(&mut object, "platform", target.platform.as_deref());
        object.insert("location".into(), location(lines_of(source, target.span)));
        Value::Object(object)
    };
    let targets: Vec<Value> = targets.iter().map(target).collect();
    json!({ "targets": targets, "sources": [base64(source.text())] })
}

fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    if let Some(description) = &outline.description {
        let name = outline.name.as_deref().unwrap_or_default();
        text = format!("TARGET:      {name}\nDESCRIPTION: {description}\n\n");
    } else if let Some(name) = &outline.name {
        text = format!("TARGET: {name}\n\n");
    }
    if !outline.args.is_empty() {
        let heading = ["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned);
        let args = outline.args.iter().map(|arg| {
            let or_nothing = |text: &Option<String>| text.clone().unwrap_or_default();
            [arg.name.clone(), or_nothing(&arg.value), or_nothing(&arg.description)]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(args).collect();
        text += &(columns(&rows, 3) + "\n");
    }
    for (heading, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if mounts.is_empty() {
            continue;
        }
        let rows = mounts.iter().map(|mount| {
            let required = if mount.is_required { "true" } else { "" };
            [mount.id.clone(), required.to_owned()]
        });
        let heading = [heading.to_owned(), "REQUIRED".to_owned()];
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        text += &(columns(&rows, 3) + "\n");
    }
    text
}

fn outline_json(outline: &Outline, source: &SourceFile) -> Value {
    let place = |span| location(lines_of(source, span));
    let args = outline.args.iter().map(|arg| {
        let mut object = Map::new();
        put(&mut object, "name", Some(&arg.name));
        put(&mut object, "description", arg.description.as_deref());
        put(&mut object, "value", arg.value.as_deref());
        object.insert("location".into(), place(arg.span));
        Value::Object(object)
    });
    let mount = |key: &str, mount: &OutlineMount| {
        let mut object = Map::new();
        put(&mut object, key, Some(&mount.id));
        if mount.is_required {
            object.insert("required".into(), true.into());
        }
        object.insert("location".into(), place(mount.span));
        Value::Object(object)
    };
    let mounts = |key, mounts: &[OutlineMount]| mounts.iter().map(|m| mount(key, m)).collect();
    let mut object = Map::new();
    put(&mut object, "name", outline.name.as_deref());
    put(&mut object, "description", outline.description.as_deref());
    let lists: [(&str, Vec<Value>); 4] = [
        ("args", args.collect()),
        ("secrets", mounts("name", &outline.secrets)),
        ("ssh", mounts("name", &outline.ssh)),
        ("cache", mounts("ID", &outline.caches)),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        object.insert(key.into(), list.into());
    }
    object.insert("sources".into(), json!([base64(source.text())]));
    Value::Object(object)
}

/// Sets a key unless its value is missing or empty.
fn put(object: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        object.insert(key.to_owned(), value.into());
    }
}

/// Cells in columns with a gap between; blanks at the end of a line go.
fn columns<const COLUMNS: usize>(rows: &[[String; COLUMNS]], gap: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0) + gap;
            format!("{cell:width$}")
        });
        text += cells.collect::<String>().trim_end();
        text.push('\n');
    }
    text
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Base64, as Go writes bytes in JSON.
fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_show_the_lines_around() {
        let source = SourceFile::new("Dockerfile", "1\n2\n3\n4\n5\n6");
        let excerpt = |first, last| {
            let text = excerpt(&source, (first, last));
            let lines = text.lines().filter(|line| line.contains('|'));
            lines.map(|line| line.trim_start().replace(" | ", "")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(excerpt(3, 3), "1    1 2    2 3>>> 3 4    4 5    5");
        assert_eq!(excerpt(1, 1), "1>>> 1 2    2 3    3");
        assert_eq!(excerpt(3, 4), "2    2 3>>> 3 4>>> 4 5    5");
        assert_eq!(excerpt(6, 6), "4    4 5    5 6>>> 6");
    }
}
