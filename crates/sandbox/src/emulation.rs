//! Programs for other machines, which an emulator (`qemu-user`) runs.
//!
//! The kernel's `binfmt_misc` tells such programs by their first bytes and hands them to the
//! emulator. An entry that somebody has made for the whole machine serves everybody. Where there is
//! none, but an emulator is installed, a sandbox makes an entry of its own: since Linux 6.7 each
//! user namespace may have some, which takes no power over the machine and vanishes with it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::init::is_static_program;

/// Where the kernel tells what is registered for the machine.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// The longest line that the kernel takes (`MAX_REGISTER_LENGTH`).
const MAX_REGISTRATION: usize = 1920;
/// The names that an emulator may have.
const PREFIXES: [&str; 2] = ["qemu-", "qemu-user-"];

/// What tells the programs of a machine: the name of its architecture in Go, that in QEMU, and what
/// the head of an ELF file says.
struct Machine {
    go: &'static str,
    qemu: &'static str,
    is_64: bool,
    is_big: bool,
    number: u16,
}

const fn machine(
    go: &'static str,
    qemu: &'static str,
    is_64: bool,
    is_big: bool,
    number: u16,
) -> Machine {
    Machine { go, qemu, is_64, is_big, number }
}

const MACHINES: [Machine; 9] = [
    machine("386", "i386", false, false, 3),
    machine("mips64le", "mips64el", true, false, 8),
    machine("ppc64le", "ppc64le", true, false, 21),
    machine("s390x", "s390x", true, true, 22),
    machine("arm", "arm", false, false, 40),
    machine("amd64", "x86_64", true, false, 62),
    machine("arm64", "aarch64", true, false, 183),
    machine("riscv64", "riscv64", true, false, 243),
    machine("loong64", "loongarch64", true, false, 258),
];

/// How programs for an architecture run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emulation {
    /// The processor runs them.
    Native,
    /// The machine has an emulator registered.
    Registered,
    /// An emulator is installed, which a sandbox may register for itself.
    Installed(Emulator),
    /// Not at all.
    Missing,
}

/// An emulator that a sandbox registers for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The line for the kernel's `register`.
    pub(crate) registration: Vec<u8>,
}

impl Emulation {
    /// How programs for an architecture, in Go's words, run here; emulators are looked for in these
    /// directories. They must be linked statically: an image has no libraries for them.
    pub fn find(architecture: &str, directories: &[PathBuf]) -> Self {
        if is_native(architecture) {
            return Self::Native;
        }
        let Some(machine) = MACHINES.iter().find(|machine| machine.go == architecture) else {
            return Self::Missing;
        };
        if is_registered(machine) {
            return Self::Registered;
        }
        let candidates = directories.iter().flat_map(|directory| {
            let names = PREFIXES.map(|prefix| format!("{prefix}{}", machine.qemu));
            let names = names.into_iter().flat_map(|name| [format!("{name}-static"), name]);
            names.map(|name| directory.join(name)).collect::<Vec<_>>()
        });
        let found = candidates
            .filter(|path| is_static_program(path))
            .find_map(|path| registration(machine, &path));
        found.map_or(Self::Missing, |registration| Self::Installed(Emulator { registration }))
    }

    /// The architectures that are known here, in Go's words.
    pub(crate) fn architectures() -> impl Iterator<Item = &'static str> {
        MACHINES.iter().map(|machine| machine.go)
    }

    /// Whether programs run, but not on the processor.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Self::Registered | Self::Installed(_))
    }
}

/// Whether the processor runs programs for an architecture.
fn is_native(architecture: &str) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => matches!(architecture, "amd64" | "386"),
        "aarch64" => matches!(architecture, "arm64" | "arm"),
        own => MACHINES.iter().any(|machine| machine.go == architecture && machine.qemu == own),
    }
}

/// Whether the machine has an entry for these programs whose emulator is at hand everywhere: with
/// flag `F` it was opened when it was registered.
fn is_registered(machine: &Machine) -> bool {
    let Ok(entries) = fs_err::read_dir(REGISTERED) else { return false };
    let wanted = hex(&magic(machine));
    entries.flatten().any(|entry| {
        let text = fs_err::read_to_string(entry.path()).unwrap_or_default();
        is_entry_for(&text, &wanted)
    })
}

