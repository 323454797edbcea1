//! Decompressing a layer, whatever it is compressed with.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use libdeflater::Decompressor;

use super::gzip::{self, HEADER};
use super::{Format, MAGIC_BYTES};
use crate::LayerError;
use crate::flow::{self, Block, Buffer, Pool, Stopped, Unfinished};

/// How much the decoders hand on at a time: large enough to be worth it, small enough to stay in
/// a processor's cache until the next thread looks at it.
const CHUNK: usize = 256 << 10;
/// How much compressed data is read at a time.
const INPUT_BUFFER: usize = 128 << 10;
/// The largest windows that are accepted: 128 MiB, as by the zstd program.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What the dictionary of an xz stream may need, in KiB; `xz -9` needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// How many buffers [`decode`] needs beside those that its receiver holds.
pub(crate) fn buffers(threads: usize) -> usize {
    in_flight(threads) + 2
}

fn in_flight(threads: usize) -> usize {
    threads * 2
}

/// Decompresses a stream and hands on what it holds, piece by piece.
pub(crate) fn decode(
    input: impl Read,
    threads: usize,
    pool: &Pool,
    send: &mut dyn FnMut(Block) -> Result<(), Stopped>,
) -> Result<(), Unfinished> {
    let mut input = Input(input);
    let mut start = read_up_to(&mut input, HEADER)?;
    let format = Format::detect(&start[..start.len().min(MAGIC_BYTES)]);
    if threads > 1 && gzip::member_length(&start).is_some() {
        start = decode_members(&mut input, start, threads, pool, send)?;
        if start.is_empty() {
            return Ok(());
        }
    }
    copy(&mut *decoder(format, start.chain(input))?, format, pool, send)
}

/// What a stream holds, read by one thread; a plain stream as it is.
///
/// # Errors
///
/// Fails where the stream cannot be read, or begins like one of the formats and is none.
pub fn reader<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, LayerError> {
    let mut input = Input(input);
    let start = read_up_to(&mut input, MAGIC_BYTES)?;
    decoder(Format::detect(&start), io::Cursor::new(start).chain(input))
}

fn decoder<'a>(format: Format, input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, LayerError> {
    let input = BufReader::with_capacity(INPUT_BUFFER, input);
    let failed = |source| LayerError::from_decoder(format, source);
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    })
}

/// Decodes members of ours with several threads, for as long as they come; `start` is the header
/// of the first. Returns bytes that are left to be decoded as any other gzip data, before what is
/// left of the input; empty if all is done.
fn decode_members(
    input: &mut Input<impl Read>,
    start: Vec<u8>,
    threads: usize,
    pool: &Pool,
    send: &mut dyn FnMut(Block) -> Result<(), Stopped>,
) -> Result<Vec<u8>, Unfinished> {
    std::thread::scope(|scope| {
        let (give, members) = bounded(in_flight(threads));
        let (done, results) = unbounded();
        let reader = || {
            let (members, done) = (members.clone(), done.clone());
            move || read_members(members, pool, done)
        };
        flow::start_some(scope, threads, reader).map_err(LayerError::Read)?;
        drop((members, done));
        let mut header = start;
        let mut early = BTreeMap::new();
        let (mut given, mut next) = (0, 0);
        loop {
            while given - next < in_flight(threads)
                && let Some(length) = gzip::member_length(&header)
            {
                header.append(&mut read_up_to(input, length - header.len())?);
                if header.len() < length {
                    break;
                }
                // The threads end only when this end of the channel is closed.
                let _ = give.send((given, header));
                given += 1;
                header = read_up_to(input, HEADER)?;
            }
            if next == given {
                return Ok(header);
            }
            let Ok((number, result)) = results.recv() else { return Err(Stopped.into()) };
            early.insert(number, result);
            while let Some((member, contents)) = early.remove(&next) {
                let Some(contents) = contents else {
                    drop(give);
                    early.extend(results);
                    let members = early.into_values().map(|(member, _)| member);
                    return Ok([member]
                        .into_iter()
                        .chain(members)
                        .chain([header])
                        .flatten()
                        .collect());
                };
                send(Arc::new(contents))?;
                next += 1;
            }
        }
    })
}

type Member = Vec<u8>;

/// Decodes each member, unless it is not what it seemed to be.
fn read_members(
    members: Receiver<(usize, Member)>,
    pool: &Pool,
    done: Sender<(usize, (Member, Option<Buffer>))>,
) {
    let mut decompressor = Decompressor::new();
    for (number, member) in members {
        let mut contents = pool.take();
        contents.clear();
        let good = gzip::read_member(&mut decompressor, &member, &mut contents);
        if done.send((number, (member, good.then_some(contents)))).is_err() {
            break;
        }
    }
}

/// Hands on all that a decoder yields.
fn copy(
    mut decoder: impl Read,
    format: Format,
    pool: &Pool,
    send: &mut dyn FnMut(Block) -> Result<(), Stopped>,
) -> Result<(), Unfinished> {
    loop {
        let mut chunk = pool.take();
        chunk.resize(CHUNK, 0);
        let count = fill(&mut decoder, &mut chunk)
            .map_err(|source| LayerError::from_decoder(format, source))?;
        if count == 0 {
            return Ok(());
        }
        chunk.truncate(count);
        send(Arc::new(chunk))?;
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_up_to(input: &mut impl Read, limit: usize) -> Result<Vec<u8>, LayerError> {
    let mut bytes = vec![0; limit];
    let count = fill(input, &mut bytes).map_err(LayerError::from_read)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The stream that a layer is read from. Its errors are marked, so that they can be told from
/// those of a decoder behind which it is.
struct Input<R>(R);

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(LayerError::Read(error)),
        })
    }
}

