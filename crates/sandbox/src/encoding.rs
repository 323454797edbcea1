//! How what serde has no good form for is encoded: paths, which need not be UTF-8, and bytes,
//! which it would take one by one.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use formwork_fs::RelPath;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// For `#[serde(with = "encoding::one")]`: a single value.
pub(crate) mod one {
    use super::*;

    pub(crate) fn serialize<T: Octets, S: Serializer>(one: &T, to: S) -> Result<S::Ok, S::Error> {
        Bytes(Cow::Borrowed(one.octets())).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        T::from_octets(Bytes::deserialize(from)?.0.into_owned()).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "encoding::list")]`: any number of values.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<T: Octets, S: Serializer>(
        list: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|one| Bytes(Cow::Borrowed(one.octets()))))
    }

    pub(crate) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let list = Vec::<Bytes<'static>>::deserialize(from)?.into_iter();
        list.map(|one| T::from_octets(one.0.into_owned()).map_err(D::Error::custom)).collect()
    }
}

/// For `#[serde(with = "encoding::optional_list")]`: any number of values, or nothing.
pub(crate) mod optional_list {
    use super::*;

    pub(crate) fn serialize<T: Octets, S: Serializer>(
        list: &Option<Vec<T>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = |list: &Vec<T>| -> Vec<Vec<u8>> {
            list.iter().map(|one| one.octets().to_vec()).collect()
        };
        let list = list.as_ref().map(bytes);
        list.as_ref()
            .map(|list| list.iter().map(|one| Bytes(Cow::Borrowed(one))).collect::<Vec<_>>())
            .serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<T>>, D::Error> {
        let list = Option::<Vec<Bytes<'static>>>::deserialize(from)?;
        let octets = |one: Bytes<'_>| T::from_octets(one.0.into_owned()).map_err(D::Error::custom);
        list.map(|list| list.into_iter().map(octets).collect()).transpose()
    }
}

/// What is bytes in the end.
pub(crate) trait Octets: Sized {
    fn octets(&self) -> &[u8];
    fn from_octets(octets: Vec<u8>) -> Result<Self, &'static str>;
}

impl Octets for Vec<u8> {
    fn octets(&self) -> &[u8] {
        self
    }

    fn from_octets(octets: Vec<u8>) -> Result<Self, &'static str> {
        Ok(octets)
    }
}

impl Octets for PathBuf {
    fn octets(&self) -> &[u8] {
        self.as_os_str().as_bytes()
    }

    fn from_octets(octets: Vec<u8>) -> Result<Self, &'static str> {
        Ok(OsString::from_vec(octets).into())
    }
}

impl Octets for RelPath {
    fn octets(&self) -> &[u8] {
        self.as_bytes()
    }

    fn from_octets(octets: Vec<u8>) -> Result<Self, &'static str> {
        Self::new(octets).map_err(|_| "not a path inside")
    }
}

/// Bytes as one value of serde's.
struct Bytes<'a>(Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'static> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ToOwned;
        impl Visitor<'_> for ToOwned {
            type Value = Bytes<'static>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Bytes(Cow::Owned(bytes.to_vec())))
            }
        }
        from.deserialize_bytes(ToOwned)
    }
}
