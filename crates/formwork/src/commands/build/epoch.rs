//! `SOURCE_DATE_EPOCH`: the time that everything is said to be made at.

use std::collections::BTreeMap;

use crate::exit::Failure;

/// The build argument, which the environment gives, too.
pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// The time that is given, as far as it is known before contexts from elsewhere are there: what
/// begins with a letter may name a context or a stage.
pub(super) fn given(build_args: &BTreeMap<String, String>) -> Result<Option<i64>, Failure> {
    match build_args.get(NAME).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => Ok(None),
            Err(_) => Err(Failure::usage(format!(
                "{NAME} is `{text}`, neither a number of seconds nor a name"
            ))
            .with_help("for example `--source-date-epoch=context`, the commit's time")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_or_has_a_name() {
        let with = |text: &str| given(&BTreeMap::from([(NAME.to_owned(), text.to_owned())]));
        assert_eq!(with("17").unwrap(), Some(17));
        assert_eq!(with("").unwrap(), None);
        assert_eq!(with("context").unwrap(), None);
        assert!(with("1 day").is_err());
    }
}
