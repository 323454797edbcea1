//! The part of Go's templates that docker's users write in scripts: `{{.Config.User}}`,
//! `{{json .Config.Env}}`, `{{range .RepoTags}}{{println .}}{{end}}`, `{{index .RepoTags 0}}`.
//!
//! There are fields, variables, `$`, strings, numbers, parentheses and pipes; `if`, `else if`,
//! `else`, `with`, `range` and `end`; trimming by `{{-` and `-}}`; and the functions of docker and of
//! Go that lists of images have a use for. Values are JSON and look as Go shows them. Nested
//! templates do not exist here.

mod functions;
mod parse;

use serde_json::Value;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Node>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Show(Pipe),
    If {
        condition: Pipe,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    With {
        value: Pipe,
        variable: Option<String>,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    /// With variables for the value, or for the key and the value.
    Range {
        over: Pipe,
        variables: Vec<String>,
        each: Vec<Self>,
        none: Vec<Self>,
    },
    Set {
        name: String,
        is_new: bool,
        value: Pipe,
    },
}

/// Commands, of which each gets the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
struct Pipe(Vec<Vec<Operand>>);

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// The fields to follow from the current value, or from that of a variable. The whole value is
    /// the variable without a name.
    Field {
        variable: Option<String>,
        names: Vec<String>,
    },
    Literal(Value),
    Function(String),
    Inner(Pipe),
}

/// The variables, the newest last.
type Variables = Vec<(String, Value)>;

impl Template {
    /// What the template makes of a value.
    ///
    /// # Errors
    ///
    /// Fails where the value has no such field, and where a function is given what it cannot take.
    pub(crate) fn apply(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut variables = vec![(String::new(), value.clone())];
        render(&self.0, value, &mut variables, &mut out)?;
        Ok(out)
    }
}

/// Renders a block, whose variables end with it.
fn render(
    nodes: &[Node],
    current: &Value,
    variables: &mut Variables,
    out: &mut String,
) -> Result<(), String> {
    let outside = variables.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(pipe) => functions::show(&evaluate(pipe, current, variables)?, out),
            Node::If { condition, then, otherwise } => {
                let condition = evaluate(condition, current, variables)?;
                let chosen = if is_true(&condition) { then } else { otherwise };
                render(chosen, current, variables, out)?;
            }
            Node::With { value, variable, then, otherwise } => {
                let value = evaluate(value, current, variables)?;
                let before = variables.len();
                variables.extend(variable.iter().map(|name| (name.clone(), value.clone())));
                match is_true(&value) {
                    true => render(then, &value, variables, out)?,
                    false => render(otherwise, current, variables, out)?,
                }
                variables.truncate(before);
            }
            Node::Range { over, variables: names, each, none } => {
                let items = items(evaluate(over, current, variables)?)?;
                let before = variables.len();
                for (key, item) in &items {
                    let values = match names.len() {
                        2 => vec![key.clone(), item.clone()],
                        _ => vec![item.clone()],
                    };
                    variables.extend(names.iter().cloned().zip(values));
                    render(each, item, variables, out)?;
                    variables.truncate(before);
                }
                if items.is_empty() {
                    render(none, current, variables, out)?;
                }
            }
            Node::Set { name, is_new, value } => {
                let value = evaluate(value, current, variables)?;
                match variables.iter_mut().rev().find(|(own, _)| own == name) {
                    Some((_, own)) if !is_new => *own = value,
                    None if !is_new => return Err(format!("there is no variable `${name}`")),
                    _ => variables.push((name.clone(), value)),
                }
            }
        }
    }
    variables.truncate(outside);
    Ok(())
}

/// What `range` goes through, with the keys or numbers.
fn items(value: Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::Array(items) => {
            Ok(items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect())
        }
        Value::Object(map) => Ok(map.into_iter().map(|(key, item)| (key.into(), item)).collect()),
        Value::Null => Ok(Vec::new()),
        other => Err(format!("cannot range over `{other}`")),
    }
}

