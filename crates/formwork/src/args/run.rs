//! Options of `formwork run`.

use clap::Args;

/// Options of `formwork run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Set a variable, as NAME=VALUE, or NAME to take it from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, as NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Program to run instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Host name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Accepted for docker's users: the container has the caller's terminal if there is one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Accepted for docker's users: nothing of the container is ever kept
    #[arg(long)]
    pub(crate) rm: bool,
    /// The image
    pub(crate) image: String,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        let line = "formwork run -it --rm -e A=1 app:1 ls -l --rm";
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(run) => {
                assert_eq!(run.image, "app:1");
                assert_eq!(run.command, ["ls", "-l", "--rm"]);
                assert!(run.interactive && run.tty);
            }
            other => panic!("{other:?}"),
        }
    }
}
