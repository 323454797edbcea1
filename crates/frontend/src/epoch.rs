//! What the time of the sources follows from: `SOURCE_DATE_EPOCH`.
//!
//! It is a build argument, or has a default before the first `FROM`, and holds a number of seconds,
//! the name of a build context, or that of a stage that does nothing but fetch one thing.

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::instruction::{Add, Source};
use formwork_dockerfile::{
    Dockerfile, ExpandError, Instruction, InstructionKind, Stage, Word, expand,
};
use formwork_graph::HttpSource;

use crate::scope::{GlobalScope, StageScope};
use crate::{GitLocation, MAIN_CONTEXT, Options, git_location, http_source, is_http};

/// The argument.
pub const EPOCH_ARG: &str = "SOURCE_DATE_EPOCH";

/// Where a time comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochSource {
    /// Seconds since 1970.
    At(i64),
    /// The build context of that name.
    Context(String),
    /// A commit.
    Commit(Box<GitLocation>),
    /// A file of a web server.
    File(HttpSource),
}

/// What the time of the sources follows from; `None` where nothing is said about it.
///
/// # Errors
///
/// Tells what is no time, and names nothing that has one.
pub fn epoch_source(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<Option<EpochSource>, Box<Diagnostic>> {
    let (global, _) = GlobalScope::new(dockerfile, options, options.target.as_deref());
    let Some(text) =
        global.get(EPOCH_ARG).or(options.build_args.get(EPOCH_ARG).map(String::as_str))
    else {
        return Ok(None);
    };
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Some(EpochSource::At(seconds)));
    }
    if text == MAIN_CONTEXT || options.contexts.contains_key(text) {
        return Ok(Some(EpochSource::Context(text.to_owned())));
    }
    match dockerfile.stage_by_name(text, dockerfile.stages.len()) {
        Some(index) => Fetching::new(dockerfile, options, &global, &dockerfile.stages[index])
            .source()
            .map(Some),
        None => Err(Box::new(unknown(text, dockerfile))),
    }
}

fn unknown(text: &str, dockerfile: &Dockerfile) -> Diagnostic {
    let message = format!(
        "{EPOCH_ARG} is `{text}`, neither a number of seconds nor a build context or a stage"
    );
    let error = Diagnostic::error("bad-epoch", message)
        .with_help("for example `--source-date-epoch=context`, the commit's time");
    let mut args = dockerfile.global_args.iter().flat_map(|arg| &arg.kind.variables);
    let own = args.rfind(|variable| variable.name.text() == EPOCH_ARG);
    match own.and_then(|variable| variable.default.as_ref()) {
        Some(word) => error.at(&dockerfile.source, word.span(), ""),
        None => error,
    }
}

/// A stage from nothing with one ADD from elsewhere.
struct Fetching<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    stage: &'a Stage,
    global: &'a GlobalScope,
    scope: StageScope,
}

impl<'a> Fetching<'a> {
    fn new(
        dockerfile: &'a Dockerfile,
        options: &'a Options,
        global: &'a GlobalScope,
        stage: &'a Stage,
    ) -> Self {
        Self { dockerfile, options, stage, global, scope: StageScope::default() }
    }

