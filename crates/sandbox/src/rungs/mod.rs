//! What differs between the machines that a build may find itself on.

pub(crate) mod chroot;
pub(crate) mod forbidden;
pub(crate) mod jail;
pub(crate) mod power;
pub(crate) mod traced;
