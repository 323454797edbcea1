//! The 512 bytes before each entry.

use crate::BLOCK;

/// Where each field lies.
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const KIND: usize = 156;
    pub(super) const LINK_NAME: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const DEV_MAJOR: Range<usize> = 329..337;
    pub(super) const DEV_MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    pub(super) const STAR_PREFIX: Range<usize> = 345..476;
    pub(super) const STAR_TRAILER: Range<usize> = 508..512;
    pub(super) const GNU_ATIME: Range<usize> = 345..357;
    pub(super) const GNU_CTIME: Range<usize> = 357..369;
    pub(super) const GNU_SPARSE: Range<usize> = 386..482;
    pub(super) const GNU_IS_EXTENDED: usize = 482;
    pub(super) const GNU_REAL_SIZE: Range<usize> = 483..495;
}

/// A header block whose check sum is right.
pub(crate) struct Block<'a>(&'a [u8; BLOCK]);

/// A number field that holds no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidNumber;

impl<'a> Block<'a> {
    /// Takes a block if it is a header.
    pub(crate) fn new(block: &'a [u8; BLOCK]) -> Option<Self> {
        let stored = number(&block[field::CHECKSUM]).ok()?;
        // The sum is over unsigned bytes; some old writers took them for signed ones.
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if field::CHECKSUM.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        (stored == unsigned || stored == signed).then_some(Self(block))
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[field::KIND]
    }

    /// The name with its prefix.
    pub(crate) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[field::NAME]);
        match self.prefix() {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    fn prefix(&self) -> &'a [u8] {
        if self.is_gnu() {
            // Here GNU tar keeps two times. Go before 1.8 wrote a prefix nevertheless, which then
            // is no number; layers of that age are still about.
            let is_time = |range: std::ops::Range<usize>| number(&self.0[range]).is_ok();
            let prefix = text(&self.0[field::PREFIX]);
            let misplaced = !(is_time(field::GNU_ATIME) && is_time(field::GNU_CTIME));
            return if misplaced && prefix.is_ascii() { prefix } else { b"" };
        }
        if !self.0[field::MAGIC].starts_with(b"ustar\0") {
            return b"";
        }
        let is_star = &self.0[field::STAR_TRAILER] == b"tar\0";
        text(&self.0[if is_star { field::STAR_PREFIX } else { field::PREFIX }])
    }

    fn is_gnu(&self) -> bool {
        &self.0[field::MAGIC] == b"ustar  \0"
    }

    pub(crate) fn link_name(&self) -> &'a [u8] {
        text(&self.0[field::LINK_NAME])
    }

    pub(crate) fn mode(&self) -> Result<i64, InvalidNumber> {
        number(&self.0[field::MODE])
    }

    pub(crate) fn uid(&self) -> Result<i64, InvalidNumber> {
        number(&self.0[field::UID])
    }

    pub(crate) fn gid(&self) -> Result<i64, InvalidNumber> {
        number(&self.0[field::GID])
    }

    pub(crate) fn size(&self) -> Result<i64, InvalidNumber> {
        number(&self.0[field::SIZE])
    }

    pub(crate) fn mtime(&self) -> Result<i64, InvalidNumber> {
        number(&self.0[field::MTIME])
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> Result<(i64, i64), InvalidNumber> {
        Ok((number(&self.0[field::DEV_MAJOR])?, number(&self.0[field::DEV_MINOR])?))
    }

    /// What the old GNU format has on sparse files: the first part of the map, whether blocks
    /// with more of it follow, and the size of the file with its holes.
    pub(crate) fn gnu_sparse(&self) -> Option<(&'a [u8], bool, Result<i64, InvalidNumber>)> {
        let size = number(&self.0[field::GNU_REAL_SIZE]);
        self.is_gnu().then_some((
            &self.0[field::GNU_SPARSE],
            self.0[field::GNU_IS_EXTENDED] != 0,
            size,
        ))
    }
}

/// A text field: up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number field: octal digits among spaces and NULs, or a big-endian two's complement number
/// marked by its first bit (GNU's base 256). An empty field is zero.
pub(crate) fn number(field: &[u8]) -> Result<i64, InvalidNumber> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return base_256(field).ok_or(InvalidNumber);
    }
    let is_digit = |byte: &u8| !matches!(byte, b' ' | 0);
    let start = field.iter().position(is_digit).unwrap_or(field.len());
    let end = field.iter().rposition(is_digit).map_or(start, |last| last + 1);
    let mut value = 0i64;
    for byte in text(&field[start..end]) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8).ok_or(InvalidNumber)?;
        value = value.checked_mul(8).ok_or(InvalidNumber)? | i64::from(digit);
    }
    Ok(value)
}

fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value = if negative { -1i64 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        // The first bit is the mark, the second the sign.
        let byte = match (at, negative) {
            (0, true) => byte | 0x80,
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        value = value.checked_mul(256)? | i64::from(byte);
    }
    Some(value)
}

/// A header to be written.
pub(crate) struct NewBlock([u8; BLOCK]);

impl NewBlock {
    /// A ustar header of a kind.
    pub(crate) fn new(kind: u8) -> Self {
        let mut block = [0; BLOCK];
        block[field::KIND] = kind;
        block[field::MAGIC].copy_from_slice(b"ustar\x0000");
        let mut block = Self(block);
        block.set_number(field::DEV_MAJOR, 0);
        block.set_number(field::DEV_MINOR, 0);
        block
    }

