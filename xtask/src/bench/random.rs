//! Numbers and texts that are the same on every machine.

/// A small generator (xorshift64*), seeded with a number.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator that begins with a seed other than 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Bytes that compress to about a third, as programs and texts do: repetitions of what came
    /// before, between bytes of which some are more likely than others.
    pub(crate) fn content(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            let number = self.next();
            if bytes.len() > 64 && number.is_multiple_of(3) {
                let size = 8 + usize::try_from((number >> 8) % 24).unwrap_or(0);
                let window = bytes.len().min(30_000) as u64;
                let back = usize::try_from((number >> 16) % window).unwrap_or(0).max(size);
                let start = bytes.len().saturating_sub(back);
                let copy = bytes[start..bytes.len().min(start + size)].to_vec();
                bytes.extend(copy);
            } else {
                bytes.extend(number.to_le_bytes().map(|byte| byte & 0x3f | 0x20));
            }
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_gives_the_same_content() {
        let content = |seed| Random::new(seed).content(10_000);
        assert_eq!(content(1), content(1));
        assert_ne!(content(1), content(2));
        assert_eq!(content(3).len(), 10_000);
    }
}
