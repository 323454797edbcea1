//! Private keys as files hold them: OpenSSH's own format, PKCS #1 and PKCS #8.
//!
//! OpenSSH's is described in `PROTOCOL.key` of its sources.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signer::Signer;
use super::wire::Reader;

/// How a file in OpenSSH's format begins, once it is decoded.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A private key.
#[derive(Debug)]
pub struct PrivateKey {
    pub(super) signer: Signer,
    /// The public half, as SSH sends it.
    pub(super) public: Vec<u8>,
    pub(super) comment: Vec<u8>,
}

/// Why a file has no key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is something else.
    #[error("it is no private key")]
    NoKey,
    /// It is the public half.
    #[error("it is a public key; name the private one, which has no `.pub`")]
    Public,
    /// It needs a passphrase.
    #[error("the key has a passphrase; give it to an agent with `ssh-add`, and name that")]
    Encrypted,
    /// It is of a kind that is not understood here.
    #[error("keys of the kind `{0}` are not supported; give it to an agent with `ssh-add`")]
    Unsupported(String),
    /// It is cut off, or contradicts itself.
    #[error("the key is damaged")]
    Damaged,
}

impl PrivateKey {
    /// Reads the file of a key.
    ///
    /// # Errors
    ///
    /// Fails for what is no key, and for those that need a passphrase or are of rare kinds.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(file).map_err(|_| KeyError::NoKey)?;
        if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.starts_with(kind)) {
            return Err(KeyError::Public);
        }
        let (label, body) = armoured(text).ok_or(KeyError::NoKey)?;
        if body.contains("ENCRYPTED") || label.starts_with("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let body: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(body).map_err(|_| KeyError::Damaged)?;
        let signer = match label {
            "OPENSSH" => return Self::openssh(&bytes),
            "RSA" => Signer::from_pkcs1(&bytes)?,
            "" => Signer::from_pkcs8(&bytes)?,
            other => return Err(KeyError::Unsupported(other.to_owned())),
        };
        Ok(Self { public: signer.public_key(), signer, comment: Vec::new() })
    }

    fn openssh(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes.strip_prefix(MAGIC).ok_or(KeyError::Damaged)?);
        let mut next = || fields.string().ok_or(KeyError::Damaged);
        let (cipher, derivation, _options) = (next()?, next()?, next()?);
        if (cipher, derivation) != (b"none", b"none") {
            return Err(KeyError::Encrypted);
        }
        if fields.number() != Some(1) {
            return Err(KeyError::Damaged);
        }
        let mut next = || fields.string().ok_or(KeyError::Damaged);
        let (_public, private) = (next()?, next()?);
        let mut fields = Reader(private);
        // The same number twice, which shows that the passphrase was right.
        if fields.number().is_none_or(|check| fields.number() != Some(check)) {
            return Err(KeyError::Damaged);
        }
        let kind = fields.string().ok_or(KeyError::Damaged)?;
        let signer = Signer::read(kind, &mut fields)?;
        let comment = fields.string().ok_or(KeyError::Damaged)?.to_vec();
        Ok(Self { public: signer.public_key(), signer, comment })
    }
}

/// The word before `PRIVATE KEY` in the first line, and what is between that and the last.
fn armoured(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start().strip_prefix("-----BEGIN ")?;
    let (label, rest) = text.split_once("PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    (!label.contains('\n')).then_some((label.trim(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_told() {
        for (file, error) in [
            (&b""[..], KeyError::NoKey),
            (b"\xff", KeyError::NoKey),
            (b"ssh-ed25519 AAAA me", KeyError::Public),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", KeyError::NoKey),
            (
                b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
                KeyError::Damaged,
            ),
            (
                b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n-----END RSA PRIVATE",
                KeyError::Encrypted,
            ),
            (
                b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                KeyError::Encrypted,
            ),
            (
                b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n",
                KeyError::Unsupported("DSA".to_owned()),
            ),
        ] {
            let found = PrivateKey::parse(file).unwrap_err();
            assert_eq!(found, error, "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn every_prefix_of_a_key_is_refused() {
        let key =
            b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01\0\0\0\x01x\0\0\0\
                    \x08\0\0\0\x01\0\0\0\x01";
        for length in 0..=key.len() {
            assert_eq!(PrivateKey::openssh(&key[..length]).unwrap_err(), KeyError::Damaged);
        }
    }
}
