//! `ADD` and `COPY`

use std::ops::Range;

use super::flags::{Flags, Takes};
use super::json::Json;
use super::report::{Report, excerpt};
use super::statement::Statement;
use crate::Word;
use crate::expand::expand;
use crate::instruction::{Add, Copy, Heredoc, Source, Transfer};

/// The flags of `COPY`.
const COPY_FLAGS: [(&str, Takes); 6] = [
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Truth),
    ("parents", Takes::Truth),
    ("exclude", Takes::Values),
];
/// The flags of `ADD`.
const ADD_FLAGS: [(&str, Takes); 7] = [
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Truth),
    ("exclude", Takes::Values),
    ("checksum", Takes::Value),
    ("unpack", Takes::Truth),
    ("keep-git-dir", Takes::Truth),
];

/// Reads a `COPY`.
pub(super) fn copy(statement: &mut Statement<'_>, report: &mut Report<'_>) -> Option<Copy> {
    let mut flags = Flags::read(statement, &COPY_FLAGS, report);
    let from = flags.value("from").filter(|from| is_constant(from, statement.escape, report));
    let parents = flags.truth("parents");
    warn_about_flags_among_sources(statement, &COPY_FLAGS, report);
    let files = transfer(statement, flags, report)?;
    Some(Copy { files, from, parents })
}

/// Reads an `ADD`.
pub(super) fn add(statement: &mut Statement<'_>, report: &mut Report<'_>) -> Option<Add> {
    let mut flags = Flags::read(statement, &ADD_FLAGS, report);
    let checksum = flags.value("checksum");
    let unpack = flags.truth("unpack");
    let keep_git_dir = flags.truth("keep-git-dir");
    warn_about_flags_among_sources(statement, &ADD_FLAGS, report);
    let files = transfer(statement, flags, report)?;
    Some(Add { files, checksum, unpack, keep_git_dir })
}

/// Whether a name of what to copy from holds nothing to expand; reports it if it does.
fn is_constant(from: &Word, escape: char, report: &mut Report<'_>) -> bool {
    let expanded = expand(from, escape, &|_| None);
    let is_constant = expanded.is_ok_and(|expanded| expanded.text == from.text());
    if !is_constant {
        let message = "`--from` takes neither variables nor quotes";
        let error = report.error("variable-in-from", message, from.span());
        report.add(error.with_help(format!(
            "name a stage: write `FROM {} AS name` with an `ARG` before the first `FROM`, and \
             `--from=name` here",
            excerpt(from.text())
        )));
    }
    is_constant
}

fn transfer(
    statement: &mut Statement<'_>,
    mut flags: Flags,
    report: &mut Report<'_>,
) -> Option<Transfer> {
    let mut sources = sources(statement, report)?;
    let destination = match sources.pop() {
        Some(Source::Path(destination)) if !sources.is_empty() => destination,
        Some(Source::Heredoc(heredoc)) => {
            report_heredoc_destination(statement, &heredoc, report);
            return None;
        }
        last => {
            report_missing(statement, last.is_some(), report);
            return None;
        }
    };
    Some(Transfer {
        sources,
        destination,
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.truth("link"),
        excludes: flags.values("exclude"),
    })
}

/// All arguments, the destination among them.
fn sources(statement: &mut Statement<'_>, report: &mut Report<'_>) -> Option<Vec<Source>> {
    match statement.json() {
        Json::Strings(words) => return Some(words.into_iter().map(Source::Path).collect()),
        Json::Other => {
            report_other_json(statement, report);
            return None;
        }
        Json::No => {}
    }
    let mut heredocs = std::mem::take(&mut statement.heredocs).into_iter().peekable();
    let mut sources = Vec::new();
    let mut covered = 0;
    for word in statement.blank_separated() {
        if word.start < covered {
            // A delimiter with blanks in it is several words.
            continue;
        }
        let announces = |(range, _): &(Range<usize>, Heredoc)| range.contains(&word.start);
        match heredocs.next_if(announces) {
            Some((range, heredoc)) => {
                covered = range.end;
                sources.push(Source::Heredoc(heredoc));
            }
            None => sources.push(Source::Path(statement.line.word(word))),
        }
    }
    Some(sources)
}

/// Reports that arguments are JSON, but not all of them strings.
pub(super) fn report_other_json(statement: &Statement<'_>, report: &mut Report<'_>) {
    let span = statement.line.span_of(statement.arguments.clone());
    let error = report.error("bad-json", "the JSON array holds something else than strings", span);
    report.add(error.with_help("put each of its elements between double quotes"));
}

fn report_missing(statement: &Statement<'_>, has_source: bool, report: &mut Report<'_>) {
    let keyword = statement.name().to_ascii_uppercase();
    let message = match has_source {
        true => format!("`{keyword}` needs a destination behind its source"),
        false => format!("`{keyword}` needs a source and a destination"),
    };
    let error = report.error("missing-argument", message, statement.keyword_span());
    report.add(error.with_help(format!("write `{keyword} source destination`")));
}

fn report_heredoc_destination(
    statement: &Statement<'_>,
    heredoc: &Heredoc,
    report: &mut Report<'_>,
) {
    let keyword = statement.name().to_ascii_uppercase();
    let message = format!("`{keyword}` cannot copy to a heredoc");
    let error = report.error("heredoc-destination", message, heredoc.span);
    let name = excerpt(&heredoc.name);
    report.add(error.with_help(format!("write `{keyword} <<{name} destination`")));
}

/// A flag is one only before the first argument; behind it, it is a path.
fn warn_about_flags_among_sources(
    statement: &Statement<'_>,
    known: &[(&str, Takes)],
    report: &mut Report<'_>,
) {
    for range in statement.blank_separated() {
        let word = &statement.line.text()[range.clone()];
        let Some(flag) = word.strip_prefix("--") else { continue };
        let name = flag.split('=').next().unwrap_or_default();
        if known.iter().any(|(known, _)| *known == name) {
            let message = format!("`--{name}` behind an argument is a path, and no flag");
            let span = statement.line.span_of(range);
            let warning = report.warning("misplaced-flag", message, span);
            report.add(warning.with_help("write flags right behind the keyword"));
        }
    }
}
