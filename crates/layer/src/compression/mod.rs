//! How layers are compressed.
//!
//! Compression uses all processors and gives the same bytes with any number of them: gzip as
//! members of 1 MiB each (module `gzip`), zstd with libzstd's own workers, of which there is always at
//! least one, since without workers it gives other bytes.
//!
//! The default is gzip at level 2 of libdeflate. Of a tar of 527 MB (programs, Python, Vim), on
//! four processors:
//!
//! | | size | against Go's gzip, level 6 | MB/s |
//! |---|---|---|---|
//! | gzip 1 | 205.0 MB | +5.6 % | 954 |
//! | **gzip 2** | **196.0 MB** | **+0.9 %** | **740** |
//! | gzip 3 | 194.1 MB | −0.1 % | 687 |
//! | gzip 4 | 193.0 MB | −0.6 % | 651 |
//! | gzip 6 | 187.8 MB | −3.3 % | 460 |
//! | gzip 9 | 186.3 MB | −4.1 % | 163 |
//! | Go's gzip 6, one processor | 194.2 MB | | 44 |
//! | zstd 1 | 206.0 MB | +6.1 % | 1850 |
//! | zstd 3 | 181.0 MB | −6.8 % | 1194 |
//! | zstd 5 | 173.8 MB | −10.5 % | 588 |

pub(crate) mod decode;
pub(crate) mod gzip;

pub use decode::reader;

use formwork_oci::LayerCompression;

/// How a layer is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip {
        /// From 0, which only stores, to 12; larger means 12. Levels of libdeflate, which below
        /// 10 are about as slow as zlib's and compress better.
        level: u32,
    },
    /// Zstandard (RFC 8878).
    Zstd {
        /// From 1 to 22; what is outside means the nearest of them. From 17 on, each thread needs
        /// some hundred megabytes of memory.
        level: i32,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: 2 }
    }
}

impl Compression {
    /// Zstandard at its own default level.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// What media types say about it.
    pub fn format(self) -> LayerCompression {
        match self {
            Self::None => LayerCompression::None,
            Self::Gzip { .. } => LayerCompression::Gzip,
            Self::Zstd { .. } => LayerCompression::Zstd,
        }
    }
}

/// Some bytes as one Zstandard frame, for documents that are kept whole in memory.
///
/// # Errors
///
/// Fails where there is no memory for it.
pub fn zstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)
}

/// The formats that are recognised when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// None of the others: taken for a plain tar archive.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2, for `ADD`.
    Bzip2,
    /// xz, for `ADD`.
    Xz,
}

/// How many bytes [`Format::detect`] wants to see.
pub const MAGIC_BYTES: usize = 6;

impl Format {
    /// The format of data that begins with some bytes: at least [`MAGIC_BYTES`], or all there are.
    pub fn detect(start: &[u8]) -> Self {
        const FORMATS: [(&[u8], Format); 5] = [
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"BZh", Format::Bzip2),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"", Format::Plain),
        ];
        // A Zstandard stream may begin with a frame that is to be skipped.
        if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = start {
            return Self::Zstd;
        }
        let format = FORMATS.into_iter().find(|(magic, _)| start.starts_with(magic));
        format.map_or(Self::Plain, |(_, format)| format)
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (start, expected) in [
            (&b"\x1f\x8b\x08\0\0\0"[..], Format::Gzip),
            (b"\x1f\x8b\x07\0\0\0", Format::Plain),
            (b"\x28\xb5\x2f\xfd\0\0", Format::Zstd),
            (b"\x5a\x2a\x4d\x18\0\0", Format::Zstd),
            (b"BZh91A", Format::Bzip2),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\xfd7zX", Format::Plain),
            (b"usr/bin/", Format::Plain),
            (b"", Format::Plain),
        ] {
            assert_eq!(Format::detect(start), expected, "{start:?}");
        }
    }
}
