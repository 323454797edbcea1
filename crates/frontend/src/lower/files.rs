//! COPY, ADD and WORKDIR.

use formwork_diagnostics::{Diagnostic, SourceFile, Span};
use formwork_dockerfile::instruction::{Add, Copy, Heredoc, Source, Spanned, Transfer};
use formwork_dockerfile::{Expanded, Instruction, Word, expand_heredoc};
use formwork_graph::{CopyOptions, CopySource, FileAction, FileOp, Op, OpId, Place, Places};

use super::remote::Remote;
use super::run::clean;
use super::stage::{StageLowerer, join};
use crate::{MAIN_CONTEXT, git_location};

/// Where the sources of a copy are.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// In one root file system or context.
    Root(OpId),
    /// In the main context, unless they are addresses.
    Add { add: &'a Add, span: Span },
}

/// A source, and how it is told.
pub(super) struct Written {
    pub(super) source: CopySource,
    pub(super) shown: String,
    /// Whether it is unpacked, if that differs from what the instruction says of all.
    pub(super) unpack: Option<bool>,
}

impl Origin<'_> {
    fn keyword(self) -> &'static str {
        match self {
            Self::Root(_) => "COPY",
            Self::Add { .. } => "ADD",
        }
    }
}

impl StageLowerer<'_, '_> {
    pub(super) fn copy(&mut self, instruction: &Instruction, copy: &Copy) {
        let from = match &copy.from {
            Some(word) if !word.is_empty() => self.reference(word),
            _ if self.has_address(&copy.files) => return,
            _ => Some(self.lowering.context(MAIN_CONTEXT)),
        };
        let parents = copy.parents.is_some_and(|parents| parents.value);
        self.warn_about_heredocs(&copy.files, copy.parents.filter(|flag| flag.value));
        let options = CopyOptions { parents, ..CopyOptions::default() };
        let flags = copy.from.as_ref().map(|from| format!("--from={}", from.text()));
        if let Some(from) = from {
            self.transfer(instruction, &copy.files, Origin::Root(from), options, flags);
        }
    }

    pub(super) fn add(&mut self, instruction: &Instruction, add: &Add) {
        let unpack = add.unpack.map(|unpack| unpack.value);
        let options = CopyOptions { unpack: unpack.unwrap_or(true), ..CopyOptions::default() };
        let from = Origin::Add { add, span: instruction.span };
        self.warn_about_heredocs(&add.files, None);
        self.warn_about_git(add);
        self.transfer(instruction, &add.files, from, options, None);
    }

    pub(super) fn workdir(&mut self, instruction: &Instruction, word: &Word) {
        let Some(path) = self.expand(word) else { return };
        if path.is_empty() {
            self.no_effect("WORKDIR", Some(word.span()), "its path is empty");
        }
        let is_own = self.trigger_place.is_none();
        if is_own && !path.starts_with('/') && !self.state.has_own_workdir {
            let message = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            let warning = Diagnostic::warning("WorkdirRelativePath", message);
            self.report(warning.at(&self.source, instruction.span, ""));
        }
        self.state.has_own_workdir = true;
        // As in BuildKit, only a relative path is cleaned.
        let path = if path.starts_with('/') { path } else { clean(&self.absolute(&path)) };
        self.state.config.config.working_dir.clone_from(&path);
        let created_by = format!("WORKDIR {path}");
        if path.trim_matches('/').is_empty() {
            self.note(created_by);
            return;
        }
        let owner = self.state.config.config.user.clone();
        let actions = vec![FileAction::MakeDirectory { path, owner }];
        let op = Op::File(FileOp { base: self.state.root, link: false, actions });
        let places = Places { account: self.state.user, ..Places::default() };
        self.push(instruction, op, places, created_by);
    }

    /// What a word behind `--from=` stands for; `None` after reporting what is wrong with it.
    pub(super) fn reference(&mut self, word: &Word) -> Option<OpId> {
        if word.text().contains('$') {
            let message =
                format!("`{}` cannot name a stage: nothing is expanded here", word.text());
            let help = "define a stage `FROM … AS name` with the variable, and name that";
            self.error("expansion-in-from", message, word.span(), help);
            return None;
        }
        // A reference that the plan lacks has been reported by the plan.
        let reference = self.stage.references.get(word.text())?;
        self.lowering.root_of(reference)
    }

