//! Archives that enemies have made: nothing outside of the image changes, whatever is in them, and
//! memory stays bounded.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use formwork_testing::program;

use crate::support::{Ran, Site, on_every_rung};
use crate::target::Target;

/// How many random archives each rung meets; more for those who have time.
const CASES: &str = "FORMWORK_HOSTILE_ARCHIVES";
/// The most memory that a build may take over an archive, in kilobytes.
const MEMORY: u64 = 400 << 10;

/// Names and targets of links from which random archives are made. `@HOST@` is a directory outside.
const NAMES: [&str; 22] = [
    "a",
    "a/b",
    "a/b/c",
    "./a//b/../c",
    "..",
    "../file",
    "../../../../../../../..@HOST@/file",
    "@HOST@/file",
    "@HOST@/new",
    "a/../../../../../../..@HOST@/new",
    "l",
    "l/file",
    "l/new",
    "l/empty",
    "m/l/file",
    ".wh.a",
    ".wh..wh..opq",
    "a/.wh..wh..opq",
    ".wh..",
    ".wh...",
    "l/.wh.file",
    "@HOST@/.wh.file",
];
const TARGETS: [&str; 12] = [
    "@HOST@",
    "@HOST@/file",
    "..",
    "../../../../../../../..@HOST@",
    "/",
    ".",
    "l",
    "m",
    "a",
    "/proc/self/root@HOST@",
    "/proc/1/cwd",
    "a/b",
];
/// Files, hard links, symbolic links, devices, directories, pipes, and what does not exist.
const KINDS: &[u8] = b"0011122225345567SLgxKZ";

/// One entry, as it is, whatever it says.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0007755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link.as_bytes()[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// An entry with a long name, in the POSIX way.
fn long_entry(name: &str, kind: u8) -> Vec<u8> {
    let length = name.len() + 7;
    let record = |total: usize| format!("{total} path={name}\n");
    let total = (length..).find(|total| record(*total).len() == *total).unwrap();
    [entry("x", b'x', "", record(total).as_bytes()), entry("short", kind, "", b"")].concat()
}

fn archive(entries: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.into_iter().flatten().collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Numbers that look random and are the same every time (Knuth's generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn archive(&mut self, target: &Target<'_>) -> Vec<u8> {
        let count = 1 + self.below(8);
        let mut entries = Vec::new();
        for _ in 0..count {
            let name = target.aim(NAMES[self.below(NAMES.len())]);
            let link = target.aim(TARGETS[self.below(TARGETS.len())]);
            let kind = KINDS[self.below(KINDS.len())];
            let content = if kind == b'0' { &b"overwritten"[..] } else { b"" };
            entries.push(entry(&name, kind, &link, content));
        }
        let mut bytes = archive(entries);
        // Some are damaged, too.
        if self.below(4) == 0 {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        bytes
    }
}

/// Unpacks an archive in a step, and as the layer of an image; both end, with nothing outside hurt.
fn meet(target: &Target<'_>, site: &Site, bytes: &[u8]) {
    site.write("x.tar", bytes);
    target.attack(&[], "FROM busybox\nADD x.tar /\nADD x.tar /sub/\nRUN [\"/bin/busybox\", \"ls\", \"-R\", \"/sub\"]\n");
    let ran = Ran::of(&mut site.formwork(&["import", "x.tar", "evil"]));
    target.assert_unhurt(&ran);
    if ran.code == Some(0) {
        target.attack(&[], "FROM evil\nCOPY --from=busybox /bin/busybox /ok/busybox\nRUN [\"/ok/busybox\", \"true\"]\n");
        let directory = site.outside("out");
        target.attack(&["-o", &directory], "FROM evil\n");
        formwork_testing::remove_all(std::path::Path::new(&directory));
    } else {
        assert!(matches!(ran.code, Some(1 | 4)), "{}", ran.stderr);
    }
}

#[test]
fn random_archives_change_nothing_outside() {
    let cases = std::env::var(CASES).ok().and_then(|cases| cases.parse().ok()).unwrap_or(8);
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let mut numbers = Numbers(20_240_131);
        for _ in 0..cases {
            meet(&target, site, &numbers.archive(&target));
        }
    });
}

