//! Secrets by their ids.

use std::collections::BTreeMap;
use std::fmt;

/// The secrets of a build. Their values never show in debug output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Vec<u8>>);

impl Secrets {
    /// Adds a secret, in place of one with the same id.
    pub fn insert(&mut self, id: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.insert(id.into(), value.into());
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(Vec::as_slice)
    }

    /// The value of a secret.
    pub(crate) fn get(&self, id: &str) -> Option<&[u8]> {
        self.0.get(id).map(Vec::as_slice)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Secrets;

    #[test]
    fn values_do_not_show() {
        let mut secrets = Secrets::default();
        secrets.insert("token", "hunter2");
        assert_eq!(secrets.get("token"), Some(&b"hunter2"[..]));
        assert_eq!(secrets.get("other"), None);
        assert_eq!(format!("{secrets:?}"), "{\"token\"}");
    }
}
