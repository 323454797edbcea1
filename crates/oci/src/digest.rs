//! Content digests and the ids made from them.
//!
//! Image specification, `descriptor.md` (digests) and `config.md` (`DiffID`, `ChainID`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::OciError;

/// The digest of some bytes, such as `sha256:e3b0…`.
///
/// Always well-formed, so it can be part of a file name or a URL as it is. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// The algorithms that registries use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which formwork writes.
    Sha256,
    /// SHA-512, which is read and verified.
    Sha512,
}

/// The digest of a layer's uncompressed tar archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// The digest of a stack of layers, each applied to those before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

/// Computes a [`Digest`] from bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Digest {
    /// The SHA-256 digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Algorithm::Sha256.hash(bytes)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The digest as it is written: algorithm, colon, digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChainId {
    /// The chain id of a stack of layers, lowest first; `None` for an empty stack.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a DiffId>) -> Option<Self> {
        layers
            .into_iter()
            .fold(None, |chain: Option<Self>, layer| Some(Self::above(chain.as_ref(), layer)))
    }

    /// The chain id of a stack with one more layer.
    pub fn above(below: Option<&Self>, layer: &DiffId) -> Self {
        match below {
            None => Self(layer.0.clone()),
            Some(below) => Self(Digest::of(format!("{} {}", below.0, layer.0).as_bytes())),
        }
    }
}

impl Algorithm {
    /// The name as it is written before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of some bytes.
    pub fn hash(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Hasher {
    /// A hasher that has seen no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes seen.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest(write("sha256:", &state.finalize())),
            State::Sha512(state) => Digest(write("sha512:", &state.finalize())),
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

fn write(prefix: &str, bytes: &[u8]) -> Arc<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(prefix.len() + bytes.len() * 2);
    text.push_str(prefix);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.into()
}

impl FromStr for Digest {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let well_formed = [Algorithm::Sha256, Algorithm::Sha512].into_iter().any(|algorithm| {
            let hex = text.strip_prefix(algorithm.as_str()).and_then(|rest| rest.strip_prefix(':'));
            hex.is_some_and(|hex| hex.len() == algorithm.digits() && hex.bytes().all(is_hex))
        });
        if well_formed { Ok(Self(text.into())) } else { Err(OciError::Digest(text.to_owned())) }
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl TryFrom<String> for Digest {
    type Error = OciError;

    fn try_from(text: String) -> Result<Self, OciError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_those_of_sha256sum() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        assert_eq!(Digest::of(b"").algorithm(), Algorithm::Sha256);
    }

    #[test]
    fn sha512_is_read() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        let digest = hasher.finish();
        assert!(digest.hex().starts_with("ddaf35a193617aba"));
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.algorithm(), Algorithm::Sha512);
    }

    #[test]
    fn what_could_leave_a_directory_is_no_digest() {
        for text in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &EMPTY[7..],
            &EMPTY[..70],
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}/"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let one = DiffId(Digest::of(b"one"));
        let two = DiffId(Digest::of(b"two"));
        assert_eq!(ChainId::of([]), None);
        assert_eq!(ChainId::of([&one]), Some(ChainId(one.0.clone())));
        let text = format!("{one} {two}");
        assert_eq!(ChainId::of([&one, &two]), Some(ChainId(Digest::of(text.as_bytes()))));
    }
}