impl LayerError {
    /// The error of a decoder, or of the input behind it.
    fn from_decoder(format: Format, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Compression { format: format.name(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::gzip::{MEMBER, MemberWriter, ZeroMember};
    use super::*;

    fn decoded(input: impl Read, threads: usize) -> Result<Vec<u8>, String> {
        let pool = Pool::new(buffers(threads));
        let mut output = Vec::new();
        let mut send = |block: Block| {
            output.extend_from_slice(&block);
            Ok(())
        };
        match decode(input, threads, &pool, &mut send) {
            Ok(()) => Ok(output),
            Err(Unfinished::Failed(error)) => Err(error.to_string()),
            Err(Unfinished::Stopped) => Err("stopped".to_owned()),
        }
    }

    /// Three and a half members' worth of text that compresses, but not too well.
    fn text() -> Vec<u8> {
        let lines =
            (0u64..).flat_map(|i| format!("{i} {}\n", i.wrapping_mul(0x9e37_79b9)).into_bytes());
        lines.take(MEMBER * 7 / 2).collect()
    }

    fn our_gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = MemberWriter::new(2);
        bytes
            .chunks(MEMBER)
            .flat_map(|piece| writer.member(piece, &ZeroMember::default()))
            .collect()
    }

    fn foreign_gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut child = std::process::Command::new("xz")
            .args(["-c", "-1"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output.stdout
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_format_is_decoded_with_any_number_of_threads() {
        let text = text();
        let small = &text[..1000];
        let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
        for (name, data) in [
            ("plain", text.clone()),
            ("our gzip", our_gzip(&text)),
            ("other gzip", foreign_gzip(&text)),
            (
                "other gzip of two members",
                [foreign_gzip(&text[..5000]), foreign_gzip(&text[5000..])].concat(),
            ),
            (
                "other gzip after ours",
                [our_gzip(&text[..MEMBER * 2]), foreign_gzip(&text[MEMBER * 2..])].concat(),
            ),
            (
                "our gzip after other",
                [foreign_gzip(&text[..5000]), our_gzip(&text[5000..])].concat(),
            ),
            ("zstd", zstd(&text)),
            ("zstd of two frames", [zstd(&text[..5000]), zstd(&text[5000..])].concat()),
            (
                "zstd after a skipped frame",
                [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&text)].concat(),
            ),
            ("bzip2", bzip2(&text)),
            ("bzip2 of two streams", [bzip2(&text[..5000]), bzip2(&text[5000..])].concat()),
        ] {
            for threads in [1, 2, 4] {
                assert!(decoded(&*data, threads).unwrap() == text, "{name}, {threads} threads");
            }
        }
        assert!(decoded(&*our_gzip(small), 4).unwrap() == small);
        assert!(decoded(&b""[..], 4).unwrap().is_empty());
    }

    #[test]
    fn xz_is_decoded() {
        if formwork_testing::program("xz").is_none() {
            return;
        }
        let text = text();
        assert!(decoded(&*xz(&text), 4).unwrap() == text);
        assert!(decoded(&*[xz(&text[..5000]), xz(&text[5000..])].concat(), 4).unwrap() == text);
    }

    #[test]
    fn members_that_lie_about_their_length_are_read_as_other_gzip() {
        let text = text();
        let first = our_gzip(&text[..MEMBER]);
        let second = our_gzip(&text[MEMBER..MEMBER * 2]);
        let third = our_gzip(&text[MEMBER * 2..MEMBER * 3]);
        let lie = |length: usize| {
            let mut second = second.clone();
            second[16..20].copy_from_slice(&(length as u32).to_le_bytes());
            [&*first, &second, &third].concat()
        };
        for length in [second.len() - 1, second.len() + 1, second.len() + third.len(), 100] {
            assert!(decoded(&*lie(length), 4).unwrap() == text[..MEMBER * 3], "{length}");
        }
    }

    #[test]
    fn damage_is_told() {
        let text = text();
        let zstd = zstd::bulk::compress(&text, 1).unwrap();
        for (name, data) in [
            ("gzip", our_gzip(&text)),
            ("gzip", foreign_gzip(&text)),
            ("zstd", zstd),
            ("bzip2", bzip2(&text)),
        ] {
            for threads in [1, 4] {
                let expected = format!("the layer's {name} data is damaged");
                let cut = decoded(&data[..data.len() - 9], threads).unwrap_err();
                assert!(cut.starts_with(&expected), "{cut}");
                let mut changed = data.clone();
                let middle = changed.len() / 2;
                changed[middle..middle + 64].fill(0x55);
                let error = decoded(&*changed, threads).unwrap_err();
                assert!(error.starts_with(&expected), "{error}");
            }
        }
    }

    #[test]
    fn errors_of_the_input_are_told_from_damage() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("connection lost"))
            }
        }
        let text = text();
        for data in [
            our_gzip(&text),
            foreign_gzip(&text),
            zstd::bulk::compress(&text, 1).unwrap(),
            text,
            vec![],
        ] {
            let half = &data[..data.len() / 2];
            let error = decoded(half.chain(Broken), 4).unwrap_err();
            assert_eq!(error, "cannot read the layer: connection lost");
        }
    }

    #[test]
    fn decoding_stops_when_nobody_wants_more() {
        let data = our_gzip(&text());
        let pool = Pool::new(buffers(4));
        let result = decode(&*data, 4, &pool, &mut |_| Err(Stopped));
        assert!(matches!(result, Err(Unfinished::Stopped)));
    }
}