    /// Writes a name, over two fields if need be; `false` and the beginning of it if it does not
    /// fit.
    pub(crate) fn set_name(&mut self, name: &[u8]) -> bool {
        if let Some((prefix, name)) = split_name(name) {
            self.set_text(field::PREFIX, prefix);
            self.set_text(field::NAME, name)
        } else {
            self.set_text(field::NAME, name)
        }
    }

    pub(crate) fn set_link_name(&mut self, name: &[u8]) -> bool {
        self.set_text(field::LINK_NAME, name)
    }

    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.set_number(field::MODE, i64::from(mode));
    }

    pub(crate) fn set_uid(&mut self, uid: u32) -> bool {
        self.set_number(field::UID, i64::from(uid))
    }

    pub(crate) fn set_gid(&mut self, gid: u32) -> bool {
        self.set_number(field::GID, i64::from(gid))
    }

    pub(crate) fn set_size(&mut self, size: u64) -> bool {
        self.set_number(field::SIZE, i64::try_from(size).unwrap_or(-1))
    }

    pub(crate) fn set_mtime(&mut self, seconds: i64) -> bool {
        self.set_number(field::MTIME, seconds)
    }

    pub(crate) fn set_device(&mut self, major: u32, minor: u32) -> bool {
        self.set_number(field::DEV_MAJOR, i64::from(major))
            && self.set_number(field::DEV_MINOR, i64::from(minor))
    }

    /// The block with its check sum.
    pub(crate) fn finish(mut self) -> [u8; BLOCK] {
        self.0[field::CHECKSUM].fill(b' ');
        let sum: u32 = self.0.iter().copied().map(u32::from).sum();
        // Six digits, NUL, space: as everybody writes it.
        self.0[field::CHECKSUM][..7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }

    /// Writes a text, which may fill the field without a NUL at its end; `false` and the
    /// beginning of it if it does not fit.
    fn set_text(&mut self, range: std::ops::Range<usize>, text: &[u8]) -> bool {
        let field = &mut self.0[range];
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
        length == text.len()
    }

    /// Writes a number in octal with a NUL at its end; `false` and zero if it does not fit.
    fn set_number(&mut self, range: std::ops::Range<usize>, number: i64) -> bool {
        let digits = range.len() - 1;
        let fits = number >= 0 && number >> (3 * digits) == 0;
        let number = if fits { number } else { 0 };
        self.0[range].copy_from_slice(format!("{number:0digits$o}\0").as_bytes());
        fits
    }
}

/// Splits a name that is too long for its field at the last slash that leaves a short enough
/// prefix; `None` if it need not or cannot be split.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= field::NAME.len() {
        return None;
    }
    // The slash at the end of a directory's name separates nothing.
    let inner = name.strip_suffix(b"/").unwrap_or(name);
    let candidates = &inner[..inner.len().min(field::PREFIX.len() + 1)];
    let slash = candidates.iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && rest.len() <= field::NAME.len()).then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_everybody_wrote_them() {
        for (field, expected) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"777777777777", Ok(0o777_777_777_777)),
            (b"644\x00junk", Ok(0o644)),
            (b"0000648\0", Err(InvalidNumber)),
            (b"-1      ", Err(InvalidNumber)),
            (b"nobody\0\0", Err(InvalidNumber)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", Ok(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(InvalidNumber)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Ok(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", Err(InvalidNumber)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(InvalidNumber)),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn long_names_are_split_at_a_slash() {
        let split = |name: &str| {
            let (prefix, rest) = split_name(name.as_bytes())?;
            Some((prefix.len(), rest.len()))
        };
        let d = |n| "d".repeat(n);
        assert_eq!(split(&d(100)), None);
        assert_eq!(split(&d(101)), None);
        assert_eq!(split(&format!("{}/{}", d(155), d(100))), Some((155, 100)));
        assert_eq!(split(&format!("{}/{}", d(156), d(99))), None);
        assert_eq!(split(&format!("{}/{}", d(50), d(101))), None);
        assert_eq!(split(&format!("{}/{}/", d(155), d(99))), Some((155, 100)));
        assert_eq!(split(&format!("{}/", d(101))), None);
        assert_eq!(split(&format!("/{}", d(100))), None);
    }

    #[test]
    fn numbers_that_do_not_fit_are_left_to_pax() {
        let mut block = NewBlock::new(b'0');
        assert!(block.set_uid(0o7_777_777) && !block.set_uid(0o10_000_000));
        assert!(block.set_size(0o77_777_777_777) && !block.set_size(0o100_000_000_000));
        assert!(!block.set_size(u64::MAX));
        assert!(block.set_mtime(0) && !block.set_mtime(-1));
    }

    #[test]
    fn a_written_block_is_read_back() {
        let mut block = NewBlock::new(b'3');
        assert!(block.set_name(b"dev/null") && block.set_device(1, 3));
        block.set_mode(0o666);
        let bytes = block.finish();
        let block = Block::new(&bytes).unwrap();
        assert_eq!(
            (block.kind(), block.name(), block.device()),
            (b'3', b"dev/null".to_vec(), Ok((1, 3)))
        );
        let mut damaged = bytes;
        damaged[0] ^= 1;
        assert!(Block::new(&damaged).is_none());
    }
}
