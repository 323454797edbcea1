//! `formwork import`.

use std::io::{IsTerminal, Read};

use formwork_build::{ImportRequest, import};

use crate::args::ImportArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::{Settings, variable};

/// Makes an image of the files in a tar archive.
pub(crate) fn run(args: &ImportArgs, settings: &Settings) -> Result<(), Failure> {
    let is_piped = args.file.as_os_str() == "-";
    if is_piped && std::io::stdin().is_terminal() {
        return Err(Failure::usage("an archive is not read from a terminal"));
    }
    let mut input: Box<dyn Read + Send> = match is_piped {
        true => Box::new(std::io::stdin()),
        false => Box::new(fs_err::File::open(&args.file).map_err(Failure::input)?),
    };
    let request = ImportRequest {
        source: if is_piped { "-".to_owned() } else { args.file.display().to_string() },
        name: args.name.as_deref().map(commands::name).transpose()?,
        platform: commands::platform(args.platform.as_deref())?,
        changes: args.change.clone(),
        message: args.message.clone(),
        created: created()?,
    };
    let host = commands::open(settings)?;
    let image = work::shown(&host, work::mode(true), move |host, events, cancel| {
        import(host, &request, &mut input, events, cancel)
    })?;
    commands::print(&format!("{}\n", image.config))
}

/// Now, or the time that `SOURCE_DATE_EPOCH` has.
fn created() -> Result<String, Failure> {
    let Some(text) = variable("SOURCE_DATE_EPOCH") else {
        return Ok(jiff::Timestamp::now().to_string());
    };
    let time = text.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let wrong =
        || Failure::usage(format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"));
    Ok(time.ok_or_else(wrong)?.to_string())
}
