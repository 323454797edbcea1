//! Where formwork and buildah differ, and why.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A difference that is meant: the example (or all), how its line begins and ends, and the reason.
struct Known {
    example: Option<&'static str>,
    begins: &'static str,
    ends: &'static str,
    reason: &'static str,
}

/// Every difference that has a reason.
const KNOWN: [Known; 0] = [];

/// The keys of two configurations that do not hold the same.
pub(super) fn of_configurations(own: &Value, theirs: &Value) -> Vec<String> {
    let keys = |config: &Value| {
        let object = config.as_object().cloned().unwrap_or_default();
        object.into_iter().map(|(key, _)| key).collect::<BTreeSet<String>>()
    };
    let all = keys(own).into_iter().chain(keys(theirs)).collect::<BTreeSet<String>>();
    let differs = |key: &String| is_set(&own[key]) != is_set(&theirs[key]);
    let line =
        |key: &String| format!("Config.{key}: formwork {}, buildah {}", own[key], theirs[key]);
    all.iter().filter(|key| differs(key)).map(line).collect()
}

/// A value, unless it says nothing: docker's own format writes all keys.
fn is_set(value: &Value) -> Option<&Value> {
    let says_nothing = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    (!says_nothing).then_some(value)
}

/// Sorts differences into those with a reason, with how many there are of each, and the others.
pub(super) fn judge(
    example: &str,
    found: Vec<String>,
) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let mut explained = BTreeMap::new();
    let mut unexplained = Vec::new();
    for difference in found {
        let known = KNOWN.iter().find(|known| {
            known.example.is_none_or(|name| name == example)
                && difference.starts_with(known.begins)
                && difference.ends_with(known.ends)
        });
        match known {
            Some(known) => *explained.entry(known.reason).or_default() += 1,
            None => unexplained.push(difference),
        }
    }
    (explained, unexplained)
}
