//! From text to a template.

use std::str::FromStr;

use serde_json::Value;

use super::{Node, Operand, Pipe, Template};

/// How deep blocks and parentheses may lie in each other.
const DEPTH: usize = 32;
/// What is known between `{{` and `}}` besides values and `if`, `range`, `else`, `end`.
const FUNCTIONS: [&str; 14] = [
    "json", "join", "split", "index", "len", "print", "println", "upper", "lower", "eq", "ne",
    "not", "and", "or",
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
    /// The nodes until `else` or `end`, and which of them it is.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Option<&'static str>), String> {
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
                "end" => return Ok((nodes, Some("end"))),
                "else" if rest.is_empty() => return Ok((nodes, Some("else"))),
                "if" => {
                    let (then, otherwise) = self.block(depth)?;
                    Node::If { condition: pipe(rest)?, then, otherwise }
                }
                "range" => {
                    let (each, none) = self.block(depth)?;
                    Node::Range { over: pipe(rest)?, each, none }
                }
                _ => Node::Show(pipe(&action)?),
            });
        }
        Ok((nodes, None))
    }

    /// What is between a beginning and its `end`, before and behind `else`.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (first, end) = self.nodes(depth + 1)?;
        let (second, end) = match end {
            Some("else") => self.nodes(depth + 1)?,
            end => (Vec::new(), end),
        };
        match end {
            Some("end") => Ok((first, second)),
            _ => Err("`{{end}}` is missing".to_owned()),
        }
    }
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
    let path = word.strip_prefix('$').unwrap_or(word);
    let from_root = word.starts_with('$');
    if path.is_empty() || path == "." {
        return Ok(Operand::Field { from_root, names: Vec::new() });
    }
    if let Some(fields) = path.strip_prefix('.') {
        let names: Vec<String> = fields.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err(format!("`{word}` has a field without a name"));
        }
        return Ok(Operand::Field { from_root, names });
    }
    if from_root {
        return Err(format!("`{word}`: there are no variables"));
    }
    if FUNCTIONS.contains(&word) {
        return Ok(Operand::Function(word.to_owned()));
    }
    match word.parse::<Value>() {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
        _ => Err(format!("`{word}` is not known; there are {}", FUNCTIONS.join(", "))),
    }
}
