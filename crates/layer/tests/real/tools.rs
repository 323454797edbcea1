//! What other tools write is read, and what is written is read by other tools.

use std::path::Path;
use std::process::Command;

use formwork_fs::RootDir;
use formwork_layer::tree::{Metadata, Node};
use formwork_layer::{
    Applied, ApplyOptions, Compression, LayerError, PackOptions, Packed, Tree, apply, index, pack,
};

use crate::support::{
    dir, entry, file, has_program, is_root, one_of_everything, path, scan, temporary, tree,
};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn unpack(blob: &Path) -> (tempfile::TempDir, Applied) {
    let directory = temporary();
    let root = RootDir::open(directory.path()).unwrap();
    let blob = fs_err::File::open(blob).unwrap();
    let applied = apply(blob, &root, &ApplyOptions::default()).unwrap();
    (directory, applied)
}

fn write(blob: &Path, tree: &Tree, compression: Compression) -> Packed {
    let sink = fs_err::File::create(blob).unwrap();
    pack(tree, &PackOptions { compression, ..PackOptions::default() }, sink).unwrap()
}

/// The tree of what another program unpacked. Programs differ in what they do about the root.
fn scan_without_root(directory: &Path) -> Tree {
    let entries = scan(directory).into_entries();
    Tree::new(entries.into_iter().filter(|entry| !entry.path.is_root()).collect()).unwrap()
}

fn without_nanoseconds(tree: Tree) -> Tree {
    let mut entries = tree.into_entries();
    entries.iter_mut().for_each(|entry| entry.metadata.mtime.nanoseconds = 0);
    Tree::new(entries).unwrap()
}

#[test]
fn gnu_tar_unpacks_what_we_pack() {
    if !is_root("owners and devices") || !has_program("tar") {
        return;
    }
    let tree = tree(one_of_everything());
    let place = temporary();
    let blob = place.path().join("layer.tar");
    for compression in [Compression::None, Compression::default()] {
        write(&blob, &tree, compression);
        let target = temporary();
        run(
            "tar",
            &["-xpf", text(&blob), "-C", text(target.path()), "--numeric-owner", "--xattrs"],
        );
        assert_eq!(scan_without_root(target.path()), tree);
    }
}

#[test]
fn we_unpack_what_gnu_tar_packs() {
    if !is_root("owners and devices") || !has_program("tar") {
        return;
    }
    let (source, place) = (temporary(), temporary());
    let blob = place.path().join("layer.tar");
    // What is made here only stands for devices, which another program takes for sockets.
    write(&blob, &tree(one_of_everything()), Compression::None);
    run("tar", &["-xpf", text(&blob), "-C", text(source.path()), "--numeric-owner", "--xattrs"]);
    let wanted = without_nanoseconds(tree(one_of_everything()));
    for format in ["gnu", "posix", "oldgnu"] {
        let arguments = [
            "-cf",
            text(&blob),
            "-C",
            text(source.path()),
            "--format",
            format,
            "--sort=name",
            "--numeric-owner",
            ".",
        ];
        run("tar", &arguments);
        let (target, applied) = unpack(&blob);
        assert_eq!(without_nanoseconds(scan_without_root(target.path())), wanted, "{format}");
        let entries = applied.tree.into_entries();
        let below_root = entries.into_iter().filter(|entry| !entry.path.is_root()).collect();
        assert_eq!(without_nanoseconds(Tree::new(below_root).unwrap()), wanted, "{format}");
    }
}

