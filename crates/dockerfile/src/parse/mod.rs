//! From text to instructions and stages.
//!
//! The parser never fails: what it cannot understand it reports and leaves out, and goes on with
//! the next instruction. It takes time in proportion to the text.

mod command;
mod csv;
mod directives;
mod flags;
mod from;
mod healthcheck;
mod heredoc;
mod json;
mod lines;
mod metadata;
mod mount;
mod pairs;
mod report;
mod statement;
mod transfer;

pub use directives::parse_check;

use formwork_diagnostics::{Diagnostic, SourceFile, Span, nearest};

use crate::Word;
use crate::ast::{Directives, Dockerfile, Instruction, InstructionKind, Stage};
use crate::instruction::{Arg, From, Onbuild, with_heredocs};
use crate::word::Line;
use flags::Flags;
use heredoc::HeredocReader;
use lines::{Lines, Logical, Physical};
use report::{Report, excerpt};
use statement::Statement;
pub(crate) use statement::is_blank;

/// All instructions there are.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A file and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What could be understood.
    pub dockerfile: Dockerfile,
    /// What could not, in the order of the text; if there is an error among them, instructions may
    /// be missing from the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a Dockerfile.
///
/// It never fails: whether the errors among the diagnostics matter is for the caller.
pub fn parse(source: SourceFile) -> Parsed {
    let mut parser = Parser::new(&source);
    parser.directives = directives::read(&mut parser.lines, &mut parser.report);
    while let Some(logical) = parser.next_line() {
        parser.line(&logical);
    }
    parser.report_emptiness();
    let Parser { directives, global_args, stages, report, .. } = parser;
    let diagnostics = report.finish();
    let dockerfile = Dockerfile { source, directives, global_args, stages };
    Parsed { dockerfile, diagnostics }
}

/// Parses the text of an `ONBUILD` that a base image brings along; `name` says so in messages.
///
/// There is no instruction if there are errors among the diagnostics.
pub fn parse_trigger(text: &str, name: &str) -> (Option<Instruction>, Vec<Diagnostic>) {
    let source = SourceFile::new(name, text);
    let mut parser = Parser::new(&source);
    let instruction = parser.next_line().and_then(|logical| {
        let line = &logical.line;
        let statement = Statement::new(line, 0..line.text().len(), parser.directives.escape);
        parser.check_trigger(&statement)?;
        parser.instruction(statement, &logical, Vec::new())
    });
    if parser.next_line().is_some() || (instruction.is_none() && parser.report.is_empty()) {
        let message = "an `ONBUILD` holds one instruction";
        let error = parser.report.error("bad-onbuild", message, Span::new(0, text.len()));
        parser.report.add(error);
    }
    let diagnostics = parser.report.finish();
    let is_sound = !diagnostics.iter().any(Diagnostic::is_error);
    (instruction.filter(|_| is_sound), diagnostics)
}

/// A file that is being parsed.
struct Parser<'s> {
    lines: Lines<'s>,
    report: Report<'s>,
    directives: Directives,
    /// The comments above what comes next.
    comments: Vec<Word>,
    heredocs: HeredocReader,
    global_args: Vec<Instruction<Arg>>,
    stages: Vec<Stage>,
    /// Whether an instruction stood before the first `FROM`.
    reported_missing_from: bool,
    /// Whether there was any instruction, right or wrong.
    found_any: bool,
}

impl<'s> Parser<'s> {
    fn new(source: &'s SourceFile) -> Self {
        Self {
            lines: Lines::new(source.text()),
            report: Report::new(source),
            directives: Directives::default(),
            comments: Vec::new(),
            heredocs: HeredocReader::default(),
            global_args: Vec::new(),
            stages: Vec::new(),
            reported_missing_from: false,
            found_any: false,
        }
    }

