//! Names of snapshots.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::SnapshotError;

/// The name of a snapshot: letters, digits, `-`, `_` and `.`, so it can be a file name as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotKey(Arc<str>);

impl SnapshotKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotKey {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_key = !text.is_empty()
            && text.len() <= 200
            && !text.starts_with('.')
            && text.bytes().all(valid);
        if is_key { Ok(Self(text.into())) } else { Err(SnapshotError::Key(text.to_owned())) }
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SnapshotKey;

    #[test]
    fn only_plain_names_are_keys() {
        for text in ["a", "sha256-abc", "A_1.b"] {
            assert_eq!(text.parse::<SnapshotKey>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", &"a".repeat(300)] {
            assert!(text.parse::<SnapshotKey>().is_err(), "{text}");
        }
    }
}