#[test]
fn we_read_sparse_files_of_gnu_tar() {
    if !has_program("tar") {
        return;
    }
    let source = temporary();
    let at = source.path().join("sparse");
    let mut content = vec![0u8; 3_000_000];
    for (place, byte) in [(0, 1), (700_000, 2), (700_001, 3), (2_999_999, 4)] {
        content[place] = byte;
    }
    {
        use std::os::unix::fs::FileExt;
        let sparse = fs_err::File::create(&at).unwrap();
        sparse.file().set_len(3_000_000).unwrap();
        for (place, byte) in content.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            sparse.file().write_all_at(&[*byte], place as u64).unwrap();
        }
    }
    for (format, version) in [("gnu", "1.0"), ("posix", "0.0"), ("posix", "0.1"), ("posix", "1.0")]
    {
        let blob = source.path().join("sparse.tar");
        let version = format!("--sparse-version={version}");
        let arguments = [
            "-cf",
            text(&blob),
            "-C",
            text(source.path()),
            "--format",
            format,
            "--sparse",
            &version,
            "sparse",
        ];
        run("tar", &arguments);
        assert!(fs_err::metadata(&blob).unwrap().len() < 100_000, "the archive is not sparse");
        let (target, applied) = unpack(&blob);
        assert!(
            fs_err::read(target.path().join("sparse")).unwrap() == content,
            "{format} {version}"
        );
        assert_eq!(applied.tree.size(), 3_000_000);
    }
}

/// What Python's tarfile sees in an archive, one entry in a line.
const PYTHON_LIST: &str = r#"
import sys, tarfile, hashlib
with tarfile.open(sys.argv[1]) as archive:
    for m in archive:
        name = m.name.encode("utf-8", "surrogateescape")
        link = m.linkname.encode("utf-8", "surrogateescape")
        data = archive.extractfile(m).read() if m.isreg() else b""
        xattrs = sorted((k, v) for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr."))
        print(name.hex(), m.type.decode(), oct(m.mode), m.uid, m.gid, int(m.mtime), m.size,
              link.hex(), m.devmajor, m.devminor, hashlib.sha256(data).hexdigest(), len(xattrs))
"#;

#[test]
fn python_reads_what_we_pack() {
    if !has_program("python3") {
        return;
    }
    let mut entries = one_of_everything();
    let name = formwork_fs::RelPath::new([&b"\xff\xfe-"[..], &[b'x'; 150]].concat()).unwrap();
    entries.push(formwork_layer::tree::Entry { path: name, ..file("", "binary name") });
    let tree = tree(entries);
    let place = temporary();
    let blob = place.path().join("layer.tar.gz");
    write(&blob, &tree, Compression::default());
    let listing = run("python3", &["-c", PYTHON_LIST, text(&blob)]);
    let expected: Vec<String> = tree.entries().iter().map(expected_line).collect();
    assert_eq!(listing.lines().collect::<Vec<_>>(), expected);
}

fn expected_line(entry: &formwork_layer::tree::Entry) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (mut size, mut link, mut device, mut content) = (0, &b""[..], (0, 0), Vec::new());
    let kind = match &entry.node {
        Node::File(file) => {
            (size, content) = (file.size, file.read(1 << 30).unwrap().unwrap());
            '0'
        }
        Node::HardLink { target } => {
            link = target.as_bytes();
            '1'
        }
        Node::Symlink { target } => {
            link = target;
            '2'
        }
        Node::CharDevice { major, minor } => {
            device = (*major, *minor);
            '3'
        }
        Node::BlockDevice { major, minor } => {
            device = (*major, *minor);
            '4'
        }
        Node::Directory { .. } => '5',
        Node::Fifo => '6',
        Node::Whiteout => panic!("not in this test"),
    };
    let Metadata { mode, uid, gid, mtime, .. } = &entry.metadata;
    let hash = formwork_oci::Digest::of(&content);
    let (name, link) = (hex(entry.path.as_bytes()), hex(link));
    let (seconds, hash) = (mtime.seconds, hash.hex());
    format!(
        "{name} {kind} 0o{mode:o} {uid} {gid} {seconds} {size} {link} {} {} {hash} 0",
        device.0, device.1
    )
}

