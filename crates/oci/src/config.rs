//! The image configuration.
//!
//! Image specification `config.md`, and the fields that docker added (`Healthcheck`, `OnBuild`,
//! `Shell`, `ArgsEscaped`), which BuildKit writes into OCI images too. Fields are written in
//! BuildKit's order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{DiffId, Platform};

/// The configuration of an image: how to run it, what it consists of, how it came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor's architecture.
    #[serde(default)]
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system, which only Windows images carry.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RuntimeConfig,
    /// What it consists of.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it came to be, one entry an instruction.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// The records of the steps that made its layers, as formwork's `--cache-to type=inline` has
    /// them.
    #[serde(rename = "formwork.cache.v1", default, skip_serializing_if = "Option::is_none")]
    pub inline_cache: Option<String>,
}

/// How a container of the image starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuntimeConfig {
    /// The user, as `USER` has it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports such as `80/tcp`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", with = "set_as_map")]
    pub exposed_ports: BTreeSet<String>,
    /// Variables as `NAME=value`, in the order of their first appearance.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments that `run` may replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to find out whether a container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether the command is escaped for Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    /// Directories that hold data.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", with = "set_as_map")]
    pub volumes: BTreeSet<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Instructions for images that are built on this one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Free-form keys and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks a container to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The shell of shell-form instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to find out whether a container works. Durations are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and arguments, or `CMD-SHELL` and one command line.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// The time between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    /// The time after which a check has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The time in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    /// The time between two checks during the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<u64>,
    /// The number of failures in a row that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// One instruction in an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When it ran, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark, such as the builder's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the instruction made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// A configuration for an image without layers on a platform.
    pub fn for_platform(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            ..Self::default()
        }
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        let platform = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        Platform { os_version: self.os_version.clone(), ..platform }
    }
}

impl RuntimeConfig {
    /// The value of a variable; of several with the same name the last counts.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// Sets a variable in its old place, or at the end if it is new.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let is_same = |entry: &String| entry.split_once('=').is_some_and(|(key, _)| key == name);
        let entry = format!("{name}={value}");
        match self.env.iter_mut().find(|entry| is_same(entry)) {
            Some(place) => *place = entry,
            None => self.env.push(entry),
        }
    }
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Docker writes sets as objects with empty objects as values.
mod set_as_map {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::IgnoredAny;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(serde::Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(
        set: &BTreeSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{from_json, to_json};

    #[test]
    fn a_configuration_as_docker_writes_it_is_read() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"User":"1000",
            "ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=1"],"Cmd":null,"Volumes":null,
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000},
            "Labels":null,"OnBuild":null,"Entrypoint":["/app"]},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfig = from_json("configuration", text).unwrap();
        assert_eq!(config.config.exposed_ports.first().map(String::as_str), Some("80/tcp"));
        assert_eq!(config.config.cmd, None);
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, Some(1_000_000_000));
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn a_configuration_without_a_runtime_part_is_read() {
        let text = br#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(
            from_json::<ImageConfig>("configuration", text).unwrap().config,
            RuntimeConfig::default()
        );
    }

    #[test]
    fn empty_parts_are_left_out() {
        let config = ImageConfig::for_platform(&"linux/arm/v7".parse().unwrap());
        assert_eq!(
            String::from_utf8(to_json(&config)).unwrap(),
            r#"{"architecture":"arm","variant":"v7","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#
        );
    }

    #[test]
    fn a_reset_command_is_not_a_missing_one() {
        let config = RuntimeConfig { cmd: Some(Vec::new()), ..RuntimeConfig::default() };
        assert_eq!(to_json(&config), br#"{"Cmd":[]}"#);
    }

    #[test]
    fn sets_are_written_as_docker_does() {
        let exposed_ports = BTreeSet::from(["80/tcp".to_owned(), "53/udp".to_owned()]);
        let config = RuntimeConfig { exposed_ports, ..RuntimeConfig::default() };
        assert_eq!(to_json(&config), br#"{"ExposedPorts":{"53/udp":{},"80/tcp":{}}}"#);
    }

    #[test]
    fn variables_keep_their_place() {
        let mut config = RuntimeConfig::default();
        config.set_env("A", "1");
        config.set_env("B", "2");
        config.set_env("A", "3=4");
        assert_eq!(config.env, ["A=3=4", "B=2"]);
        assert_eq!(config.env_value("A"), Some("3=4"));
        assert_eq!(config.env_value("C"), None);
    }
}
