//! What does a path of config.json name inside the container?

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// `path` as an absolute one without `.` and `..`; what would climb above `/` stays at `/`.
/// By its words alone: links are resolved by those who open it, inside the root.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Each once, cleaned, in the order of its first mention.
pub fn clean_all(paths: &[String]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let cleaned = paths.iter().map(|p| clean(Path::new(p)));
    cleaned.filter(|p| seen.insert(p.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_climbs_out() {
        for (path, cleaned) in [
            ("/a/b", "/a/b"),
            ("a", "/a"),
            ("", "/"),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("../../a", "/a"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path:?}");
        }
    }

    #[test]
    fn a_path_named_twice_is_kept_once() {
        let paths = ["/b", "/a", "/b/", "/x/../a", "/c"].map(String::from);
        let expected: Vec<PathBuf> = ["/b", "/a", "/c"].map(PathBuf::from).to_vec();
        assert_eq!(clean_all(&paths), expected);
    }
}
