//! Programs for other machines.

use formwork_testing::program;

use crate::support::{Ran, Site, on_each_rung_with_namespaces};

/// A program for 64-bit ARM that makes the directory `/made` and ends.
fn arm64() -> Vec<u8> {
    let code: [u32; 8] = [
        0x9280_0c60, // movn x0, #99 (the working directory)
        0x1000_00e1, // adr x1, path
        0xd280_3da2, // movz x2, #0o755
        0xd280_0448, // movz x8, #34 (mkdirat)
        0xd400_0001, // svc #0
        0xd280_0000, // movz x0, #0
        0xd280_0ba8, // movz x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let mut body: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(b"/made\0");
    let size = 120 + body.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(2u16.to_le_bytes());
    elf.extend(183u16.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    for number in [0x40_0078u64, 64, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for number in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    elf.extend(5u32.to_le_bytes());
    for number in [0u64, 0x40_0000, 0x40_0000, size, size, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(body);
    elf
}

const DOCKERFILE: &str = "FROM scratch\nCOPY --chmod=755 arm /arm\nRUN [\"/arm\"]\n";

#[test]
fn a_foreign_program_runs_where_an_emulator_is_installed() {
    if std::env::consts::ARCH != "x86_64" || program("qemu-aarch64-static").is_none() {
        return;
    }
    on_each_rung_with_namespaces(|site| {
        site.write("arm", arm64());
        let tree = site.tree(&["--platform=arm64"], DOCKERFILE).lines();
        assert!(tree.iter().any(|line| line.ends_with(" /made")), "{tree:?}");
        site.build(&["--platform=arm64", "-t", "arm"], "FROM scratch\nCOPY --chmod=755 arm /arm\n");
        site.run(&["run", "--rm", "arm", "/arm"]);
    });
}

#[test]
fn without_an_emulator_the_way_out_is_told() {
    let registered = std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists();
    if std::env::consts::ARCH != "x86_64" || registered {
        return formwork_testing::skipped("this machine runs ARM programs");
    }
    let site = Site::new();
    site.write("arm", arm64());
    let mut build = site.build_command(&["--platform=arm64"], DOCKERFILE);
    build.env("PATH", "/nowhere");
    let ran = Ran::of(&mut build).failed(1, "it is a program for aarch64");
    assert!(ran.stderr.contains("apt-get install qemu-user-static"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--platform=$BUILDPLATFORM"), "{}", ran.stderr);
}
