//! Platforms: which of a multi-platform image's manifests is meant.
//!
//! Pure. The names are Go's GOOS and GOARCH, as the image specification wants.

use oci_spec::image::{Arch, Os, Platform};

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64"
)]
pub struct PlatformError(String);

/// The platform this program was built for.
pub fn host() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
        "powerpc64" => ("ppc64", None),
        "loongarch64" => ("loong64", None),
        // riscv64, s390x and mips64 have the same name in both languages.
        other => (other, None),
    };
    platform("linux", architecture, variant)
}

/// Reads `linux/arm64` or `linux/arm64/v8`.
pub fn parse(text: &str) -> Result<Platform, PlatformError> {
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| -> bool {
        (1..=32).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.')
    };
    match parts.as_slice() {
        [os, architecture] if parts.iter().all(word) => Ok(platform(os, architecture, None)),
        [os, architecture, variant] if parts.iter().all(word) => {
            Ok(platform(os, architecture, Some(variant)))
        }
        _ => Err(PlatformError(text.chars().take(100).collect())),
    }
}

fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::from(os));
    platform.set_architecture(Arch::from(architecture));
    platform.set_variant(variant.map(str::to_owned));
    platform
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::platform_name;

    #[test]
    fn names_survive() {
        for name in ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/386"] {
            assert_eq!(platform_name(&parse(name).unwrap()), name);
        }
        assert!(platform_name(&host()).starts_with("linux/"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "Linux/amd64",
            "a/b/c/d",
            "linux/am d64",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
