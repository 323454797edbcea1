//! Version 1: a hierarchy for each kind of limit. Only root may make groups there.

use std::os::fd::OwnedFd;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::{Group, GroupUsage, Part, directory_of, mounted, number_of, open, read};
use crate::Limits;

/// The time in which a group may use so much of the processors, in microseconds.
const PERIOD: u64 = 100_000;

/// The groups of this process in those hierarchies that limit something.
#[derive(Debug, Default)]
pub(super) struct Hierarchies {
    memory: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
    pids: Option<OwnedFd>,
}

impl Hierarchies {
    pub(super) fn find(own: &str, mounts: &str) -> Self {
        let find = |controller: &str| {
            let has = |list: &str| list.split(',').any(|name| name == controller);
            let group = own.lines().find_map(|line| {
                let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
                has(controllers).then_some(group)
            })?;
            let place = mounted(mounts, |kind, options| kind == "cgroup" && has(options))?;
            open(CWD, &directory_of(group, place)).ok()
        };
        Self { memory: find("memory"), cpu: find("cpu"), pids: find("pids") }
    }

    /// Makes a group in each hierarchy that is needed.
    pub(super) fn make(&self, limits: &Limits, name: &str) -> Result<Group, Errno> {
        let mut parts = Vec::new();
        let part =
            |parent: &Option<OwnedFd>| Part::make(parent.as_ref().ok_or(Errno::NOSYS)?, name);
        if let Some(bytes) = limits.memory {
            let part = part(&self.memory)?;
            part.write("memory.limit_in_bytes", &bytes.to_string())?;
            // Swapping is no way out, where the kernel counts it.
            let _ = part.write("memory.memsw.limit_in_bytes", &bytes.to_string());
            parts.push(part);
        }
        if let Some(thousandths) = limits.cpus {
            let part = part(&self.cpu)?;
            part.write("cpu.cfs_period_us", &PERIOD.to_string())?;
            let quota = (u64::from(thousandths) * PERIOD / 1000).max(1000);
            part.write("cpu.cfs_quota_us", &quota.to_string())?;
            parts.push(part);
        }
        if let Some(count) = limits.pids {
            let part = part(&self.pids)?;
            part.write("pids.max", &count.to_string())?;
            parts.push(part);
        }
        Ok(Group { parts, has_v2: false })
    }
}

/// What the processes of a group have used so far.
pub(super) fn usage(parts: &[Part]) -> GroupUsage {
    let read = |file: &str| {
        let texts = parts.iter().map(|part| read(&part.directory, file));
        texts.collect::<String>()
    };
    GroupUsage {
        peak: read("memory.max_usage_in_bytes").trim().parse().unwrap_or_default(),
        oom_kills: number_of(&read("memory.oom_control"), "oom_kill"),
    }
}
