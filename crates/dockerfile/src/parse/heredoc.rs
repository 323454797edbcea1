//! Heredocs: where one is announced, and where it ends.

use std::ops::Range;

use formwork_diagnostics::Span;

use super::lines::{Lines, Physical};
use super::report::{Report, excerpt};
use super::statement::Statement;
use crate::Word;
use crate::expand::{self, shell_words};
use crate::instruction::Heredoc;
use crate::word::Line;

/// How often the parser looks for where a heredoc without an end might have been meant to end.
const RECOVERIES: usize = 8;

/// Reads heredocs out of a file.
#[derive(Debug, Default)]
pub(super) struct HeredocReader {
    unterminated: usize,
}

/// What announces a heredoc.
#[derive(Debug)]
struct Opener {
    range: Range<usize>,
    name: String,
    expand: bool,
    strip_tabs: bool,
    descriptor: Option<u32>,
}

impl HeredocReader {
    /// Reads the heredocs that an instruction's line announces, from the lines behind it.
    pub(super) fn read(
        &mut self,
        statement: &Statement<'_>,
        lines: &mut Lines<'_>,
        report: &mut Report<'_>,
    ) -> Vec<(Range<usize>, Heredoc)> {
        let line = statement.line.word(0..statement.line.text().len());
        let Some(words) = shell_words(&line) else {
            report_unreadable(statement, report);
            return Vec::new();
        };
        let openers = words.into_iter().filter_map(|range| opener(&line, range));
        openers.map(|opener| self.body(opener, statement.line, lines, report)).collect()
    }

    fn body(
        &mut self,
        opener: Opener,
        line: &Line<'_>,
        lines: &mut Lines<'_>,
        report: &mut Report<'_>,
    ) -> (Range<usize>, Heredoc) {
        let start = lines.offset();
        let source = report.source().text();
        let mut near_miss = None;
        let end = lines.find_map(|next| {
            near_miss = near_miss.or_else(|| opener.is_nearly_ended_by(&next).then_some(next));
            opener.is_ended_by(&next).then_some(next.start)
        });
        let end = end.unwrap_or_else(|| {
            self.report_unterminated(&opener, line, near_miss, report);
            let resume = near_miss.filter(|_| self.unterminated <= RECOVERIES);
            resume.inspect(|line| lines.go_to(line.end)).map_or(source.len(), |line| line.start)
        });
        let Opener { range, name, expand, strip_tabs, descriptor } = opener;
        let span = line.span_of(range.clone());
        let content = source[start..end].to_owned();
        let content_span = Span::new(start, end);
        (range, Heredoc { name, content, expand, strip_tabs, descriptor, span, content_span })
    }

    fn report_unterminated(
        &mut self,
        opener: &Opener,
        line: &Line<'_>,
        near_miss: Option<Physical<'_>>,
        report: &mut Report<'_>,
    ) {
        self.unterminated += 1;
        if report.leaves_out() {
            return;
        }
        let name = excerpt(&opener.name);
        let message = format!("the heredoc has no end: no line says `{name}`");
        let error =
            report.error("unterminated-heredoc", message, line.span_of(opener.range.clone()));
        let word = opener.name.trim_end_matches([';', '|', '&', ')']);
        report.add(match near_miss {
            Some(next) => error
                .at(report.source(), Span::at(next.start, next.text.len()), "this does not end it")
                .with_help(format!(
                    "`{name}` must stand alone on its line, without blanks; behind `<<-` there may \
                     be tabs before it"
                )),
            None if word.len() < opener.name.len() => {
                error.with_help(format!("write a blank behind `<<{}`", excerpt(word)))
            }
            None => error.with_help(format!(
                "end the text by a line that says `{name}` and nothing else, or quote `<<` if it \
                 is meant to be none"
            )),
        });
    }
}

impl Opener {
    fn is_ended_by(&self, line: &Physical<'_>) -> bool {
        let text = if self.strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
        text == self.name
    }

    fn is_nearly_ended_by(&self, line: &Physical<'_>) -> bool {
        line.text.trim().eq_ignore_ascii_case(&self.name)
    }
}

/// Says that something looks like a heredoc, but is none because the line is malformed for whoever
/// does not know all of the shell's language. To a `RUN` that may not matter.
fn report_unreadable(statement: &Statement<'_>, report: &mut Report<'_>) {
    let text = statement.line.text();
    let announced = text.match_indices("<<").find(|(at, _)| {
        let behind = text[at + 2..].trim_start_matches(['-', ' ', '\'', '"']);
        behind.starts_with(|c: char| c.is_alphabetic() || c == '_') && !text[..*at].ends_with('<')
    });
    let Some((at, _)) = announced else { return };
    let code = "unreadable-heredoc";
    let message =
        "this is not taken as a heredoc, because quotes or braces on the line do not match";
    let span = statement.line.span_of(at..at + 2);
    let diagnostic = if statement.is("RUN") {
        report.warning(code, message, span)
    } else {
        report.error(code, message, span)
    };
    report.add(diagnostic.with_help(
        "put the heredoc on a line without `${…}` of bash, or the whole script into the heredoc",
    ));
}

