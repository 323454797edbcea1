//! A graph for people: one op a line, with its inputs.

use std::fmt;

use crate::{Graph, Op, OpId, Source};

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, step) in self.steps() {
            write!(f, "{id} = {}", kind(&step.op))?;
            let inputs: Vec<String> = step.op.inputs().iter().map(OpId::to_string).collect();
            if !inputs.is_empty() {
                write!(f, "({})", inputs.join(", "))?;
            }
            writeln!(f, "  # {}", step.name)?;
        }
        Ok(())
    }
}

fn kind(op: &Op) -> String {
    match op {
        Op::Source(Source::Scratch) => "scratch".to_owned(),
        Op::Source(Source::Image { name, .. }) => format!("image {name}"),
        Op::Source(Source::Context { name }) => format!("context {name}"),
        Op::Source(Source::Remote(remote)) => remote.to_string(),
        Op::Exec(_) => "exec".to_owned(),
        Op::File(_) => "file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Exec, GraphBuilder, Network, Op, Places, Security, Source, Step};

    #[test]
    fn people_see_one_line_an_op() {
        let step = |op, name: &str| Step {
            op,
            name: name.to_owned(),
            location: None,
            places: Places::default(),
            no_cache: false,
            max_age: None,
        };
        let mut builder = GraphBuilder::default();
        let rootfs = builder.add(step(Op::Source(Source::Scratch), "FROM scratch"));
        builder.add(step(
            Op::Exec(Exec {
                rootfs,
                args: vec!["/app".to_owned()],
                env: Vec::new(),
                cwd: "/".to_owned(),
                user: String::new(),
                hostname: String::new(),
                mounts: Vec::new(),
                network: Network::Default,
                security: Security::Sandbox,
                platform: "linux/amd64".parse().unwrap(),
            }),
            "RUN /app",
        ));
        let text = builder.finish().unwrap().to_string();
        assert_eq!(text, "%0 = scratch  # FROM scratch\n%1 = exec(%0)  # RUN /app\n");
    }
}
