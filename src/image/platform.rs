//! Which of an index's images is for this machine?
//!
//! image-spec image-index.md; architectures in Go's words. Of several that would run, the first
//! of the best variant is taken; what says nothing of its platform, and `unknown/unknown`
//! (buildkit's attestations), is not chosen.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_features: Option<Vec<String>>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform::new("linux", architecture, variant)
    }

    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: None,
        }
    }

    /// How well an image for `offered` runs where `self` is wanted: higher is better, `None` not at
    /// all. An ARM of an older variant runs on a newer one; without a variant, arm64 is v8 and arm v7.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (level(self), level(offered)) {
            (Some(wanted), Some(had)) => (had <= wanted).then_some(had),
            _ => (self.variant == offered.variant || self.variant.is_none()).then_some(0),
        }
    }

    /// The place of the one to take of what an index offers.
    pub fn choose<'a>(
        &self,
        offers: impl IntoIterator<Item = Option<&'a Platform>>,
    ) -> Option<usize> {
        let ranked = offers
            .into_iter()
            .enumerate()
            .filter_map(|(at, offered)| Some((at, self.rank(offered?)?)));
        // max_by_key takes the last of equals; the first is wanted.
        ranked
            .max_by_key(|(at, rank)| (*rank, std::cmp::Reverse(*at)))
            .map(|(at, _)| at)
    }
}

/// The number in `v8`, for ARM only: elsewhere variants have no order.
fn level(platform: &Platform) -> Option<u32> {
    let default = match platform.architecture.as_str() {
        "arm64" => 8,
        "arm" => 7,
        _ => return None,
    };
    match platform.variant.as_deref() {
        None | Some("") => Some(default),
        // v8.1 and the like run nowhere below v9: counted as 8 would promise too much.
        Some(variant) => variant.strip_prefix('v')?.parse().ok(),
    }
}

impl FromStr for Platform {
    type Err = anyhow::Error;

    /// `os/arch[/variant]`, as `--platform` takes it.
    fn from_str(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) || !matches!(parts.len(), 2 | 3) {
            bail!("platform {text:?} is not os/architecture[/variant], such as linux/arm64/v8");
        }
        let architecture = match parts[1] {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform::new(parts[0], architecture, parts.get(2).copied()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: &str, offers: &[&str]) -> Option<usize> {
        let offers: Vec<Option<Platform>> = offers.iter().map(|text| text.parse().ok()).collect();
        let wanted: Platform = wanted.parse().unwrap();
        wanted.choose(offers.iter().map(Option::as_ref))
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        for (wanted, offers, expected) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            (
                "linux/amd64",
                &["unknown/unknown", "", "windows/amd64"],
                None,
            ),
            (
                "linux/amd64/v2",
                &["linux/amd64", "linux/amd64/v2"],
                Some(1),
            ),
            (
                "linux/arm/v7",
                &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
                Some(1),
            ),
            ("linux/arm/v7", &["linux/arm", "linux/arm/v6"], Some(0)),
            ("linux/arm64", &["linux/arm64/v8"], Some(0)),
            ("linux/arm64/v8", &["linux/arm64/v9"], None),
            ("linux/x86_64", &["linux/amd64"], Some(0)),
        ] {
            assert_eq!(chosen(wanted, offers), expected, "{wanted} of {offers:?}");
        }
    }

    #[test]
    fn a_platform_has_two_or_three_parts() {
        assert_eq!(
            "linux/arm/v7".parse::<Platform>().unwrap().to_string(),
            "linux/arm/v7"
        );
        for text in ["linux", "linux/", "/amd64", "a/b/c/d", ""] {
            let why = text.parse::<Platform>().unwrap_err().to_string();
            assert_eq!(
                why,
                format!(
                    "platform {text:?} is not os/architecture[/variant], such as linux/arm64/v8"
                )
            );
        }
    }
}
