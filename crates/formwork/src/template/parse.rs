//! From text to a template.

use std::str::FromStr;

use serde_json::Value;

use super::{Node, Operand, Pipe, Template};

/// How deep blocks and parentheses may lie in each other.
const DEPTH: usize = 32;
/// What is known between `{{` and `}}` besides values and `if`, `with`, `range`, `else`, `end`.
const FUNCTIONS: [&str; 23] = [
    "json", "join", "split", "index", "slice", "len", "print", "println", "printf", "upper",
    "lower", "title", "truncate", "pad", "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or",
];

impl FromStr for Template {
    type Err = String;

    /// Reads a template; `\t` and `\n` outside of `{{ }}` are what they are in docker's formats.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { pieces: pieces(text)?.into_iter() };
        match parser.nodes(0)? {
            (nodes, None) => Ok(Self(nodes)),
            (_, Some(end)) => Err(format!("`{{{{{end}}}}}` ends nothing")),
        }
    }
}

/// Text, or what is between `{{` and `}}`.
enum Piece {
    Text(String),
    Action(String),
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_start = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut before = before.replace("\\t", "\t").replace("\\n", "\n");
        if trim_start {
            before = before.trim_start().to_owned();
        }
        let Some(after) = after else {
            pieces.push(Piece::Text(before));
            return Ok(pieces);
        };
        let (action, next) = after.split_once("}}").ok_or("`}}` is missing")?;
        let action = match action.strip_prefix("- ") {
            Some(action) => {
                before = before.trim_end().to_owned();
                action
            }
            None => action,
        };
        trim_start = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        pieces.push(Piece::Text(before));
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned()));
        }
        rest = next;
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
}

impl Parser {
    /// The nodes until `else` or `end`, and which of them it is, with what stands behind `else`.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Option<String>), String> {
        if depth > DEPTH {
            return Err("its blocks lie too deep in each other".to_owned());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action.split_once(' ').unwrap_or((&action, ""));
            nodes.push(match word {
                "end" | "else" => return Ok((nodes, Some(action))),
                "if" => {
                    let (then, otherwise) = self.block(depth)?;
                    Node::If { condition: pipe(rest)?, then, otherwise }
                }
                "with" => {
                    let (variables, value) =
                        assigned(rest).map_or((Vec::new(), rest), |(n, _, v)| (n, v));
                    let (then, otherwise) = self.block(depth)?;
                    let variable = variables.into_iter().next();
                    Node::With { value: pipe(value)?, variable, then, otherwise }
                }
                "range" => {
                    let (variables, over) =
                        assigned(rest).map_or((Vec::new(), rest), |(n, _, v)| (n, v));
                    let (each, none) = self.block(depth)?;
                    Node::Range { over: pipe(over)?, variables, each, none }
                }
                _ => match assigned(&action) {
                    Some((names, is_new, value)) => match <[String; 1]>::try_from(names) {
                        Ok([name]) => Node::Set { name, is_new, value: pipe(value)? },
                        Err(_) => return Err("only `range` sets two variables".to_owned()),
                    },
                    None => Node::Show(pipe(&action)?),
                },
            });
        }
        Ok((nodes, None))
    }

    /// What is between a beginning and its `end`, before and behind `else`.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        let missing = || "`{{end}}` is missing".to_owned();
        let (first, end) = self.nodes(depth + 1)?;
        let end = end.ok_or_else(missing)?;
        let Some(behind) = end.strip_prefix("else") else { return Ok((first, Vec::new())) };
        if let Some(condition) = behind.trim_start().strip_prefix("if ") {
            // As if the rest were a block of its own, with the same end.
            let (then, otherwise) = self.block(depth + 1)?;
            return Ok((first, vec![Node::If { condition: pipe(condition)?, then, otherwise }]));
        }
        if !behind.is_empty() {
            return Err(format!("`{{{{{end}}}}}`: behind `else` there may be an `if`"));
        }
        match self.nodes(depth + 1)? {
            (second, Some(end)) if end == "end" => Ok((first, second)),
            _ => Err(missing()),
        }
    }
}

/// The variables of `$a := value`, `$a = value` or `$a, $b := value`, whether they are new, and the
/// value.
fn assigned(action: &str) -> Option<(Vec<String>, bool, &str)> {
    let (before, value) = action.split_once('=')?;
    let is_new = before.ends_with(':');
    let before = before.strip_suffix(':').unwrap_or(before);
    let names = before.split(',').map(|name| {
        let name = name.trim().strip_prefix('$')?;
        let is_name = name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        (is_name && !name.is_empty()).then(|| name.to_owned())
    });
    let names: Vec<String> = names.collect::<Option<_>>()?;
    (names.len() <= 2).then_some((names, is_new, value))
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let mut words = Words(text);
    let pipe = words.pipe(0)?;
    match words.0.trim_start() {
        "" => Ok(pipe),
        rest => Err(format!("`{rest}` is unexpected")),
    }
}

/// What is left of an action.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn pipe(&mut self, depth: usize) -> Result<Pipe, String> {
        if depth > DEPTH {
            return Err("its parentheses lie too deep in each other".to_owned());
        }
        let mut commands = vec![Vec::new()];
        loop {
            self.0 = self.0.trim_start();
            if self.0.is_empty() || self.0.starts_with(')') {
                break;
            }
            if let Some(rest) = self.0.strip_prefix('|') {
                self.0 = rest;
                commands.push(Vec::new());
                continue;
            }
            let operand = self.operand(depth)?;
            if let Some(command) = commands.last_mut() {
                command.push(operand);
            }
        }
        if commands.iter().any(Vec::is_empty) {
            return Err("there is nothing between `{{` and `}}`, or beside a `|`".to_owned());
        }
        Ok(Pipe(commands))
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, String> {
        if let Some(rest) = self.0.strip_prefix('(') {
            self.0 = rest;
            let pipe = self.pipe(depth + 1)?;
            self.0 = self.0.strip_prefix(')').ok_or("`)` is missing")?;
            return Ok(Operand::Inner(pipe));
        }
        if let Some(rest) = self.0.strip_prefix('`') {
            let (raw, rest) = rest.split_once('`').ok_or("a string is not closed")?;
            self.0 = rest;
            return Ok(Operand::Literal(raw.into()));
        }
        if self.0.starts_with('"') {
            return self.string();
        }
        let end = self.0.find(|letter: char| letter.is_whitespace() || "()|\"`".contains(letter));
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        plain(word)
    }

    fn string(&mut self) -> Result<Operand, String> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<String>();
        match values.next() {
            Some(Ok(text)) => {
                self.0 = &self.0[values.byte_offset()..];
                Ok(Operand::Literal(text.into()))
            }
            _ => Err("a string is not closed, or has an unknown escape".to_owned()),
        }
    }
}

/// A field, a number, a truth value or a function.
fn plain(word: &str) -> Result<Operand, String> {
    let (variable, path) = match word.strip_prefix('$') {
        Some(rest) => {
            let (name, path) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
            (Some(name.to_owned()), path)
        }
        None => (None, word),
    };
    if path == "." || (path.is_empty() && variable.is_some()) {
        return Ok(Operand::Field { variable, names: Vec::new() });
    }
    if let Some(fields) = path.strip_prefix('.') {
        let names: Vec<String> = fields.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err(format!("`{word}` has a field without a name"));
        }
        return Ok(Operand::Field { variable, names });
    }
    if FUNCTIONS.contains(&word) {
        return Ok(Operand::Function(word.to_owned()));
    }
    match word.parse::<Value>() {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
        _ => Err(format!("`{word}` is not known; there are {}", FUNCTIONS.join(", "))),
    }
}
