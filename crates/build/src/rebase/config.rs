//! The configuration of an image on another base: what it has from the base comes from the new one,
//! what it says itself stays.

use std::collections::{BTreeMap, BTreeSet};

use formwork_oci::{ImageConfig, RuntimeConfig};

/// The configuration on the new base; the image's first `own` layers are the old base's.
pub(super) fn rebased(
    image: &ImageConfig,
    old: &ImageConfig,
    new: &ImageConfig,
    own: usize,
) -> ImageConfig {
    let mut config = image.clone();
    config.rootfs.diff_ids = new.rootfs.diff_ids.clone();
    config.rootfs.diff_ids.extend(image.rootfs.diff_ids.iter().skip(own).cloned());
    config.history = new.history.clone();
    config.history.extend(image.history.iter().skip(old.history.len()).cloned());
    config.config = container(&image.config, &old.config, &new.config);
    config
}

/// A value of the image, unless it is the old base's.
fn own<T: Clone + PartialEq>(image: &T, old: &T, new: &T) -> T {
    if image == old { new.clone() } else { image.clone() }
}

fn container(image: &RuntimeConfig, old: &RuntimeConfig, new: &RuntimeConfig) -> RuntimeConfig {
    // A command belongs to its entry point: an image that has set one has both of its own.
    let has_own_command = (&image.entrypoint, &image.cmd) != (&old.entrypoint, &old.cmd);
    let command = if has_own_command { image } else { new };
    RuntimeConfig {
        user: own(&image.user, &old.user, &new.user),
        env: env(&image.env, &old.env, &new.env),
        entrypoint: command.entrypoint.clone(),
        cmd: command.cmd.clone(),
        working_dir: own(&image.working_dir, &old.working_dir, &new.working_dir),
        labels: map(&image.labels, &old.labels, &new.labels),
        exposed_ports: set(&image.exposed_ports, &old.exposed_ports, &new.exposed_ports),
        volumes: set(&image.volumes, &old.volumes, &new.volumes),
        healthcheck: own(&image.healthcheck, &old.healthcheck, &new.healthcheck),
        stop_signal: own(&image.stop_signal, &old.stop_signal, &new.stop_signal),
        shell: own(&image.shell, &old.shell, &new.shell),
        ..image.clone()
    }
}

/// Variables in their order: the new base's with what the image has set, then what it has added.
fn env(image: &[String], old: &[String], new: &[String]) -> Vec<String> {
    let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let of = |entries: &[String], wanted: &str| {
        entries.iter().find(|entry| name(entry) == wanted).cloned()
    };
    let is_own = |wanted: &str| of(image, wanted) != of(old, wanted);
    let mut env: Vec<String> = Vec::new();
    for entry in new {
        let wanted = name(entry);
        match (is_own(&wanted), of(image, &wanted)) {
            (true, own) => env.extend(own),
            (false, _) => env.push(entry.clone()),
        }
    }
    let added = image.iter().filter(|entry| is_own(&name(entry)));
    let added: Vec<String> =
        added.filter(|entry| of(&env, &name(entry)).is_none()).cloned().collect();
    env.extend(added);
    env
}

fn set(
    image: &BTreeSet<String>,
    old: &BTreeSet<String>,
    new: &BTreeSet<String>,
) -> BTreeSet<String> {
    new.iter().chain(image.difference(old)).cloned().collect()
}

fn map<K: Clone + Ord, V: Clone + PartialEq>(
    image: &BTreeMap<K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let mut all = new.clone();
    for (key, value) in image.iter().filter(|(key, value)| old.get(*key) != Some(*value)) {
        all.insert(key.clone(), value.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn variables_of_the_base_are_the_new_ones() {
        let (old, new) = (strings(&["PATH=/bin", "V=1", "GONE=x"]), strings(&["PATH=/new", "V=2"]));
        let image = strings(&["PATH=/bin", "V=own", "GONE=x", "ADDED=y"]);
        assert_eq!(env(&image, &old, &new), ["PATH=/new", "V=own", "ADDED=y"]);
    }

    #[test]
    fn labels_of_the_base_are_the_new_ones() {
        let of = |pairs: &[(&'static str, i32)]| BTreeMap::from_iter(pairs.iter().copied());
        let merged = map(&of(&[("a", 1), ("b", 9)]), &of(&[("a", 1), ("b", 2)]), &of(&[("a", 3)]));
        assert_eq!(merged, of(&[("a", 3), ("b", 9)]));
    }
}
