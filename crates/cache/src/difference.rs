//! What has changed between two runs of a step, in words. Pure.
//!
//! The components that are compared are not those of a key: a copy from a context has no
//! definition key, and its content key is a bare hash. [`described`] has what people know of.

use std::collections::BTreeMap;

use formwork_graph::Op;

use crate::key::{Inputs, described_components};
use crate::{Component, Components};

/// The component of what lies below a step.
const BASE: &str = "base";
/// The component of the root file system that a copy takes from.
const SOURCE_ROOT: &str = "source root";
/// Values longer than this are not repeated.
const LONGEST_SHOWN: usize = 60;

/// A step's inputs by names that people understand; those that nobody has looked at are missing.
pub fn described(op: &Op, inputs: &dyn Inputs) -> Components {
    described_components(op, inputs)
}

/// What differs between two lists of components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Whether the root file system below the step is another one.
    pub base: bool,
    /// Whether the root file systems that the step copies from are others.
    pub sources: bool,
    /// Everything else, each in words.
    pub others: Vec<String>,
}

impl Difference {
    /// Compares an earlier list with a later one.
    pub fn between(before: &[Component], after: &[Component]) -> Self {
        let (old, new) = (by_name(before), by_name(after));
        let mut difference = Self::default();
        let mut command = false;
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        for name in new.keys().chain(gone) {
            let (was, is) = (old.get(name), new.get(name));
            match *name {
                _ if was == is => {}
                BASE => difference.base = true,
                SOURCE_ROOT => difference.sources = true,
                "kind" => difference.others.push("it is another instruction".to_owned()),
                name if name.starts_with("argument ") => command = true,
                name => difference.others.push(told(name, was, is)),
            }
        }
        if command {
            difference.others.insert(0, "the command changed".to_owned());
        }
        let same_values = !difference.base && !difference.sources && difference.others.is_empty();
        if same_values && before != after {
            difference.others.push("the order of variables or sources changed".to_owned());
        }
        difference
    }
}

type Values<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The values under each name; a name may occur several times.
fn by_name(components: &[Component]) -> Values<'_> {
    let mut values = Values::new();
    for Component { name, value } in components {
        values.entry(name).or_default().push(value);
    }
    values
}

fn told(name: &str, was: Option<&Vec<&str>>, is: Option<&Vec<&str>>) -> String {
    let name = match name.split_once(' ') {
        Some(("env", variable)) => variable.to_owned(),
        Some(("mount", target)) => return format!("the mount {target} {}", verb(was, is)),
        Some(("inline", file)) => return format!("the heredoc {file} {}", verb(was, is)),
        _ => format!("the {name}"),
    };
    match (shown(was), shown(is)) {
        (Some(was), Some(is)) => format!("{name} was {was}, is {is}"),
        (None, Some(is)) if was.is_none() => format!("{name} is new: {is}"),
        _ => format!("{name} {}", verb(was, is)),
    }
}

fn verb(was: Option<&Vec<&str>>, is: Option<&Vec<&str>>) -> &'static str {
    match (was, is) {
        (None, _) => "is new",
        (_, None) => "is gone",
        _ => "changed",
    }
}

/// Values that are short enough to be repeated.
fn shown(values: Option<&Vec<&str>>) -> Option<String> {
    let values = values?;
    let is_short = |value: &&&str| !value.starts_with("blake3:") && !value.contains('\n');
    let length: usize = values.iter().map(|value| value.len()).sum();
    let all = values.iter().filter(is_short).count() == values.len() && length <= LONGEST_SHOWN;
    let quoted = values.iter().map(|value| format!("`{value}`"));
    all.then(|| quoted.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(parts: &[(&str, &str)]) -> Vec<Component> {
        let component = |(name, value): &(&str, &str)| Component {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        parts.iter().map(component).collect()
    }

    fn others(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
        let difference = Difference::between(&list(before), &list(after));
        assert!(!difference.base && !difference.sources);
        difference.others
    }

    #[test]
    fn changes_are_told_by_name() {
        let long = "x".repeat(100);
        for (before, after, told) in [
            (("env VERSION", "1"), ("env VERSION", "2"), "VERSION was `1`, is `2`"),
            (("env KEY", "1"), ("env KEY", &*long), "KEY changed"),
            (("argument 2", "make"), ("argument 2", "make all"), "the command changed"),
            (("user", "app"), ("user", ""), "the user was `app`, is ``"),
            (("mount /src", "bind a"), ("mount /src", "bind b"), "the mount /src changed"),
            (("inline EOF", "a"), ("inline EOF", "b"), "the heredoc EOF changed"),
            (("kind", "exec"), ("kind", "file"), "it is another instruction"),
        ] {
            assert_eq!(others(&[before], &[after]), [told]);
        }
    }

    #[test]
    fn what_comes_and_goes_is_told() {
        assert_eq!(others(&[], &[("env A", "1")]), ["A is new: `1`"]);
        assert_eq!(others(&[("env A", "1")], &[]), ["A is gone"]);
        assert_eq!(others(&[], &[("mount /x", "tmpfs")]), ["the mount /x is new"]);
        assert_eq!(
            others(&[("source", "a")], &[("source", "a"), ("source", "b")]),
            ["the source was `a`, is `a`, `b`"]
        );
        let (one, two) = (("env A", "1"), ("env B", "2"));
        assert_eq!(others(&[one, two], &[two, one]).len(), 1);
        assert!(others(&[one, two], &[one, two]).is_empty());
    }

    #[test]
    fn what_lies_below_is_told_apart() {
        let difference = Difference::between(
            &list(&[("base", "1"), ("source root", "1"), ("user", "")]),
            &list(&[("base", "2"), ("source root", "2"), ("user", "")]),
        );
        assert_eq!(difference, Difference { base: true, sources: true, others: Vec::new() });
    }
}
