//! Signing with a private key, as SSH has it.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use ring::{rsa, signature};

use super::KeyError;
use super::wire::{Reader, put_integer, put_string};

/// What the client wants of a signature with an RSA key (draft-miller-ssh-agent §6.1).
const SHA_256: u32 = 2;
const SHA_512: u32 = 4;

/// A private key that can be used.
#[derive(Debug)]
pub(super) enum Signer {
    Ed25519(Box<Ed25519KeyPair>),
    Ecdsa { curve: &'static str, pair: Box<EcdsaKeyPair> },
    Rsa(Box<rsa::KeyPair>),
}

impl Signer {
    /// Reads the private part of a key as OpenSSH writes it; `Err` for what cannot be used.
    pub(super) fn read(kind: &[u8], fields: &mut Reader<'_>) -> Result<Self, KeyError> {
        match kind {
            b"ssh-ed25519" => Self::ed25519(fields),
            b"ecdsa-sha2-nistp256" => {
                Self::ecdsa("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING, fields)
            }
            b"ecdsa-sha2-nistp384" => {
                Self::ecdsa("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING, fields)
            }
            b"ssh-rsa" => Self::rsa(fields),
            other => Err(KeyError::Unsupported(String::from_utf8_lossy(other).into_owned())),
        }
    }

    /// An RSA key as PKCS #1 has it.
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let pair = rsa::KeyPair::from_der(der).map_err(|_| KeyError::Damaged)?;
        Ok(Self::Rsa(Box::new(pair)))
    }

    /// A key as PKCS #8 has it.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        if let Ok(pair) = rsa::KeyPair::from_pkcs8(der) {
            return Ok(Self::Rsa(Box::new(pair)));
        }
        for (curve, algorithm) in [
            ("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ] {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der, &random) {
                return Ok(Self::Ecdsa { curve, pair: Box::new(pair) });
            }
        }
        Err(KeyError::Unsupported("PKCS #8".to_owned()))
    }

    fn ed25519(fields: &mut Reader<'_>) -> Result<Self, KeyError> {
        let public = fields.string().ok_or(KeyError::Damaged)?;
        let both = fields.string().ok_or(KeyError::Damaged)?;
        let seed = both.get(..32).ok_or(KeyError::Damaged)?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
        Ok(Self::Ed25519(Box::new(pair.map_err(|_| KeyError::Damaged)?)))
    }

    fn ecdsa(
        curve: &'static str,
        algorithm: &'static EcdsaSigningAlgorithm,
        fields: &mut Reader<'_>,
    ) -> Result<Self, KeyError> {
        fields.string().ok_or(KeyError::Damaged)?;
        let public = fields.string().ok_or(KeyError::Damaged)?;
        let private = fields.integer().ok_or(KeyError::Damaged)?;
        // A point has a byte that says so, and two coordinates.
        let length = public.len().saturating_sub(1) / 2;
        let zeros = length.checked_sub(private.len()).ok_or(KeyError::Damaged)?;
        let private = [vec![0; zeros].as_slice(), private].concat();
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, public, &random);
        Ok(Self::Ecdsa { curve, pair: Box::new(pair.map_err(|_| KeyError::Damaged)?) })
    }

    fn rsa(fields: &mut Reader<'_>) -> Result<Self, KeyError> {
        let mut next = || fields.integer().ok_or(KeyError::Damaged);
        let (n, e, d) = (next()?, next()?, next()?);
        let (q_inverse, p, q) = (next()?, next()?, next()?);
        let pair = rsa::KeyPair::from_components(&rsa::KeyPairComponents {
            public_key: rsa::PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: &remainder(d, &minus_one(p)),
            dQ: &remainder(d, &minus_one(q)),
            qInv: q_inverse,
        });
        let refused = |problem| KeyError::Unsupported(format!("RSA: {problem}"));
        Ok(Self::Rsa(Box::new(pair.map_err(refused)?)))
    }

    /// The public half, as SSH sends it.
    pub(super) fn public_key(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        match self {
            Self::Ed25519(pair) => {
                put_string(&mut blob, b"ssh-ed25519");
                put_string(&mut blob, pair.public_key().as_ref());
            }
            Self::Ecdsa { curve, pair } => {
                put_string(&mut blob, format!("ecdsa-sha2-{curve}").as_bytes());
                put_string(&mut blob, curve.as_bytes());
                put_string(&mut blob, pair.public_key().as_ref());
            }
            Self::Rsa(pair) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                put_string(&mut blob, b"ssh-rsa");
                put_integer(&mut blob, &public.e);
                put_integer(&mut blob, &public.n);
            }
        }
        blob
    }

    /// A signature, as SSH sends it; `None` for a kind that nobody should ask for any more, such as
    /// RSA with SHA-1.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (kind, signature) = match self {
            Self::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Self::Ecdsa { curve, pair } => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                let mut both = Vec::new();
                put_integer(&mut both, r);
                put_integer(&mut both, s);
                (format!("ecdsa-sha2-{curve}"), both)
            }
            Self::Rsa(pair) => {
                let (kind, padding): (_, &'static dyn signature::RsaEncoding) = match flags {
                    flags if flags & SHA_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & SHA_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signature).ok()?;
                (kind.to_owned(), signature)
            }
        };
        let mut blob = Vec::new();
        put_string(&mut blob, kind.as_bytes());
        put_string(&mut blob, &signature);
        Some(blob)
    }
}

/// A large odd number less one.
fn minus_one(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    if let Some(last) = number.last_mut() {
        *last &= 0xfe;
    }
    number
}

/// What is left of a large number after dividing it, both given by their bytes, the highest first.
///
/// OpenSSH's files lack two numbers that PKCS #1 has and `ring` wants: d mod p-1 and d mod q-1.
fn remainder(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    let divisor = [&[0], divisor].concat();
    let mut rest = vec![0_u8; divisor.len()];
    if divisor.iter().all(|byte| *byte == 0) {
        return rest;
    }
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let out = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = out;
        }
        if rest >= divisor {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(&divisor).rev() {
                let (difference, one) = byte.overflowing_sub(*less);
                let (difference, two) = difference.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (difference, one || two);
            }
        }
    }
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    rest.split_off(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_divided() {
        for (number, divisor) in
            [(1_000_003_u64, 97_u64), (u64::MAX, 65_537), (5, 7), (1 << 40, 1 << 20), (255, 255)]
        {
            let left = remainder(&number.to_be_bytes(), &divisor.to_be_bytes());
            let left = left.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            assert_eq!(left, number % divisor);
        }
        assert!(remainder(&[1], &[0]).iter().all(|byte| *byte == 0));
    }
}