    /// The next line on which an instruction stands, and collects the comments above it.
    fn next_line(&mut self) -> Option<Logical<'s>> {
        while let Some(line) = self.lines.next() {
            let text = line.text.trim();
            match text.strip_prefix('#') {
                Some(comment) => self.comment(&line, comment.trim()),
                None if text.is_empty() => {}
                None => return Some(self.lines.join(line, self.directives.escape)),
            }
        }
        None
    }

    /// An empty comment parts those above it from the instruction below.
    fn comment(&mut self, line: &Physical<'s>, text: &'s str) {
        if text.is_empty() {
            self.comments.clear();
            return;
        }
        let end = line.start + line.text.trim_end().len();
        self.comments.push(Line::new(text, end - text.len()).word(0..text.len()));
    }

    /// Reads what stands on a line and puts it where it belongs.
    fn line(&mut self, logical: &Logical<'s>) {
        self.found_any = true;
        let comments = std::mem::take(&mut self.comments);
        let line = &logical.line;
        let statement = Statement::new(line, 0..line.text().len(), self.directives.escape);
        if statement.is("FROM") {
            let from = from::parse(&statement, &mut self.report);
            let from = self.node(&statement, logical, comments, from);
            self.stages.push(stage(self.stages.len(), from));
        } else if let Some(instruction) = self.instruction(statement, logical, comments) {
            self.place(instruction);
        }
    }

    fn place(&mut self, instruction: Instruction) {
        match (self.stages.last_mut(), &instruction.kind) {
            (Some(stage), _) => {
                stage.span = stage.span.to(instruction.span);
                stage.instructions.push(instruction);
            }
            (None, InstructionKind::Arg(arg)) => {
                let arg = arg.clone();
                self.global_args.push(instruction.with_kind(arg));
            }
            (None, _) => self.report_missing_from(&instruction),
        }
    }

    /// Reads any instruction but `FROM`.
    fn instruction(
        &mut self,
        mut statement: Statement<'_>,
        logical: &Logical<'_>,
        comments: Vec<Word>,
    ) -> Option<Instruction> {
        self.read_heredocs(&mut statement);
        let kind = self.kind(&mut statement, logical, &comments)?;
        Some(self.node(&statement, logical, comments, kind))
    }

    fn kind(
        &mut self,
        statement: &mut Statement<'_>,
        logical: &Logical<'_>,
        comments: &[Word],
    ) -> Option<InstructionKind> {
        let report = &mut self.report;
        let name = statement.name();
        match KEYWORDS
            .into_iter()
            .find(|known| name.eq_ignore_ascii_case(known))
            .unwrap_or_default()
        {
            "ADD" => transfer::add(statement, report).map(Box::new).map(InstructionKind::Add),
            "ARG" => pairs::arg(statement, comments, report).map(InstructionKind::Arg),
            "CMD" => command::command(statement, report).map(InstructionKind::Cmd),
            "COPY" => transfer::copy(statement, report).map(Box::new).map(InstructionKind::Copy),
            "ENTRYPOINT" => command::command(statement, report).map(InstructionKind::Entrypoint),
            "ENV" => pairs::env_or_label(statement, report).map(InstructionKind::Env),
            "EXPOSE" => metadata::expose(statement, report).map(InstructionKind::Expose),
            "HEALTHCHECK" => {
                healthcheck::parse(statement, report).map(InstructionKind::Healthcheck)
            }
            "LABEL" => pairs::env_or_label(statement, report).map(InstructionKind::Label),
            "MAINTAINER" => {
                metadata::rest_of_line(statement, "a name", report).map(InstructionKind::Maintainer)
            }
            "ONBUILD" => self.onbuild(statement, logical).map(InstructionKind::Onbuild),
            "RUN" => command::run(statement, report).map(Box::new).map(InstructionKind::Run),
            "SHELL" => command::shell(statement, report).map(InstructionKind::Shell),
            "STOPSIGNAL" => metadata::rest_of_line(statement, "a signal", report)
                .map(InstructionKind::Stopsignal),
            "USER" => {
                metadata::rest_of_line(statement, "a user", report).map(InstructionKind::User)
            }
            "VOLUME" => metadata::volume(statement, report).map(InstructionKind::Volume),
            "WORKDIR" => {
                metadata::rest_of_line(statement, "a path", report).map(InstructionKind::Workdir)
            }
            _ => {
                self.report_unknown(statement);
                None
            }
        }
    }

    fn onbuild(&mut self, statement: &Statement<'_>, logical: &Logical<'_>) -> Option<Onbuild> {
        Flags::none(statement, &mut self.report);
        if statement.arguments.is_empty() {
            let message = "`ONBUILD` needs an instruction";
            let error = self.report.error("missing-argument", message, statement.keyword_span());
            self.report.add(error.with_help("write `ONBUILD RUN make`, for instance"));
            return None;
        }
        let range = statement.arguments.clone();
        let mut trigger = Statement::new(statement.line, range, statement.escape);
        self.check_trigger(&trigger)?;
        self.read_heredocs(&mut trigger);
        let heredocs = trigger.heredocs.iter().map(|(_, heredoc)| heredoc);
        // To the end of the line: blanks there are kept as they are in BuildKit's configurations.
        let text = &statement.line.text()[trigger.range.start..];
        let expression = with_heredocs(text, heredocs);
        let kind = self.kind(&mut trigger, logical, &[])?;
        let trigger = Box::new(self.node(&trigger, logical, Vec::new(), kind));
        Some(Onbuild { expression, trigger })
    }

    /// Fails after reporting that an instruction cannot be an `ONBUILD`.
    fn check_trigger(&mut self, trigger: &Statement<'_>) -> Option<()> {
        let refused = ["FROM", "MAINTAINER", "ONBUILD"];
        let Some(keyword) = refused.into_iter().find(|keyword| trigger.is(keyword)) else {
            return Some(());
        };
        let message = format!("`{keyword}` cannot wait for a later build");
        let error = self.report.error("bad-onbuild", message, trigger.keyword_span());
        let help = "all instructions but `FROM`, `MAINTAINER` and `ONBUILD` can";
        self.report.add(error.with_help(help));
        None
    }

    fn read_heredocs(&mut self, statement: &mut Statement<'_>) {
        if statement.line.text().contains("<<") && statement.takes_heredocs() {
            statement.heredocs = self.heredocs.read(statement, &mut self.lines, &mut self.report);
        }
    }

    /// An instruction that ends on the last line that was read.
    fn node<Kind>(
        &self,
        statement: &Statement<'_>,
        logical: &Logical<'_>,
        comments: Vec<Word>,
        kind: Kind,
    ) -> Instruction<Kind> {
        let start = statement.span();
        let read = &self.report.source().text()[..self.lines.offset()];
        let end = read.trim_end().len().max(start.end as usize);
        Instruction {
            span: Span::new(start.start as usize, end),
            keyword_span: statement.keyword_span(),
            text: statement.text().to_owned(),
            check: directives::check_among(&comments).map(Box::new),
            comments,
            blank_lines: logical.blank_lines.clone(),
            kind,
        }
    }

    fn report_unknown(&mut self, statement: &Statement<'_>) {
        // Without it, all that follows would seem to have no `FROM`.
        self.reported_missing_from |= self.stages.is_empty();
        let name = statement.name();
        if name.is_empty() {
            let message = "the line is continued, but nothing follows";
            let error = self.report.error("stray-continuation", message, statement.span());
            self.report.add(error);
            return;
        }
        if self.report.leaves_out() {
            return;
        }
        let message = format!("`{}` is no instruction", excerpt(name));
        let error = self.report.error("unknown-instruction", message, statement.keyword_span());
        self.report.add(match in_place_of(name).or_else(|| nearest(name, KEYWORDS)) {
            Some(keyword) => error.with_help(format!("did you mean `{keyword}`?")),
            None => error.with_help(format!(
                "if this belongs to the instruction above, end the line before it with `{}`",
                self.directives.escape
            )),
        });
    }

    fn report_missing_from(&mut self, instruction: &Instruction) {
        if !std::mem::replace(&mut self.reported_missing_from, true) {
            let message = format!("`{}` stands before the first `FROM`", instruction.kind.name());
            let error = self.report.error("missing-from", message, instruction.keyword_span);
            let help = "begin with `FROM image`; only `ARG` may stand before it";
            self.report.add(error.with_help(help));
        }
    }

    fn report_emptiness(&mut self) {
        let (code, message) = match (self.found_any, self.stages.is_empty()) {
            (false, _) => ("empty-file", "the file has no instructions"),
            (true, true) if !self.reported_missing_from => ("no-stage", "the file has no `FROM`"),
            _ => return,
        };
        let error = self.report.error(code, message, Span::default());
        self.report.add(error.with_help("begin with `FROM image`, or `FROM scratch`"));
    }
}

