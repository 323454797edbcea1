//! Tar archives as containers of an image's files: an index to read by position, and a writer.
//!
//! Only what `docker save`, podman, skopeo and BuildKit put into such archives is understood:
//! files and links, in POSIX (ustar, pax) and GNU headers. Layers' own archives are none of this
//! module's business.

mod read;
mod write;

pub(crate) use read::Archive;
pub(crate) use write::ArchiveWriter;

/// The size of a header, and what data is padded to.
const BLOCK: usize = 512;

/// Where the fields of a header are.
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const TYPE: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

/// The magic and version of POSIX headers; those of GNU have `ustar  \0`.
const POSIX_MAGIC: &[u8] = b"ustar\x0000";

/// The sum of a header's bytes, with the checksum itself counted as spaces.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let counts = |at: usize| !field::CHECKSUM.contains(&at);
    header
        .iter()
        .enumerate()
        .map(|(at, byte)| if counts(at) { u32::from(*byte) } else { u32::from(b' ') })
        .sum()
}
