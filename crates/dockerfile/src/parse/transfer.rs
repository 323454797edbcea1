//! `ADD` and `COPY`
//!
//! A heredoc among the sources is the one that is announced at that place. (BuildKit looks it up by
//! its name, so that of two with the same name it copies the last one twice.)

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
    let is_constant = !from.text().contains(['$', '\'', '"', escape])
        || expand(from, escape, &|_| None).is_ok_and(|expanded| expanded.text == from.text());
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
        while heredocs.next_if(|(range, _)| range.end <= word.start).is_some() {}
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
    let missing =
        if has_source { "a destination behind its source" } else { "a source and a destination" };
    let message = format!("`{keyword}` needs {missing}");
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
    for range in statement.blank_separated().filter(|_| !statement.ends_flags) {
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

#[cfg(test)]
mod tests {
    use crate::testing::{check_said, check_stage};

    #[test]
    fn files_are_listed_or_come_as_json() {
        check_stage("COPY a b", "COPY a -> b");
        check_stage("COPY a  b\tc/", "COPY a b -> c/");
        check_stage("COPY $a ${b}/* [[]x] c/", "COPY $a ${b}/* [[]x] -> c/");
        check_stage(r#"COPY ["a b", "c\\d", "é f/"]"#, r#"COPY "a b" c\d -> "é f/""#);
        check_stage(r#"COPY ["a", b] c"#, r#"COPY ["a", b] -> c"#);
        check_stage("COPY 'a b' c", "COPY 'a b' -> c");
        check_stage("ADD https://a.b/c.tar.gz /d/", "ADD https://a.b/c.tar.gz -> /d/");
        check_stage(
            "ADD git@github.com:a/b.git#v1:sub /d",
            "ADD git@github.com:a/b.git#v1:sub -> /d",
        );
    }

    #[test]
    fn flags_come_before_the_files() {
        check_stage(
            "COPY --from=b --chown=1:$g --chmod=u=rwX,go=rX --link --parents=true a ./b",
            "COPY a -> ./b chown=1:$g chmod=u=rwX,go=rX link=true from=b parents=true",
        );
        check_stage(
            "COPY --exclude=*.o --link=FALSE --exclude='a b' a b",
            "COPY a -> b link=false exclude=*.o exclude=\"a b\"",
        );
        check_stage(
            "ADD --checksum=sha256:0 --unpack=false --keep-git-dir a b",
            "ADD a -> b checksum=sha256:0 unpack=false keep-git-dir=true",
        );
        check_stage("COPY --chown= -- --link a", "COPY --link -> a");
        check_stage("COPY --chown=\"$u\" a b", "COPY a -> b chown=$u");
        check_stage("COPY --from=ünï a b", "COPY a -> b from=ünï");
    }

    #[test]
    fn heredocs_are_files() {
        check_stage("COPY <<a.txt /b\nx $y\na.txt", "COPY <<a.txt \"x $y\\n\" -> /b");
        check_stage(
            "COPY <<a <<-'b' c /d/\n1\na\n\t2\n\tb",
            "COPY <<a \"1\\n\" <<-'b' \"\\t2\\n\" c -> /d/",
        );
        check_stage(
            "ADD --chmod=1 <<X <<X /d/\n1\nX\n2\nX",
            "ADD <<X \"1\\n\" <<X \"2\\n\" -> /d/ chmod=1",
        );
        check_stage("COPY << 'a b' /c\na b", "COPY <<'a b' \"\" -> /c");
        check_stage(r#"COPY ["<<a", "b"]"#, "COPY <<a -> b");
    }

    #[test]
    fn what_is_missing_is_told() {
        check_said(
            "FROM a\nCOPY\nADD a\nCOPY [\"a\"]\nCOPY [\"a\", 1]",
            "
            COPY
            ^^^^
            error[missing-argument]: `COPY` needs a source and a destination
              help: write `COPY source destination`
            ADD a
            ^^^
            error[missing-argument]: `ADD` needs a destination behind its source
              help: write `ADD source destination`
            COPY [\"a\"]
            ^^^^
            error[missing-argument]: `COPY` needs a destination behind its source
              help: write `COPY source destination`
            COPY [\"a\", 1]
                 ^^^^^^^^
            error[bad-json]: the JSON array holds something else than strings
              help: put each of its elements between double quotes
            ",
        );
        check_said(
            "FROM a\nCOPY a <<EOF\nEOF\nCOPY <<EOF\nEOF",
            "
            COPY a <<EOF
                   ^^^^^
            error[heredoc-destination]: `COPY` cannot copy to a heredoc
              help: write `COPY <<EOF destination`
            COPY <<EOF
                 ^^^^^
            error[heredoc-destination]: `COPY` cannot copy to a heredoc
              help: write `COPY <<EOF destination`
            ",
        );
    }

    #[test]
    fn wrong_flags_are_told() {
        check_said(
            "FROM a\nCOPY --form=b --link=yes --chown --link= --from=c --from=d a b",
            "
            COPY --form=b --link=yes --chown --link= --from=c --from=d a b
                 ^^^^^^
            error[unknown-flag]: `COPY` has no flag `--form`
              help: did you mean `--from`?
            COPY --form=b --link=yes --chown --link= --from=c --from=d a b
                          ^^^^^^^^^^
            error[bad-flag-value]: `--link` is either `true` or `false`
            COPY --form=b --link=yes --chown --link= --from=c --from=d a b
                                     ^^^^^^^
            error[missing-flag-value]: `--chown` needs a value
              help: write `--chown=…`
            COPY --form=b --link=yes --chown --link= --from=c --from=d a b
                                             ^^^^^^^
            error[bad-flag-value]: `--link` is either `true` or `false`
            COPY --form=b --link=yes --chown --link= --from=c --from=d a b
                                                              ^^^^^^
            error[duplicate-flag]: `--from` is given twice
              line 2: first given here
            ",
        );
        check_said(
            "FROM a\nCOPY a --link --other b",
            "
            COPY a --link --other b
                   ^^^^^^
            warning[misplaced-flag]: `--link` behind an argument is a path, and no flag
              help: write flags right behind the keyword
            ",
        );
    }

    #[test]
    fn what_to_copy_from_cannot_be_a_variable() {
        check_said(
            "FROM a\nCOPY --from=$STAGE a b\nCOPY --from=a$ c d",
            "
            COPY --from=$STAGE a b
                        ^^^^^^
            error[variable-in-from]: `--from` takes neither variables nor quotes
              help: name a stage: write `FROM $STAGE AS name` with an `ARG` before the first `FROM`, and `--from=name` here
            ",
        );
    }
}
