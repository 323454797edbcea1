//! The reader and the writer together, and the reader against archives that somebody made up.

use std::io::Cursor;

use formwork_fs::{Timestamp, Xattrs};
use formwork_testing::archive::{archive, made, pax, pax_of_kind};
use proptest::prelude::*;

use super::*;

/// All entries of an archive with the content of the files.
fn read(bytes: &[u8]) -> Result<Vec<(Entry<'static>, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        // An odd size, so that no boundary is where a block ends.
        let mut buffer = [0; 97];
        loop {
            let count = reader.read_content(&mut buffer)?;
            if count == 0 {
                break;
            }
            content.extend_from_slice(&buffer[..count]);
            assert!(content.len() < 1 << 20, "endless content");
        }
        entries.push((entry, content));
    }
    assert!(reader.finish()?.is_empty());
    Ok(entries)
}

/// The names of an archive's entries, with the content of files.
fn list(bytes: &[u8]) -> String {
    let show = |(entry, content): &(Entry<'static>, Vec<u8>)| {
        let name = String::from_utf8_lossy(&entry.name);
        match &entry.node {
            Node::File { size } => {
                assert_eq!(*size, content.len() as u64);
                format!("{name}={}", String::from_utf8_lossy(content))
            }
            Node::HardLink { target } => {
                format!("{name}->{}", String::from_utf8_lossy(target))
            }
            Node::Symlink { target } => {
                format!("{name}@{}", String::from_utf8_lossy(target))
            }
            Node::Directory => format!("{name}:dir"),
            other => format!("{name}:{other:?}"),
        }
    };
    match read(bytes) {
        Ok(entries) => entries.iter().map(show).collect::<Vec<_>>().join(" "),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn old_and_odd_headers_are_read() {
    let long = "n".repeat(300);
    let gnu = b"ustar  \0";
    for (name, bytes, expected) in [
        ("a plain file", archive([made(b'0', "a", "text")]), "a=text"),
        ("a v7 file", archive([made(0, "a", "text").patch(257, [0; 80])]), "a=text"),
        ("a v7 directory", archive([made(0, "a/", "").patch(257, [0; 80])]), "a/:dir"),
        ("a contiguous file", archive([made(b'7', "a", "text")]), "a=text"),
        ("no end at all", made(b'0', "a", "text").bytes(), "a=text"),
        ("half an end", [made(b'0', "a", "text").bytes(), vec![0; 512]].concat(), "a=text"),
        ("something after the end", [archive([made(b'0', "a", "x")]), vec![7; 9]].concat(), "a=x"),
        ("nothing", Vec::new(), ""),
        (
            "a GNU long name",
            archive([made(b'L', "x", format!("{long}\0")), made(b'0', "a", "x")]),
            &format!("{long}=x"),
        ),
        (
            "a GNU long link",
            archive([made(b'K', "x", format!("{long}\0")), made(b'2', "a", "")]),
            &format!("a@{long}"),
        ),
        ("a prefix", archive([made(b'0', "a", "x").patch(345, "some/prefix")]), "some/prefix/a=x"),
        (
            "a star prefix",
            archive([made(b'0', "a", "x")
                .patch(345, [b'p'; 131])
                .patch(476, [b'1'; 24])
                .patch(508, "tar\0")]),
            &format!("{}/a=x", "p".repeat(131)),
        ),
        (
            "times in GNU's place",
            archive([made(b'0', "a", "x")
                .patch(257, gnu)
                .patch(345, "00000000001\x0000000000002\0")]),
            "a=x",
        ),
        (
            "a prefix in GNU's place",
            archive([made(b'0', "a", "x").patch(257, gnu).patch(345, "some/prefix")]),
            "some/prefix/a=x",
        ),
        (
            "a link with a size and no data",
            archive([made(b'1', "a", "").link_name("b").size(1000), made(b'0', "c", "x")]),
            "a->b c=x",
        ),
        (
            "a directory with a size",
            archive([made(b'5', "a/", "").size(1000), made(b'0', "c", "x")]),
            "a/:dir c=x",
        ),
        (
            "a PAX size for a link",
            archive([
                pax(&[("size", b"1000")]),
                made(b'2', "a", "").link_name("b"),
                made(b'0', "c", "x"),
            ]),
            "a@b c=x",
        ),
        (
            "a kind that nobody knows, with data",
            archive([made(b'V', "a", "data"), made(b'0', "c", "x")]),
            "a:Other { kind: 86 } c=x",
        ),
        ("a signed check sum", archive([made(b'0', "\u{fc}", "x")]), "\u{fc}=x"),
    ] {
        assert_eq!(list(&bytes), expected, "{name}");
    }
}

#[test]
fn check_sums_over_signed_bytes_are_accepted() {
    let mut bytes = made(b'0', "\u{fc}", "x").bytes();
    bytes[148..156].fill(b' ');
    let sum: i64 = bytes[..512].iter().map(|byte| i64::from(byte.cast_signed())).sum();
    bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    assert_eq!(list(&bytes), "\u{fc}=x");
}

#[test]
fn pax_records_win_over_headers() {
    let of = |records: &[(&str, &[u8])]| list(&archive([pax(records), made(b'0', "a", "text")]));
    for (name, records, expected) in [
        ("a path", &[("path", &b"p/q"[..])][..], "p/q=text"),
        ("the last of two paths", &[("path", b"p"), ("path", b"q")], "q=text"),
        ("a path taken back", &[("path", b"p"), ("path", b"")], "a=text"),
        (
            "an attribute with a line feed before the path",
            &[("SCHILY.xattr.user.a", b"\n5 x\n"), ("path", b"q")],
            "q=text",
        ),
        ("a name that is no UTF-8", &[("path", b"\xff")], "\u{fffd}=text"),
    ] {
        assert_eq!(of(records), expected, "{name}");
    }
    // The size of the header lies: what a reader believes decides what it takes for a header.
    for size in [0, 999_999] {
        let smuggled = archive([
            pax(&[("size", b"512")]),
            made(b'0', "a", made(b'0', "smuggled", "").bytes()).size(size),
            made(b'0', "b", "x"),
        ]);
        assert_eq!(read(&smuggled).unwrap().len(), 2, "{size}");
    }
}

#[test]
fn gnu_long_names_win_over_pax_paths() {
    let long = made(b'L', "x", "gnu\0");
    let both = archive([long, pax(&[("path", b"pax")]), made(b'0', "a", "")]);
    assert_eq!(list(&both), "gnu=");
}

#[test]
fn global_records_are_passed_over_as_go_does() {
    let global = pax_of_kind(b'g', &[("comment", b"0123abcd"), ("path", b"evil"), ("uid", b"7")]);
    let bytes = archive([global, made(b'0', "a", "x"), made(b'0', "b", "y")]);
    let entries = read(&bytes).unwrap();
    assert_eq!(list(&bytes), "a=x b=y");
    assert!(entries.iter().all(|(entry, _)| entry.uid == 0));
}

#[test]
fn owners_and_times_have_their_full_range() {
    let records: &[(&str, &[u8])] =
        &[("uid", b"2147483647"), ("gid", b"4294967294"), ("mtime", b"-1.5"), ("atime", b"9")];
    let (entry, _) = read(&archive([pax(records), made(b'0', "a", "")])).unwrap().remove(0);
    let mtime = Timestamp { seconds: -2, nanoseconds: 500_000_000 };
    assert_eq!((entry.uid, entry.gid, entry.mtime), (2_147_483_647, 4_294_967_294, mtime));
    let base_256 = made(b'0', "a", "").patch(108, b"\x80\0\0\0\x80\0\0\0").patch(136, [0xff; 12]);
    let (entry, _) = read(&archive([base_256])).unwrap().remove(0);
    assert_eq!((entry.uid, entry.mtime.seconds), (1 << 31, -1));
}

/// The content of a sparse file whose data is "AB" at 1000 and "C" at 3000, of 5000 bytes.
fn sparse_content() -> Vec<u8> {
    let mut content = vec![0; 5000];
    content[1000..1002].copy_from_slice(b"AB");
    content[3000] = b'C';
    content
}

#[test]
fn sparse_files_of_all_formats_are_read() {
    let octal = |number: u64| format!("{number:011o}\0").into_bytes();
    let old = |pairs: &[(u64, u64)]| -> Vec<u8> {
        pairs
            .iter()
            .flat_map(|(offset, length)| [octal(*offset), octal(*length)].concat())
            .collect()
    };
    let gnu = |data: &[u8]| made(b'S', "a", data).patch(257, b"ustar  \0").patch(483, octal(5000));
    let extended = {
        // The first four pieces are in the header, the fifth in a block of its own.
        let head = gnu(b"ABC")
            .patch(386, old(&[(1000, 1), (1001, 1), (3000, 1), (4000, 0)]))
            .patch(482, [1]);
        let mut bytes = head.bytes();
        let mut block = old(&[(5000, 0)]);
        block.resize(512, 0);
        bytes.splice(512..512, block);
        bytes
    };
    let map_1_0 = {
        let mut data = b"2\n1000\n2\n3000\n1\n".to_vec();
        data.resize(512, 0);
        [data, b"ABC".to_vec()].concat()
    };
    let version = |major: &'static [u8], minor: &'static [u8]| {
        [
            ("GNU.sparse.major", major),
            ("GNU.sparse.minor", minor),
            ("GNU.sparse.name", &b"named"[..]),
            ("GNU.sparse.realsize", b"5000"),
        ]
    };
    let v0_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"1000"),
        ("GNU.sparse.numbytes", b"2"),
        ("GNU.sparse.offset", b"3000"),
        ("GNU.sparse.numbytes", b"1"),
    ];
    let v0_1 = [&version(b"0", b"1")[..], &[("GNU.sparse.map", b"1000,2,3000,1")]].concat();
    for (name, bytes, expected_name) in [
        ("old", gnu(b"ABC").patch(386, old(&[(1000, 2), (3000, 1)])).bytes(), "a"),
        ("old with another block", extended, "a"),
        ("PAX 0.0", [pax(v0_0).bytes(), made(b'0', "a", "ABC").bytes()].concat(), "a"),
        ("PAX 0.1", [pax(&v0_1).bytes(), made(b'0', "a", "ABC").bytes()].concat(), "named"),
        (
            "PAX 1.0",
            [pax(&version(b"1", b"0")).bytes(), made(b'0', "a", map_1_0).bytes()].concat(),
            "named",
        ),
    ] {
        let both = [bytes, archive([made(b'0', "next", "x")])].concat();
        let entries = read(&both).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(entries[0].0.name, expected_name.as_bytes(), "{name}");
        assert_eq!(entries[0].1, sparse_content(), "{name}");
        assert_eq!(&*entries[1].0.name, b"next", "{name}");
    }
}

