//! Comma-separated keys and values, as `--output`, `--secret` and `--mount` take them.
//!
//! The text is one CSV record, as with `docker buildx build`: a field that holds a comma is put
//! into double quotes as a whole.

use std::str::FromStr;

/// An option's value such as `type=oci,dest=image.tar`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Vec<(String, Option<String>)>);

impl Pairs {
    /// The value of a key; an empty one for a key without `=`. Of several the last counts.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let find = |(name, _): &&(String, Option<String>)| name == key;
        self.0.iter().rev().find(find).map(|(_, value)| value.as_deref().unwrap_or_default())
    }

    /// Whether a key says yes: alone, `true` or `1`; `None` where it is missing.
    ///
    /// # Errors
    ///
    /// Fails on what is neither yes nor no.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "" | "true" | "1" | "t" => Ok(Some(true)),
            "false" | "0" | "f" => Ok(Some(false)),
            other => Err(format!("`{key}={other}` is neither true nor false")),
        }
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// The first key that is none of the given ones.
    pub(crate) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.iter().map(|(key, _)| key.as_str()).find(|key| !known.contains(key))
    }

    /// The text if it is a single field without `=`: the short form of an option.
    pub(crate) fn single(&self) -> Option<&str> {
        match self.0.as_slice() {
            [(text, None)] => Some(text),
            _ => None,
        }
    }
}

impl FromStr for Pairs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |field: String| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_owned(), Some(value.to_owned())),
            None => (field, None),
        };
        Ok(Self(fields(text)?.into_iter().map(pair).collect()))
    }
}

/// The fields of a CSV record.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => match rest.split_once(',') {
                Some((field, _)) => (field.to_owned(), &rest[field.len()..]),
                None => (rest.to_owned(), ""),
            },
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("unexpected text after a closing quote: `{after}`")),
        }
    }
}

/// A field up to its closing quote, with `""` for a quote in it, and what comes after it.
fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err("a double quote is not closed".to_owned());
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Pairs {
        text.parse().unwrap()
    }

    #[test]
    fn keys_have_values() {
        let pairs = pairs("type=oci,dest=a=b,push");
        assert_eq!(pairs.get("type"), Some("oci"));
        assert_eq!(pairs.get("dest"), Some("a=b"));
        assert_eq!(pairs.get("push"), Some(""));
        assert_eq!(pairs.get("name"), None);
        assert_eq!(pairs.unknown(&["type", "dest"]), Some("push"));
        assert_eq!(pairs.single(), None);
    }

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(pairs(r#"type=oci,"name=a,b""#).get("name"), Some("a,b"));
        assert_eq!(pairs(r#""dest=say ""hi""""#).get("dest"), Some(r#"say "hi""#));
        assert!("\"open".parse::<Pairs>().is_err());
        assert!("\"a\"b".parse::<Pairs>().is_err());
    }

    #[test]
    fn flags_say_yes_or_no() {
        assert_eq!(pairs("push").flag("push"), Ok(Some(true)));
        assert_eq!(pairs("push=False").flag("push"), Ok(Some(false)));
        assert_eq!(pairs("x").flag("push"), Ok(None));
        assert!(pairs("push=maybe").flag("push").is_err());
    }

    #[test]
    fn a_single_field_is_a_short_form() {
        assert_eq!(pairs("out").single(), Some("out"));
        assert_eq!(pairs("-").single(), Some("-"));
        assert_eq!(pairs("type=tar").single(), None);
    }
}
