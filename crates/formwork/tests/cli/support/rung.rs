//! The ways in which the steps of a test's builds run.

use super::{Refusal, Site};

/// How the steps of a build run, and on what kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// As root.
    Root,
    /// As root of a machine that forbids user namespaces.
    RootAlone,
    /// As an ordinary user with subordinate ids.
    SubordinateIds,
    /// As an ordinary user who has no other id than the own.
    SingleId,
    /// As root in a chroot, with nothing around it.
    Chroot,
    /// As root of a container that docker or Kubernetes has started.
    Pod,
    /// As an ordinary user whose steps are traced, with nothing around them.
    Traced,
}

impl Rung {
    /// All, in the order of their columns in `docs/security.md`, with what these are called there.
    pub(crate) const ALL: [(Self, &str); 7] = [
        (Self::Root, "(a)"),
        (Self::RootAlone, "(a')"),
        (Self::SubordinateIds, "(b)"),
        (Self::SingleId, "(c)"),
        (Self::Chroot, "(d)"),
        (Self::Pod, "(d) in a pod"),
        (Self::Traced, "(e)"),
    ];

    /// Whether steps have namespaces of their own.
    pub(crate) fn has_namespaces(self) -> bool {
        !matches!(self, Self::Chroot | Self::Pod | Self::Traced)
    }

    /// What the user asks for.
    pub(super) fn isolation(self) -> &'static str {
        match self {
            Self::Chroot => "chroot",
            Self::SingleId => "single-id",
            Self::Traced => "traced",
            _ => "auto",
        }
    }

    /// What the machine refuses.
    pub(super) fn refusals(self) -> &'static [Refusal] {
        match self {
            Self::RootAlone => &[Refusal::UserNamespaces(libc::EPERM)],
            _ => &[],
        }
    }
}

/// Runs a test as root, if the tests run as root, with namespaces and without, and as an ordinary
/// user, with subordinate ids, with a single id, and without namespaces.
pub(crate) fn on_each_rung(test: impl Fn(&Site)) {
    use Rung::{Chroot, Root, SingleId, SubordinateIds, Traced};
    on(&[Root, SubordinateIds, SingleId, Chroot, Traced], test);
}

/// As [`on_each_rung`], for what a process in a chroot cannot be kept from or given.
pub(crate) fn on_each_rung_with_namespaces(test: impl Fn(&Site)) {
    on(&[Rung::Root, Rung::SubordinateIds, Rung::SingleId], test);
}

/// Runs a test in every way and on every kind of machine, for what enemies do.
pub(crate) fn on_every_rung(test: impl Fn(&Site)) {
    on(&Rung::ALL.map(|(rung, _)| rung), test);
}

fn on(rungs: &[Rung], test: impl Fn(&Site)) {
    for rung in rungs {
        if let Some(site) = Site::on(*rung) {
            test(&site);
        }
    }
}