    fn source(mut self) -> Result<EpochSource, Box<Diagnostic>> {
        let image = &self.stage.from.kind.image;
        if self.text(image)? != "scratch" {
            return Err(self.error("it is not `FROM scratch`", image.span()));
        }
        let mut found = None;
        for instruction in &self.stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(arg) => {
                    for variable in &arg.variables {
                        let name = variable.name.text();
                        let given = self.options.build_args.get(name).cloned();
                        let value = match (given, &variable.default) {
                            (Some(given), _) => Some(given),
                            (None, Some(default)) => Some(self.text(default)?),
                            (None, None) => None,
                        };
                        self.scope.declare(name, value.as_deref());
                    }
                }
                InstructionKind::Add(add) if found.is_none() => {
                    found = Some(self.added(add, instruction)?);
                }
                other => {
                    let problem = format!("{} is one thing too many", other.name());
                    return Err(self.error(&problem, instruction.span));
                }
            }
        }
        found.ok_or_else(|| self.error("it adds nothing", self.stage.span))
    }

    fn added(&self, add: &Add, instruction: &Instruction) -> Result<EpochSource, Box<Diagnostic>> {
        let [Source::Path(word)] = add.files.sources.as_slice() else {
            return Err(self.error("it adds more than one source", instruction.span));
        };
        let text = self.text(word)?;
        match git_location(&text) {
            Some(Ok(location)) => return Ok(EpochSource::Commit(Box::new(location))),
            Some(Err(problem)) => return Err(self.error(&problem, word.span())),
            None => {}
        }
        if !is_http(&text) {
            return Err(self.error("what it adds has no time of its own", word.span()));
        }
        let checksum = match &add.checksum {
            Some(word) => self.text(word)?.parse().ok(),
            None => None,
        };
        Ok(EpochSource::File(HttpSource { checksum, ..http_source(&text) }))
    }

    fn text(&self, word: &Word) -> Result<String, Box<Diagnostic>> {
        let lookup =
            |name: &str| self.scope.get(name).or_else(|| self.global.get(name)).map(str::to_owned);
        let expanded = expand(word, self.dockerfile.directives.escape, &lookup);
        let wrong = |error: ExpandError| Box::new(error.to_diagnostic(&self.dockerfile.source));
        expanded.map(|expanded| expanded.text).map_err(wrong)
    }

    fn error(&self, problem: &str, span: Span) -> Box<Diagnostic> {
        let name = self.stage.name.as_deref().unwrap_or_default();
        let message = format!("the stage `{name}` cannot be {EPOCH_ARG}: {problem}");
        let help = "the stage has to be `FROM scratch` with one `ADD` of a repository or of a file of a \
                    web server";
        let error = Diagnostic::error("bad-epoch", message);
        Box::new(error.at(&self.dockerfile.source, span, "").with_help(help))
    }
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;
    use formwork_dockerfile::parse;
    use formwork_oci::Platform;

    use super::*;

    fn source(text: &str, given: Option<&str>) -> Result<Option<EpochSource>, String> {
        let parsed = parse(SourceFile::new("Dockerfile", text));
        let mut options = Options::new(Platform::host(), Platform::host());
        options.build_args.extend(given.map(|value| (EPOCH_ARG.to_owned(), value.to_owned())));
        epoch_source(&parsed.dockerfile, &options).map_err(|error| error.message)
    }

    #[test]
    fn a_time_is_given_or_has_a_default() {
        assert_eq!(source("FROM a", None), Ok(None));
        assert_eq!(source("FROM a", Some("")), Ok(None));
        assert_eq!(source("FROM a", Some("-7")), Ok(Some(EpochSource::At(-7))));
        let default = "ARG SOURCE_DATE_EPOCH=5\nFROM a";
        assert_eq!(source(default, None), Ok(Some(EpochSource::At(5))));
        assert_eq!(source(default, Some("6")), Ok(Some(EpochSource::At(6))));
        let context = EpochSource::Context("context".to_owned());
        assert_eq!(source("FROM a", Some("context")), Ok(Some(context)));
        assert!(source("FROM a", Some("tomorrow")).is_err());
        // Only what stands before the first FROM is a default.
        assert_eq!(source("FROM a\nARG SOURCE_DATE_EPOCH=5", None), Ok(None));
    }

    #[test]
    fn a_stage_that_fetches_one_thing_has_its_time() {
        let fetched = "FROM scratch AS src\nARG V=1\nADD http://h/a$V.tar /\nFROM a\n";
        let file = EpochSource::File(http_source("http://h/a1.tar"));
        assert_eq!(source(fetched, Some("SRC")), Ok(Some(file)));
        let commit = source("FROM scratch AS src\nADD https://h/r.git#v1 /\nFROM a", Some("src"));
        assert!(matches!(commit, Ok(Some(EpochSource::Commit(_)))), "{commit:?}");
        for wrong in [
            "FROM a AS src\nADD http://h/a /",
            "FROM scratch AS src",
            "FROM scratch AS src\nADD a /",
            "FROM scratch AS src\nADD http://h/a http://h/b /",
            "FROM scratch AS src\nADD http://h/a /\nADD http://h/b /",
            "FROM scratch AS src\nADD http://h/a /\nCOPY b /",
        ] {
            assert!(source(wrong, Some("src")).is_err(), "{wrong}");
        }
    }
}
