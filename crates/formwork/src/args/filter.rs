//! Filters as buildx has them: `key=value`, `key!=value`, `key~=value`.

use std::str::FromStr;
use std::time::Duration;

/// A condition on things in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// One on a text.
    Text {
        /// Which.
        field: Field,
        /// How it compares.
        relation: Relation,
        /// The other side.
        value: String,
    },
    /// The thing has not been used for so long.
    Until(Duration),
}

/// A text about a thing in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// What it is called.
    Id,
    /// What it is.
    Type,
    /// What made it.
    Description,
    /// Whether an image needs it: `true` or `false`.
    InUse,
    /// Whether a step may still write to it, as to a cache mount.
    Mutable,
    /// Whether nobody may.
    Immutable,
    /// Whether it is part of an image, too.
    Shared,
    /// Whether it is not.
    Private,
    /// What it lies on; layers do not depend on what is below them, so nothing has any.
    Parents,
}

/// How texts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// They are equal; an id may be shortened.
    Equal,
    /// They are not.
    Unequal,
    /// One is a part of the other.
    Contains,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let relations = [("!=", Relation::Unequal), ("~=", Relation::Contains)];
        let split = relations.iter().find_map(|(operator, relation)| {
            let (key, value) = text.split_once(operator)?;
            // A value may hold what looks like an operator.
            (!key.contains('=')).then_some((key, *relation, value))
        });
        let equal = || text.split_once('=').map(|(key, value)| (key, Relation::Equal, value));
        let (key, relation, value) = match split.or_else(equal) {
            Some(parts) => parts,
            // As with buildx, `inuse` alone asks for what it says.
            None => (text, Relation::Equal, "true"),
        };
        let field = match key.to_ascii_lowercase().as_str() {
            "until" if relation == Relation::Equal => return duration(value).map(Self::Until),
            "id" => Field::Id,
            "type" => Field::Type,
            "description" => Field::Description,
            "inuse" => Field::InUse,
            "mutable" => Field::Mutable,
            "immutable" => Field::Immutable,
            "shared" => Field::Shared,
            "private" => Field::Private,
            "parents" => Field::Parents,
            _ => {
                let known = "id, type, description, inuse, mutable, immutable, shared, private, \
                             parents and until";
                return Err(format!("there is no filter `{text}`; there are {known}"));
            }
        };
        Ok(Self::Text { field, relation, value: value.to_owned() })
    }
}

impl Relation {
    /// Whether a text relates to a value like this.
    pub(crate) fn holds(self, text: &str, value: &str) -> bool {
        match self {
            Self::Equal => text == value,
            Self::Unequal => text != value,
            Self::Contains => text.contains(value),
        }
    }
}

/// A span of time as Go has it: `24h`, `1h30m`, `10s`; also days, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 30m, 24h or 7d");
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit = match after.chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
        rest = &after[1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[test]
    fn filters_are_those_of_buildx() {
        let text = |field, relation, value: &str| Filter::Text {
            field,
            relation,
            value: value.to_owned(),
        };
        assert_eq!(parse("id=abc"), text(Field::Id, Relation::Equal, "abc"));
        assert_eq!(parse("type!=mount"), text(Field::Type, Relation::Unequal, "mount"));
        assert_eq!(
            parse("description~=RUN a!=b"),
            text(Field::Description, Relation::Contains, "RUN a!=b")
        );
        assert_eq!(
            parse("description=RUN a~=b"),
            text(Field::Description, Relation::Equal, "RUN a~=b")
        );
        assert_eq!(parse("inuse"), text(Field::InUse, Relation::Equal, "true"));
        assert_eq!(parse("mutable"), text(Field::Mutable, Relation::Equal, "true"));
        assert_eq!(parse("parents!=x"), text(Field::Parents, Relation::Unequal, "x"));
        assert_eq!(parse("until=1h30m"), Filter::Until(Duration::from_secs(5400)));
        assert_eq!(parse("until=7d"), Filter::Until(Duration::from_secs(7 * 86400)));
        let wrong =
            ["", "color=red", "until", "until=5", "until=", "until!=1h", "until=999999999999999d"];
        for wrong in wrong {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