#[test]
fn a_sparse_file_of_any_size_takes_no_memory() {
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.map", b"0,1"),
        ("GNU.sparse.realsize", b"9223372036854775807"),
    ];
    let bytes = archive([pax(records), made(b'0', "a", "A")]);
    let mut reader = Reader::new(&*bytes);
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!(entry.node, Node::File { size: i64::MAX as u64 });
    let mut buffer = [7; 100];
    assert_eq!(reader.read_content(&mut buffer).unwrap(), 1);
    assert_eq!(reader.read_content(&mut buffer).unwrap(), 100);
    assert_eq!(buffer, [0; 100]);
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn hostile_archives_are_refused() {
    let gnu = b"ustar  \0";
    let no_check_sum = {
        let mut bytes = made(b'0', "a", "").bytes();
        bytes[0] ^= 1;
        bytes
    };
    let sparse = |map: &'static [u8], size: &'static [u8]| {
        let records: &[(&str, &[u8])] = &[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", map),
            ("GNU.sparse.realsize", size),
        ];
        archive([pax(records), made(b'0', "a", "ABC")])
    };
    let endless_map = archive([
        pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]),
        made(b'0', "a", vec![b'1'; 2 << 20]),
    ]);
    for (name, bytes, problem) in [
        ("no tar at all", vec![b'x'; 5000], "check sum"),
        ("half a header", vec![b'x'; 100], "breaks off"),
        ("a wrong check sum", no_check_sum, "check sum"),
        ("content that breaks off", made(b'0', "a", "").size(1 << 32).bytes(), "breaks off"),
        ("a record that breaks off", made(b'x', "a", "").size(1000).bytes(), "breaks off"),
        ("a huge record", made(b'x', "a", "").size(2 << 20).bytes(), "larger than one megabyte"),
        ("a huge global record", made(b'g', "a", "").size(2 << 20).bytes(), "larger than"),
        ("a huge name", made(b'L', "a", "").size(7 << 30).bytes(), "larger than one megabyte"),
        ("a negative size", made(b'0', "a", "").patch(124, [0xff; 12]).bytes(), "negative"),
        ("a size that is no number", made(b'0', "a", "").patch(124, "hello").bytes(), "number"),
        (
            "a negative PAX size",
            archive([pax(&[("size", b"-1")]), made(b'0', "a", "")]),
            "negative",
        ),
        ("a negative owner", made(b'0', "a", "").patch(108, [0xff; 8]).bytes(), "owner's number"),
        (
            "an owner beyond 32 bits",
            archive([pax(&[("uid", b"4294967296")]), made(b'0', "a", "")]),
            "owner's number",
        ),
        ("a bad PAX record", archive([made(b'x', "a", "99 x"), made(b'0', "a", "")]), "PAX record"),
        ("a PAX path with NUL", archive([pax(&[("path", b"a\0b")]), made(b'0', "a", "")]), "NUL"),
        ("a header after zeros", [vec![0; 512], made(b'0', "a", "").bytes()].concat(), "goes on"),
        ("a sparse map in no order", sparse(b"5,1,0,2", b"10"), "sparse"),
        ("a sparse map beyond the file", sparse(b"0,3", b"2"), "sparse"),
        ("a sparse map of less data", sparse(b"0,2", b"10"), "sparse"),
        (
            "a sparse map that overflows",
            sparse(b"9223372036854775807,3", b"9223372036854775807"),
            "sparse",
        ),
        ("a sparse map of an odd length", sparse(b"0,3,5", b"10"), "sparse"),
        ("a negative sparse size", sparse(b"0,3", b"-5"), "negative"),
        ("an endless sparse map", endless_map, "larger than one megabyte"),
        ("old sparse without GNU's mark", made(b'S', "a", "").bytes(), "sparse"),
        (
            "old sparse with endless blocks",
            [made(b'S', "a", "").patch(257, gnu).patch(482, [1]).bytes(), vec![1; 4 << 20]]
                .concat(),
            "sparse",
        ),
        (
            "a device beyond 32 bits",
            made(b'3', "a", "").patch(329, b"\x80\0\0\x01\0\0\0\0").bytes(),
            "device",
        ),
    ] {
        let answer = list(&bytes);
        assert!(answer.starts_with("error: ") && answer.contains(problem), "{name}: {answer}");
    }
}