fn evaluate(pipe: &Pipe, current: &Value, variables: &Variables) -> Result<Value, String> {
    let operand = |operand: &Operand| operand_of(operand, current, variables);
    let mut piped: Option<Value> = None;
    for command in &pipe.0 {
        let (first, rest) = command.split_first().ok_or("a command is missing")?;
        let mut values = rest.iter().map(operand).collect::<Result<Vec<_>, _>>()?;
        values.extend(piped.take());
        piped = Some(match first {
            Operand::Function(name) => functions::call(name, &values)?,
            plain if values.is_empty() => operand(plain)?,
            _ => return Err("a value takes no arguments".to_owned()),
        });
    }
    piped.ok_or_else(|| "there is nothing between `{{` and `}}`".to_owned())
}

fn operand_of(operand: &Operand, current: &Value, variables: &Variables) -> Result<Value, String> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Inner(pipe) => evaluate(pipe, current, variables),
        Operand::Function(name) => functions::call(name, &[]),
        Operand::Field { variable: None, names } => field(current, names),
        Operand::Field { variable: Some(name), names } => {
            let found = variables.iter().rev().find(|(own, _)| own == name);
            let (_, value) = found.ok_or_else(|| format!("there is no variable `${name}`"))?;
            field(value, names)
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
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "k.x=v;"),
            ("{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}", "A=1, B=2"),
            ("{{range $e := .RepoTags}}<{{$e}}>{{end}}", "<a:1><b:2>"),
            ("{{with .Config}}{{index .Env 0}}{{$.Id}}{{end}}", "A=1sha256:1"),
            ("{{with $x := .Empty}}x{{else}}nothing{{end}}", "nothing"),
            ("{{$c := .Config}}{{$c.Labels}}{{$n := 1}}{{$n = 2}}{{$n}}", "map[k.x:v]2"),
            ("{{if .None}}a{{else if .Size}}b{{else}}c{{end}}", "b"),
            ("{{if .None}}a{{else if .Empty}}b{{else}}c{{end}}", "c"),
            (
                "{{printf \"%-5s|%5s|%d|%q|%v|%.3s|%%\" \"ab\" \"cd\" .Size .Id .RepoTags .Id}}",
                "ab   |   cd|12|\"sha256:1\"|[a:1 b:2]|sha|%",
            ),
            ("{{truncate .Id 3}}{{title \"os\"}}{{pad \"x\" 1 2}}", "shaOs x  "),
            ("{{slice .Id 7}} {{slice .Id 0 3}} {{slice .RepoTags 1 2}}", "1 sha [b:2]"),
            ("{{if gt .Size 11}}{{if le .Size 12}}{{lt 1 2}}{{end}}{{end}}", "true"),
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
            ("{{printf \"%s\"}}", "`printf` has no value for `%s`"),
            ("{{printf \"%y\" 1}}", "`%y`"),
            ("{{$x = 1}}", "no variable `$x`"),
            ("{{$a, $b := 1}}", "only `range`"),
            ("{{if 1}}{{else x}}{{end}}", "behind `else`"),
            ("{{\"open}}", "is not closed"),
            ("{{index .RepoTags 7}}", "no element 7 of 2"),
            ("{{}}", "nothing between"),
            ("{{.Id .Size}}", "takes no arguments"),
            ("{{range .Size}}{{end}}", "cannot range"),
            ("{{(.Id}}", "`)` is missing"),
            ("{{$x}}", "no variable `$x`"),
        ] {
            let error = applied(template).unwrap_err();
            assert!(error.contains(message), "{template}: {error}");
        }
        let deep = format!("{}{}", "{{".to_owned() + &"(".repeat(100_000), "}}");
        assert!(applied(&deep).is_err());
        assert!(applied(&"{{if .Id}}".repeat(100_000)).is_err());
    }
}