    fn transfer(
        &mut self,
        instruction: &Instruction,
        files: &Transfer,
        from: Origin<'_>,
        options: CopyOptions,
        from_flag: Option<String>,
    ) {
        let owner = files.chown.as_ref().and_then(|word| self.expand(word));
        let mode = files.chmod.as_ref().and_then(|word| self.mode(word));
        let exclude = files.excludes.iter().map(|word| word.text().to_owned()).collect();
        let options = CopyOptions { owner, mode, exclude, ..options };
        let sources: Vec<Written> =
            files.sources.iter().filter_map(|source| self.source(source, from)).collect();
        let Some(written) = self.expand(&files.destination) else { return };
        if sources.len() < files.sources.len() {
            return;
        }
        let names = self.places_of_sources(&sources, &files.sources);
        let link = files.link.is_some_and(|link| link.value);
        let mut shown: Vec<String> = from_flag.into_iter().collect();
        shown.extend(options.parents.then(|| "--parents".to_owned()));
        shown.extend(options.owner.as_ref().map(|owner| format!("--chown={owner}")));
        shown.extend(options.mode.as_ref().map(|mode| format!("--chmod={mode}")));
        shown.extend(link.then(|| "--link".to_owned()));
        shown.extend(sources.iter().map(|source| source.shown.clone()));
        shown.push(written.clone());
        // A name means what the files below say, and a linked layer must not depend on those.
        let problem = match (&options.owner, &options.mode) {
            (Some(owner), _) if has_name(owner) => {
                Some(format!("who `{owner}` is depends on the files below"))
            }
            // So it is in BuildKit, where directories that are there already keep their modes.
            (_, Some(_)) => Some("it does not go together with `--chmod`".to_owned()),
            _ => None,
        };
        if let Some(problem) = problem.as_deref().filter(|_| link) {
            self.no_effect("--link", files.link.map(|link| link.span), problem);
        }
        let link = link && problem.is_none();
        let into_directory = is_directory(&written);
        let destination = self.absolute(&written);
        let actions = actions(sources, |sources, unpack| FileAction::Copy {
            sources,
            into_directory,
            destination: destination.clone(),
            options: CopyOptions { unpack: unpack.unwrap_or(options.unpack), ..options.clone() },
        });
        let op = Op::File(FileOp { base: self.state.root, link, actions });
        let places =
            Places { account: files.chown.as_ref().and_then(|w| self.part(w.span())), names };
        self.push(instruction, op, places, format!("{} {}", from.keyword(), shown.join(" ")));
    }

    /// Where the paths and patterns stand that are looked for.
    fn places_of_sources(&self, sources: &[Written], words: &[Source]) -> Vec<(String, Place)> {
        let place = |(source, word): (&Written, &Source)| match (&source.source, word) {
            (CopySource::Path { pattern, .. }, Source::Path(word)) => {
                Some((pattern.clone(), self.part(word.span())?))
            }
            _ => None,
        };
        sources.iter().zip(words).filter_map(place).collect()
    }

    fn source(&mut self, source: &Source, from: Origin<'_>) -> Option<Written> {
        match source {
            Source::Path(word) => {
                let pattern = self.expand(word)?;
                let from = match from {
                    Origin::Root(from) => from,
                    Origin::Add { add, span } => {
                        match self.remote_source(&pattern, add, word.span(), span) {
                            Remote::Found(source) => return Some(source),
                            Remote::Wrong => return None,
                            Remote::Local => self.lowering.context(MAIN_CONTEXT),
                        }
                    }
                };
                self.warn_about_dots(&pattern, word.span());
                let shown = pattern.clone();
                let source = CopySource::Path { from, pattern };
                Some(Written { source, shown, unpack: None })
            }
            Source::Heredoc(heredoc) => {
                let data = self.heredoc(heredoc)?.into_bytes();
                let shown = format!("<<{}", heredoc.name);
                let source = CopySource::Inline { name: heredoc.name.clone(), data };
                Some(Written { source, shown, unpack: None })
            }
        }
    }

    /// Flags that say how to look for files are of no use where there are only heredocs.
    fn warn_about_heredocs(&mut self, files: &Transfer, parents: Option<Spanned<bool>>) {
        if files.sources.iter().any(|source| matches!(source, Source::Path(_))) {
            return;
        }
        let excludes = files.excludes.iter().map(|word| ("--exclude", word.span()));
        let parents = parents.map(|flag| ("--parents", flag.span));
        for (flag, span) in excludes.chain(parents).collect::<Vec<_>>() {
            self.no_effect(flag, Some(span), "all sources are heredocs");
        }
    }

    fn warn_about_git(&mut self, add: &Add) {
        let Some(flag) = add.keep_git_dir.filter(|flag| flag.value) else { return };
        let is_git = |source: &Source| match source {
            Source::Path(word) => self.try_expand(word).is_ok_and(|s| git_location(&s).is_some()),
            Source::Heredoc(_) => false,
        };
        if !add.files.sources.iter().any(is_git) {
            self.no_effect("--keep-git-dir", Some(flag.span), "no source is a git repository");
        }
    }

    /// Warns of a flag that BuildKit drops in silence.
    pub(super) fn no_effect(&mut self, flag: &str, span: Option<Span>, why: &str) {
        let message = format!("`{flag}` has no effect: {why}");
        let warning = Diagnostic::warning("no-effect", message);
        self.report(match span {
            Some(span) => warning.at(&self.source, span, ""),
            None => warning,
        });
    }