/// An entry with an owner and a time of its own.
fn entry<'a>(name: &'a [u8], node: Node<'a>) -> Entry<'a> {
    let mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 5 };
    Entry { uid: 1000, gid: 2000, mtime, ..Entry::new(name, node, 0o4755) }
}

#[test]
fn extremes_come_back() {
    let long = vec!["x".repeat(200); 20].join("/").into_bytes();
    let binary = [&b"\xff\xfe\n="[..], &[b'x'; 120]].concat();
    let huge = Entry {
        uid: u32::MAX - 1,
        gid: 2_097_152,
        mtime: Timestamp { seconds: -5_000_000_000, nanoseconds: 1 },
        ..entry(b"huge", Node::File { size: 1 << 40 })
    };
    let far = Timestamp { seconds: 1 << 40, nanoseconds: 0 };
    let (empty, link) = (Node::File { size: 0 }, Node::Symlink { target: (&*long).into() });
    for entry in [
        entry(&long, empty.clone()),
        entry(b"l", link),
        huge,
        entry(&binary, empty.clone()),
        Entry { mtime: far, ..entry(b"far", empty) },
    ] {
        let mut bytes = Vec::new();
        put_header(&mut bytes, &entry);
        assert_eq!(Reader::new(&*bytes).next_entry().unwrap().unwrap(), entry);
    }
}

