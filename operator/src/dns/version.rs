//! Which version of CoreDNS runs, as its image tells it.
//!
//! One block fits every CoreDNS from [`OLDEST`] on (decision 15 lists what came and went between the versions), so a version
//! that is not told is no obstacle: it is taken for a new one.

use std::fmt::{self, Display, Formatter};

/// The first version whose `forward` and `rewrite` can do what the block asks for.
pub const OLDEST: Version = Version { major: 1, minor: 3, patch: 0 };
/// The first version whose `reload` looks into imported files as well.
pub const RELOADS_IMPORTS: Version = Version { major: 1, minor: 6, patch: 1 };

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Version {
    /// The version in the tag of `image`. `None`: it has no tag, or one that tells none.
    pub fn of_image(image: &str) -> Option<Self> {
        let name = image.split('@').next()?.rsplit('/').next()?;
        let tag = name.split_once(':')?.1;
        let tag = tag.strip_prefix('v').unwrap_or(tag);
        let mut numbers = tag.split('.').map(leading_number);
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The number that `text` begins with.
fn leading_number(text: &str) -> Option<u16> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_images_that_people_run() {
        for (image, version) in [
            ("k8s.gcr.io/coredns:1.3.1", "1.3.1"),
            ("registry.k8s.io/coredns/coredns:v1.11.3", "1.11.3"),
            ("rancher/hardened-coredns:v1.12.3-build20250806", "1.12.3"),
            ("602401143452.dkr.ecr.eu-west-1.amazonaws.com/eks/coredns:v1.11.1-eksbuild.4", "1.11.1"),
            ("mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4-hotfix.20240704", "1.9.4"),
            ("registry:5000/coredns:1.8@sha256:0123", "1.8.0"),
            ("registry.k8s.io/dns/k8s-dns-kube-dns:1.22.28", "1.22.28"),
        ] {
            assert_eq!(Version::of_image(image).map(|v| v.to_string()).as_deref(), Some(version), "{image}");
        }
        for image in
            ["localhost/coredns:local", "coredns", "registry:5000/coredns", "coredns@sha256:0123", "", ":"]
        {
            assert_eq!(Version::of_image(image), None, "{image}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let of = |tag: &str| Version::of_image(&format!("coredns:{tag}")).unwrap();
        assert!(of("1.2.6") < OLDEST && OLDEST < of("1.10.0"));
        assert!(of("1.6.0") < RELOADS_IMPORTS && RELOADS_IMPORTS <= of("1.6.1"));
    }
}
