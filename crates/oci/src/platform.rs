//! Platforms: operating system, architecture and variant.
//!
//! Names and normalisation follow the image specification (Go's `GOOS` and `GOARCH`) and
//! containerd's `platforms` package, on which docker and BuildKit rely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OciError;

/// What an image runs on. Made from text or from parts, it is normalised: `x86_64` is `amd64`,
/// `arm64/v8` is `arm64`; read from a document, it stays as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor's architecture, in Go's words.
    pub architecture: String,
    /// The operating system, in Go's words.
    pub os: String,
    /// The version of the operating system, which only Windows images carry.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The processor's variant, such as `v7` for `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform made of these parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalize(architecture, variant.unwrap_or_default());
        Self { architecture, os: normalize_os(os), os_version: None, variant }
    }

    /// The platform that this program was built for, always with Linux as its system.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// How well an image for `self` serves somebody who asks for `wanted`: 0 is exactly, higher
    /// is worse, `None` is not at all.
    ///
    /// A 64-bit ARM machine and each ARM variant also run the lower 32-bit variants; the same
    /// holds for the levels of x86-64.
    pub fn fitness(&self, wanted: &Self) -> Option<u32> {
        // A document keeps the words in which it was written, such as `arm64` with variant `v8`.
        let own = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        if own.os != wanted.os {
            return None;
        }
        let runs = runnable(wanted);
        let own = (own.architecture.as_str(), own.variant.as_deref().unwrap_or_default());
        runs.iter().position(|candidate| *candidate == own).and_then(|at| u32::try_from(at).ok())
    }
}

/// The architectures and variants that a machine of the given platform runs, best first.
fn runnable(platform: &Platform) -> Vec<(&str, &str)> {
    let variant = platform.variant.as_deref().unwrap_or_default();
    let architecture = platform.architecture.as_str();
    let ladder: &[(&str, &str)] = match architecture {
        "arm" => &[("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
        "amd64" => &[("amd64", "v4"), ("amd64", "v3"), ("amd64", "v2"), ("amd64", "")],
        "arm64" if variant.is_empty() => {
            &[("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")]
        }
        _ => &[],
    };
    let start = ladder.iter().position(|step| *step == (architecture, variant));
    match start {
        Some(start) => ladder[start..].to_vec(),
        None => vec![(architecture, variant)],
    }
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le" | "ppc64el", variant) => ("ppc64le", variant),
        ("loongarch64", variant) => ("loong64", variant),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

impl FromStr for Platform {
    type Err = OciError;

    /// Reads `os/architecture[/variant]`, `local`, or one word: a system with the host's
    /// architecture, or an architecture of Linux.
    fn from_str(text: &str) -> Result<Self, OciError> {
        let wrong = || OciError::Platform(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| is_word(part)) {
            return Err(wrong());
        }
        match parts.as_slice() {
            ["local"] => Ok(Self::host()),
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                Ok(Self::new(os, &Self::host().architecture, None))
            }
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(wrong()),
        }
    }
}

fn is_word(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(valid)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/ARM", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("riscv64", "linux/riscv64"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(platform(text).to_string(), normal);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "linux/", "linux/amd64/v2/x", "linux amd64", "lïnux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn platforms_fit_in_whatever_words_a_document_has_them() {
        for (text, wanted) in [
            (r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#, "linux/arm64"),
            (r#"{"architecture":"x86_64","os":"linux"}"#, "linux/amd64"),
            (r#"{"architecture":"arm","os":"Linux","variant":"7"}"#, "linux/arm/v7"),
        ] {
            let own: Platform = serde_json::from_str(text).unwrap();
            assert_eq!(own.fitness(&platform(wanted)), Some(0), "{text}");
            assert_eq!(serde_json::to_string(&own).unwrap(), text);
        }
    }

    #[test]
    fn the_nearest_variant_fits_best() {
        let fitness = |own: &str, wanted: &str| platform(own).fitness(&platform(wanted));
        assert_eq!(fitness("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(fitness("linux/arm/v7", "linux/arm64"), Some(2));
        assert_eq!(fitness("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(fitness("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(fitness("linux/amd64", "linux/amd64/v3"), Some(2));
        assert_eq!(fitness("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(fitness("windows/amd64", "linux/amd64"), None);
        assert_eq!(fitness("linux/s390x", "linux/amd64"), None);
    }
}
