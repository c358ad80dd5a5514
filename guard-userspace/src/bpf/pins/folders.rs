//! What folders of pins are called: `v1` for a layout, `v1-before` where it was set aside.

use std::path::{Path, PathBuf};

/// What the name of a folder ends in while new maps take its place. A number follows where an
/// earlier one is there still, because the run that took over from it was killed.
const ASIDE: &str = "-before";

/// Whether a folder of this name holds the pins of some layout.
pub(super) fn is_layout(name: &str) -> bool {
    let (layout, number) = name.split_once(ASIDE).unwrap_or((name, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());

    digits(number)
        && layout
            .strip_prefix('v')
            .is_some_and(|version| !version.is_empty() && digits(version))
}

/// Whether a folder of this name is of a network namespace, as `namespace::name` calls one.
pub(super) fn is_namespace(name: &str) -> bool {
    let Some(number) = name.strip_prefix("netns-") else {
        return false;
    };
    let number = number.strip_prefix("inode-").unwrap_or(number);

    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The layout that a folder of this name is of.
pub(super) fn layout(name: &str) -> &str {
    name.split_once(ASIDE).map_or(name, |(layout, _)| layout)
}

/// Where the folder of this name can be moved to.
pub(super) fn free_aside(namespace: &Path, name: &str) -> PathBuf {
    let first = namespace.join(format!("{name}{ASIDE}"));
    let more = (2_u32..).map(|number| namespace.join(format!("{name}{ASIDE}{number}")));

    std::iter::once(first.clone())
        .chain(more)
        .find(|folder| !folder.exists())
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table = [
            ("v1", true, "v1"),
            ("v12-before", true, "v12"),
            ("v1-before3", true, "v1"),
            ("v", false, ""),
            ("v1x", false, ""),
            ("v-before", false, ""),
            ("v1-beforehand", false, ""),
            ("w1", false, ""),
        ];
        for (name, expected, of) in table {
            assert_eq!(is_layout(name), expected, "{name}");
            if expected {
                assert_eq!(layout(name), of, "{name}");
            }
        }
    }

    #[test]
    fn names_of_namespaces() {
        for name in ["netns-1", "netns-4026531840", "netns-inode-4026531840"] {
            assert!(is_namespace(name), "{name}");
        }
        for name in [
            "netns-",
            "netns-x",
            "netns-inode-",
            "v1",
            "",
            "other-1",
            "netns-1x",
        ] {
            assert!(!is_namespace(name), "{name}");
        }
    }

    #[test]
    fn a_second_one_is_set_aside_beside_the_first() {
        let namespace = tempfile::tempdir().expect("a folder");
        let name = |folder: PathBuf| folder.file_name().map(|name| name.to_owned());
        let free = || free_aside(namespace.path(), "v1");
        for expected in ["v1-before", "v1-before2", "v1-before3"] {
            assert_eq!(name(free()).expect("a name"), expected);
            std::fs::create_dir(free()).expect("is free");
        }
    }
}