/// The instruction that does what a shell's command does.
fn in_place_of(command: &str) -> Option<&'static str> {
    match command {
        "export" => Some("ENV"),
        "cd" => Some("WORKDIR"),
        "cp" => Some("COPY"),
        "su" => Some("USER"),
        _ => None,
    }
}

fn stage(index: usize, from: Instruction<From>) -> Stage {
    let name = from.kind.alias.as_ref().map(|alias| alias.text().to_ascii_lowercase());
    let description = name.as_ref().and_then(|name| {
        let mut descriptions = pairs::descriptions(&from.comments);
        let own = descriptions.find(|(first, _)| first == name);
        own.map(|(_, text)| text.to_owned())
    });
    Stage { index, name, description, span: from.span, from, instructions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{annotate, check, check_said, show_kind};

    #[test]
    fn instructions_belong_to_the_stage_above() {
        check(
            "# a comment\nARG V=1\nFROM a:$V AS x\nrun b\nCopy c d\n\nFROM x\nCMD e",
            r#"
            ARG V=1
            FROM a:$V AS=x
            RUN "b"
            COPY c -> d
            FROM x
            CMD "e"
            "#,
        );
    }

    #[test]
    fn comments_and_empty_lines_may_stand_between_continued_lines() {
        check(
            "FROM a\nRUN b \\\n# c \\\n\n   # d\n  e\nRUN f",
            r#"
            FROM a
            RUN "b   e" blank lines 1
            RUN "f"
            "#,
        );
    }

    #[test]
    fn every_instruction_carries_its_own_text_and_place() {
        let text = "# x\nFROM a AS b\n\n# about c\n  RUN c \\\n    d \nCOPY <<E f\ng\nE\n#";
        let file = parse(SourceFile::new("Dockerfile", text)).dockerfile;
        let stage = &file.stages[0];
        assert_eq!(file.source.slice(stage.from.span), "FROM a AS b");
        assert_eq!(file.source.slice(stage.span), text[4..].trim_end_matches("\n#"));
        let [run, copy] = &stage.instructions[..] else { panic!("{stage:?}") };
        assert_eq!(run.text, "RUN c     d");
        assert_eq!(file.source.slice(run.span), "RUN c \\\n    d");
        assert_eq!(run.keyword(), "RUN");
        assert_eq!(run.comments.iter().map(Word::text).collect::<Vec<_>>(), ["about c"]);
        assert_eq!(file.source.slice(run.comments[0].span()), "about c");
        assert_eq!(copy.text, "COPY <<E f");
        assert_eq!(file.source.slice(copy.span), "COPY <<E f\ng\nE");
    }

    #[test]
    fn triggers_are_kept_and_parsed() {
        check(
            "FROM a\nONBUILD RUN b  \\\n c\nonbuild copy --from=x d e\nONBUILD COPY <<E <<F g\n1\nE\n2\nF",
            r#"
            FROM a
            ONBUILD "RUN b   c" = RUN "b   c"
            ONBUILD "copy --from=x d e" = COPY d -> e from=x
            ONBUILD "COPY <<E <<F g\n1\nE\n2\nF" = COPY <<E "1\n" <<F "2\n" -> g
            "#,
        );
        check_said(
            "FROM a\nONBUILD\nONBUILD ONBUILD RUN b\nONBUILD from c\nONBUILD MAINTAINER d\nONBUILD COPY e\nONBUILD --f RUN g",
            "
            ONBUILD
            ^^^^^^^
            error[missing-argument]: `ONBUILD` needs an instruction
              help: write `ONBUILD RUN make`, for instance
            ONBUILD ONBUILD RUN b
                    ^^^^^^^
            error[bad-onbuild]: `ONBUILD` cannot wait for a later build
              help: all instructions but `FROM`, `MAINTAINER` and `ONBUILD` can
            ONBUILD from c
                    ^^^^
            error[bad-onbuild]: `FROM` cannot wait for a later build
              help: all instructions but `FROM`, `MAINTAINER` and `ONBUILD` can
            ONBUILD MAINTAINER d
                    ^^^^^^^^^^
            error[bad-onbuild]: `MAINTAINER` cannot wait for a later build
              help: all instructions but `FROM`, `MAINTAINER` and `ONBUILD` can
            ONBUILD COPY e
                    ^^^^
            error[missing-argument]: `COPY` needs a destination behind its source
              help: write `COPY source destination`
            ONBUILD --f RUN g
                    ^^^
            error[unknown-flag]: `ONBUILD` has no flag `--f`
            ",
        );
    }

    #[test]
    fn triggers_of_base_images_are_single_instructions() {
        for text in
            ["RUN a", " copy --from=b c d ", "RUN <<E cat\n1\nE", "RUN <<E\n1\nE\n", "# x\nUSER b"]
        {
            let (instruction, said) = parse_trigger(text, "ONBUILD of a:1");
            assert!(instruction.is_some() && said.is_empty(), "{text}: {}", annotate(&said));
        }
        let (run, _) = parse_trigger("RUN <<E cat\n1\nE", "x");
        assert_eq!(show_kind(&run.unwrap().kind), "RUN \"<<E cat\" <<E \"1\\n\"");
        for text in
            ["", "# x", "RUN a\nRUN b", "FROM a", "ONBUILD RUN a", "RUM a", "COPY a", "RUN <<E"]
        {
            let (instruction, said) = parse_trigger(text, "x");
            assert!(instruction.is_none() && said.iter().any(Diagnostic::is_error), "{text}");
        }
    }

    #[test]
    fn unknown_instructions_are_told() {
        check_said(
            "FORM a\nRUN b",
            "
            FORM a
            ^^^^
            error[unknown-instruction]: `FORM` is no instruction
              help: did you mean `FROM`?
            ",
        );
        check_said(
            "FROM a\nRUN b &&\n  apt-get install c\nENTRYPIONT [\"d\"]\n\\\n",
            "
              apt-get install c
              ^^^^^^^
            error[unknown-instruction]: `apt-get` is no instruction
              help: if this belongs to the instruction above, end the line before it with `\\`
            ENTRYPIONT [\"d\"]
            ^^^^^^^^^^
            error[unknown-instruction]: `ENTRYPIONT` is no instruction
              help: did you mean `ENTRYPOINT`?
            \\
            ^
            error[stray-continuation]: the line is continued, but nothing follows
            ",
        );
        let long = "x".repeat(1000);
        check_said(
            &format!("FROM a\n{long} y"),
            &format!(
                "{long} y\n{}\nerror[unknown-instruction]: `{}…` is no instruction\n  \
                 help: if this belongs to the instruction above, end the line before it with `\\`",
                "^".repeat(1000),
                "x".repeat(60),
            ),
        );
    }

    #[test]
    fn a_file_needs_a_stage() {
        check_said(
            "ARG a\nRUN b\nCMD c",
            "
            RUN b
            ^^^
            error[missing-from]: `RUN` stands before the first `FROM`
              help: begin with `FROM image`; only `ARG` may stand before it
            ",
        );
        for text in ["", "\n# a\n  \n", "\u{feff}"] {
            let parsed = parse(SourceFile::new("Dockerfile", text));
            assert_eq!(parsed.diagnostics[0].code, "empty-file", "{text:?}");
        }
        let parsed = parse(SourceFile::new("Dockerfile", "ARG a"));
        assert_eq!(parsed.diagnostics[0].code, "no-stage");
    }

    #[test]
    fn what_is_understood_stays_in_the_file() {
        let text = "FROM a b\nRUN --nonsense c\nCOPY d\nUSER e\nFROM";
        let file = parse(SourceFile::new("Dockerfile", text)).dockerfile;
        let kept: Vec<Vec<&str>> = file
            .stages
            .iter()
            .map(|stage| stage.instructions.iter().map(|one| one.kind.name()).collect())
            .collect();
        assert_eq!(kept, [vec!["RUN", "USER"], vec![]]);
        assert_eq!(file.stages[0].from.kind.image.text(), "a");
        assert!(file.stages[1].from.kind.image.is_empty());
    }

    #[test]
    fn a_file_that_is_no_dockerfile_is_not_told_so_for_every_line() {
        let parsed = parse(SourceFile::new("x", "FROM a\n".to_owned() + &"?\n".repeat(1000)));
        assert_eq!(parsed.diagnostics.len(), 101);
        assert_eq!(parsed.diagnostics[100].message, "900 more problems are not shown");
    }
}