/// An archive with everything that Python can write, in its own way.
const PYTHON_WRITE: &str = r#"
import io, sys, tarfile
formats = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
archive = tarfile.open(sys.argv[1], "w", format=formats[sys.argv[2]])
def add(name, kind=tarfile.REGTYPE, data=b"", **fields):
    m = tarfile.TarInfo(name)
    m.type, m.size, m.mtime = kind, len(data), 1600000000
    m.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(m, key, value)
    archive.addfile(m, io.BytesIO(data))
add("dir", tarfile.DIRTYPE, mode=0o1777)
add("dir/file", data=b"content", uid=1000, gid=2000, mode=0o4755)
add("dir/link", tarfile.LNKTYPE, linkname="dir/file")
add("dir/symlink", tarfile.SYMTYPE, linkname="../elsewhere")
add("dir/fifo", tarfile.FIFOTYPE)
add("dir/char", tarfile.CHRTYPE, devmajor=1, devminor=3)
add("dir/uml\u00e4ut", data=b"x")
if sys.argv[2] != "ustar":
    add("dir/" + "n" * 200, data=b"long")
    add("dir/long-link", tarfile.SYMTYPE, linkname="t" * 300)
    add("dir/owner", data=b"", uid=3000000000, gid=4000000000)
if sys.argv[2] == "pax":
    add("dir/old", data=b"", mtime=-1000000.5)
    add("dir/far", data=b"", mtime=9000000000.25)
    add("dir/xattr", data=b"", pax_headers={"SCHILY.xattr.user.a": "line\nfeed", "SCHILY.xattr.user.b": ""})
archive.close()
"#;

#[test]
fn we_read_what_python_packs() {
    if !has_program("python3") {
        return;
    }
    for format in ["pax", "gnu", "ustar"] {
        let place = temporary();
        let blob = place.path().join("python.tar");
        run("python3", &["-c", PYTHON_WRITE, text(&blob), format]);
        let blob = fs_err::read(&blob).unwrap();
        let tree = index(&*blob, &ApplyOptions::default()).unwrap().tree;
        let get = |name: &str| tree.get(&path(name)).unwrap_or_else(|| panic!("{format}: {name}"));
        assert_eq!(get("dir").metadata.mode, 0o1777);
        let Metadata { mode, uid, gid, .. } = get("dir/file").metadata;
        assert_eq!((mode, uid, gid), (0o4755, 1000, 2000));
        assert_eq!(get("dir/link").node, Node::HardLink { target: path("dir/file") });
        assert_eq!(get("dir/char").node, Node::CharDevice { major: 1, minor: 3 });
        assert_eq!(get("dir/uml\u{e4}ut").node, file("", "x").node);
        if format != "ustar" {
            assert_eq!(get(&format!("dir/{}", "n".repeat(200))).node, file("", "long").node);
            let target = "t".repeat(300).into_bytes().into();
            assert_eq!(get("dir/long-link").node, Node::Symlink { target });
            let owner = &get("dir/owner").metadata;
            assert_eq!((owner.uid, owner.gid), (3_000_000_000, 4_000_000_000));
        }
        if format == "pax" {
            let time = |name: &str| {
                let mtime = get(name).metadata.mtime;
                (mtime.seconds, mtime.nanoseconds)
            };
            assert_eq!(time("dir/old"), (-1_000_001, 500_000_000));
            assert_eq!(time("dir/far"), (9_000_000_000, 250_000_000));
            let xattrs = &get("dir/xattr").metadata.xattrs;
            assert_eq!(xattrs.get(b"user.a"), Some(&b"line\nfeed"[..]));
            assert_eq!(xattrs.get(b"user.b"), Some(&b""[..]));
        }
    }
}

