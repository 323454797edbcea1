//! Version 2: one hierarchy, of which a part may be delegated to a user.
//!
//! A group that has processes cannot give limits to groups in it, and this process is in one. So the
//! group of a sandbox goes into the nearest one above that already gives such limits and that this
//! user may write, as with the slices of a user's service manager.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::{
    Group, GroupUsage, Part, directory_of, mounted, number_of, open, own_group, read, text_of,
    write,
};
use crate::Limits;

/// The group of this process and those above it, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Ancestors(Vec<OwnedFd>);

impl Ancestors {
    pub(super) fn of_this_process() -> Self {
        let place = mounted(&text_of("/proc/self/mountinfo"), |kind, _| kind == "cgroup2");
        let (Some(group), Some(place)) = (own_group(), place) else { return Self::default() };
        let top = place.0.clone();
        let own = directory_of(&group, place);
        let ancestors = own.ancestors().take_while(|path| path.starts_with(&top));
        Self(ancestors.filter_map(|path: &Path| open(CWD, path).ok()).collect())
    }

    /// The group of this process.
    pub(super) fn nearest(&self) -> Option<&OwnedFd> {
        self.0.first()
    }

    /// Makes a group where it can have the limits.
    pub(super) fn make(&self, limits: &Limits, name: &str) -> Result<Group, Errno> {
        let needed = limits.controllers();
        let mut result = Err(Errno::NOSYS);
        for parent in &self.0 {
            let available = read(parent, "cgroup.controllers");
            if !needed.iter().all(|name| has(&available, name)) {
                continue;
            }
            result = enable(parent, &needed).and_then(|()| with_limits(parent, limits, name));
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

fn has(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == name)
}

/// Lets a group give limits to the groups in it.
fn enable(parent: &OwnedFd, needed: &[&str]) -> Result<(), Errno> {
    let enabled = read(parent, "cgroup.subtree_control");
    let missing = needed.iter().filter(|name| !has(&enabled, name));
    let text: Vec<String> = missing.map(|name| format!("+{name}")).collect();
    if text.is_empty() {
        return Ok(());
    }
    // Some controllers would take it, and no process could be moved into the group below.
    if is_below_root(parent) && !read(parent, "cgroup.procs").is_empty() {
        return Err(Errno::BUSY);
    }
    write(parent, "cgroup.subtree_control", &text.join(" "))
}

/// Whether it is not the machine's topmost group, for which other rules hold.
fn is_below_root(group: &OwnedFd) -> bool {
    !read(group, "cgroup.type").is_empty()
}

fn with_limits(parent: &OwnedFd, limits: &Limits, name: &str) -> Result<Group, Errno> {
    let part = Part::make(parent, name)?;
    if read(&part.directory, "cgroup.type").trim() != "domain" {
        return Err(Errno::BUSY);
    }
    if let Some(bytes) = limits.memory {
        part.write("memory.max", &bytes.to_string())?;
        // Swapping is no way out, where there is any.
        let _ = part.write("memory.swap.max", "0");
    }
    if let Some(thousandths) = limits.cpus {
        let quota = (u64::from(thousandths) * 100).max(1000);
        part.write("cpu.max", &format!("{quota} 100000"))?;
    }
    if let Some(count) = limits.pids {
        part.write("pids.max", &count.to_string())?;
    }
    Ok(Group { parts: vec![part], has_v2: true })
}

/// What the processes of a group have used so far.
pub(super) fn usage(parts: &[Part]) -> GroupUsage {
    let read =
        |file: &str| parts.first().map(|part| read(&part.directory, file)).unwrap_or_default();
    GroupUsage {
        peak: read("memory.peak").trim().parse().unwrap_or_default(),
        oom_kills: number_of(&read("memory.events"), "oom_kill"),
    }
}
