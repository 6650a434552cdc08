//! Which file below /proc/sys does a key of `linux.sysctl` name?

/// `net.ipv4.ip_forward` to `net/ipv4/ip_forward`.
///
/// As in sysctl(8): the separator is whichever of `.` and `/` comes first, and the other one then
/// stands for itself, so that `net.ipv4.conf.eth0/100.forwarding` and
/// `net/ipv4/conf/eth0.100/forwarding` are the same file. The result may hold `..`, which
/// [`crate::runtime::validate`] refuses.
pub fn path(key: &str) -> String {
    match key.chars().find(|c| matches!(c, '.' | '/')) {
        Some('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_first_separator_decides() {
        for (key, file) in [
            ("kernel.msgmax", "kernel/msgmax"),
            ("kernel/msgmax", "kernel/msgmax"),
            (
                "net.ipv4.conf.eth0/100.forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.100/forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
            ),
            ("net./.x", "net/./x"),
            ("", ""),
        ] {
            assert_eq!(path(key), file, "{key}");
        }
    }
}