#[test]
fn chosen_archives_change_nothing_outside() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let host = target.aim("@HOST@");
        let link = |name: &str, to: &str| entry(name, b'2', to, b"");
        let file = |name: &str| entry(name, b'0', "", b"overwritten");
        let chain = (0..60).map(|n| link(&format!("c{n}"), &format!("c{}", n + 1)));
        let chain = chain.chain([link("c60", &host), file("c0/file"), file("c25/file")]);
        let deep = "d/".repeat(500);
        let cases = [
            archive([link("l", &host), file("l/file"), file("l/new")]),
            archive([link("l", &host), entry("h", b'1', "l/file", b""), file("h")]),
            archive([
                link("l", &host),
                link("m", "l"),
                entry("m/empty", b'5', "", b""),
                file("m/empty/x"),
            ]),
            archive([link("l", &host), entry("l", b'5', "", b""), file("l/file")]),
            archive([entry("l", b'5', "", b""), link("l", &host), file("l/file")]),
            archive([link("l", &host), file("l/.wh.file"), file("l/.wh..wh..opq")]),
            archive([file(".wh.."), file(".wh..."), file(".wh..wh..opq"), file("a/.wh..")]),
            archive([
                entry("disk", b'4', "", b""),
                entry("memory", b'3', "", b""),
                entry("pipe", b'6', "", b""),
            ]),
            archive([
                link("loop", "loop"),
                file("loop/x"),
                link("one", "two"),
                link("two", "one"),
                file("one/x"),
            ]),
            archive(chain),
            archive([long_entry(&deep, b'5'), long_entry(&format!("{deep}x"), b'0')]),
            archive([long_entry(&"n".repeat(300), b'0')]),
            archive([long_entry(&format!("{host}/{}", "../".repeat(40)), b'5')]),
        ];
        for bytes in &cases {
            meet(&target, site, bytes);
        }
    });
}

/// The largest resident set of a build until its end, in kilobytes.
fn peak(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs_err::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(number.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

/// Archives that say or become much more than they are.
#[test]
fn lying_lengths_and_bombs_do_not_fill_the_memory() {
    let site = Site::new();
    let mut huge = entry("x", b'x', "", b"");
    huge[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = huge[..148].iter().chain(&huge[156..512]).map(|byte| u32::from(*byte)).sum();
    let sum = sum + 8 * u32::from(b' ');
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    // As a header of names, as the long name of GNU's tar, as a file.
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for kind in [b'x', b'g', b'L', b'K', b'0'] {
        let mut lying = huge.clone();
        lying[156] = kind;
        let sum: u32 =
            lying[..148].iter().chain(&lying[156..512]).map(|byte| u32::from(*byte)).sum();
        lying[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
        lying.resize(1 << 20, b'x');
        cases.push((format!("lying-{}.tar", char::from(kind)), lying));
    }
    // A million empty files are a lot of entries in little space.
    let many: Vec<u8> = (0..30_000).flat_map(|n| entry(&format!("f{n}"), b'0', "", b"")).collect();
    cases.push(("many.tar".to_owned(), archive([many])));
    if let Some(bomb) = bomb() {
        cases.push(("bomb.tar.gz".to_owned(), bomb));
    }
    for (name, bytes) in cases {
        site.write(&name, bytes);
        let peak = peak(site.build_command(&[], &format!("FROM scratch\nADD {name} /\n")));
        assert!(peak < MEMORY, "{name}: {peak} KB");
    }
}

/// An archive that is a thousand times smaller than what is in it.
fn bomb() -> Option<Vec<u8>> {
    const SIZE: usize = 600 << 20;
    let mut header = entry("bomb", b'0', "", b"");
    header[124..136].copy_from_slice(format!("{SIZE:011o}\0").as_bytes());
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut gzip = Command::new(program("gzip")?)
        .arg("-1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = gzip.stdin.take()?;
    let writer = std::thread::spawn(move || {
        stdin.write_all(&header)?;
        let zeros = vec![0; 1 << 20];
        (0..SIZE >> 20).try_for_each(|_| stdin.write_all(&zeros))?;
        stdin.write_all(&[0; 1024])
    });
    let output = gzip.wait_with_output().ok()?;
    writer.join().unwrap().ok()?;
    Some(output.stdout)
}
