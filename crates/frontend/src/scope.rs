//! Variables: which there are at a point of a Dockerfile, and their values.
//!
//! `ARG` and `ENV` set variables from their line on, and the later one wins, whichever it is.
//! Only what `ENV` sets ends up in the image; what `ARG` sets is seen by RUN as well, which is
//! why it counts in RUN's cache key.

use std::collections::BTreeMap;

use formwork_dockerfile::{Dockerfile, ExpandError, Expanded, Word, expand};
use formwork_oci::Platform;

use crate::Options;
use crate::budget::Budget;

/// Build arguments that need no `ARG`: docker's proxy variables, in both cases.
pub(crate) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Whether a build argument is one of docker's proxy variables, which may hold a password.
pub fn is_proxy_arg(name: &str) -> bool {
    PROXY_ARGS.contains(&name)
}

/// The variables that `FROM` sees, and from which an `ARG` without a value takes one.
#[derive(Clone, Debug, Default)]
pub(crate) struct GlobalScope {
    variables: BTreeMap<String, String>,
}

/// The variables that a stage sees at a point, in the order of their first appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StageScope {
    variables: Vec<(String, String)>,
    /// The names of the `ARG`s so far, for RUN's history.
    args: Vec<String>,
}

impl GlobalScope {
    /// The predefined variables and those of the `ARG`s before the first `FROM`, as far as they
    /// can be expanded; what is wrong with the others is returned beside them.
    pub(crate) fn new(
        dockerfile: &Dockerfile,
        options: &Options,
        target: Option<&str>,
    ) -> (Self, Vec<ExpandError>) {
        let mut scope = Self { variables: predefined(options, target) };
        let (mut errors, budget) = (Vec::new(), Budget::new());
        let escape = dockerfile.directives.escape;
        for variable in dockerfile.global_args.iter().flat_map(|arg| &arg.kind.variables) {
            let name = variable.name.text();
            let value = match (options.build_args.get(name), &variable.default) {
                (Some(given), _) => Ok(Some(given.clone())),
                (None, Some(default)) => {
                    let value = || scope.expanded(default, escape);
                    let value = budget.expand(default.span(), value, Expanded::cost);
                    value.map(|expanded| Some(expanded.text))
                }
                (None, None) => Ok(None),
            };
            match value {
                Ok(Some(value)) => drop(scope.variables.insert(name.to_owned(), value)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        (scope, errors)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    pub(crate) fn expand(&self, word: &Word, escape: char) -> Result<String, ExpandError> {
        self.expanded(word, escape).map(|expanded| expanded.text)
    }

    fn expanded(&self, word: &Word, escape: char) -> Result<Expanded, ExpandError> {
        let lookup = |name: &str| self.get(name).map(str::to_owned);
        expand(word, escape, &lookup)
    }
}

/// The variables of BuildKit that describe the platforms and the target.
fn predefined(options: &Options, target: Option<&str>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (prefix, platform) in
        [("TARGET", &options.target_platform), ("BUILD", &options.build_platform)]
    {
        let Platform { architecture, os, os_version, variant } = platform;
        for (suffix, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", os.clone()),
            ("OSVERSION", os_version.clone().unwrap_or_default()),
            ("ARCH", architecture.clone()),
            ("VARIANT", variant.clone().unwrap_or_default()),
        ] {
            variables.insert(format!("{prefix}{suffix}"), value);
        }
    }
    variables.insert("TARGETSTAGE".to_owned(), target.unwrap_or("default").to_owned());
    for (name, value) in &mut variables {
        if let Some(given) = options.build_args.get(name) {
            value.clone_from(given);
        }
    }
    variables
}

impl StageScope {
    /// The variables of an image's `ENV`.
    pub(crate) fn of_env(env: &[String]) -> Self {
        let mut scope = Self::default();
        for (name, value) in env.iter().filter_map(|entry| entry.split_once('=')) {
            scope.set(name, value);
        }
        scope
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.variables.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => value.clone_into(own),
            None => self.variables.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes an `ARG`, which may be without a value.
    pub(crate) fn declare(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
        if !self.declares(name) {
            self.args.push(name.to_owned());
        }
    }

    /// Whether an `ARG` names the variable, be it without a value.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.args.iter().any(|own| own == name)
    }

    /// All variables in order.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// The `ARG`s with the values that RUN sees, as RUN's history shows them.
    ///
    /// Proxies are left out, unlike in BuildKit: their addresses may hold passwords.
    pub(crate) fn shown_args(&self) -> Vec<String> {
        let names = self.args.iter().filter(|name| !PROXY_ARGS.contains(&name.as_str()));
        names.map(|name| format!("{name}={}", self.get(name).unwrap_or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_wins() {
        let mut scope = StageScope::of_env(&["A=1".to_owned(), "B=x=y".to_owned()]);
        scope.declare("A", Some("2"));
        assert_eq!(scope.get("A"), Some("2"));
        scope.set("A", "3");
        assert_eq!(scope.get("A"), Some("3"));
        scope.declare("A", None);
        assert_eq!(scope.get("A"), Some("3"));
        assert_eq!(scope.get("B"), Some("x=y"));
        assert_eq!(scope.variables().len(), 2);
    }

    #[test]
    fn history_shows_the_arguments_with_what_run_sees() {
        let mut scope = StageScope::default();
        scope.declare("A", Some("1"));
        scope.declare("B", Some("2"));
        scope.declare("NONE", None);
        scope.declare("HTTP_PROXY", Some("http://secret"));
        scope.set("B", "env");
        scope.declare("A", Some("3"));
        assert_eq!(scope.shown_args(), ["A=3", "B=env", "NONE="]);
    }
}