#[test]
fn pax_is_written_only_where_ustar_cannot_hold_it() {
    let blocks = |entry: &Entry<'_>| {
        let mut bytes = Vec::new();
        put_header(&mut bytes, entry);
        bytes.len() / BLOCK
    };
    let deep = format!("{}/{}", ["d"; 70].join("/"), "f".repeat(100)).into_bytes();
    let file = |size| Entry::new(&deep, Node::File { size }, 0o644);
    assert_eq!(blocks(&file(0o77_777_777_777)), 1);
    assert_eq!(blocks(&file(0o100_000_000_000)), 3);
    assert_eq!(blocks(&Entry { uid: 1 << 21, ..file(0) }), 3);
    assert_eq!(blocks(&entry(b"fraction", Node::Directory)), 3);
}

#[test]
fn an_archive_is_listed_without_its_contents() {
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.map", b"0,3"),
        ("GNU.sparse.realsize", b"10"),
    ];
    let bytes = archive([
        made(b'0', "a", "one"),
        pax(&[("path", b"b"), ("size", b"600")]),
        made(b'0', "ignored", [7; 600]).size(0),
        pax(sparse),
        made(b'0', "s", "ABC"),
        made(b'5', "d/", ""),
    ]);
    let mut reader = Reader::new(Cursor::new(&bytes));
    let mut ranges = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        ranges.push((String::from_utf8(entry.name.into_owned()).unwrap(), reader.content_range()));
        reader.seek_past_content().unwrap();
    }
    assert_eq!(
        ranges,
        [
            ("a".to_owned(), Some(512..515)),
            ("b".to_owned(), Some(2560..3160)),
            ("s".to_owned(), None),
            ("d/".to_owned(), Some(6144..6144)),
        ]
    );
}

