//! Measures this crate on real data.
//!
//! ```text
//! cargo run --release -p formwork-layer --example measure -- scan DIRECTORY [CACHE]
//! cargo run --release -p formwork-layer --example measure -- apply BLOB NEW_DIRECTORY [THREADS]
//! cargo run --release -p formwork-layer --example measure -- index BLOB
//! cargo run --release -p formwork-layer --example measure -- copy DIRECTORY NEW_DIRECTORY
//! cargo run --release -p formwork-layer --example measure -- pack DIRECTORY [none|gzip:N|zstd:N] [THREADS] [BLOB]
//! ```
//!
//! Each line says what was done, how long it took, and how fast that is.
#![expect(clippy::print_stdout, reason = "this program's output is the figures")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use formwork_fs::{RelPath, RootDir, Verdict};
use formwork_layer::compose::{Composer, CopyOptions, select};
use formwork_layer::tree::Origin;
use formwork_layer::{
    Applied, ApplyOptions, Compression, MaterializeOptions, PackOptions, Stack, StatCache, Tree,
    apply, index, materialize, pack, scan_context,
};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &*args {
        ["scan", directory] => measure_scan(directory, None),
        ["scan", directory, cache] => measure_scan(directory, Some(cache)),
        ["apply", blob, directory] => measure_apply(blob, directory, threads()),
        ["apply", blob, directory, threads] => measure_apply(blob, directory, threads.parse()?),
        ["index", blob] => measure_index(blob),
        ["copy", from, to] => measure_copy(from, to),
        ["pack", directory, rest @ ..] => measure_pack(directory, rest),
        _ => Err("see the head of the source for what it can do".into()),
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs something and prints how long it took.
fn timed<T>(
    what: &str,
    bytes: impl Fn(&T) -> u64,
    run: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let start = Instant::now();
    let result = run()?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = bytes(&result) as f64 / 1e6;
    println!(
        "{what:20} {:8.1} ms {megabytes:8.1} MB {:8.0} MB/s",
        seconds * 1e3,
        megabytes / seconds
    );
    Ok(result)
}

fn scan(directory: &str, cache: Option<&mut StatCache>) -> Result<Tree, Box<dyn Error>> {
    let origin = Origin::context(RootDir::open(directory)?);
    let everything = |_: &RelPath, _: bool| Verdict::Keep;
    Ok(scan_context(&origin, &everything, cache, threads(), &|_| {})?)
}

fn measure_scan(directory: &str, cache: Option<&str>) -> Outcome {
    let root = RootDir::open(directory)?;
    let everything = |_: &RelPath, _: bool| Verdict::Keep;
    timed("walk", |_| 0, || Ok(formwork_fs::walk(&root, &everything, threads())?))?;
    let tree = timed("scan", Tree::size, || scan(directory, None))?;
    println!("{} entries", tree.entries().len());
    if let Some(path) = cache {
        timed("scan, cold cache", Tree::size, || {
            scan(directory, Some(&mut StatCache::load(path)))
        })?;
        for _ in 0..5 {
            timed("scan, warm cache", Tree::size, || {
                scan(directory, Some(&mut StatCache::load(path)))
            })?;
        }
    }
    let encoded = timed("encode", |bytes: &Vec<u8>| bytes.len() as u64, || Ok(tree.encode()))?;
    timed("decode", |_| encoded.len() as u64, || Ok(Tree::decode(&encoded)?))?;
    timed("digest", |_| encoded.len() as u64, || Ok(tree.digest()))?;
    Ok(())
}

fn measure_pack(directory: &str, options: &[&str]) -> Outcome {
    let compression = match options.first().map(|name| name.split_once(':').unwrap_or((name, "3")))
    {
        None => Compression::default(),
        Some(("none", _)) => Compression::None,
        Some(("gzip", level)) => Compression::Gzip { level: level.parse()? },
        Some(("zstd", level)) => Compression::Zstd { level: level.parse()? },
        Some(_) => return Err("none, gzip:N or zstd:N".into()),
    };
    let threads = options.get(1).map_or(Ok(threads()), |count| count.parse())?;
    let options_ = PackOptions { compression, threads, ..PackOptions::default() };
    let tree = scan(directory, None)?;
    for _ in 0..3 {
        let sink: Box<dyn Write> = match options.get(2) {
            Some(path) => Box::new(BufWriter::new(create(Path::new(path))?)),
            None => Box::new(io::sink()),
        };
        let packed = timed(
            "pack",
            |packed: &formwork_layer::Packed| packed.uncompressed_size,
            || Ok(pack(&tree, &options_, sink)?),
        )?;
        let ratio = packed.uncompressed_size as f64 / packed.size as f64;
        println!(
            "{} bytes, ratio {ratio:.3}, {}; peak {}",
            packed.size,
            packed.digest.short(),
            peak()?
        );
    }
    Ok(())
}

fn measure_apply(blob: &str, directory: &str, threads: usize) -> Outcome {
    fs_err::create_dir(directory)?;
    let root = RootDir::open(directory)?;
    let blob = fs_err::File::open(blob)?;
    let options = ApplyOptions { threads, ..ApplyOptions::default() };
    let applied = timed(
        "apply",
        |applied: &Applied| applied.uncompressed_size,
        || Ok(apply(blob, &root, &options)?),
    )?;
    println!("{} entries, {}; peak {}", applied.tree.entries().len(), applied.diff_id, peak()?);
    Ok(())
}

fn measure_index(blob: &str) -> Outcome {
    let blob = fs_err::File::open(blob)?;
    timed(
        "index",
        |applied: &Applied| applied.uncompressed_size,
        || Ok(index(blob, &ApplyOptions::default())?),
    )?;
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    Ok(fs_err::File::create(path)?.into_parts().0)
}

/// What COPY of a context costs, and COPY --from of what came out.
fn measure_copy(from: &str, to: &str) -> Outcome {
    let context = scan(from, None)?;
    let compose = |source: &Tree| -> Result<Tree, Box<dyn Error>> {
        let source = Stack::new([source]);
        let mut composer = Composer::new(Stack::default());
        for selected in select(&source, b".")? {
            let destination = RelPath::new("usr/src")?;
            composer.copy(&source, &selected, &destination, &CopyOptions::default())?;
        }
        Ok(composer.finish()?)
    };
    let layer = timed("compose", Tree::size, || compose(&context))?;
    timed("digest", Tree::size, || Ok(layer.digest()).map(|_| layer.clone()))?;
    timed("merge", Tree::size, || Ok(Stack::new([&context, &layer]).merge()))?;
    let make = |what, tree: &Tree, name: &str| {
        let path = Path::new(to).join(name);
        fs_err::create_dir_all(&path)?;
        let root = RootDir::open(&path)?;
        let options = MaterializeOptions { hard_links: true, ..MaterializeOptions::default() };
        timed(what, |_| tree.size(), || Ok(materialize(tree, &root, &options)?))?;
        Ok::<_, Box<dyn Error>>(tree.clone().with_bytes(&Origin::layer(RootDir::open(path)?)))
    };
    let made = make("materialize, copies", &layer, "copied")?;
    let again = timed("compose", Tree::size, || compose(&made))?;
    make("materialize, links", &again, "linked")?;
    Ok(())
}

/// The most memory that this process has had at once.
fn peak() -> io::Result<String> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    Ok(line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
}
