//! For which other architectures steps can be run.

use super::Feature;
use super::features::is_at_least;
use crate::Emulation;
use crate::subid::tool_directories;

/// The architectures whose programs an emulator runs.
pub(super) fn list() -> Feature {
    let directories = tool_directories();
    // Since then a user namespace may have registrations of its own.
    let uname = rustix::system::uname();
    let is_new = is_at_least(&uname.release().to_string_lossy(), (6, 7));
    let of_kind = |wanted: fn(&Emulation) -> bool| {
        let found = Emulation::architectures()
            .filter(|architecture| wanted(&Emulation::find(architecture, &directories)));
        found.collect::<Vec<_>>().join(", ")
    };
    let registered = of_kind(|emulation| *emulation == Emulation::Registered);
    let installed = of_kind(|emulation| matches!(emulation, Emulation::Installed(_)));
    let usable = if is_new { &installed } else { "" };
    let found = [("registered for", &*registered), ("installed for", &*installed)];
    let found = found.iter().filter(|(_, names)| !names.is_empty());
    let found: Vec<String> = found.map(|(how, names)| format!("{how} {names}")).collect();
    Feature {
        name: "emulators".to_owned(),
        available: !registered.is_empty() || !usable.is_empty(),
        required: false,
        found: if found.is_empty() { "none".to_owned() } else { found.join("; ") },
        purpose: "RUN for other architectures than the machine's".to_owned(),
        remedy: Some(match installed.is_empty() {
            true => {
                "install the package `qemu-user-static`; before Linux 6.7 `binfmt-support`, too"
                    .to_owned()
            }
            false => "install the package `binfmt-support`: before Linux 6.7 root has to register \
                      emulators for the machine"
                .to_owned(),
        }),
    }
}