fn node() -> impl Strategy<Value = Node<'static>> {
    let target = || prop::collection::vec(1u8..=255, 1..150);
    prop_oneof![
        (0..i64::MAX as u64).prop_map(|size| Node::File { size }),
        Just(Node::Directory),
        target().prop_map(|target| Node::Symlink { target: target.into() }),
        target().prop_map(|target| Node::HardLink { target: target.into() }),
        (0u32..1 << 21, 0u32..1 << 21).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        (0u32..1 << 21, 0u32..1 << 21)
            .prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        Just(Node::Fifo),
    ]
}

proptest! {
    #[test]
    fn nothing_makes_the_reader_panic(
        blocks in prop::collection::vec((0u8..=255, 0usize..512, any::<u8>()), 1..6),
        cut in 0usize..3000,
    ) {
        // Headers with right check sums and one byte changed: deeper than random bytes get.
        let kinds = b"01234567xgLKSV\0";
        let mut bytes = Vec::new();
        for (kind, at, byte) in blocks {
            let kind = kinds[kind as usize % kinds.len()];
            let data = "20 path=abcdefghijk\n10\n5\n5\n";
            bytes.extend(made(kind, "name", data).patch(at.min(500), [byte]).bytes());
        }
        bytes.truncate(cut.max(1));
        let mut reader = Reader::new(&*bytes);
        let mut buffer = [0; 64];
        while let Ok(Some(_)) = reader.next_entry() {
            let _ = reader.read_content(&mut buffer);
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        name in prop::collection::vec(1u8..=255, 1..300),
        node in node(),
        mode in 0u32..0o10000,
        owner: (u32, u32),
        time in (-1i64 << 40..1 << 40, 0u32..1_000_000_000),
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let xattrs: Xattrs = vec![(b"user.a"[..].into(), value.into())];
        let mtime = Timestamp { seconds: time.0, nanoseconds: time.1 };
        let (uid, gid) = owner;
        let (name, xattrs) = (name.into(), xattrs.into());
        let entry = Entry { name, node, mode, uid, gid, mtime, xattrs };
        let mut bytes = Vec::new();
        put_header(&mut bytes, &entry);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        prop_assert_eq!(Reader::new(&*bytes).next_entry().unwrap().unwrap(), entry);
    }
}
