//! `FROM`

use super::flags::{Flags, Takes};
use super::report::{Report, excerpt};
use super::statement::Statement;
use crate::Word;
use crate::instruction::From;

/// Reads a `FROM`. It begins a stage whatever is wrong with it, so that what follows has its place;
/// where the image is missing, it is empty.
pub(super) fn parse(statement: &Statement<'_>, report: &mut Report<'_>) -> From {
    let mut flags = Flags::read(statement, &[("platform", Takes::Value)], report);
    let mut words = statement.blank_separated().map(|range| statement.line.word(range));
    let end = statement.range.end;
    let image = words.next().unwrap_or_else(|| statement.line.word(end..end));
    let rest: Vec<Word> = words.collect();
    let (as_keyword, alias) = match rest.as_slice() {
        [keyword, name] if keyword.text().eq_ignore_ascii_case("as") => {
            (Some(keyword.clone()), checked_name(name, report))
        }
        rest => {
            report_shape(statement, &image, rest, report);
            (None, None)
        }
    };
    From { platform: flags.value("platform"), image, as_keyword, alias }
}

/// The name, unless no stage can have it.
fn checked_name(name: &Word, report: &mut Report<'_>) -> Option<Word> {
    let text = name.text();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_valid =
        text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(is_part);
    if !is_valid {
        let message = format!("`{}` cannot be the name of a stage", excerpt(text));
        let error = report.error("bad-stage-name", message, name.span());
        report.add(error.with_help(
            "a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`",
        ));
    }
    is_valid.then(|| name.clone())
}

fn report_shape(statement: &Statement<'_>, image: &Word, rest: &[Word], report: &mut Report<'_>) {
    let (message, span) = match rest {
        [] if image.is_empty() => {
            ("`FROM` needs an image or a stage to begin with", statement.keyword_span())
        }
        [] => return,
        [keyword] if keyword.text().eq_ignore_ascii_case("as") => {
            ("`AS` needs the name of the stage", keyword.span())
        }
        [first, .., last] | [first @ last] => {
            ("`FROM` takes an image, and `AS` with a name", first.span().to(last.span()))
        }
    };
    let error = report.error("bad-from", message, span);
    let misplaced = rest.iter().find(|word| word.text().starts_with("--"));
    report.add(match misplaced {
        Some(flag) => error.with_help(format!("write `{}` before the image", excerpt(flag.text()))),
        None if image.is_empty() => error.with_help("`FROM scratch` begins with nothing"),
        None => error.with_help("write `FROM image AS name`"),
    });
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, check_said};

    #[test]
    fn stages_begin_with_an_image_and_may_have_a_name() {
        check("FROM scratch", "FROM scratch");
        check("from a:1@sha256:2 as b", "FROM a:1@sha256:2 AS=b");
        check("FROM --platform=$BUILDPLATFORM a AS b", "FROM a platform=$BUILDPLATFORM AS=b");
        check("FROM --platform= a", "FROM a");
        check("FROM ${BASE:-a}${X} AS Mixed-1.0_x", "FROM ${BASE:-a}${X} AS=Mixed-1.0_x");
        check("FROM\ta \\\n  # comment\n  AS b", "FROM a AS=b");
        check("FROM 0", "FROM 0");
    }

    #[test]
    fn the_comment_above_may_describe_a_stage() {
        check(
            "# build compiles it all\nFROM a AS build",
            "FROM a AS=build described \"compiles it all\"",
        );
        check(
            "# Build is a word\n# build compiles\n# more\nFROM a AS build",
            "FROM a AS=build described \"compiles\"",
        );
        check("# build compiles\n\nFROM a AS build", "FROM a AS=build described \"compiles\"");
        check("# build compiles\n#\nFROM a AS build", "FROM a AS=build");
        check("# buildx compiles\nFROM a AS build", "FROM a AS=build");
    }

    #[test]
    fn malformed_stages_are_told() {
        check_said(
            "FROM",
            "
            FROM
            ^^^^
            error[bad-from]: `FROM` needs an image or a stage to begin with
              help: `FROM scratch` begins with nothing
            ",
        );
        check_said(
            "FROM a AS",
            "
            FROM a AS
                   ^^
            error[bad-from]: `AS` needs the name of the stage
              help: write `FROM image AS name`
            ",
        );
        check_said(
            "FROM a b c",
            "
            FROM a b c
                   ^^^
            error[bad-from]: `FROM` takes an image, and `AS` with a name
              help: write `FROM image AS name`
            ",
        );
        check_said(
            "FROM a --platform=linux/arm64",
            "
            FROM a --platform=linux/arm64
                   ^^^^^^^^^^^^^^^^^^^^^^
            error[bad-from]: `FROM` takes an image, and `AS` with a name
              help: write `--platform=linux/arm64` before the image
            ",
        );
        for name in ["1a", "a/b", "$a", "-a", "é", "a:b"] {
            check_said(
                &format!("FROM a AS {name}"),
                &format!(
                    "FROM a AS {name}\n          {}\n\
                     error[bad-stage-name]: `{name}` cannot be the name of a stage\n  \
                     help: a name begins with a letter and goes on with letters, digits, `-`, \
                     `_` and `.`",
                    "^".repeat(name.chars().count()),
                ),
            );
        }
    }

    #[test]
    fn unknown_flags_are_told() {
        check_said(
            "FROM --plattform=x --after=b a",
            "
            FROM --plattform=x --after=b a
                 ^^^^^^^^^^^
            error[unknown-flag]: `FROM` has no flag `--plattform`
              help: did you mean `--platform`?
            FROM --plattform=x --after=b a
                               ^^^^^^^
            error[unknown-flag]: `FROM` has no flag `--after`
              help: it can be `--platform`
            ",
        );
    }
}
