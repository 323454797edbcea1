//! What ADD takes from elsewhere.

use formwork_diagnostics::Span;
use formwork_dockerfile::Word;
use formwork_dockerfile::instruction::{Add, Source, Transfer};
use formwork_graph::{CopySource, HttpSource, Place, RemoteSource};

use super::files::Written;
use super::stage::StageLowerer;
use crate::{GitLocation, git_location, http_source, is_http};

/// What a source of an ADD is.
pub(super) enum Remote {
    /// A path of the build context.
    Local,
    /// An address.
    Found(Written),
    /// An address with something wrong, which has been reported.
    Wrong,
}

impl StageLowerer<'_, '_> {
    /// Looks whether a source is an address. `span` is where the instruction stands.
    pub(super) fn remote_source(
        &mut self,
        text: &str,
        add: &Add,
        word: Span,
        span: Span,
    ) -> Remote {
        let place = self.part(word).unwrap_or_else(|| self.place(span));
        match git_location(text) {
            Some(Ok(location)) => return self.repository(text, location, add, place),
            Some(Err(problem)) => {
                let message = format!("`{text}` is no usable address of a git repository");
                self.error("remote-add", message, word, &problem);
                return Remote::Wrong;
            }
            None => {}
        }
        if is_http(text) {
            return self.file(text, add, place);
        }
        match &add.checksum {
            None => Remote::Local,
            Some(checksum) => {
                let message = "a file of the build context has no `--checksum`".to_owned();
                self.error("bad-checksum", message, checksum.span(), "leave the flag out");
                Remote::Wrong
            }
        }
    }

    fn repository(
        &mut self,
        text: &str,
        mut location: GitLocation,
        add: &Add,
        place: Place,
    ) -> Remote {
        match self
            .checksum(add)
            .map(|given| given.map(|(text, at)| (location.set_checksum(&text), at)))
        {
            Ok(None | Some((Ok(()), _))) => {}
            Ok(Some((Err(problem), at))) => {
                self.error("bad-checksum", problem, at, "write the id of the commit");
                return Remote::Wrong;
            }
            Err(()) => return Remote::Wrong,
        }
        let GitLocation { mut source, directory } = location;
        source.keep_git_dir |= add.keep_git_dir.is_some_and(|keep| keep.value);
        let pattern = format!("/{}", literal(&directory));
        let from = self.lowering.remote(RemoteSource::Git(source), place);
        let source = CopySource::Path { from, pattern };
        Remote::Found(Written { source, shown: text.to_owned(), unpack: Some(false) })
    }

    fn file(&mut self, url: &str, add: &Add, place: Place) -> Remote {
        let checksum = match self.checksum(add) {
            Ok(checksum) => checksum,
            Err(()) => return Remote::Wrong,
        };
        let checksum = match checksum.map(|(text, span)| (text.parse(), text, span)) {
            None => None,
            Some((Ok(digest), ..)) => Some(digest),
            Some((Err(_), text, span)) => {
                let message = format!("`{text}` is not a digest");
                let help = "write `sha256:` and 64 hexadecimal digits in lower case";
                self.error("bad-checksum", message, span, help);
                return Remote::Wrong;
            }
        };
        let source = HttpSource { checksum, ..http_source(url) };
        let pattern = format!("/{}", literal(&source.name));
        let from = self.lowering.remote(RemoteSource::Http(source), place);
        // As in BuildKit, only local archives are unpacked unless somebody asks for it.
        let unpack = Some(add.unpack.is_some_and(|unpack| unpack.value));
        let source = CopySource::Path { from, pattern };
        Remote::Found(Written { source, shown: url.to_owned(), unpack })
    }

    /// The value of `--checksum` and where it stands; `Err` after reporting what is wrong.
    fn checksum(&mut self, add: &Add) -> Result<Option<(String, Span)>, ()> {
        let Some(word) = &add.checksum else { return Ok(None) };
        if add.files.sources.len() > 1 {
            let message = "`--checksum` is for one source only".to_owned();
            self.error("bad-checksum", message, word.span(), "use one ADD for each source");
            return Err(());
        }
        let text = self.expand(word).ok_or(())?;
        Ok((!text.is_empty()).then(|| (text, word.span())))
    }

    /// Whether COPY is given an address, which is reported.
    pub(super) fn has_address(&mut self, files: &Transfer) -> bool {
        let is_address = |word: &&Word| is_http(word.text()) || git_location(word.text()).is_some();
        let words = files.sources.iter().filter_map(|source| match source {
            Source::Path(word) => Some(word),
            Source::Heredoc(_) => None,
        });
        let Some(word) = words.into_iter().find(is_address) else { return false };
        let message = format!("COPY takes nothing from elsewhere, such as `{}`", word.text());
        self.error("remote-copy", message, word.span(), "use ADD");
        true
    }
}

/// A pattern that matches just one name.
fn literal(name: &str) -> String {
    let mut pattern = String::new();
    for character in name.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
