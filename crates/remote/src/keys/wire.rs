//! The data types of SSH (RFC 4251 §5), as keys and agents use them.

/// Reads values from the front of some bytes; `None` where they end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    /// A number that is not negative, without zeros in front.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let is_negative = zeros == 0 && bytes.first().is_some_and(|byte| *byte >= 0x80);
        (!is_negative).then_some(&bytes[zeros..])
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing here is longer than a file of a few kilobytes.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Writes a number that is given by its bytes, the highest first.
pub(super) fn put_integer(out: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut bytes = bytes[zeros..].to_vec();
    if bytes.first().is_some_and(|byte| *byte >= 0x80) {
        bytes.insert(0, 0);
    }
    put_string(out, &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_no_zeros_but_the_one_that_keeps_them_positive() {
        for (bytes, written) in [
            (&[0, 0, 1][..], &[0, 0, 0, 1, 1][..]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[0], &[0, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            put_integer(&mut out, bytes);
            assert_eq!(out, written);
        }
        assert_eq!(Reader(&[0, 0, 0, 2, 0, 0x80]).integer(), Some(&[0x80][..]));
        assert_eq!(Reader(&[0, 0, 0, 1, 0x80]).integer(), None);
    }

    #[test]
    fn what_ends_too_early_is_nothing() {
        for bytes in [&b""[..], b"\0\0\0", b"\0\0\0\x05abcd", b"\xff\xff\xff\xffx"] {
            assert_eq!(Reader(bytes).string(), None);
        }
    }
}
