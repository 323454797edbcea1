//! The functions of templates, and how values look.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::{Number, Value};

use super::is_true;

/// The most blanks that something is padded with.
const WIDEST: usize = 1000;

/// What a function makes of its arguments; the value of a pipe is the last of them.
pub(super) fn call(name: &str, values: &[Value]) -> Result<Value, String> {
    let text = |value: &Value| {
        let mut text = String::new();
        show(value, &mut text);
        text
    };
    let wrong = || Err(format!("`{name}` cannot be used like this"));
    Ok(match (name, values) {
        ("json", [value]) => value.to_string().into(),
        ("join", [Value::Array(items), Value::String(between)]) => {
            items.iter().map(text).collect::<Vec<_>>().join(between).into()
        }
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(whole), Value::String(between)]) => {
            whole.split(between.as_str()).collect::<Vec<_>>().into()
        }
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(map)]) => map.len().into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("print", values) => values.iter().map(text).collect::<String>().into(),
        ("println", values) => {
            let texts: Vec<String> = values.iter().map(text).collect();
            format!("{}\n", texts.join(" ")).into()
        }
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        ("title", [Value::String(text)]) => title(text).into(),
        ("truncate", [Value::String(text), Value::Number(length)]) => {
            text.chars().take(size(length)).collect::<String>().into()
        }
        ("pad", [Value::String(text), Value::Number(before), Value::Number(behind)]) => {
            let blanks = |count| " ".repeat(size(count).min(WIDEST));
            format!("{}{text}{}", blanks(before), blanks(behind)).into()
        }
        ("slice", [value, bounds @ ..]) => slice(value, bounds)?,
        ("lt" | "le" | "gt" | "ge", [first, second]) => {
            let order = compare(first, second)
                .ok_or_else(|| format!("`{name}` cannot compare `{first}` with `{second}`"))?;
            match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into()
        }
        ("upper", [Value::String(text)]) => text.to_uppercase().into(),
        ("lower", [Value::String(text)]) => text.to_lowercase().into(),
        ("eq", [first, others @ ..]) if !others.is_empty() => others.contains(first).into(),
        ("ne", [first, second]) => (first != second).into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("and", [.., last]) => values.iter().find(|v| !is_true(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => values.iter().find(|v| is_true(v)).unwrap_or(last).clone(),
        _ => return wrong(),
    })
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Value::Object(map), Value::String(key)) => map.get(key).unwrap_or(&Value::Null),
            (Value::Array(items), Value::Number(at)) => {
                let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                at.and_then(|at| items.get(at))
                    .ok_or_else(|| format!("there is no element {key} of {}", items.len()))?
            }
            (Value::Null, _) => &Value::Null,
            _ => return Err(format!("`{value}` has no element {key}")),
        };
    }
    Ok(value.clone())
}

/// As Go prints it: `[a b]`, `map[key:value]`.
pub(super) fn show(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{value}");
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                show(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (at, (key, item)) in map.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                show(item, out);
            }
            out.push(']');
        }
    }
}

fn size(number: &Number) -> usize {
    number.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// The first letter of each word large.
fn title(text: &str) -> String {
    let mut after_blank = true;
    let mut title = String::new();
    for letter in text.chars() {
        match after_blank {
            true => title.extend(letter.to_uppercase()),
            false => title.push(letter),
        }
        after_blank = letter.is_whitespace();
    }
    title
}

/// A part of a text, in bytes, or of a list.
fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return Err(format!("`{value}` has no parts")),
    };
    let bound = |at: usize, otherwise| match bounds.get(at) {
        None => Ok(otherwise),
        Some(Value::Number(number)) => Ok(size(number)),
        Some(other) => Err(format!("`{other}` is no position")),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let outside = || format!("there is no part from {from} to {to} of {length}");
    match value {
        Value::String(text) => text.get(from..to).map(Value::from).ok_or_else(outside),
        Value::Array(items) => {
            items.get(from..to).map(|part| part.to_vec().into()).ok_or_else(outside)
        }
        _ => Err(outside()),
    }
}

fn compare(first: &Value, second: &Value) -> Option<Ordering> {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => {
            first.as_f64()?.partial_cmp(&second.as_f64()?)
        }
        (Value::String(first), Value::String(second)) => Some(first.cmp(second)),
        _ => None,
    }
}

/// Go's `printf` with the verbs `%s`, `%v`, `%d`, `%t`, `%q` and `%x`, widths, and `%.3s`.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let end = after.find(|letter: char| !letter.is_ascii_digit() && !"-.+ #".contains(letter));
        let end = end.ok_or("`printf` ends within a verb")?;
        let (flags, verb) = after.split_at(end);
        let letter = verb.chars().next().unwrap_or_default();
        rest = &verb[letter.len_utf8()..];
        if letter == '%' {
            out.push('%');
            continue;
        }
        let value = values.next();
        let value = value.ok_or_else(|| format!("`printf` has no value for `%{flags}{letter}`"))?;
        let mut text = String::new();
        match (letter, value) {
            ('s' | 'v' | 'd' | 't', value) => show(value, &mut text),
            ('q', value) => {
                show(value, &mut text);
                text = Value::from(text).to_string();
            }
            ('x', Value::Number(number)) => text = format!("{:x}", number.as_u64().unwrap_or(0)),
            _ => return Err(format!("`printf` knows no `%{letter}` for `{value}`")),
        }
        pad(&mut out, &text, flags);
    }
    out.push_str(rest);
    Ok(out)
}

fn pad(out: &mut String, text: &str, flags: &str) {
    let (width, precision) = flags.split_once('.').unwrap_or((flags, ""));
    let text: String = match precision.parse::<usize>() {
        Ok(longest) => text.chars().take(longest).collect(),
        Err(_) => text.to_owned(),
    };
    let width: usize = width.trim_start_matches(['-', '+', ' ', '#']).parse().unwrap_or(0);
    let blanks = " ".repeat(width.min(WIDEST).saturating_sub(text.chars().count()));
    match flags.starts_with('-') {
        true => out.extend([text.as_str(), &blanks]),
        false => out.extend([blanks.as_str(), &text]),
    }
}
