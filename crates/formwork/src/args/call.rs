//! `--call`: what to do with a Dockerfile.

use std::str::FromStr;

use super::Pairs;

/// The value of `--call`, as `docker buildx build` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// What to do.
    pub(crate) method: Method,
    /// Whether the result is JSON.
    pub(crate) json: bool,
    /// Whether findings leave the exit code alone.
    pub(crate) ignore_status: bool,
}

/// What to do with a Dockerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// Build it.
    #[default]
    Build,
    /// Tell what may be wrong with it.
    Check,
    /// Show what a target takes.
    Outline,
    /// Show all targets.
    Targets,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let method = match name.strip_prefix("method=").unwrap_or(name) {
            "build" | "" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                return Err(format!("there is no `{other}`; use build, check, outline or targets"));
            }
        };
        let options: Pairs = options.parse()?;
        if let Some(key) = options.unknown(&["format", "ignorestatus", ""]) {
            return Err(format!("`--call` has no `{key}`"));
        }
        let json = match options.get("format") {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(format!("there is no format `{other}`; use text or json")),
        };
        let ignore_status = options.flag("ignorestatus")?.unwrap_or(false);
        Ok(Self { method, json, ignore_status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_those_of_buildx() {
        let call = |method, json, ignore_status| Ok(Call { method, json, ignore_status });
        for (text, expected) in [
            ("build", call(Method::Build, false, false)),
            ("check", call(Method::Check, false, false)),
            ("lint", call(Method::Check, false, false)),
            ("check,format=json", call(Method::Check, true, false)),
            ("outline,format=text", call(Method::Outline, false, false)),
            ("method=targets,ignorestatus", call(Method::Targets, false, true)),
            ("x", Err("there is no `x`; use build, check, outline or targets".to_owned())),
            ("check,format=xml", Err("there is no format `xml`; use text or json".to_owned())),
            ("check,a=b", Err("`--call` has no `a`".to_owned())),
        ] {
            assert_eq!(text.parse::<Call>(), expected, "{text}");
        }
    }
}