/// The heredoc that a word announces: `[descriptor]<<[-]name`.
fn opener(line: &Word, range: Range<usize>) -> Option<Opener> {
    let text = &line.text()[range.clone()];
    let at = text.find("<<")?;
    let (descriptor, behind) = (&text[..at], &text[at + 2..]);
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) || behind.contains('<') {
        return None;
    }
    let name = behind.strip_prefix('-').unwrap_or(behind);
    let name = name.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    let (name, is_quoted) = expand::delimiter(line, range.end - name.len()..range.end)?;
    Some(Opener {
        name,
        expand: !is_quoted,
        strip_tabs: behind.starts_with('-'),
        descriptor: (!descriptor.is_empty()).then(|| descriptor.parse().unwrap_or(u32::MAX)),
        range,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, check_said, check_stage};

    #[test]
    fn heredocs_are_announced_in_many_ways() {
        for (announced, name, shown) in [
            ("<<EOF", "EOF", "<<EOF"),
            ("3<<EOF", "EOF", "3<<EOF"),
            ("<<-EOF", "EOF", "<<-EOF"),
            ("<<'EOF'", "EOF", "<<'EOF'"),
            ("<<\"EOF\"", "EOF", "<<'EOF'"),
            ("12<<-'EOF'", "EOF", "12<<-'EOF'"),
            ("<<EO\"F\"", "EOF", "<<'EOF'"),
            ("<<eo\\'f", "eo'f", "<<eo'f"),
            ("<<'e'o\\'f", "eo'f", "<<'eo'f'"),
            ("<<'one two'", "one two", "<<'one two'"),
            ("<<$EOF", "$EOF", "<<$EOF"),
            ("<<${x:-y}", "${x:-y}", "<<${x:-y}"),
            ("<<  EOF", "EOF", "<<EOF"),
            ("<< -EOF", "-EOF", "<<-EOF"),
            ("<<file.txt", "file.txt", "<<file.txt"),
            ("<<한", "한", "<<한"),
        ] {
            let text = format!("RUN {announced}\na\n{name}");
            check_stage(&text, &format!("RUN {announced:?} {shown} \"a\\n\""));
        }
    }

    #[test]
    fn not_everything_with_two_angles_is_a_heredoc() {
        for command in [
            "a <b",
            "a <<- b",
            "a << ",
            "a <<-",
            "a <<<b",
            "a '<<b'",
            "a \"<<b\"",
            r"a \<<b",
            "a<<b",
            "x3<<b",
        ] {
            check_stage(&format!("RUN {command}"), &format!("RUN {:?}", command.trim_end()));
        }
        check_stage("RUN [\"<<EOF\"]", "RUN [\"<<EOF\"]");
        check_stage("USER <<EOF", "USER <<EOF");
    }

    #[test]
    fn the_text_is_kept_as_it_stands() {
        check_stage(
            "RUN <<A <<-B c\n# no comment\nx \\\n  y\n\nA\n\tz\n\t\tB\nUSER d",
            r##"
            RUN "<<A <<-B c" <<A "# no comment\nx \\\n  y\n\n" <<-B "\tz\n"
            USER d
            "##,
        );
        check_stage("RUN <<A\r\nx\r\nA\r\nUSER b", "RUN \"<<A\" <<A \"x\\r\\n\"\nUSER b");
        check_stage("RUN <<A\nA", "RUN \"<<A\" <<A \"\"");
        check_stage("RUN a \\\n  <<A \\\n  b\nx\nA", "RUN \"a   <<A   b\" <<A \"x\\n\"");
        check(
            "# escape=`\nFROM a\nRUN <<A\\ b\nx\nA b",
            "escape `\nFROM a\nRUN \"<<A\\\\ b\" <<A b \"x\\n\"",
        );
    }

    #[test]
    fn a_heredoc_without_an_end_is_told() {
        check_said(
            "FROM a\nRUN <<EOF\nx\ny",
            "
            RUN <<EOF
                ^^^^^
            error[unterminated-heredoc]: the heredoc has no end: no line says `EOF`
              help: end the text by a line that says `EOF` and nothing else, or quote `<<` if it is meant to be none
            ",
        );
        check_said(
            "FROM a\nRUN cat <<EOF; b\nEOF",
            "
            RUN cat <<EOF; b
                    ^^^^^^
            error[unterminated-heredoc]: the heredoc has no end: no line says `EOF;`
              help: write a blank behind `<<EOF`
            ",
        );
    }

    #[test]
    fn the_parser_goes_on_where_a_heredoc_seems_to_end() {
        check_said(
            "FROM a\nRUN <<EOF\nx\n  EOF\nUSR b",
            "
            RUN <<EOF
                ^^^^^
            error[unterminated-heredoc]: the heredoc has no end: no line says `EOF`
              line 4: this does not end it
              help: `EOF` must stand alone on its line, without blanks; behind `<<-` there may be tabs before it
            USR b
            ^^^
            error[unknown-instruction]: `USR` is no instruction
              help: did you mean `USER`?
            ",
        );
    }

    #[test]
    fn lines_that_buildkit_cannot_read_have_no_heredocs() {
        check_said(
            "FROM a\nRUN echo ${x[0]} <<EOF\nCOPY \"a <<EOF b",
            "
            RUN echo ${x[0]} <<EOF
                             ^^
            warning[unreadable-heredoc]: this is not taken as a heredoc, because quotes or braces on the line do not match
              help: put the heredoc on a line without `${…}` of bash, or the whole script into the heredoc
            COPY \"a <<EOF b
                    ^^
            error[unreadable-heredoc]: this is not taken as a heredoc, because quotes or braces on the line do not match
              help: put the heredoc on a line without `${…}` of bash, or the whole script into the heredoc
            ",
        );
        check_stage("RUN echo ${x[0]} $((1<<2)) <<<x", "RUN \"echo ${x[0]} $((1<<2)) <<<x\"");
        check_stage("RUN echo ${x:0:3} <<A\nA", "RUN \"echo ${x:0:3} <<A\" <<A \"\"");
    }
}
