//! Whether a file is an archive at all.

use std::io::Read;

use formwork_tar::Reader;

use crate::LayerError;
use crate::compression::decode::reader;

/// Whether a file is a tar archive with at least one entry, packed in any of the formats that are
/// recognised. ADD unpacks these and copies all others as they are, whatever their names, as
/// BuildKit does.
///
/// # Errors
///
/// Fails where the file cannot be read; data that does not decompress is no archive.
pub fn is_archive(file: impl Read) -> Result<bool, LayerError> {
    let decoded = match reader(file) {
        Ok(decoded) => decoded,
        Err(error @ LayerError::Read(_)) => return Err(error),
        Err(_) => return Ok(false),
    };
    Ok(matches!(Reader::new(decoded).next_entry(), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use formwork_testing::archive::{archive, made};

    use super::is_archive;

    #[test]
    fn archives_are_told_by_what_they_hold() {
        let full = archive([made(b'0', "file", "data")]);
        assert!(is_archive(&*full).unwrap());
        let packed = zstd::encode_all(&*full, 1).unwrap();
        assert!(is_archive(&*packed).unwrap());
        let empty = archive([]);
        for other in [
            &empty[..],
            b"",
            b"text",
            &[0; 5000],
            &zstd::encode_all(&b"text"[..], 1).unwrap(),
            &packed[..9],
        ] {
            assert!(!is_archive(other).unwrap());
        }
    }
}
