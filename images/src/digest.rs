//! Content digests, as the OCI image specification's `descriptor.md` writes them.
//!
//! Only the registered algorithms sha256 and sha512 are known, in the one spelling the
//! specification allows: lower-case hexadecimal of exactly the right length. Whatever parses is
//! therefore safe as the name of a file. Runs wherever images are handled; touches nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A digest algorithm that content may be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: 64 hexadecimal digits.
    Sha256,
    /// SHA-512: 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// `algorithm:hex`, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a digest: sha256: with 64 or sha512: with 128 lower-case hexadecimal digits is wanted"
)]
pub struct ParseDigestError(String);

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// `sha256-<hex>`: the digest as a file name. Without the colon, because overlay's `lowerdir=`
    /// option separates directories with it.
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex)
    }

    /// The digest that [`Digest::file_name`] spelled `name`.
    pub fn from_file_name(name: &str) -> Option<Digest> {
        let (algorithm, hex) = name.split_once('-')?;
        format!("{algorithm}:{hex}").parse().ok()
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        // Hostile text ends up in an error message: no more of it than helps.
        let refuse = || ParseDigestError(text.chars().take(150).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(refuse)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(refuse()),
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != algorithm.digits() || !hex.bytes().all(lower_hex) {
            return Err(refuse());
        }
        Ok(Digest {
            algorithm,
            hex: hex.into(),
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Digest, ParseDigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// An empty one.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes): (_, Vec<u8>) = match self {
            Hasher::Sha256(hasher) => (Algorithm::Sha256, hasher.finalize().to_vec()),
            Hasher::Sha512(hasher) => (Algorithm::Sha512, hasher.finalize().to_vec()),
        };
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Digest {
            algorithm,
            hex: hex.into(),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Content that is not what its descriptor says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The wrong number of bytes; `found` may be a lower bound.
    #[error("it has {found} bytes or more, but its descriptor says {expected}")]
    Longer {
        /// The descriptor's size.
        expected: u64,
        /// The bytes seen before giving up.
        found: u64,
    },
    /// The content ended early.
    #[error("it ends after {found} of {expected} bytes")]
    Shorter {
        /// The descriptor's size.
        expected: u64,
        /// The bytes there were.
        found: u64,
    },
    /// The right size, other bytes.
    #[error("its digest is {found}, but {expected} was asked for")]
    Digest {
        /// The descriptor's digest.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
}

/// Checks content against the digest and size of its descriptor, piece by piece.
#[derive(Debug)]
pub struct Verifier {
    hasher: Hasher,
    expected: Digest,
    size: u64,
    seen: u64,
}

impl Verifier {
    /// Expects exactly `size` bytes whose digest is `expected`.
    pub fn new(expected: &Digest, size: u64) -> Verifier {
        Verifier {
            hasher: Hasher::new(expected.algorithm()),
            expected: expected.clone(),
            size,
            seen: 0,
        }
    }

    /// Adds `bytes`; fails as soon as there are more than the descriptor says.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(Mismatch::Longer {
                expected: self.size,
                found: self.seen,
            });
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// How many bytes were added.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether that was the content.
    pub fn finish(self) -> Result<(), Mismatch> {
        if self.seen != self.size {
            return Err(Mismatch::Shorter {
                expected: self.size,
                found: self.seen,
            });
        }
        let found = self.hasher.finish();
        if found != self.expected {
            return Err(Mismatch::Digest {
                expected: self.expected,
                found,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn empty_content_has_the_known_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(
            Digest::from_file_name(&Digest::of(b"").file_name()),
            Some(Digest::of(b""))
        );
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        let hex = &EMPTY[7..];
        for bad in [
            String::new(),
            hex.to_string(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha256:{hex}0"),
            format!("sha256:{}", &hex[1..]),
            format!("sha512:{hex}"),
            format!("md5:{}", &hex[..32]),
            format!("sha256:{}/", &hex[1..]),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256+b64:{hex}"),
            format!(" {EMPTY}"),
            format!("{EMPTY}\n"),
            format!("sha256:{}é", &hex[2..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
        let long = format!("sha512:{hex}{hex}");
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn a_hostile_text_is_cut_in_the_message() {
        let error = "x".repeat(1 << 20).parse::<Digest>().unwrap_err();
        assert!(error.to_string().len() < 400);
    }

    #[test]
    fn the_verifier_sees_every_difference() {
        let digest = Digest::of(b"hello");
        let check = |bytes: &[u8], size| {
            let mut verifier = Verifier::new(&digest, size);
            verifier.update(bytes)?;
            verifier.finish()
        };
        assert_eq!(check(b"hello", 5), Ok(()));
        assert!(matches!(check(b"hello", 4), Err(Mismatch::Longer { .. })));
        assert!(matches!(check(b"hello", 6), Err(Mismatch::Shorter { .. })));
        assert!(matches!(check(b"hellO", 5), Err(Mismatch::Digest { .. })));
    }
}
