//! What the instructions without files do to an image's configuration.
//!
//! Each function takes final values: what is expanded, and how, is for [`crate::lower`].

use std::time::Duration;

use formwork_oci::{Healthcheck, ImageConfig, Platform};

/// The search path of an image that has none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell of an image that has none of its own.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The configuration that `FROM scratch` begins with, which is BuildKit's.
pub(crate) fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::for_platform(platform);
    config.config.set_env("PATH", DEFAULT_PATH);
    "/".clone_into(&mut config.config.working_dir);
    config
}

/// The configuration that a stage begins with whose base has this one.
pub(crate) fn inherited(mut config: ImageConfig) -> ImageConfig {
    // The triggers have been taken over by the stage itself.
    config.config.on_build.clear();
    config.created = None;
    config
}

/// The shell of an image, if it has one of its own.
pub(crate) fn chosen_shell(config: &ImageConfig) -> Option<&[String]> {
    config.config.shell.as_deref().filter(|words| !words.is_empty())
}

/// A command in shell form as the arguments of a process.
pub(crate) fn with_shell(config: &ImageConfig, command: &str) -> Vec<String> {
    let shell = chosen_shell(config).map(<[String]>::to_vec);
    let shell = shell.unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec());
    shell.into_iter().chain([command.to_owned()]).collect()
}

/// `CMD`. An empty list is left out of the configuration, as docker has it.
pub(crate) fn set_command(config: &mut ImageConfig, args: Vec<String>) {
    config.config.cmd = Some(args).filter(|args| !args.is_empty());
}

/// `ENTRYPOINT`: takes away the command that was inherited, not one of the same stage. An empty
/// list is left out of the configuration.
pub(crate) fn set_entrypoint(config: &mut ImageConfig, args: Vec<String>, has_own_command: bool) {
    config.config.entrypoint = Some(args).filter(|args| !args.is_empty());
    if !has_own_command {
        config.config.cmd = None;
    }
}

/// `HEALTHCHECK NONE`.
pub(crate) fn no_healthcheck() -> Healthcheck {
    Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }
}

/// A duration as the configuration has it; zero means the runtime's own.
pub(crate) fn nanoseconds(duration: Option<Duration>) -> Option<u64> {
    let nanoseconds = u64::try_from(duration?.as_nanos()).ok()?;
    (nanoseconds > 0).then_some(nanoseconds)
}

/// Whether a text can be a `STOPSIGNAL`: a number, or a name with or without `SIG`.
pub(crate) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 33] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let is_realtime = |name: &str| {
        let rest = name.strip_prefix("RTMIN").or_else(|| name.strip_prefix("RTMAX"));
        rest.is_some_and(|rest| {
            let offset = rest.strip_prefix(['+', '-']).map(str::parse::<u8>);
            rest.is_empty() || offset.is_some_and(|offset| offset.is_ok_and(|n| n <= 30))
        })
    };
    NAMES.contains(&name) || name == "XFSZ" || is_realtime(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX", "64", "SIGXFSZ"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "65", "SIGFOO", "SIG", "SIGRTMIN+", "SIGRTMIN+99", "-9"] {
            assert!(!is_signal(text), "{text}");
        }
    }

    #[test]
    fn an_entry_point_takes_the_inherited_command_away() {
        let with_command = || {
            let mut config = ImageConfig::default();
            config.config.cmd = Some(vec!["sh".to_owned()]);
            config
        };
        let mut config = with_command();
        set_entrypoint(&mut config, vec!["/app".to_owned()], false);
        assert_eq!(config.config.cmd, None);
        let mut config = with_command();
        set_entrypoint(&mut config, vec!["/app".to_owned()], true);
        assert!(config.config.cmd.is_some());
    }

    #[test]
    fn the_shell_of_the_image_is_used() {
        let mut config = ImageConfig::default();
        assert_eq!(with_shell(&config, "x"), ["/bin/sh", "-c", "x"]);
        config.config.shell = Some(Vec::new());
        assert_eq!(with_shell(&config, "x"), ["/bin/sh", "-c", "x"]);
        config.config.shell = Some(vec!["/bin/bash".to_owned(), "-ec".to_owned()]);
        assert_eq!(with_shell(&config, "x"), ["/bin/bash", "-ec", "x"]);
    }

    #[test]
    fn times_of_zero_are_left_to_the_runtime() {
        assert_eq!(nanoseconds(Some(Duration::from_millis(5))), Some(5_000_000));
        assert_eq!(nanoseconds(Some(Duration::ZERO)), None);
        assert_eq!(nanoseconds(None), None);
    }
}
