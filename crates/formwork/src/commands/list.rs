//! Lists in the form that the user wants.

use serde_json::{Map, Value};

use crate::commands;
use crate::exit::Failure;
use crate::render;
use crate::template::Template;

/// Writes what a template makes of each object, a line each.
pub(crate) fn print_lines(
    objects: &[Value],
    line: &Template,
    in_columns: bool,
) -> Result<(), Failure> {
    let apply = |object: &Value| {
        line.apply(object).map_err(|problem| Failure::usage(format!("`--format`: {problem}")))
    };
    let lines = objects.iter().map(apply).collect::<Result<Vec<_>, _>>()?;
    if !in_columns {
        return commands::print(&lines.into_iter().map(|line| line + "\n").collect::<String>());
    }
    let headings = objects.first().map(headings).map(|headings| apply(&headings)).transpose()?;
    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = headings.into_iter().chain(lines).map(cells).collect();
    let rows: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
    commands::print(&render::columns(&rows))
}

/// An object that has, in the place of each value, its heading: `CREATED AT` for `CreatedAt`.
fn headings(object: &Value) -> Value {
    let keys = object.as_object().into_iter().flat_map(Map::keys);
    keys.map(|key| (key.clone(), Value::from(heading(key)))).collect::<Map<_, _>>().into()
}

fn heading(key: &str) -> String {
    let mut heading = String::new();
    let mut after_small = false;
    for letter in key.chars() {
        if letter.is_uppercase() && after_small {
            heading.push(' ');
        }
        heading.extend(letter.to_uppercase());
        after_small = letter.is_lowercase();
    }
    heading
}

#[cfg(test)]
mod tests {
    use super::heading;

    #[test]
    fn headings_are_words() {
        for (key, expected) in [("ID", "ID"), ("CreatedAt", "CREATED AT"), ("Tag", "TAG")] {
            assert_eq!(heading(key), expected);
        }
    }
}
