//! What a cache key is made of, kept so that a miss can be explained.
//!
//! The encoding is part of the on-disk format: a key is the BLAKE3 hash of each component's name
//! and value, each preceded by its length as eight little-endian bytes, after the number of the
//! format. Changing it means a new [`FORMAT`] and a new digest in the test.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of the encoding.
const FORMAT: &[u8] = b"formwork cache key 1";

/// Values longer than this are kept as their hash; the key always covers the whole value.
const LONGEST_KEPT: usize = 512;

/// The key of a step's result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey([u8; 32]);

/// One input of a step under a name that people understand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// What it is, such as `env PATH`.
    pub name: String,
    /// Its value, or `blake3:…` of a long one.
    pub value: String,
}

/// All that a key depends on, in order.
#[derive(Clone, Debug, Default)]
pub struct Components {
    list: Vec<Component>,
    hasher: Option<Box<blake3::Hasher>>,
}

impl Components {
    /// Adds one input.
    pub fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.into(), value.as_ref());
        let hasher = self.hasher.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(FORMAT);
            Box::new(hasher)
        });
        for part in [name.as_bytes(), value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        self.list.push(Component { name, value: kept(value) });
    }

    /// The key of exactly these inputs in this order.
    pub fn key(&self) -> CacheKey {
        let hasher = self.hasher.as_deref();
        let hash = hasher.map_or_else(|| blake3::hash(FORMAT), blake3::Hasher::finalize);
        CacheKey(hash.into())
    }

    /// The inputs, for the record.
    pub fn list(&self) -> &[Component] {
        &self.list
    }

    /// Takes the inputs out, for the record.
    pub fn into_list(self) -> Vec<Component> {
        self.list
    }
}

fn kept(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= LONGEST_KEPT => text.to_owned(),
        _ => format!("blake3:{}", blake3::hash(value).to_hex()),
    }
}

impl FromStr for CacheKey {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into()))
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(&str, &str)]) -> CacheKey {
        let mut components = Components::default();
        parts.iter().for_each(|(name, value)| components.add(*name, value));
        components.key()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            key(&[]),
            key(&[("", "")]),
            key(&[("a", "bc")]),
            key(&[("ab", "c")]),
            key(&[("a", "b"), ("c", "")]),
            key(&[("c", ""), ("a", "b")]),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|other| other != one), "{i}");
        }
    }

    #[test]
    fn the_encoding_is_stable() {
        assert_eq!(
            key(&[("kind", "exec"), ("env PATH", "/bin")]).to_string(),
            "cd5f0a619082010d064e0f26fd77e8b1c2a46dc9ac4e287bf775608124f655f1"
        );
    }

    #[test]
    fn long_values_count_in_full_and_are_kept_short() {
        let (one, two) = ("x".repeat(5000), "x".repeat(4999) + "y");
        assert_ne!(key(&[("data", &one)]), key(&[("data", &two)]));
        let mut components = Components::default();
        components.add("data", &one);
        components.add("bytes", [0xff, 0xfe]);
        assert!(components.list().iter().all(|part| part.value.starts_with("blake3:")));
    }
}
