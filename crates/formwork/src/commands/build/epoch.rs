//! `SOURCE_DATE_EPOCH`: the time that everything is said to be made at.

use std::collections::BTreeMap;

use formwork_build::{BuildRequest, Host, commit_of};

use crate::exit::Failure;

/// The build argument, which the environment gives, too.
pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What is said about the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    /// Nothing.
    None,
    /// A time, in seconds since 1970.
    At(i64),
    /// The time of the commit that a context is at.
    OfContext(String),
}

impl Epoch {
    /// Reads a number of seconds, `context`, or the name of another context.
    pub(super) fn of(build_args: &BTreeMap<String, String>) -> Result<Self, Failure> {
        match build_args.get(NAME).map(String::as_str) {
            None | Some("") => Ok(Self::None),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(Self::At(seconds)),
                Err(_) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    Ok(Self::OfContext(text.to_owned()))
                }
                Err(_) => Err(Failure::usage(format!(
                    "{NAME} is `{text}`, neither a number of seconds nor `context`"
                ))
                .with_help("for example `--source-date-epoch=context`, the commit's time")),
            },
        }
    }

    /// The time, as far as it is known before contexts from elsewhere are there.
    pub(super) fn known(&self) -> Option<i64> {
        match self {
            Self::At(seconds) => Some(*seconds),
            Self::None | Self::OfContext(_) => None,
        }
    }

    /// Completes a request whose contexts are all there.
    pub(super) fn settle(&self, host: &Host, request: &mut BuildRequest) -> Result<(), Failure> {
        let Self::OfContext(name) = self else { return Ok(()) };
        let Some(context) = request.contexts.get(name) else {
            return Err(Failure::usage(format!(
                "{NAME} is `{name}`, neither a number of seconds nor a build context"
            ))
            .with_help("for example `--source-date-epoch=context`, the commit's time"));
        };
        let directory = &context.directory;
        let seconds = if directory.starts_with(host.layout().snapshots()) {
            // All files of a commit that was fetched were modified when it was made.
            let metadata = fs_err::metadata(directory).map_err(Failure::machine)?;
            Some(std::os::unix::fs::MetadataExt::mtime(&metadata))
        } else {
            let commit = commit_of(&request.git, directory).map_err(Failure::input)?;
            commit.map(|commit| commit.time)
        };
        let seconds = seconds.ok_or_else(|| {
            Failure::input(format!(
                "{NAME} is to be the time of a commit, but the build context `{}` is in no git \
                 repository with one",
                directory.display()
            ))
            .with_help("say the time in seconds: `--source-date-epoch=SECONDS`")
        })?;
        request.epoch = Some(seconds);
        request.options.build_args.insert(NAME.to_owned(), seconds.to_string());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_number_or_a_context() {
        let with = |text: &str| BTreeMap::from([(NAME.to_owned(), text.to_owned())]);
        assert_eq!(Epoch::of(&with("17")).unwrap(), Epoch::At(17));
        assert_eq!(Epoch::of(&with("")).unwrap(), Epoch::None);
        let context = Epoch::OfContext("context".to_owned());
        assert_eq!(Epoch::of(&with("context")).unwrap(), context);
        assert!(Epoch::of(&with("1 day")).is_err());
    }
}
