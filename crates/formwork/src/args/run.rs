//! Options of `formwork run`.

use std::path::PathBuf;

use clap::Args;

use super::{Published, PullWhen, WorldArgs};

/// Options of `formwork run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Set a variable, as NAME=VALUE, or NAME to take it from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File with a variable a line, written as for --env; lines that begin with `#` are none
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, as NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Program to run instead of the image's entry point; nothing for none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Show a file or a directory of the host to the container: SOURCE:TARGET[:ro]
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Show something of the host, as type=bind,source=PATH,target=PATH[,readonly]
    #[arg(long, value_name = "type=bind,…")]
    pub(crate) mount: Vec<String>,
    /// Let a port of this machine lead to one of the container, in a network of its own if `pasta`
    /// is installed
    #[arg(short, long, value_name = "[ADDRESS:]PORT:PORT[/udp]")]
    pub(crate) publish: Vec<Published>,
    /// When to look for the image in its registry
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) pull: PullWhen,
    /// Platform, such as linux/arm64 [default: that of the image in the store]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Accepted for docker's users: nothing of the container is kept, so it needs no name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Host name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal of its own
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Accepted for docker's users: nothing of the container is ever kept
    #[arg(long)]
    pub(crate) rm: bool,
    /// What the process finds.
    #[command(flatten)]
    pub(crate) world: WorldArgs,
    /// The image, then the command and its arguments [default: the image's]
    // One argument, since clap takes what follows for the command only from its second value on.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

impl RunArgs {
    /// The image, and the command with its arguments.
    ///
    /// # Errors
    ///
    /// Fails where an option that does not exist stands in the place of the image.
    pub(crate) fn image_and_command(&self) -> Result<(&str, &[String]), String> {
        match self.image_and_command.split_first() {
            Some((option, _)) if option.starts_with('-') => {
                Err(format!("`formwork run` has no option `{option}`"))
            }
            Some((image, command)) => Ok((image, command)),
            None => Err("`formwork run` needs an image".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    fn parse(line: &str) -> Box<super::RunArgs> {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        for (line, image, command) in [
            ("formwork run -it --rm -e A=1 app:1 ls -l --rm", "app:1", "ls -l --rm"),
            ("formwork run -it app:1 -u --help", "app:1", "-u --help"),
            ("formwork run -it app:1 -- -x", "app:1", "-- -x"),
        ] {
            let run = parse(line);
            let expected: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(run.image_and_command(), Ok((image, expected.as_slice())), "{line}");
            assert!(run.interactive && run.tty && run.user.is_none());
        }
    }

    #[test]
    fn an_option_that_is_none_is_no_image() {
        let run = parse("formwork run --gpus app:1");
        assert!(run.image_and_command().unwrap_err().contains("`--gpus`"));
    }
}