    /// A path that would lead out of where it is looked for is silently cut by BuildKit.
    fn warn_about_dots(&mut self, path: &str, span: Span) {
        let inner = path.trim_start_matches('/');
        if !clean(inner).starts_with("..") {
            return;
        }
        let taken = clean(&format!("/{inner}"));
        let message = format!("`{path}` leads out of where it is looked for: `{taken}` is taken");
        let warning = Diagnostic::warning("path-outside", message).at(&self.source, span, "");
        let help = "choose a build context that holds the file, or add one with `--build-context`";
        self.report(warning.with_help(help));
    }

    fn heredoc(&mut self, heredoc: &Heredoc) -> Option<String> {
        if !heredoc.expand {
            return Some(heredoc.text().into_owned());
        }
        let lookup = |name: &str| self.state.scope.get(name).map(str::to_owned);
        let text = || expand_heredoc(heredoc, &lookup);
        let result = self.lowering.budget.expand(heredoc.span, text, Expanded::cost);
        self.report_expansion(result.map(|expanded| expanded.text))
    }

    /// A mode that is octal, or symbolic as chmod(1) has it.
    fn mode(&mut self, word: &Word) -> Option<String> {
        let mode = self.expand(word)?;
        if mode.is_empty() {
            self.no_effect("--chmod", Some(word.span()), "its value is empty");
            return None;
        }
        match check_mode(&mode, &self.source, word.span()) {
            Ok(()) => Some(mode),
            Err(error) => {
                self.report(*error);
                None
            }
        }
    }
}

/// Says what is wrong with a mode that stands somewhere.
pub(crate) fn check_mode(
    mode: &str,
    source: &SourceFile,
    span: Span,
) -> Result<(), Box<Diagnostic>> {
    problem_of_mode(mode).map_err(|problem| {
        let message = format!("`{mode}` is not a mode: {problem}");
        let help = "write an octal mode such as `755`, or a symbolic one such as `u=rwX,go=rX`";
        Box::new(Diagnostic::error("bad-mode", message).at(source, span, "").with_help(help))
    })
}

fn problem_of_mode(mode: &str) -> Result<(), &'static str> {
    if mode.starts_with(|first: char| first.is_ascii_digit()) {
        return match u32::from_str_radix(mode, 8) {
            Ok(0..=0o7777) => Ok(()),
            Ok(_) => Err("it is larger than 7777"),
            Err(_) => Err("it has a character that is no octal digit"),
        };
    }
    let clauses_are_valid = mode.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let is_operator = |c: char| matches!(c, '+' | '-' | '=');
        actions.starts_with(is_operator)
            && actions.split(is_operator).skip(1).all(|permissions| {
                matches!(permissions, "u" | "g" | "o")
                    || permissions.chars().all(|c| "rwxXst".contains(c))
            })
    });
    if clauses_are_valid { Ok(()) } else { Err("it is neither octal nor symbolic") }
}

/// Whether a destination is a directory because of how it is written.
fn is_directory(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.") || path.is_empty()
}

/// Whether an owner's user or group is more than a number.
fn has_name(owner: &str) -> bool {
    owner.split(':').any(|part| !part.is_empty() && part.parse::<u32>().is_err())
}

/// One action for each run of sources that are treated alike.
fn actions(
    sources: Vec<Written>,
    action: impl Fn(Vec<CopySource>, Option<bool>) -> FileAction,
) -> Vec<FileAction> {
    let mut actions = Vec::new();
    let mut run: Vec<CopySource> = Vec::new();
    let mut unpack = None;
    for written in sources {
        if written.unpack != unpack && !run.is_empty() {
            actions.push(action(std::mem::take(&mut run), unpack));
        }
        unpack = written.unpack;
        run.push(written.source);
    }
    actions.push(action(run, unpack));
    actions
}

/// The absolute path of a mount's source or target.
pub(super) fn absolute_in(directory: &str, path: &str) -> String {
    join(if directory.is_empty() { "/" } else { directory }, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for mode in ["0", "644", "07777", "+x", "u=rwX,go=rX", "g=u", "a-w+x", "u+s,+t", "="] {
            assert!(problem_of_mode(mode).is_ok(), "{mode}");
        }
        for mode in ["", "10000", "64a", "rwx", "u", "u=rwx,", "x=r", "u=rug"] {
            assert!(problem_of_mode(mode).is_err(), "{mode}");
        }
    }

    #[test]
    fn directories_are_known_by_their_spelling() {
        assert!(["/", "a/", ".", "./", "a/."].into_iter().all(is_directory));
        assert!(!["a", "/a", "..", "a."].into_iter().any(is_directory));
    }
}