/// Whether an entry, as the kernel shows it, is in use and for files that begin like this.
fn is_entry_for(text: &str, wanted: &str) -> bool {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
    };
    // What stands between is the ABI, which entries may ask for or not.
    let is_same = |magic: &str| {
        magic.get(..14) == wanted.get(..14) && magic.get(32..40) == wanted.get(32..40)
    };
    text.starts_with("enabled") && field("flags:").contains('F') && is_same(field("magic"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first bytes of an ELF program: class, byte order and version, then type and machine.
fn magic(machine: &Machine) -> Vec<u8> {
    let mut magic = b"\x7fELF".to_vec();
    magic.extend([if machine.is_64 { 2 } else { 1 }, if machine.is_big { 2 } else { 1 }, 1]);
    magic.resize(16, 0);
    let words = [2, machine.number];
    magic.extend(words.iter().flat_map(|word| match machine.is_big {
        true => word.to_be_bytes(),
        false => word.to_le_bytes(),
    }));
    magic
}

/// The bits of [`magic`] that count: not the ABI, nor whether the program can be moved in memory.
fn mask(machine: &Machine) -> Vec<u8> {
    let mut mask = vec![0xff; 20];
    mask[7] = 0;
    mask[if machine.is_big { 17 } else { 16 }] = 0xfe;
    mask
}

/// The line for the kernel's `register`; `None` for a path that has no place in it.
///
/// Flags: the emulator gets the program as a descriptor (O) and its first argument unchanged (P),
/// set-user-ID programs have their effect (C), and the emulator is opened now (F), since the image
/// does not have it.
fn registration(machine: &Machine, emulator: &Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let escaped =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    let path = emulator.as_os_str().as_bytes();
    if path.contains(&b':') {
        return None;
    }
    let mut line =
        format!(":{}:M::{}:{}:", machine.qemu, escaped(&magic(machine)), escaped(&mask(machine)))
            .into_bytes();
    line.extend_from_slice(path);
    line.extend_from_slice(b":OPCF");
    (line.len() <= MAX_REGISTRATION).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name(go: &str) -> &'static Machine {
        MACHINES.iter().find(|machine| machine.go == go).unwrap()
    }

    /// As `qemu-binfmt-conf.sh` and Debian's package have it.
    #[test]
    fn programs_are_told_by_their_first_bytes() {
        let aarch64 = "7f454c460201010000000000000000000200b700";
        assert_eq!(hex(&magic(by_name("arm64"))), aarch64);
        assert_eq!(hex(&magic(by_name("s390x"))), "7f454c4602020100000000000000000000020016");
        assert_eq!(hex(&mask(by_name("arm64"))), "ffffffffffffff00fffffffffffffffffeffffff");
        assert_eq!(hex(&mask(by_name("s390x"))), "ffffffffffffff00fffffffffffffffffffeffff");
        let line = registration(by_name("arm64"), Path::new("/q")).unwrap();
        assert!(line.starts_with(b":aarch64:M::\\x7f\\x45") && line.ends_with(b":/q:OPCF"));
        assert_eq!(registration(by_name("arm64"), Path::new("/a:b")), None);
    }

    #[test]
    fn entries_of_the_machine_count_if_they_work_everywhere() {
        let wanted = hex(&magic(by_name("arm64")));
        let entry = |state: &str, flags: &str, magic: &str| {
            format!("{state}\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\nmagic {magic}\n")
        };
        let is = |text: String| is_entry_for(&text, &wanted);
        assert!(is(entry("enabled", "POCF", &wanted)));
        assert!(!is(entry("disabled", "POCF", &wanted)));
        assert!(!is(entry("enabled", "OC", &wanted)));
        assert!(!is(entry("enabled", "F", &hex(&magic(by_name("riscv64"))))));
        assert!(!is("enabled\n".to_owned()));
    }

    #[test]
    fn what_the_processor_runs_needs_no_emulator() {
        let own = std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64");
        assert_eq!(Emulation::find(&own, &[]), Emulation::Native);
        assert_eq!(Emulation::find("pdp11", &[]), Emulation::Missing);
    }
}
