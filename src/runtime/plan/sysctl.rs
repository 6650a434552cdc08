//! Which file below /proc/sys does a key of `linux.sysctl` name?

use std::collections::HashMap;

/// (path below /proc/sys, value), sorted by path.
pub fn draw(asked: &Option<HashMap<String, String>>) -> Vec<(String, String)> {
    let all = asked.iter().flatten();
    let mut all: Vec<_> = all.map(|(key, value)| (path(key), value.clone())).collect();
    all.sort();
    all
}

/// As sysctl(8) reads a key: its first separator is the separator. In `net.ipv4.conf.eth0/7.tag` a
/// slash stands for the dot in a name; `net/ipv4/conf/eth0.7/tag` says the same.
pub fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key[first..].starts_with('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        for (key, expected) in [
            ("kernel.msgmax", "kernel/msgmax"),
            ("kernel/msgmax", "kernel/msgmax"),
            ("net.ipv4.conf.eth0/7.tag", "net/ipv4/conf/eth0.7/tag"),
            ("net/ipv4/conf/eth0.7/tag", "net/ipv4/conf/eth0.7/tag"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(path(key), expected);
        }
    }

    #[test]
    fn parameters_are_sorted() {
        let asked = ["kernel.b", "a/z", "kernel.a"].map(|k| (k.to_owned(), "1".to_owned()));
        let plan = draw(&Some(HashMap::from(asked)));
        let paths: Vec<&str> = plan.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["a/z", "kernel/a", "kernel/b"]);
        assert_eq!(draw(&None), []);
    }
}
