//! Runs real sandboxes, as root and as an ordinary user.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may stop, also in their functions")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "payloads and skipped tests speak")]

mod arena;
mod chroot;
mod devices;
mod doctor;
mod isolation;
mod mounts;
mod payload;
mod process;
mod programs;
mod root;
mod rungs;
mod shown;
mod syscalls;
