//! `formwork ignore`: which line of a `.dockerignore` file decides about a path.

use std::fmt::Write;

use formwork_build::ignore_decision;
use formwork_diagnostics::SourceFile;

use crate::args::IgnoreArgs;
use crate::commands;
use crate::exit::Failure;
use crate::inputs::{dockerfile_in, ignore_file};

/// Tells for each path whether it is left out, and why.
pub(crate) fn run(args: &IgnoreArgs) -> Result<(), Failure> {
    // A context without a Dockerfile may have its file all the same.
    let default =
        || dockerfile_in(&args.context).unwrap_or_else(|| args.context.join("Dockerfile"));
    let dockerfile = args.file.clone().unwrap_or_else(default);
    let file = ignore_file(Some(&dockerfile), &args.context)?;
    let mut text = String::new();
    for path in &args.why {
        let inner = inner_path(path)?;
        let told = match &file {
            Some(file) => told(file, &inner)?,
            None => "kept: there is no .dockerignore".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{path}: {told}");
    }
    commands::print(&text)
}

fn told(file: &SourceFile, path: &str) -> Result<String, Failure> {
    let decision = ignore_decision(file, path)?;
    let name = file.name();
    Ok(match decision.line {
        None => format!("kept: no line of {name} matches"),
        Some((line, text)) => {
            let fate = if decision.is_left_out { "left out" } else { "kept" };
            format!("{fate}: {name}:{line} `{text}`")
        }
    })
}

/// A path as the patterns see it: relative to the context, without `.` and `..`.
fn inner_path(path: &str) -> Result<String, Failure> {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component != ".." {
            components.push(component);
        } else if components.pop().is_none() {
            return Err(Failure::usage(format!("`{path}` leads out of the build context")));
        }
    }
    Ok(components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_context() {
        for (path, inner) in [("a", "a"), ("/a//b/", "a/b"), ("./a/../b", "b"), (".", "")] {
            assert_eq!(inner_path(path).unwrap(), inner, "{path}");
        }
        assert!(inner_path("a/../../b").is_err());
    }
}
