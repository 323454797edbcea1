//! Options of the commands that look into images.

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// Options of `formwork export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The image
    pub(crate) image: String,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Options of `formwork cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// What to copy; a directory's contents with `/.` at the end
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) source: String,
    /// Where to; `-` for a tar archive on standard output
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: PathBuf,
    /// Copy what a symbolic link leads to rather than the link
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Accepted for docker's users: nothing is shown anyway
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl CpArgs {
    /// The image and the path in it.
    ///
    /// # Errors
    ///
    /// Fails where there is no colon between them.
    pub(crate) fn image_and_path(&self) -> Result<(&str, &str), String> {
        let absolute = self.source.find(":/").filter(|colon| *colon > 0);
        let colon = absolute.or_else(|| self.source.rfind(':').filter(|colon| *colon > 0));
        match colon {
            Some(colon) => Ok((&self.source[..colon], &self.source[colon + 1..])),
            None => Err(format!("`{}` is not IMAGE:PATH", self.source)),
        }
    }
}

/// Options of `formwork diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first image
    pub(crate) first: String,
    /// The second image
    pub(crate) second: String,
    /// Exit with 1 where they differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// How to write the differences
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_behind_the_name_of_the_image() {
        let split = |source: &str| {
            let args = CpArgs {
                source: source.to_owned(),
                destination: PathBuf::new(),
                follow_link: false,
                quiet: false,
            };
            args.image_and_path().map(|(image, path)| format!("{image} {path}"))
        };
        for (source, expected) in [
            ("app:/etc", "app /etc"),
            ("app:1:/etc/a:b", "app:1 /etc/a:b"),
            ("localhost:5000/app:1:/etc", "localhost:5000/app:1 /etc"),
            ("app:1:etc", "app:1 etc"),
        ] {
            assert_eq!(split(source).as_deref(), Ok(expected));
        }
        assert!(split("app").is_err() && split(":/etc").is_err());
    }
}
