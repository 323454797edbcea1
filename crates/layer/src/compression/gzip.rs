//! gzip in members that stand for themselves.
//!
//! A layer is cut into pieces of [`MEMBER`] bytes, each of which becomes a gzip member of its own
//! (RFC 1952, 2.2: members simply follow each other), compressed with nothing known of the others.
//! So many threads can work at once, and their number cannot be seen in the result. Each header
//! has a subfield that tells the length of its member:
//!
//! ```text
//! 1f 8b 08 04  00 00 00 00  00 ff  08 00   deflate, an extra field, no time, unknown system, 8
//! 'F' 'W' 04 00                            the subfield
//! length of the member, 4 bytes, little-endian
//! ```
//!
//! By the length, a reader that knows of it finds the members without decoding them. It is only
//! a hint: whatever does not prove right is read as any other gzip data.

use std::sync::OnceLock;

use libdeflater::{CompressionLvl, Compressor, Crc, Decompressor};

/// How many bytes of the layer a member holds; the last one may hold less.
pub(crate) const MEMBER: usize = 1 << 20;
/// How long a header is.
pub(crate) const HEADER: usize = 20;
const HEADER_START: [u8; 16] = *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x08\0FW\x04\0";
const TRAILER: usize = 8;
/// No member of ours is longer: what cannot be compressed grows by a few bytes in a thousand.
const LONGEST: usize = MEMBER + MEMBER / 64;

static ZEROS: [u8; MEMBER] = [0; MEMBER];

/// Makes members, one after the other.
pub(crate) struct MemberWriter {
    compressor: Compressor,
}

/// The member of zeros, which large empty files consist of, is made once.
#[derive(Default)]
pub(crate) struct ZeroMember(OnceLock<Vec<u8>>);

impl MemberWriter {
    pub(crate) fn new(level: u32) -> Self {
        let level = i32::try_from(level).unwrap_or(i32::MAX).min(12);
        let level = CompressionLvl::new(level).unwrap_or_default();
        Self { compressor: Compressor::new(level) }
    }

    /// The member that holds some bytes.
    pub(crate) fn member(&mut self, bytes: &[u8], zeros: &ZeroMember) -> Vec<u8> {
        if *bytes == ZEROS {
            return zeros.0.get_or_init(|| self.compress(bytes)).clone();
        }
        self.compress(bytes)
    }

    fn compress(&mut self, bytes: &[u8]) -> Vec<u8> {
        let bound = self.compressor.deflate_compress_bound(bytes.len());
        let mut member = vec![0; HEADER + bound + TRAILER];
        let deflated = self.compressor.deflate_compress(bytes, &mut member[HEADER..]);
        #[expect(clippy::expect_used, reason = "the buffer is as large as the bound")]
        let deflated = deflated.expect("deflate fits into its bound");
        let length = HEADER + deflated + TRAILER;
        member.truncate(length);
        member[..16].copy_from_slice(&HEADER_START);
        // Both lengths are those of one member, far below four gigabytes.
        member[16..HEADER].copy_from_slice(&(length as u32).to_le_bytes());
        let mut crc = Crc::new();
        crc.update(bytes);
        member[length - 8..length - 4].copy_from_slice(&crc.sum().to_le_bytes());
        member[length - 4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        member
    }
}

/// The length of the member that begins with a header of ours.
pub(crate) fn member_length(header: &[u8]) -> Option<usize> {
    let (start, rest) = header.split_first_chunk::<16>()?;
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    (*start == HEADER_START && (HEADER + TRAILER..=LONGEST).contains(&length)).then_some(length)
}

/// Appends what a member holds; `false` if it is not what it seemed to be.
pub(crate) fn read_member(
    decompressor: &mut Decompressor,
    member: &[u8],
    output: &mut Vec<u8>,
) -> bool {
    let Some((rest, [crc @ .., _, _, _, _])) = member.split_last_chunk::<TRAILER>() else {
        return false;
    };
    let Some(size) = member.last_chunk().map(|size| u32::from_le_bytes(*size) as usize) else {
        return false;
    };
    let Some(deflated) = rest.get(HEADER..).filter(|_| size <= MEMBER) else { return false };
    let start = output.len();
    output.resize(start + size, 0);
    let read = decompressor.deflate_decompress(deflated, &mut output[start..]);
    let mut sum = Crc::new();
    sum.update(&output[start..]);
    read == Ok(size) && sum.sum().to_le_bytes() == *crc
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(member: &[u8]) -> Option<Vec<u8>> {
        let mut output = Vec::new();
        read_member(&mut Decompressor::new(), member, &mut output).then_some(output)
    }

    #[test]
    fn members_are_gzip() {
        let zeros = ZeroMember::default();
        for level in [0, 1, 2, 6, 12, 99] {
            let mut writer = MemberWriter::new(level);
            for bytes in [&b""[..], b"text", &ZEROS, &vec![0xa5; MEMBER]] {
                let member = writer.member(bytes, &zeros);
                assert_eq!(member_length(&member), Some(member.len()));
                assert!(read(&member).unwrap() == bytes);
                let mut decoded = Vec::new();
                flate2::read::GzDecoder::new(&*member).read_to_end(&mut decoded).unwrap();
                assert!(decoded == bytes);
            }
        }
    }

    #[test]
    fn what_cannot_be_compressed_hardly_grows() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let bytes: Vec<u8> = (0..MEMBER).map(|_| random()).collect();
        for level in [0, 1, 2, 12] {
            let member = MemberWriter::new(level).member(&bytes, &ZeroMember::default());
            assert_eq!(member_length(&member), Some(member.len()));
            assert!(member.len() < MEMBER + 1000);
        }
    }

    #[test]
    fn damage_is_seen() {
        let member = MemberWriter::new(2)
            .member(&b"some text, some text".repeat(20), &ZeroMember::default());
        assert!(read(&member).is_some());
        for at in HEADER..member.len() {
            let mut damaged = member.clone();
            damaged[at] ^= 4;
            // The bits after the end of the data within its last byte mean nothing.
            let harmless = read(&damaged) == read(&member);
            assert!(read(&damaged).is_none() || (harmless && at == member.len() - 9), "{at}");
        }
        for end in 0..member.len() {
            assert_eq!(read(&member[..end]), None, "{end}");
        }
    }

    #[test]
    fn other_headers_are_not_ours() {
        let header = |length: u32| [&HEADER_START[..], &length.to_le_bytes()].concat();
        assert_eq!(member_length(&header(28)), Some(28));
        assert_eq!(member_length(&header(27)), None);
        assert_eq!(member_length(&header(u32::MAX)), None);
        assert_eq!(member_length(&header(100)[..19]), None);
        assert_eq!(member_length(b"\x1f\x8b\x08\0\0\0\0\0\0\xff\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
