//! The part of Go's templates that docker's users write in scripts: `{{.Config.User}}`,
//! `{{json .Config.Env}}`, `{{range .RepoTags}}{{println .}}{{end}}`, `{{index .RepoTags 0}}`.
//!
//! There are fields, `$`, strings, numbers, parentheses and pipes; `if`, `else`, `range` and `end`;
//! trimming by `{{-` and `-}}`; and the functions `json`, `join`, `index`, `len`, `print`,
//! `println`, `upper`, `lower`, `split`, `eq`, `ne`, `not`, `and` and `or`. Values are JSON and look
//! as Go shows them. Neither variables nor `printf` nor nested templates exist here.

mod parse;

use std::fmt::Write;

use serde_json::Value;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Node>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Show(Pipe),
    If { condition: Pipe, then: Vec<Self>, otherwise: Vec<Self> },
    Range { over: Pipe, each: Vec<Self>, none: Vec<Self> },
}

/// Commands, of which each gets the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
struct Pipe(Vec<Vec<Operand>>);

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// The fields to follow from the current value, or from the whole one.
    Field {
        from_root: bool,
        names: Vec<String>,
    },
    Literal(Value),
    Function(String),
    Inner(Pipe),
}

/// What stands for the current value and the whole one.
#[derive(Clone, Copy)]
struct Scope<'a> {
    current: &'a Value,
    root: &'a Value,
}

impl Template {
    /// What the template makes of a value.
    ///
    /// # Errors
    ///
    /// Fails where the value has no such field, and where a function is given what it cannot take.
    pub(crate) fn apply(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, Scope { current: value, root: value }, &mut out)?;
        Ok(out)
    }
}

fn render(nodes: &[Node], scope: Scope<'_>, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(pipe) => show(&evaluate(pipe, scope)?, out),
            Node::If { condition, then, otherwise } => {
                let chosen = if is_true(&evaluate(condition, scope)?) { then } else { otherwise };
                render(chosen, scope, out)?;
            }
            Node::Range { over, each, none } => {
                let items = match evaluate(over, scope)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("cannot range over `{other}`")),
                };
                for item in &items {
                    render(each, Scope { current: item, ..scope }, out)?;
                }
                if items.is_empty() {
                    render(none, scope, out)?;
                }
            }
        }
    }
    Ok(())
}

fn evaluate(pipe: &Pipe, scope: Scope<'_>) -> Result<Value, String> {
    let mut piped: Option<Value> = None;
    for command in &pipe.0 {
        let (first, rest) = command.split_first().ok_or("a command is missing")?;
        let mut values = rest.iter().map(|o| operand(o, scope)).collect::<Result<Vec<_>, _>>()?;
        values.extend(piped.take());
        piped = Some(match first {
            Operand::Function(name) => call(name, &values)?,
            plain if values.is_empty() => operand(plain, scope)?,
            _ => return Err("a value takes no arguments".to_owned()),
        });
    }
    piped.ok_or_else(|| "there is nothing between `{{` and `}}`".to_owned())
}

fn operand(operand: &Operand, scope: Scope<'_>) -> Result<Value, String> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Inner(pipe) => evaluate(pipe, scope),
        Operand::Function(name) => call(name, &[]),
        Operand::Field { from_root, names } => {
            field(if *from_root { scope.root } else { scope.current }, names)
        }
    }
}

/// Follows fields. That the outermost one is missing is a mistake; others may be there in one image
/// and not in the next.
fn field(start: &Value, names: &[String]) -> Result<Value, String> {
    let mut value = start;
    for (depth, name) in names.iter().enumerate() {
        value = match (value, value.get(name)) {
            (_, Some(found)) => found,
            (Value::Object(map), None) if depth == 0 => {
                let known: Vec<&str> = map.keys().map(String::as_str).collect();
                return Err(format!("there is no `.{name}`; there are {}", known.join(", ")));
            }
            (Value::Object(_) | Value::Null, None) => return Ok(Value::Null),
            (_, None) => return Err(format!("`{value}` has no fields, so no `.{name}`")),
        };
    }
    Ok(value.clone())
}

fn call(name: &str, values: &[Value]) -> Result<Value, String> {
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
fn show(value: &Value, out: &mut String) {
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

/// What counts as true: all but false, zero and what is empty.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(template: &str) -> Result<String, String> {
        let value = json!({
            "Id": "sha256:1", "Size": 12, "RepoTags": ["a:1", "b:2"], "None": null, "Empty": [],
            "Config": { "User": "", "Labels": { "k.x": "v" }, "Env": ["A=1", "B=2"] },
        });
        template.parse::<Template>()?.apply(&value)
    }

    #[test]
    fn what_scripts_use_works_as_with_docker() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Id}} {{ .Size }}", "sha256:1 12"),
            ("{{.RepoTags}}{{.Config.Labels}}", "[a:1 b:2]map[k.x:v]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{index .RepoTags 1}}", "b:2"),
            ("{{index .Config.Labels \"k.x\"}}", "v"),
            ("{{index .Config.Labels `none`}}", "<no value>"),
            ("{{.Config.Labels.none}}", "<no value>"),
            ("{{range .RepoTags}}{{println .}}{{end}}", "a:1\nb:2\n"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range .RepoTags}}{{$.Size}}{{end}}", "1212"),
            ("{{if .Config.User}}u{{else}}root{{end}}", "root"),
            ("{{if eq .Size 12}}yes{{end}}", "yes"),
            ("{{if and .Id (not .Empty)}}yes{{end}}", "yes"),
            ("{{join .RepoTags \", \"}}", "a:1, b:2"),
            ("{{.Id | upper | json}}", "\"SHA256:1\""),
            ("{{len .RepoTags}}", "2"),
            ("a {{- .Size -}} b", "a12b"),
            (r"{{.Id}}\t{{.Size}}\n", "sha256:1\t12\n"),
            ("{{(index .RepoTags 0)}}", "a:1"),
            ("{{/* nothing */}}x", "x"),
        ] {
            assert_eq!(applied(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, message) in [
            ("{{.Nme}}", "there is no `.Nme`; there are Config, Empty, Id"),
            ("{{.Id.x}}", "no fields"),
            ("{{.Id", "`}}` is missing"),
            ("{{if .Id}}x", "`{{end}}` is missing"),
            ("{{end}}", "`{{end}}`"),
            ("{{else}}", "`{{else}}`"),
            ("{{printf \"%s\" .Id}}", "`printf`"),
            ("{{\"open}}", "is not closed"),
            ("{{index .RepoTags 7}}", "no element 7 of 2"),
            ("{{}}", "nothing between"),
            ("{{.Id .Size}}", "takes no arguments"),
            ("{{range .Size}}{{end}}", "cannot range"),
            ("{{(.Id}}", "`)` is missing"),
            ("{{$x}}", "variables"),
        ] {
            let error = applied(template).unwrap_err();
            assert!(error.contains(message), "{template}: {error}");
        }
        let deep = format!("{}{}", "{{".to_owned() + &"(".repeat(100_000), "}}");
        assert!(applied(&deep).is_err());
        assert!(applied(&"{{if .Id}}".repeat(100_000)).is_err());
    }
}