/// An OCI image layout with one image of some layers, as skopeo and umoci read it.
fn layout(at: &Path, layers: &[(Packed, Vec<u8>, Compression)]) {
    use formwork_oci::Digest;
    let blobs = at.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).unwrap();
        format!(r#""digest":"{digest}","size":{}"#, bytes.len())
    };
    let list = |items: Vec<String>| items.join(",");
    let diff_ids =
        list(layers.iter().map(|(packed, ..)| format!("\"{}\"", packed.diff_id)).collect());
    let config = put(format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#).as_bytes());
    let layers = list(
        layers
            .iter()
            .map(|(_, blob, compression)| {
                let suffix = match compression {
                    Compression::None => "",
                    Compression::Gzip { .. } => "+gzip",
                    Compression::Zstd { .. } => "+zstd",
                };
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar{suffix}",{}}}"#,
                    put(blob)
                )
            })
            .collect(),
    );
    let manifest = put(format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{layers}]}}"#).as_bytes());
    let annotations = r#""annotations":{"org.opencontainers.image.ref.name":"test"}"#;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest},{annotations}}}]}}"#
    );
    fs_err::write(at.join("index.json"), index).unwrap();
    fs_err::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Two layers of which the second changes the first in every way, and what they make.
fn two_layers() -> ([Tree; 2], Tree) {
    let mut lower = one_of_everything();
    lower.extend([
        dir("hidden"),
        file("hidden/a", "1"),
        dir("kept"),
        file("kept/a", "1"),
        file("gone", "1"),
    ]);
    let upper = [
        entry("hidden", Node::Directory { opaque: true }),
        file("hidden/b", "2"),
        dir("kept"),
        file("kept/b", "2"),
        entry("gone", Node::Whiteout),
        entry("fifo", Node::Whiteout),
    ];
    let layers = [tree(lower), tree(upper)];
    let merged = formwork_layer::Stack::new(&layers).merge();
    (layers, merged)
}

fn packed(tree: &Tree, compression: Compression) -> (Packed, Vec<u8>, Compression) {
    let mut blob = Vec::new();
    let options = PackOptions { compression, ..PackOptions::default() };
    (pack(tree, &options, &mut blob).unwrap(), blob, compression)
}

#[test]
fn umoci_unpacks_our_layers() {
    if !is_root("owners and devices") || !has_program("umoci") {
        return;
    }
    let (layers, merged) = two_layers();
    let place = temporary();
    let image = place.path().join("image");
    layout(&image, &layers.map(|layer| packed(&layer, Compression::default())));
    let bundle = place.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:test", text(&image)), text(&bundle)]);
    assert_eq!(scan_without_root(&bundle.join("rootfs")), merged);
}

#[test]
fn skopeo_copies_our_layers() {
    if !has_program("skopeo") {
        return;
    }
    let (layers, _) = two_layers();
    for compression in [Compression::None, Compression::default(), Compression::ZSTD] {
        let place = temporary();
        let image = place.path().join("image");
        let layers: Vec<_> = layers.iter().map(|layer| packed(layer, compression)).collect();
        layout(&image, &layers);
        let copy = place.path().join("copy");
        let (from, to) = (format!("oci:{}:test", text(&image)), format!("dir:{}", text(&copy)));
        // Decompressing makes skopeo verify the diff IDs.
        run("skopeo", &["--insecure-policy", "copy", "--dest-decompress", &from, &to]);
        for (packed, ..) in &layers {
            let plain = fs_err::read(copy.join(packed.diff_id.0.hex())).unwrap();
            assert_eq!(formwork_oci::Digest::of(&plain), packed.diff_id.0);
        }
    }
}

#[test]
fn gzip_and_zstd_accept_what_we_compress() {
    let source = tree([file("large", vec![7; 5 << 20]), file("small", "x")]);
    let place = temporary();
    for (program, compression) in [("gzip", Compression::default()), ("zstd", Compression::ZSTD)] {
        if has_program(program) {
            let blob = place.path().join(format!("{program}.gz"));
            write(&blob, &source, compression);
            run(program, &["-t", text(&blob)]);
        }
    }
}

#[test]
fn a_cut_blob_is_damaged() {
    let (_, blob, _) = packed(&tree([file("a", vec![7; 100_000])]), Compression::ZSTD);
    let error = index(&blob[..blob.len() / 2], &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, LayerError::Compression { format: "zstd", .. }), "{error}");
}
